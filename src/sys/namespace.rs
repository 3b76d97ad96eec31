//! Namespaces of this thread: a mount namespace of its own, current directory and root of its own.

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Gives this thread a copy of its mount namespace. In a process of one thread: the process.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn copy_mounts() -> Result<(), Errno> {
    // SAFETY: descriptors, memory and credentials stay shared; only what paths lead to changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
}

/// Makes this process the root of a new user namespace with a copy of the mount namespace.
///
/// # Errors
/// `EPERM`, `ENOSPC`: the machine does not permit it (any more).
pub fn become_user_namespace() -> Result<(), Errno> {
    // SAFETY: as above; credentials change for the whole process, which has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }
}

/// Gives this thread a current directory and a root of its own, without which it cannot enter
/// another mount namespace while there are other threads.
///
/// # Errors
/// Out of memory.
pub fn own_root() -> Result<(), Errno> {
    // SAFETY: as above; current directory, root and umask of this thread are copied.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}
