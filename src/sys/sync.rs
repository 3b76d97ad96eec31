//! sync_file_range(2): data to the disk, without what describes it.

use std::ops::Range;
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
    sync_range(file, 0..0, flags)
}

/// Begins to write out a part of a file, without waiting for it.
///
/// # Errors
/// Those of sync_file_range(2).
pub fn start_writing(file: BorrowedFd<'_>, part: Range<u64>) -> Result<(), Errno> {
    sync_range(file, part, libc::SYNC_FILE_RANGE_WRITE)
}

/// A range that starts and ends at 0 is all of the file.
fn sync_range(file: BorrowedFd<'_>, range: Range<u64>, flags: libc::c_uint) -> Result<(), Errno> {
    let (Ok(start), Ok(len)) = (
        i64::try_from(range.start),
        i64::try_from(range.end - range.start),
    ) else {
        return Err(Errno::INVAL);
    };
    // SAFETY: no memory is passed.
    let rc = unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, flags) };
    if rc == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
