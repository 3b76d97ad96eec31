//! Owner, mode and type of an object in an extended attribute of it, for where they cannot be its own:
//! on NFS, or where a user may not chown.
//!
//! `UID:GID:MODE[:TYPE]`, of which the mode is octal and the type `file`, `dir`, `symlink`, `pipe`,
//! `socket`, `block-MAJOR-MINOR` or `char-MAJOR-MINOR` (containers/storage: pkg/idtools; fuse-overlayfs:
//! `xattr_permissions`). What is no directory or symlink lies on disk as an empty regular file.
//! fuse-overlayfs 1.10 and older write no type, but the type bits of the object on disk in the mode.

use std::borrow::Cow;

use crate::attr::{Attr, Kind};
use crate::error::Errno;
use crate::ids;

/// The attribute that a layer keeps them in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// `security.fuseoverlayfs.override_stat`: root alone can write it.
    Security,
    /// `user.containers.override_stat`, the one of containers/storage.
    Containers,
    /// `user.fuseoverlayfs.override_stat`, of older uppers of fuse-overlayfs.
    FuseOverlayfs,
}

/// What names begin with that stand for others, which a user cannot set: in a layer of
/// [`Store::Containers`].
const WRAPPED: &[u8] = b"user.containers.override_";

/// What is wrapped.
const SECURITY: &[u8] = b"security.";

impl Store {
    /// All, in the order in which the root of a layer is searched for them.
    pub const ALL: [Store; 3] = [Store::Security, Store::Containers, Store::FuseOverlayfs];

    /// The name of the attribute.
    pub fn name(self) -> &'static str {
        match self {
            Store::Security => "security.fuseoverlayfs.override_stat",
            Store::Containers => "user.containers.override_stat",
            Store::FuseOverlayfs => "user.fuseoverlayfs.override_stat",
        }
    }

    /// Whether what is called `security.*` lies under another name.
    pub fn wraps(self) -> bool {
        self == Store::Containers
    }
}

/// Whether an attribute on disk is one of those that keep owners, or stands for another.
pub fn is_private(disk: &[u8]) -> bool {
    disk.starts_with(WRAPPED)
        || Store::ALL
            .iter()
            .any(|store| disk == store.name().as_bytes())
}

/// The name under which a layer that wraps keeps an attribute.
pub fn wrap(name: &[u8]) -> Cow<'_, [u8]> {
    match name.starts_with(SECURITY) {
        true => [WRAPPED, name].concat().into(),
        false => name.into(),
    }
}

/// The attribute that a name on disk stands for.
pub fn unwrap(disk: &[u8]) -> Option<&[u8]> {
    let name = disk.strip_prefix(WRAPPED)?;
    name.starts_with(SECURITY).then_some(name)
}

/// What an attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverrideStat {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, 07777.
    pub perm: u32,
    /// The kind and device number; `None`: that of the object on disk.
    pub kind: Option<(Kind, u64)>,
}

impl OverrideStat {
    /// Reads a value.
    ///
    /// # Errors
    /// `EINVAL` for what is none.
    pub fn decode(value: &[u8]) -> Result<OverrideStat, Errno> {
        let text = std::str::from_utf8(value).map_err(|_| Errno::INVAL)?;
        let mut fields = text.split(':');
        let mut next = || fields.next().ok_or(Errno::INVAL);
        let (uid, gid, mode) = (next()?, next()?, next()?);
        let kind = fields.next().map(decode_kind).transpose()?;
        let perm = match mode.bytes().all(|digit| digit.is_ascii_digit()) {
            true => u32::from_str_radix(mode, 8).map_err(|_| Errno::INVAL)?,
            false => return Err(Errno::INVAL),
        };
        if mode.is_empty() || perm > 0o17_7777 {
            return Err(Errno::INVAL);
        }
        Ok(OverrideStat {
            uid: decode_id(uid)?,
            gid: decode_id(gid)?,
            perm: perm & 0o7777,
            kind,
        })
    }

