//! Lets the kernel read ahead farther than its default of 128 KiB, where that is permitted: a large
//! file is then read by an eighth of the requests.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::error::best_effort;

/// `FUSE_ROOT_ID`.
const FUSE_ROOT: u64 = 1;

/// As much as one request may carry.
const READ_AHEAD_KIB: u32 = 1024;

/// The setting of one mount, open for writing.
#[derive(Debug)]
pub(crate) struct Readahead(File);

impl Readahead {
    /// That of the union that is mounted on `mountpoint`. Only root of the machine may change it;
    /// others do with the default.
    pub(crate) fn of(mountpoint: &Path) -> Option<Readahead> {
        // Asks nobody: there may be nobody to answer yet.
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
        let root = rustix::fs::statx(CWD, mountpoint, flags, StatxFlags::INO).ok()?;
        let (major, minor) = (root.stx_dev_major, root.stx_dev_minor);
        if root.stx_ino != FUSE_ROOT || major != 0 || !rustix::process::geteuid().is_root() {
            return None; // something else is mounted over it already, or we may not
        }
        let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        let opened = OpenOptions::new().write(true).open(setting);
        best_effort("open the readahead", opened).map(Readahead)
    }

    /// Raises it. The kernel sets it when it agrees on the protocol: only then does this last.
    pub(crate) fn raise(mut self) {
        let written = self.0.write_all(READ_AHEAD_KIB.to_string().as_bytes());
        best_effort("raise the readahead", written);
    }
}
