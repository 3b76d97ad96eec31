//! sync_file_range(2): data to the disk, without what describes it.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Writes out all data of a file and waits until the disk has taken it.
///
/// # Errors
/// Those of sync_file_range(2).
pub fn write_data(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: no memory is passed.
    let rc = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    if rc == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
