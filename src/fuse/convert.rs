//! Between fuser's types and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::attr::{Attr, Kind, Time};
use crate::error::Error;
use crate::ops::TimeChange;

/// The errno of a reply.
pub(super) fn errno(e: &Error) -> fuser::Errno {
    fuser::Errno::from_i32(e.errno().raw_os_error())
}

/// The attributes of a reply.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.perm as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev as u32,
        blksize: attr.blksize,
        flags: 0,
    }
}

/// Attributes that mean "there is nothing": number 0, which the kernel remembers as a name that
/// does not exist.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDev => FileType::CharDevice,
        Kind::BlockDev => FileType::BlockDevice,
    }
}

fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::new(0, time.nanos);
    let whole = match u64::try_from(time.secs) {
        Ok(secs) => UNIX_EPOCH.checked_add(Duration::from_secs(secs)),
        Err(_) => UNIX_EPOCH.checked_sub(Duration::from_secs(time.secs.unsigned_abs())),
    };
    whole
        .and_then(|t| t.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}

/// The time that a caller set. fuser 0.18 decodes a time before 1970 as the epoch minus the seconds
/// minus the nanoseconds, although the nanoseconds of the protocol count forward; undone here.
pub(super) fn time_change(time: Option<TimeOrNow>) -> TimeChange {
    match time {
        None => TimeChange::Keep,
        Some(TimeOrNow::Now) => TimeChange::Now,
        Some(TimeOrNow::SpecificTime(time)) => {
            TimeChange::To(match time.duration_since(UNIX_EPOCH) {
                Ok(d) => Time {
                    secs: d.as_secs() as i64,
                    nanos: d.subsec_nanos(),
                },
                Err(before) => {
                    let d = before.duration();
                    Time {
                        secs: -(d.as_secs() as i64),
                        nanos: d.subsec_nanos(),
                    }
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970() {
        let time = Time {
            secs: -2,
            nanos: 800_000_000,
        };
        assert_eq!(
            system_time(time),
            UNIX_EPOCH - Duration::new(1, 200_000_000)
        );
        // As fuser's system_time_from_time(-2, 800_000_000) gives it.
        let from_fuser = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(
            time_change(Some(TimeOrNow::SpecificTime(from_fuser))),
            TimeChange::To(time)
        );
        let later = Time { secs: 5, nanos: 7 };
        assert_eq!(
            time_change(Some(TimeOrNow::SpecificTime(system_time(later)))),
            TimeChange::To(later)
        );
    }
}
