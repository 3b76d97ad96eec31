//! What makes a copy safe: its data must be on disk before the rename that publishes it is, or a
//! crash of the machine could leave an empty file in place of a whole one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::Errno;
use crate::layer::Stat;

/// How that is made sure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// Not at all: the user said so (`volatile`).
    None,
    /// Writing the data out before the rename is enough. The journal of the filesystem commits
    /// changes of metadata in the order in which they were made, and where the data lies is
    /// recorded before the write counts as done.
    DataFirst,
    /// fsync(2).
    Sync,
}

/// `EXT4_SUPER_MAGIC` (ext2 and ext3 have the same).
pub(super) const EXT4: u64 = 0xEF53;

impl Safety {
    /// What is enough on the filesystem of `dir`.
    pub(super) fn of(dir: BorrowedFd<'_>, volatile: bool) -> Safety {
        if volatile {
            Safety::None
        } else if is_journalled_ext4(dir) {
            Safety::DataFirst
        } else {
            Safety::Sync
        }
    }

    /// Makes the data of a file that nobody sees yet safe.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn apply(self, file: &OwnedFd) -> Result<(), Errno> {
        match self {
            Safety::None => Ok(()),
            Safety::DataFirst => match crate::sys::sync::write_data(file.as_fd()) {
                // A sandbox may not know the call.
                Err(Errno::NOSYS | Errno::PERM) => rustix::fs::fsync(file),
                result => result,
            },
            Safety::Sync => rustix::fs::fsync(file),
        }
    }
}

/// Whether `dir` lies on ext4 with a journal. Where that cannot be seen, it counts as not.
fn is_journalled_ext4(dir: BorrowedFd<'_>) -> bool {
    let magic = rustix::fs::fstatfs(dir).map(|s| s.f_type as u64);
    if magic != Ok(EXT4) {
        return false;
    }
    let Ok(stat) = Stat::at(dir, b"") else {
        return false;
    };
    let (major, minor) = (rustix::fs::major(stat.dev), rustix::fs::minor(stat.dev));
    let device = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let Some(name) = device
        .ok()
        .and_then(|path| Some(path.file_name()?.to_owned()))
    else {
        return false;
    };
    std::path::Path::new("/sys/fs/ext4")
        .join(name)
        .join("journal_task")
        .exists()
}
