//! Where an object lies: a name in an open directory, or a descriptor of the object itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, XattrFlags};

use crate::attr::{Attr, Kind, Protection};
use crate::error::{Errno, Result, WhileDoing};
use crate::marker::acl;
use crate::marker::override_stat::{OverrideStat, Store};
use crate::marker::xattr::{Marker, Namespace};
use crate::name::{Name, NameBuf};

/// The way to a real object that holds however its name in the view changes.
#[derive(Debug, Clone)]
pub enum Place {
    /// `name` in `dir`; never followed if it is a symlink.
    At(Arc<OwnedFd>, NameBuf),
    /// The object itself, open at least `O_PATH`.
    Fd(Arc<OwnedFd>),
    /// A regular file or directory, open for reading or writing.
    File(Arc<OwnedFd>),
}

/// Attributes of a real object together with the device it lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `st_dev`, packed.
    pub dev: u64,
    /// Everything else.
    pub attr: Attr,
    /// Something is mounted on it.
    pub mount_root: bool,
    /// When it was made, mixed into a few bits; 0 if its filesystem does not tell.
    pub born: u32,
    /// What its filesystem says of who may change it.
    pub protection: Protection,
}

impl Stat {
    /// statx(2) of `name` in `dir` without following it; an empty name means `dir` itself.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn at(dir: BorrowedFd<'_>, name: &Name) -> Result<Stat, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let st = rustix::fs::statx(dir, name, flags, wanted)?;
        let mount_root = st
            .stx_attributes
            .contains(rustix::fs::StatxAttributes::MOUNT_ROOT);
        let has = |flag| st.stx_attributes.contains(flag);
        let protection = Protection {
            immutable: has(rustix::fs::StatxAttributes::IMMUTABLE),
            append_only: has(rustix::fs::StatxAttributes::APPEND),
        };
        let told = StatxFlags::from_bits_retain(st.stx_mask).contains(StatxFlags::BTIME);
        let born = if told { mix(&st.stx_btime) } else { 0 };
        Ok(Stat {
            dev: rustix::fs::makedev(st.stx_dev_major, st.stx_dev_minor),
            attr: Attr::from(&st),
            mount_root,
            born,
            protection,
        })
    }
}

/// A time in few bits: nanoseconds have 30, and seconds turn all of them.
fn mix(time: &rustix::fs::StatxTimestamp) -> u32 {
    (time.tv_sec as u32).wrapping_mul(0x9e37_79b1) ^ time.tv_nsec
}

impl Place {
    /// `name` in `dir`.
    pub fn at(dir: Arc<OwnedFd>, name: &Name) -> Place {
        Place::At(dir, name.into())
    }