    /// What to write for an object that is to show these attributes; nothing in it is lost when a
    /// mode or an owner is changed.
    pub fn of(attr: &Attr) -> OverrideStat {
        OverrideStat {
            uid: attr.uid,
            gid: attr.gid,
            perm: attr.perm,
            kind: Some((attr.kind, attr.rdev)),
        }
    }

    /// Whether it says that the object is of this kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.kind.is_some_and(|(own, _)| own == kind)
    }

    /// The value on disk. Who reads `store` decides whether the mode has type bits.
    pub fn encode(&self, store: Store) -> Vec<u8> {
        let OverrideStat { uid, gid, perm, .. } = self;
        let on_disk = match self.kind {
            Some((kind @ (Kind::Dir | Kind::Symlink), _)) => kind,
            _ => Kind::File,
        };
        let type_bits = match store {
            Store::FuseOverlayfs => on_disk.file_type().as_raw_mode(),
            Store::Security | Store::Containers => 0,
        };
        let mut text = format!("{uid}:{gid}:{:04o}", type_bits | perm);
        if let Some((kind, rdev)) = self.kind {
            text.push(':');
            text.push_str(&encode_kind(kind, rdev));
        }
        text.into_bytes()
    }

    /// Puts it into the attributes of the object on disk, a regular file or directory. A type that
    /// such an object cannot stand for counts as none: a directory is one, no symlink has its target
    /// in a file, and a character device 0/0 would be taken for a deletion by whoever reads the view.
    pub fn apply(&self, attr: &mut Attr) {
        (attr.uid, attr.gid, attr.perm) = (self.uid, self.gid, self.perm);
        if attr.kind != Kind::File {
            return;
        }
        match self.kind {
            None | Some((Kind::Dir | Kind::Symlink, _) | (Kind::CharDev, 0)) => {}
            Some((kind, rdev)) => (attr.kind, attr.rdev) = (kind, rdev),
        }
    }
}

fn decode_id(text: &str) -> Result<u32, Errno> {
    match text.parse() {
        Ok(id) if ids::is_valid(id) && !text.starts_with('+') => Ok(id),
        _ => Err(Errno::INVAL),
    }
}

fn decode_kind(text: &str) -> Result<(Kind, u64), Errno> {
    let mut parts = text.split('-');
    let kind = match parts.next() {
        Some("file") => Kind::File,
        Some("dir") => Kind::Dir,
        Some("symlink") => Kind::Symlink,
        Some("pipe") => Kind::Fifo,
        Some("socket") => Kind::Socket,
        Some("block") => Kind::BlockDev,
        Some("char") => Kind::CharDev,
        _ => return Err(Errno::INVAL),
    };
    if !matches!(kind, Kind::BlockDev | Kind::CharDev) {
        return Ok((kind, 0));
    }
    let mut number = || {
        let part = parts.next().ok_or(Errno::INVAL)?;
        part.parse::<u32>().map_err(|_| Errno::INVAL)
    };
    let (major, minor) = (number()?, number()?);
    Ok((kind, rustix::fs::makedev(major, minor)))
}

