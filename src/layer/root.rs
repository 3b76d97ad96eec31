//! One layer: its root descriptor, its filesystem, and how to open directories in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::handles::Handles;
use super::place::{Place, Stat};
use super::scan::Readable;
use crate::attr::Protection;
use crate::error::{Errno, SetupError};
use crate::marker::origin::HandleFormat;
use crate::marker::override_stat::Store;
use crate::marker::whiteout::WhFiles;
use crate::name::Name;

/// Position of a layer in the stack, topmost first.
pub type LayerId = u16;

/// An opened layer.
#[derive(Debug)]
pub struct Layer {
    /// Position in the stack.
    pub id: LayerId,
    /// The path it was given as; only ever printed.
    pub path: PathBuf,
    /// Whether `.wh.` names are whiteouts here.
    pub wh_files: WhFiles,
    /// The root, `O_PATH`.
    pub root: Arc<OwnedFd>,
    /// Device of the root.
    pub dev: u64,
    /// Magic number of its filesystem.
    pub magic: u64,
    /// What names its objects on disk.
    pub handles: Handles,
    /// The attribute that its objects have their owners, modes and types in; `None`: they are their own.
    pub owners_in: Option<Store>,
    /// `root` is a mount of our own, so that what is mounted inside the layer does not show.
    pub private_mount: bool,
}

