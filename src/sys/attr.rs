//! fchmodat2(2): chmod that does not follow a symlink.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Changes the permission bits of `name` in `dir` without following a symlink.
///
/// # Errors
/// Those of fchmodat2(2); kernels before 6.6 take a detour through an `O_PATH` descriptor.
pub fn chmod_nofollow(dir: BorrowedFd<'_>, name: &[u8], perm: u32) -> Result<(), Errno> {
    let c_name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
    // SAFETY: `c_name` is NUL-terminated and outlives the call; the kernel only reads it.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            dir.as_raw_fd(),
            c_name.as_ptr(),
            perm,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    if rc == 0 {
        return Ok(());
    }
    match Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO) {
        Errno::NOSYS => {
            use rustix::fs::{Mode, OFlags};
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            rustix::fs::chmod(
                format!("/proc/self/fd/{}", fd.as_raw_fd()),
                Mode::from_raw_mode(perm),
            )
        }
        errno => Err(errno),
    }
}