fn encode_kind(kind: Kind, rdev: u64) -> String {
    let device = |name: &str| {
        let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
        format!("{name}-{major}-{minor}")
    };
    match kind {
        Kind::File => "file".into(),
        Kind::Dir => "dir".into(),
        Kind::Symlink => "symlink".into(),
        Kind::Fifo => "pipe".into(),
        Kind::Socket => "socket".into(),
        Kind::BlockDev => device("block"),
        Kind::CharDev => device("char"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: Kind) -> Attr {
        let never = crate::attr::Time::default();
        Attr {
            ino: 1,
            kind,
            perm: 0o600,
            nlink: 1,
            uid: 1000,
            gid: 1000,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: never,
            mtime: never,
            ctime: never,
        }
    }

    fn shown(value: &str, mut on: Attr) -> (u32, u32, u32, Kind, u64) {
        OverrideStat::decode(value.as_bytes())
            .unwrap()
            .apply(&mut on);
        (on.uid, on.gid, on.perm, on.kind, on.rdev)
    }

    #[test]
    fn values_of_all_writers_are_read() {
        let file = attr(Kind::File);
        let device = rustix::fs::makedev(8, 1);
        for (value, is) in [
            ("0:0:755", (0, 0, 0o755, Kind::File, 0)),
            ("1:2:04755:file", (1, 2, 0o4755, Kind::File, 0)),
            ("0:0:104755", (0, 0, 0o4755, Kind::File, 0)),
            ("0:0:0644:pipe", (0, 0, 0o644, Kind::Fifo, 0)),
            ("0:0:0644:socket", (0, 0, 0o644, Kind::Socket, 0)),
            ("0:6:0660:block-8-1", (0, 6, 0o660, Kind::BlockDev, device)),
            ("0:6:0660:char-8-1-9", (0, 6, 0o660, Kind::CharDev, device)),
            // Would be read as a deletion, or as what the object cannot be.
            ("0:0:0600:char-0-0", (0, 0, 0o600, Kind::File, 0)),
            ("0:0:0600:dir", (0, 0, 0o600, Kind::File, 0)),
            ("0:0:0777:symlink", (0, 0, 0o777, Kind::File, 0)),
        ] {
            assert_eq!(shown(value, file), is, "{value}");
        }
        let dir = shown("3:4:1777:pipe", attr(Kind::Dir));
        assert_eq!(dir, (3, 4, 0o1777, Kind::Dir, 0));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for value in [
            "",
            "0",
            "0:0",
            "0:0:",
            "0:0:8",
            "0:0:200000",
            "-1:0:755",
            "+1:0:755",
            "4294967295:0:755",
            "0:0:755:",
            "0:0:755:door",
            "0:0:755:char",
            "0:0:755:char-1",
            "0:0:755:block-x-1",
            "0:0:+755",
            "a:b:c",
        ] {
            let read = OverrideStat::decode(value.as_bytes());
            assert_eq!(read, Err(Errno::INVAL), "{value}");
        }
        assert_eq!(OverrideStat::decode(b"0:0:755:\xff"), Err(Errno::INVAL));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for kind in [
            Kind::File,
            Kind::Fifo,
            Kind::Socket,
            Kind::BlockDev,
            Kind::CharDev,
        ] {
            let mut object = attr(kind);
            if matches!(kind, Kind::BlockDev | Kind::CharDev) {
                object.rdev = rustix::fs::makedev(259, 70_000);
            }
            for store in Store::ALL {
                let value = OverrideStat::of(&object).encode(store);
                let mut disk = attr(Kind::File);
                OverrideStat::decode(&value).unwrap().apply(&mut disk);
                assert_eq!(disk, object, "{}", value.escape_ascii());
            }
        }
        let old = OverrideStat::of(&attr(Kind::Dir)).encode(Store::FuseOverlayfs);
        assert_eq!(old, b"1000:1000:40600:dir");
    }

    #[test]
    fn what_a_user_cannot_set_is_wrapped() {
        let wrapped = wrap(b"security.capability");
        assert_eq!(*wrapped, *b"user.containers.override_security.capability");
        assert_eq!(unwrap(&wrapped), Some(&b"security.capability"[..]));
        assert_eq!(*wrap(b"user.x"), *b"user.x");
        assert_eq!(unwrap(b"user.containers.override_stat"), None);
        assert_eq!(unwrap(b"user.containers.override_user.x"), None);
        assert!(is_private(&wrapped) && is_private(b"user.containers.override_stat"));
        assert!(!is_private(b"user.containers.x") && !is_private(b"security.capability"));
    }
}
