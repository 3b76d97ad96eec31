//! What is mounted where: /proc/self/mountinfo, and the identity of one mount.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    id: u64,
    /// `MAJOR:MINOR` of its filesystem.
    device: OsString,
    /// What of its filesystem is mounted.
    root: PathBuf,
    pub(crate) mount_point: PathBuf,
    /// Options of this mount and of its filesystem, in that order.
    pub(crate) options: Vec<String>,
    pub(crate) fs_type: String,
    pub(crate) source: OsString,
}

impl Entry {
    /// Whether the mount looks like one of ours (only its daemon can tell for sure).
    pub(crate) fn may_be_ours(&self) -> bool {
        matches!(
            self.fs_type.as_str(),
            "fuse.unionmount" | "fuse.fuse-overlayfs"
        )
    }
}

/// All mounts that this process can see, in the order in which they were stacked.
pub(crate) fn entries() -> io::Result<Vec<Entry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|&b| b == b'\n').filter_map(parse_line).collect())
}

/// `36 35 98:0 /root /mnt/point rw,noatime shared:1 - ext4 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&b| b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = fields.nth(1)?;
    let root = fields.next()?;
    let mount_point = fields.next()?;
    let mount_options = fields.next()?;
    fields.find(|field| *field == b"-")?;
    let fs_type = fields.next()?;
    let source = fields.next()?;
    let super_options = fields.next()?;
    let options = [mount_options, super_options]
        .into_iter()
        .flat_map(|list| list.split(|&b| b == b','))
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    Some(Entry {
        id,
        device: decode(device),
        root: PathBuf::from(decode(root)),
        mount_point: PathBuf::from(decode(mount_point)),
        options,
        fs_type: decode(fs_type).to_string_lossy().into_owned(),
        source: decode(source),
    })
}

/// Space, tab, newline and backslash are written as `\ooo`.
fn decode(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            _ => {
                out.push(*first);
                after
            }
        };
    }
    OsString::from_vec(out)
}

/// Where a directory lies: its filesystem, and its path there, through whatever mounts one gets to it.
pub(crate) type Location = (OsString, PathBuf);

/// Where the directory at the canonical path `path` lies; `None` if `entries` do not tell.
pub(crate) fn location(entries: &[Entry], path: &Path) -> Option<Location> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
    let found = statx(CWD, path, flags, StatxFlags::MNT_ID).ok()?;
    let mount = entries.iter().find(|entry| entry.id == found.stx_mnt_id)?;
    let below = path.strip_prefix(&mount.mount_point).ok()?;
    Some((mount.device.clone(), mount.root.join(below)))
}

/// Tells one mount from any other that is, or will be, at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: (u32, u32),
    mount: u64,
}

/// Asks for a mount id that is never used again (Linux 6.8); rustix has no name for it yet.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

impl Identity {
    /// The mount on top at `path`. Asks the filesystem nothing, so a FUSE server may ask this
    /// about its own mount before it answers requests.
    pub(crate) fn of(path: &Path) -> io::Result<Identity> {
        let wanted = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
        let found = statx(CWD, path, flags, wanted)?;
        Ok(Identity {
            device: (found.stx_dev_major, found.stx_dev_minor),
            mount: found.stx_mnt_id,
        })
    }

    /// Whether both lie on one filesystem and one mount, so that a rename can reach across.
    pub(crate) fn same_mount(self, other: Identity) -> bool {
        self == other
    }

    /// Whether neither the filesystem nor the mount is the same.
    pub(crate) fn wholly_different(self, other: Identity) -> bool {
        self.device != other.device && self.mount != other.mount
    }
}

/// The absolute path of `path` without symlinks; of a dead FUSE mount too.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(e) if is_dead(&e) => std::path::absolute(path),
        other => other,
    }
}

/// Whether the answer is that of a FUSE mount without a daemon.
pub(crate) fn is_dead(e: &io::Error) -> bool {
    e.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn lines() {
        let line = br"36 35 0:41 / /mnt/a\040b rw,nosuid shared:1 master:2 - fuse.unionmount a\134b ro,user_id=0";
        let entry = parse_line(line).unwrap();
        assert_eq!((entry.id, &*entry.device), (36, OsStr::new("0:41")));
        assert_eq!(entry.root, Path::new("/"));
        assert_eq!(entry.mount_point, Path::new("/mnt/a b"));
        assert_eq!(entry.options, ["rw", "nosuid", "ro", "user_id=0"]);
        assert_eq!(entry.fs_type, "fuse.unionmount");
        assert_eq!(entry.source, OsStr::new(r"a\b"));
        assert!(entry.may_be_ours());
        assert_eq!(parse_line(b""), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(
            entries()
                .unwrap()
                .iter()
                .any(|entry| entry.mount_point == Path::new("/"))
        );
    }
}
