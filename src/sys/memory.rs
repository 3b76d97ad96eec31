//! The allocator of this process.

/// Makes glibc keep little of what is freed; to be called before there are threads. By default it
/// learns from the largest allocation it has seen how much to keep, up to 64 MiB for each of up to
/// eight arenas by CPU, and [`trim`] does not reach the ends of those.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, 4),
        (libc::M_TRIM_THRESHOLD, 4 << 20),
        // A request carries 1 MiB: not worth a mapping of its own.
        (libc::M_MMAP_THRESHOLD, 2 << 20),
    ] {
        // SAFETY: takes no pointer; values out of range are refused.
        unsafe {
            libc::mallopt(what, value);
        }
    }
}

/// Returns free memory to the system, as far as whole pages of it are free. Others who allocate may
/// wait meanwhile. A C library that has no such call keeps its memory its own way.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
