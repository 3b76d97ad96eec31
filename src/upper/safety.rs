//! What makes a copy safe: its data must be on disk before the rename that publishes it is, or a
//! crash of the machine could leave an empty file in place of a whole one.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Errno, best_effort};
use crate::layer::Stat;

/// What the user wants to be safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Copies, and what is synced.
    #[default]
    Synced,
    /// Nothing, and no mark is left (`fsync=0` of fuse-overlayfs).
    Unsynced,
    /// Nothing; the workdir is marked, and refused by the next mount, as the kernel does
    /// (`volatile`).
    Volatile,
}

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
    pub(super) fn of(dir: BorrowedFd<'_>, durability: Durability) -> Safety {
        if durability != Durability::Synced {
            Safety::None
        } else if is_journalled_ext4(dir) {
            Safety::DataFirst
        } else {
            Safety::Sync
        }
    }

    /// Lets the disk begin with a part of what [`Self::apply`] is to make safe, while more is copied.
    pub(super) fn start(self, file: &OwnedFd, part: Range<u64>) {
        match self {
            Safety::None => {}
            // Nothing depends on it: what fails here fails there.
            Safety::DataFirst | Safety::Sync => {
                best_effort(
                    "start to write a copy out",
                    crate::sys::sync::start_writing(file.as_fd(), part),
                );
            }
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

/// Whether `dir` lies on ext4 with a journal of its own: one on another device is committed there
/// without the data's device being flushed first, and without barriers nothing is. Where that cannot be seen, it counts as not.
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
    // A commit that does not wait for the disk keeps no order.
    let options = std::path::Path::new("/proc/fs/ext4")
        .join(&name)
        .join("options");
    let options = std::fs::read_to_string(options).unwrap_or_default();
    let is_on = |option: &str| options.lines().any(|line| line == option);
    if !is_on("barrier") || is_on("journal_async_commit") {
        return false;
    }
    // The kernel has an entry for each journal: DEVICE-INODE, or DEVICE alone if it is external.
    let Ok(journals) = std::fs::read_dir("/proc/fs/jbd2") else {
        return false;
    };
    let internal = [name.as_encoded_bytes(), b"-"].concat();
    journals
        .filter_map(Result::ok)
        .any(|j| is_internal(j.file_name().as_encoded_bytes(), &internal))
}

/// Whether a journal's name is the prefix and an inode number.
fn is_internal(journal: &[u8], prefix: &[u8]) -> bool {
    journal
        .strip_prefix(prefix)
        .is_some_and(|inode| !inode.is_empty() && inode.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_journal_is_told_from_others() {
        for (journal, internal) in [
            ("sda1-8", true),
            ("sda1", false),
            ("sda1-", false),
            ("sda11-8", false),
            ("sda1-x-8", false),
        ] {
            assert_eq!(
                is_internal(journal.as_bytes(), b"sda1-"),
                internal,
                "{journal}"
            );
        }
    }
}
