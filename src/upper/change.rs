//! Changes of attributes of objects that are in the upper already.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};

use crate::attr::Time;
use crate::error::Errno;
use crate::layer::Place;

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    Keep,
    /// The time of the change.
    Now,
    /// This time.
    To(Time),
}

impl SetTime {
    fn timespec(self) -> Timespec {
        match self {
            SetTime::Keep => Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_OMIT,
            },
            SetTime::Now => Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_NOW,
            },
            SetTime::To(time) => Timespec {
                tv_sec: time.secs,
                tv_nsec: time.nanos.into(),
            },
        }
    }
}

/// Sets the permission bits.
///
/// # Errors
/// Those of chmod(2).
pub fn set_perm(place: &Place, perm: u32) -> Result<(), Errno> {
    match place {
        Place::At(dir, name) => crate::sys::attr::chmod_nofollow(dir.as_fd(), name, perm),
        Place::Fd(_) => rustix::fs::chmod(&*place.proc_path().0, Mode::from_raw_mode(perm)),
        Place::File(fd) => rustix::fs::fchmod(fd, Mode::from_raw_mode(perm)),
    }
}

/// Sets owner and group; `None` leaves one as it is.
///
/// # Errors
/// Those of chown(2).
pub fn set_owner(place: &Place, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    match place {
        Place::At(dir, name) => {
            rustix::fs::chownat(dir, &**name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        }
        Place::Fd(fd) => rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        Place::File(fd) => rustix::fs::fchown(fd, uid, gid),
    }
}

/// Sets access and modification time.
///
/// # Errors
/// Those of utimensat(2).
pub fn set_times(place: &Place, atime: SetTime, mtime: SetTime) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: atime.timespec(),
        last_modification: mtime.timespec(),
    };
    match place {
        Place::At(dir, name) => {
            rustix::fs::utimensat(dir, &**name, &times, AtFlags::SYMLINK_NOFOLLOW)
        }
        Place::Fd(_) => rustix::fs::utimensat(
            rustix::fs::CWD,
            &*place.proc_path().0,
            &times,
            AtFlags::empty(),
        ),
        Place::File(fd) => rustix::fs::futimens(fd, &times),
    }
}
