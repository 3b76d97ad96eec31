//! fs-verity: the digest of a file that the filesystem keeps from being changed.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `FS_IOC_MEASURE_VERITY`: `_IOWR('f', 134, struct fsverity_digest)`.
const FS_IOC_MEASURE_VERITY: libc::Ioctl = 0xc004_6686u32 as libc::Ioctl;
/// `FS_VERITY_MAX_DIGEST_SIZE`.
const DIGEST_MAX: usize = 64;
/// Bytes before the digest in struct fsverity_digest: algorithm and size, 16 bits each.
const HEADER: usize = 4;

/// The algorithm (`FS_VERITY_HASH_ALG_*`) and digest of `fd`.
///
/// # Errors
/// `ENODATA` for a file without; `ENOTTY`, `EOPNOTSUPP` where the filesystem has none.
pub fn measure(fd: BorrowedFd<'_>) -> Result<(u16, Vec<u8>), Errno> {
    let mut buffer = [0u8; HEADER + DIGEST_MAX];
    let [_, _, size_a, size_b, ..] = &mut buffer;
    [*size_a, *size_b] = (DIGEST_MAX as u16).to_ne_bytes();
    // SAFETY: the command reads the four bytes of the header and writes at most as many bytes of
    // digest as that says there is room for, which is what follows in the buffer.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_MEASURE_VERITY, buffer.as_mut_ptr()) };
    if rc < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let [a, b, c, d, digest @ ..] = &buffer;
    let size = usize::from(u16::from_ne_bytes([*c, *d]));
    let digest = digest.get(..size).ok_or(Errno::OVERFLOW)?;
    Ok((u16::from_ne_bytes([*a, *b]), digest.to_vec()))
}
