//! The ioctls that files commonly get: inode flags (lsattr, chattr).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::Union;
use crate::attr::Kind;
use crate::error::{Errno, Result};
use crate::sys::ioctl as sys;
use crate::tree::Inode;

/// Answer to an ioctl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoctlReply {
    /// What the caller's buffer is filled with.
    pub data: Vec<u8>,
}

impl Union {
    /// An ioctl on an object, with the data that came along.
    ///
    /// # Errors
    /// `ENOTTY` for any that is not known; the layer's.
    pub fn ioctl(&self, ino: u64, command: u32, input: &[u8]) -> Result<IoctlReply> {
        let inode = self.inode(ino)?;
        let data = match command {
            sys::FS_IOC_GETFLAGS => {
                let fd = self.open_for_ioctl(&inode)?;
                sys::get_flags(fd.as_fd())?.to_ne_bytes().to_vec()
            }
            sys::FS_IOC_FSGETXATTR => {
                let fd = self.open_for_ioctl(&inode)?;
                sys::get_fsxattr(fd.as_fd())?.to_vec()
            }
            sys::FS_IOC_SETFLAGS => {
                let flags = input
                    .get(..4)
                    .and_then(|b| b.try_into().ok())
                    .ok_or(Errno::INVAL)?;
                let fd = self.open_changed_for_ioctl(&inode)?;
                sys::set_flags(fd.as_fd(), u32::from_ne_bytes(flags))?;
                Vec::new()
            }
            sys::FS_IOC_FSSETXATTR => {
                let value = input
                    .get(..sys::FSXATTR_LEN)
                    .and_then(|b| b.try_into().ok());
                let fd = self.open_changed_for_ioctl(&inode)?;
                sys::set_fsxattr(fd.as_fd(), &value.ok_or(Errno::INVAL)?)?;
                Vec::new()
            }
            _ => return Err(Errno::NOTTY.into()),
        };
        Ok(IoctlReply { data })
    }

    fn open_for_ioctl(&self, inode: &Arc<Inode>) -> Result<OwnedFd> {
        if !matches!(inode.kind, Kind::File | Kind::Dir) {
            return Err(Errno::NOTTY.into());
        }
        Ok(self.with_place(inode, |place| place.open(OFlags::RDONLY | OFlags::NONBLOCK))?)
    }

    fn open_changed_for_ioctl(&self, inode: &Arc<Inode>) -> Result<OwnedFd> {
        self.upper()?;
        self.make_upper(inode)?;
        self.open_for_ioctl(inode)
    }
}
