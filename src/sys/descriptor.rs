//! Descriptors that this process was given by its number.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Duplicates descriptor `number`, which whoever started this process opened, with close-on-exec,
/// and closes the original, so that the copy is the only one here.
///
/// # Errors
/// Nothing is open under that number, or it is one of stdin, stdout and stderr.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: only whether it is open is asked; a number that is not gives EBADF.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open (just seen), and in this process, which has one thread, nothing closes it
    // before the copy is made.
    let copy = rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(number) }, 3)?;
    // SAFETY: it came from outside (nothing here has opened it: this is called before anything is),
    // so that nobody else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(copy)
}
