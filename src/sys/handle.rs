//! name_to_handle_at(2) and open_by_handle_at(2): the kernel's persistent name of an object.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `MAX_HANDLE_SZ` of the kernel.
const MAX_HANDLE: usize = 128;

/// A file handle: its type and its bytes, both as the filesystem made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHandle {
    /// `fid_type` of the kernel.
    pub kind: i32,
    /// Opaque bytes.
    pub bytes: Vec<u8>,
}

#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_HANDLE],
}

/// The handle of `name` in `dir` (not followed if a symlink); an empty name means `dir` itself.
///
/// # Errors
/// `EOPNOTSUPP` where the filesystem has no handles.
pub fn handle_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<FileHandle, Errno> {
    let c_name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
    let mut raw = RawHandle {
        bytes: MAX_HANDLE as u32,
        kind: 0,
        data: [0; MAX_HANDLE],
    };
    let mut mount_id: libc::c_int = 0;
    let flags = if name.is_empty() {
        libc::AT_EMPTY_PATH
    } else {
        0
    };
    // SAFETY: `raw` has room for `raw.bytes` bytes behind its header, in the layout of struct
    // file_handle; `c_name` is NUL-terminated; both and `mount_id` outlive the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            c_name.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            flags,
        )
    };
    if rc != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let bytes = raw
        .data
        .get(..raw.bytes as usize)
        .ok_or(Errno::IO)?
        .to_vec();
    Ok(FileHandle {
        kind: raw.kind,
        bytes,
    })
}

/// Opens (`O_PATH`) the object with a handle on the filesystem of `mount`, a descriptor that is not
/// `O_PATH`.
///
/// # Errors
/// `ESTALE` if it is gone; `EPERM` without `CAP_DAC_READ_SEARCH`; `EOPNOTSUPP`.
pub fn open_by_handle(mount: BorrowedFd<'_>, handle: &FileHandle) -> Result<OwnedFd, Errno> {
    let mut raw = RawHandle {
        bytes: handle.bytes.len() as u32,
        kind: handle.kind,
        data: [0; MAX_HANDLE],
    };
    let room = raw.data.get_mut(..handle.bytes.len()).ok_or(Errno::INVAL)?;
    room.copy_from_slice(&handle.bytes);
    let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: `raw` is in the layout of struct file_handle, its bytes lie within, and it outlives the
    // call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut raw,
            flags,
        )
    };
    if fd < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // SAFETY: the call just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}
