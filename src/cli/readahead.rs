//! Lets the kernel read ahead farther than its default of 128 KiB, where that is permitted: a large
//! file is then read by an eighth of the requests.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::error::best_effort;

/// `FUSE_ROOT_ID`.
const FUSE_ROOT: u64 = 1;

/// As much as one request may carry.
const READ_AHEAD_KIB: u32 = 1024;

/// Raises it for the union that is mounted on `mountpoint`. Only root of the machine may; others do
/// with the default.
pub(crate) fn raise(mountpoint: &Path) {
    // Asks nobody: there may be nobody to answer yet.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
    let Ok(root) = rustix::fs::statx(CWD, mountpoint, flags, StatxFlags::INO) else {
        return;
    };
    let (major, minor) = (root.stx_dev_major, root.stx_dev_minor);
    if root.stx_ino != FUSE_ROOT || major != 0 {
        return; // something else is mounted over it already
    }
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if std::fs::exists(&setting).unwrap_or(false) && rustix::process::geteuid().is_root() {
        let written = std::fs::write(setting, READ_AHEAD_KIB.to_string());
        best_effort("raise the readahead", written);
    }
}
