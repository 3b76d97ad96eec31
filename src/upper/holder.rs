//! Who else has a directory: to say it, and to know whether waiting can help.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::error::Errno;
use crate::layer::Stat;

/// A process that holds the lock on a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its process id, in our pid namespace.
    pub(super) pid: u32,
    /// Its mount is among those that we see: it will not end by itself.
    pub(super) serves: bool,
}

impl Holder {
    /// Looks among the processes that may be looked at. Reads much of /proc: only for errors.
    pub(super) fn of(dir: BorrowedFd<'_>) -> Option<Holder> {
        let wanted = Stat::at(dir, b"").ok()?;
        let own = std::process::id();
        let pid = processes().find(|&pid| pid != own && holds(&path(pid), &wanted))?;
        Some(Holder {
            pid,
            serves: connections(&path(pid)).any(|minor| {
                // The number of one that has ended may be another one's by now.
                let is_its = |&other: &u32| connections(&path(other)).any(|found| found == minor);
                is_mounted_here(minor) && processes().filter(is_its).count() == 1
            }),
        })
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// Whether a process has the directory open through a descriptor that holds a lock.
fn holds(process: &Path, wanted: &Stat) -> bool {
    descriptors(process).any(|(fd, info)| {
        info.contains("\nlock:") && is_same(&process.join("fd").join(fd), wanted) == Ok(true)
    })
}

fn is_same(path: &Path, wanted: &Stat) -> Result<bool, Errno> {
    let found = rustix::fs::stat(path)?;
    Ok((found.st_dev, found.st_ino) == (wanted.dev, wanted.attr.ino))
}

/// The FUSE connections that a process has open (told by Linux 6.16 and newer): device numbers of their
/// filesystems.
fn connections(process: &Path) -> impl Iterator<Item = u32> {
    descriptors(process).filter_map(|(_, info)| {
        let line = info
            .lines()
            .find(|line| line.starts_with("fuse_connection:"));
        line?.split_whitespace().nth(1)?.parse().ok()
    })
}

fn is_mounted_here(minor: u32) -> bool {
    let device = format!("0:{minor}");
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut lines = table.split(|&byte| byte == b'\n');
    lines.any(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        fields.nth(2) == Some(device.as_bytes())
    })
}

/// Names of the descriptors of a process, and what the kernel tells of each.
fn descriptors(process: &Path) -> impl Iterator<Item = (std::ffi::OsString, String)> {
    let entries = std::fs::read_dir(process.join("fdinfo"));
    entries.into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let info = std::fs::read_to_string(entry.path()).ok()?;
        Some((entry.file_name(), info))
    })
}
