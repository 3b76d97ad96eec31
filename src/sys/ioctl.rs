//! ioctls on files of a layer: filesystem UUID, inode flags.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::attr::Protection;

/// `FS_IOC_GETFSUUID`: `_IOR(0x15, 0, struct fsuuid2)`, 17 bytes (Linux 6.9).
const FS_IOC_GETFSUUID: libc::Ioctl = 0x8011_1500u32 as libc::Ioctl;
/// `BTRFS_IOC_FS_INFO`: `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`, 1024 bytes.
const BTRFS_IOC_FS_INFO: libc::Ioctl = 0x8400_941fu32 as libc::Ioctl;
/// `FS_IOC_GETFLAGS`: `_IOR('f', 1, long)`; transfers an int.
pub const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
/// `FS_IOC_SETFLAGS`: `_IOW('f', 2, long)`; transfers an int.
pub const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
/// `FS_IOC_FSGETXATTR`: `_IOR('X', 31, struct fsxattr)`, 28 bytes.
pub const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
/// `FS_IOC_FSSETXATTR`: `_IOW('X', 32, struct fsxattr)`, 28 bytes.
pub const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
/// Size of struct fsxattr.
pub const FSXATTR_LEN: usize = 28;

fn result(rc: libc::c_int) -> Result<(), Errno> {
    if rc >= 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// The UUID of the filesystem that `fd` (not `O_PATH`) lies on; zeros where it cannot be asked.
pub fn fs_uuid(fd: BorrowedFd<'_>) -> [u8; 16] {
    let mut buffer = [0u8; 17];
    // SAFETY: the command writes at most the 17 bytes of struct fsuuid2 that it names.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFSUUID, buffer.as_mut_ptr()) };
    let mut uuid = [0u8; 16];
    if let (Ok(()), [16, bytes @ ..]) = (result(rc), &buffer) {
        uuid.copy_from_slice(bytes);
        return uuid;
    }
    btrfs_uuid(fd).unwrap_or_default()
}

/// The same for btrfs, which has an ioctl of its own: `fsid`, behind two numbers of 64 bits.
fn btrfs_uuid(fd: BorrowedFd<'_>) -> Option<[u8; 16]> {
    let mut info = [0u8; 1024];
    // SAFETY: the command writes at most the 1024 bytes of struct btrfs_ioctl_fs_info_args.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), BTRFS_IOC_FS_INFO, info.as_mut_ptr()) };
    result(rc).ok()?;
    info.get(16..32)?.try_into().ok()
}

/// `FS_IMMUTABLE_FL` and `FS_APPEND_FL`, of the inode flags.
const FLAGS: [u32; 2] = [0x10, 0x20];
/// `FS_XFLAG_IMMUTABLE` and `FS_XFLAG_APPEND`, of `fsx_xflags`, the first field of struct fsxattr.
const XFLAGS: [u32; 2] = [0x08, 0x10];

fn replace(bits: u32, protection: Protection, [immutable, append_only]: [u32; 2]) -> u32 {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    let ours = bit(protection.immutable, immutable) | bit(protection.append_only, append_only);
    (bits & !(immutable | append_only)) | ours
}

fn protection_of(bits: u32, [immutable, append_only]: [u32; 2]) -> Protection {
    Protection {
        immutable: bits & immutable != 0,
        append_only: bits & append_only != 0,
    }
}

/// Inode flags with this protection in place of theirs.
pub fn with_protection(flags: u32, protection: Protection) -> u32 {
    replace(flags, protection, FLAGS)
}

/// The protection in inode flags.
pub fn protection_in(flags: u32) -> Protection {
    protection_of(flags, FLAGS)
}

/// A struct fsxattr with this protection in place of its own.
pub fn fsxattr_with_protection(
    value: &[u8; FSXATTR_LEN],
    protection: Protection,
) -> [u8; FSXATTR_LEN] {
    let mut value = *value;
    if let Some(field) = value.first_chunk_mut() {
        *field = replace(u32::from_ne_bytes(*field), protection, XFLAGS).to_ne_bytes();
    }
    value
}

/// The protection in a struct fsxattr.
pub fn protection_in_fsxattr(value: &[u8; FSXATTR_LEN]) -> Protection {
    let field = value.first_chunk().copied().unwrap_or_default();
    protection_of(u32::from_ne_bytes(field), XFLAGS)
}

/// Reads the inode flags of `fd` (lsattr).
///
/// # Errors
/// Those of the ioctl; `ENOTTY` where the filesystem has none.
pub fn get_flags(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the command writes an int, which fits the long that it names.
    result(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            FS_IOC_GETFLAGS as libc::Ioctl,
            &raw mut flags,
        )
    })?;
    Ok(flags as u32)
}

/// Sets the inode flags of `fd` (chattr).
///
/// # Errors
/// Those of the ioctl.
pub fn set_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    let flags = libc::c_long::from(flags);
    // SAFETY: the command reads an int from the long that it names.
    result(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            FS_IOC_SETFLAGS as libc::Ioctl,
            &raw const flags,
        )
    })
}

/// Reads struct fsxattr of `fd`.
///
/// # Errors
/// Those of the ioctl.
pub fn get_fsxattr(fd: BorrowedFd<'_>) -> Result<[u8; FSXATTR_LEN], Errno> {
    let mut buffer = [0u8; FSXATTR_LEN];
    // SAFETY: the command writes at most the 28 bytes of struct fsxattr.
    result(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            FS_IOC_FSGETXATTR as libc::Ioctl,
            buffer.as_mut_ptr(),
        )
    })?;
    Ok(buffer)
}

/// Sets struct fsxattr of `fd`.
///
/// # Errors
/// Those of the ioctl.
pub fn set_fsxattr(fd: BorrowedFd<'_>, value: &[u8; FSXATTR_LEN]) -> Result<(), Errno> {
    // SAFETY: the command reads the 28 bytes of struct fsxattr.
    result(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            FS_IOC_FSSETXATTR as libc::Ioctl,
            value.as_ptr(),
        )
    })
}