    /// Attributes of the object.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn stat(&self) -> Result<Stat, Errno> {
        match self {
            Place::At(dir, name) => Stat::at(dir.as_fd(), name),
            Place::Fd(fd) | Place::File(fd) => Stat::at(fd.as_fd(), b""),
        }
    }

    /// The same in a layer that may keep owner, mode and type in an attribute.
    ///
    /// # Errors
    /// Those of statx(2) and getxattr(2); `EIO` for an attribute that cannot be understood.
    pub fn stat_with(&self, store: Option<Store>) -> Result<Stat, Errno> {
        let mut stat = self.stat()?;
        self.override_stat(store, &mut stat.attr)?;
        Ok(stat)
    }

    /// Puts what is kept in an attribute into attributes of the object.
    ///
    /// # Errors
    /// Those of getxattr(2); `EIO` for an attribute that cannot be understood.
    pub fn override_stat(&self, store: Option<Store>, attr: &mut Attr) -> Result<(), Errno> {
        let Some(store) = store.filter(|_| matches!(attr.kind, Kind::File | Kind::Dir)) else {
            return Ok(());
        };
        let Some(value) = self.get_xattr(store.name().as_bytes())? else {
            return Ok(());
        };
        let Ok(kept) = OverrideStat::decode(&value) else {
            let name = match self {
                Place::At(_, name) => name.escape_ascii().to_string(),
                Place::Fd(_) | Place::File(_) => "an open object".into(),
            };
            let (store, value) = (store.name(), value.escape_ascii());
            tracing::warn!("{name}: attribute {store} is no owner and mode: \"{value}\"");
            return Err(Errno::IO);
        };
        kept.apply(attr);
        Ok(())
    }

    /// Opens the object, which must not be a symlink unless `flags` hold `O_PATH`.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match self {
            Place::At(dir, name) => {
                rustix::fs::openat(dir, &**name, flags | OFlags::NOFOLLOW, Mode::empty())
            }
            Place::Fd(fd) | Place::File(fd) if flags.contains(OFlags::PATH) => {
                rustix::io::fcntl_dupfd_cloexec(fd, 0)
            }
            Place::Fd(fd) | Place::File(fd) => {
                rustix::fs::open(proc_path(fd.as_fd()), flags, Mode::empty())
            }
        }
    }

    /// Opens a regular file for reading without touching its access time where that is permitted.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open_read(&self) -> Result<OwnedFd, Errno> {
        self.open_quiet(OFlags::RDONLY)
    }

    /// Opens a regular file without touching its access time where that is permitted.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open_quiet(&self, mode: OFlags) -> Result<OwnedFd, Errno> {
        match self.open(mode | OFlags::NOATIME | OFlags::NONBLOCK) {
            Err(Errno::PERM) => self.open(mode | OFlags::NONBLOCK),
            result => result,
        }
    }

    /// A path through /proc that names the object for calls that know no descriptors, and whether
    /// its last component has to be followed (it is a magic link).
    pub fn proc_path(&self) -> (Vec<u8>, bool) {
        match self {
            Place::At(dir, name) => {
                let mut path = proc_path(dir.as_fd());
                path.push(b'/');
                path.extend_from_slice(name);
                (path, false)
            }
            Place::Fd(fd) | Place::File(fd) => (proc_path(fd.as_fd()), true),
        }
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// Those of readlinkat(2).
    pub fn read_link(&self) -> Result<Vec<u8>, Errno> {
        let target = match self {
            Place::At(dir, name) => rustix::fs::readlinkat(dir, &**name, Vec::new())?,
            Place::Fd(fd) | Place::File(fd) => rustix::fs::readlinkat(fd, "", Vec::new())?,
        };
        Ok(target.into_bytes())
    }

    /// The value of extended attribute `name`; `None` if there is none or none can be had.
    ///
    /// # Errors
    /// Those of getxattr(2) but `ENODATA` and `EOPNOTSUPP`.
    pub fn get_xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        match self.xattr(name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The value of a marker, in whichever namespace it is.
    ///
    /// # Errors
    /// Those of getxattr(2) but `ENODATA` and `EOPNOTSUPP`.
    pub fn marker(&self, marker: Marker) -> Result<Option<Vec<u8>>, Errno> {
        for namespace in Namespace::ALL {
            if let Some(value) = self.get_xattr(namespace.name(marker).as_bytes())? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The value of extended attribute `name`.
    ///
    /// # Errors
    /// Those of getxattr(2).
    pub fn xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        match (self, self.proc_path()) {
            (Place::File(fd), _) => value(|buffer| rustix::fs::fgetxattr(fd, name, buffer)),
            (_, (path, true)) => value(|buffer| rustix::fs::getxattr(&*path, name, buffer)),
            (_, (path, false)) => value(|buffer| rustix::fs::lgetxattr(&*path, name, buffer)),
        }
    }

    /// Whether the filesystem says that the object has no extended attribute.
    ///
    /// # Errors
    /// Those of listxattr(2).
    pub fn has_no_xattr(&self) -> Result<bool, Errno> {
        let len = match (self, self.proc_path()) {
            (Place::File(fd), _) => rustix::fs::flistxattr_query(fd),
            (_, (path, true)) => rustix::fs::listxattr_query(&*path),
            (_, (path, false)) => rustix::fs::llistxattr_query(&*path),
        };
        Ok(len? == 0)
    }

    fn list_raw(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match (self, self.proc_path()) {
            (Place::File(fd), _) => rustix::fs::flistxattr(fd, buffer),
            (_, (path, true)) => rustix::fs::listxattr(&*path, buffer),
            (_, (path, false)) => rustix::fs::llistxattr(&*path, buffer),
        }
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
        match (self, self.proc_path()) {
            (Place::File(fd), _) => rustix::fs::fsetxattr(fd, name, value, flags),
            (_, (path, true)) => rustix::fs::setxattr(&*path, name, value, flags),
            (_, (path, false)) => rustix::fs::lsetxattr(&*path, name, value, flags),
        }
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// Those of removexattr(2).
    pub fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        match (self, self.proc_path()) {
            (Place::File(fd), _) => rustix::fs::fremovexattr(fd, name),
            (_, (path, true)) => rustix::fs::removexattr(&*path, name),
            (_, (path, false)) => rustix::fs::lremovexattr(&*path, name),
        }
    }

    /// The names of all extended attributes; none where the filesystem has none.
    ///
    /// # Errors
    /// Those of listxattr(2) but `EOPNOTSUPP`.
    pub fn list_xattrs(&self) -> Result<Vec<NameBuf>, Errno> {
        let mut buffer = vec![0u8; 1024];
        let len = loop {
            match self.list_raw(&mut buffer) {
                Ok(len) => break len,
                Err(Errno::RANGE) if buffer.len() < XATTR_MAX => buffer.resize(XATTR_MAX, 0),
                Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
                Err(e) => return Err(e),
            }
        };
        Ok(split_names(buffer.get(..len).unwrap_or_default()))
    }
}

/// Under which prefix a file carries the marker of a metadata-only copy (the kernel's metacopy), if
/// it does: its data lies elsewhere, and it would read as zeros.
///
/// # Errors
/// Those of listxattr(2) and getxattr(2).
pub fn metacopy_of(file: &OwnedFd) -> Result<Option<Namespace>> {
    let mut names = [0u8; 4096];
    match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => Ok(None),
        Ok(len) => Ok(metacopy_named(&split_names(
            names.get(..len).unwrap_or_default(),
        ))),
        Err(Errno::RANGE | Errno::TOOBIG) => {
            find_marker(file.as_fd(), Marker::Metacopy).while_doing(|| "look for markers")
        }
        Err(e) => Err(e).while_doing(|| "list attributes of a file"),
    }
}

/// The same for who has the names of all attributes of the file.
pub fn metacopy_named(names: &[NameBuf]) -> Option<Namespace> {
    Namespace::ALL.into_iter().find(|ns| {
        let marker = ns.name(Marker::Metacopy).as_bytes();
        names.iter().any(|name| **name == *marker)
    })
}

/// Under which prefix an object with more attributes than one cares to list has a marker.
///
/// # Errors
/// Those of getxattr(2), other than that it is not there.
pub(super) fn find_marker(fd: BorrowedFd<'_>, marker: Marker) -> Result<Option<Namespace>, Errno> {
    for namespace in Namespace::ALL {
        match rustix::fs::fgetxattr_query(fd, namespace.name(marker)) {
            Ok(_) => return Ok(Some(namespace)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Whether the filesystem of an object has access control lists.
pub fn supports_acl(place: &Place) -> bool {
    let (path, _) = place.proc_path();
    let got = rustix::fs::getxattr_query(&*path, acl::ACCESS);
    matches!(got, Ok(_) | Err(Errno::NODATA))
}

/// The value of an attribute, however long.
pub(super) fn value(get: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0u8; 256];
    loop {
        match get(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < XATTR_MAX => buffer.resize(XATTR_MAX, 0),
            Err(e) => return Err(e),
        }
    }
}

/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of the kernel.
const XATTR_MAX: usize = 65536;

/// Splits the answer of listxattr(2).
pub(super) fn split_names(list: &[u8]) -> Vec<NameBuf> {
    list.split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(NameBuf::from)
        .collect()
}

/// The magic link of a descriptor.
fn proc_path(fd: BorrowedFd<'_>) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes()
}