impl Layer {
    /// Opens the directory `path` as layer `id`, as a private clone of its mount where permitted.
    ///
    /// # Errors
    /// The path is missing, no directory or not permitted.
    pub fn open(id: LayerId, path: &Path, wh_files: WhFiles) -> Result<Layer, SetupError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let plain = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|e| SetupError::at("open layer", path, explain(e)))?;
        let (root, private_mount) = match clone_mount(CWD, path) {
            Ok(clone) if same_object(clone.as_fd(), plain.as_fd()) => (clone, true),
            _ => (plain, false),
        };
        Layer::from_root(id, path, wh_files, root, private_mount)
    }

    /// Makes a layer of an already open root.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn from_root(
        id: LayerId,
        path: &Path,
        wh_files: WhFiles,
        root: OwnedFd,
        private_mount: bool,
    ) -> Result<Layer, SetupError> {
        let fail = |e: Errno| SetupError::at("read layer", path, explain(e));
        let stat = Stat::at(root.as_fd(), b"").map_err(fail)?;
        let statfs = rustix::fs::fstatfs(&root).map_err(fail)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = rustix::fs::openat(&root, ".", flags, Mode::empty()).map_err(fail)?;
        Ok(Layer {
            id,
            path: path.to_owned(),
            wh_files,
            dev: stat.dev,
            magic: statfs.f_type as u64,
            handles: Handles::of(readable, &stat, &statfs),
            root: Arc::new(root),
            owners_in: None,
            private_mount,
        })
    }

    /// The attribute that owners are kept in: the first one that the root has.
    ///
    /// # Errors
    /// Those of getxattr(2).
    pub fn find_store(&self) -> Result<Option<Store>, Errno> {
        let root = self.root_place();
        for store in Store::ALL {
            match root.get_xattr(store.name().as_bytes()) {
                Ok(None) | Err(Errno::OPNOTSUPP) => {}
                Ok(Some(_)) => return Ok(Some(store)),
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Opens directory `name` in `dir`, a directory of this layer, as `O_PATH`.
    ///
    /// # Errors
    /// `ENOTDIR` if it is none (any more), `ENOENT`; `EXDEV` if something is mounted there that
    /// is not part of the layer.
    pub fn open_dir_at(&self, dir: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, Errno> {
        self.open_with(dir, name, OFlags::PATH)
    }

    /// The same, so that it can be listed at once. Where that is forbidden, as `O_PATH` all the same:
    /// the second value tells.
    ///
    /// # Errors
    /// Those of [`Self::open_dir_at`].
    pub fn open_dir_to_list(
        &self,
        dir: BorrowedFd<'_>,
        name: &Name,
    ) -> Result<(OwnedFd, Readable), Errno> {
        for flags in [OFlags::NOATIME, OFlags::empty()] {
            match self.open_with(dir, name, OFlags::RDONLY | flags) {
                Err(Errno::PERM | Errno::ACCESS) => {}
                result => return Ok((result?, Readable::Yes)),
            }
        }
        Ok((self.open_dir_at(dir, name)?, Readable::No))
    }

    fn open_with(&self, dir: BorrowedFd<'_>, name: &Name, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        if !self.private_mount && Stat::at(fd.as_fd(), b"")?.mount_root {
            return Err(Errno::XDEV);
        }
        Ok(fd)
    }

    /// What its filesystem says of who may change an object, if that can be believed: some (erofs) say
    /// of all they have that it is immutable.
    pub fn protection(&self, stat: &Stat) -> Protection {
        let overlay_or_f2fs = matches!(self.magic, 0x794C_7630 | 0xF2F5_2010);
        match self.handles.format != HandleFormat::Unknown || overlay_or_f2fs {
            true => stat.protection,
            false => Protection::default(),
        }
    }

    /// Whether its filesystem keeps for good when an object was made. (kernel overlayfs does not: there
    /// it changes with a copy-up.)
    pub fn tells_birth(&self) -> bool {
        self.handles.format != HandleFormat::Unknown
    }

    /// Whether its filesystem is known to list every extended attribute that it has: others answer
    /// to some names that they do not list.
    pub fn lists_all_xattrs(&self) -> bool {
        let known = ["ext4", "xfs", "btrfs", "tmpfs", "squashfs", "erofs"];
        known.contains(&&*self.filesystem())
    }

    /// The usual name of the layer's filesystem, or its magic number.
    pub fn filesystem(&self) -> String {
        match self.magic {
            0xEF53 => "ext4".into(),
            0x5846_5342 => "xfs".into(),
            0x9123_683E => "btrfs".into(),
            0x0102_1994 => "tmpfs".into(),
            0x794C_7630 => "overlay".into(),
            0x6573_5546 => "fuse".into(),
            0x7371_7368 => "squashfs".into(),
            0xE0F5_E1E2 => "erofs".into(),
            0x6969 => "nfs".into(),
            0x2FC1_2FC1 => "zfs".into(),
            magic => format!("{magic:#x}"),
        }
    }

    /// The root as a place.
    pub fn root_place(&self) -> Place {
        Place::Fd(Arc::clone(&self.root))
    }
}

/// Clones the mount that holds both directories and opens both in the clone: renames between them
/// work only within one mount. `None` where that is not permitted or they share no mount.
pub fn clone_common_mount(a: &Path, b: &Path) -> Option<(OwnedFd, OwnedFd)> {
    let (a, b) = (a.canonicalize().ok()?, b.canonicalize().ok()?);
    let base: PathBuf = a
        .components()
        .zip(b.components())
        .take_while(|(x, y)| x == y)
        .map(|(x, _)| x)
        .collect();
    let clone = clone_mount(CWD, &base).ok()?;
    let open = |path: &Path| -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = path
            .strip_prefix(&base)
            .ok()
            .filter(|p| !p.as_os_str().is_empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let fd = rustix::fs::openat2(&clone, below, flags, Mode::empty(), resolve).ok()?;
        let plain = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
        same_object(fd.as_fd(), plain.as_fd()).then_some(fd)
    };
    Some((open(&a)?, open(&b)?))
}

fn clone_mount(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_tree(
        dir,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
}

fn same_object(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    match (Stat::at(a, b""), Stat::at(b, b"")) {
        (Ok(a), Ok(b)) => a.dev == b.dev && a.attr.ino == b.attr.ino,
        _ => false,
    }
}

/// The usual words for the usual errors.
fn explain(e: Errno) -> String {
    match e {
        Errno::NOENT => "no such directory".into(),
        Errno::NOTDIR => "not a directory".into(),
        Errno::ACCESS | Errno::PERM => "permission denied".into(),
        e => e.to_string(),
    }
}
