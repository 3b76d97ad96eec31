//! The ioctls that files commonly get: inode flags (lsattr, chattr).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::{Union, protect};
use crate::attr::{Kind, Protection};
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
                let flags = sys::get_flags(fd.as_fd())?;
                let flags = sys::with_protection(flags, inode.protection.get());
                flags.to_ne_bytes().to_vec()
            }
            sys::FS_IOC_FSGETXATTR => {
                let fd = self.open_for_ioctl(&inode)?;
                let value = sys::get_fsxattr(fd.as_fd())?;
                sys::fsxattr_with_protection(&value, inode.protection.get()).to_vec()
            }
            sys::FS_IOC_SETFLAGS => {
                let flags = input
                    .get(..4)
                    .and_then(|b| b.try_into().ok())
                    .ok_or(Errno::INVAL)?;
                let flags = u32::from_ne_bytes(flags);
                self.protect(&inode, sys::protection_in(flags), |fd, protection| {
                    sys::set_flags(fd.as_fd(), sys::with_protection(flags, protection))
                })?;
                Vec::new()
            }
            sys::FS_IOC_FSSETXATTR => {
                let value = input
                    .get(..sys::FSXATTR_LEN)
                    .and_then(|b| b.try_into().ok());
                let value = value.ok_or(Errno::INVAL)?;
                self.protect(
                    &inode,
                    sys::protection_in_fsxattr(&value),
                    |fd, protection| {
                        let value = sys::fsxattr_with_protection(&value, protection);
                        sys::set_fsxattr(fd.as_fd(), &value)
                    },
                )?;
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

    /// Sets flags by `set`, and with them `protection`: of what was copied up by a marker, for it must
    /// stay possible to copy more into it, and to move it; else by the flags themselves.
    fn protect(
        &self,
        inode: &Arc<Inode>,
        protection: Protection,
        set: impl Fn(&OwnedFd, Protection) -> Result<(), Errno>,
    ) -> Result<()> {
        let fd = self.open_changed_for_ioctl(inode)?;
        let none = Protection::default();
        if !inode.state().has_origin {
            set(&fd, protection)?;
        } else if let Some((marker, value)) = protect::marker(protection) {
            set(&fd, none)?;
            let place = self.place(inode)?;
            if !self.upper()?.set_marker(&place, marker, &value)? {
                set(&fd, protection)?;
            }
        } else {
            set(&fd, none)?;
            self.with_place(inode, protect::unmark)?;
        }
        inode.protection.set(protection);
        Ok(())
    }

    fn open_changed_for_ioctl(&self, inode: &Arc<Inode>) -> Result<OwnedFd> {
        self.upper()?;
        self.make_upper(inode)?;
        self.open_for_ioctl(inode)
    }
}
