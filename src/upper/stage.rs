//! Makes new objects: at once where nothing is in the way, else in the workdir and by one rename.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, XattrFlags};

use super::change::set_perm;
use super::whiteout::make_empty;
use super::workdir::Upper;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::{Place, Stat};
use crate::marker::override_stat::OverrideStat;
use crate::marker::whiteout::{Dialect, WH_OPAQUE};
use crate::marker::xattr::{Marker, Namespace};
use crate::name::{Name, NameBuf};
use crate::sys::cred::{as_owner, with_umask};

/// The default ACL of a directory.
const ACL_DEFAULT: &[u8] = crate::marker::acl::DEFAULT;

/// What a new object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKind<'a> {
    /// An empty regular file.
    File,
    /// An empty directory.
    Dir,
    /// A symlink with this target.
    Symlink(&'a [u8]),
    /// A fifo, socket or device node with this device number.
    Node(Kind, u64),
}

/// A new object and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct New<'a> {
    /// What it is.
    pub kind: NewKind<'a>,
    /// Permission bits.
    pub perm: u32,
    /// What to take off them, unless the directory's default ACL says it all.
    pub umask: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory passes on its own.
    pub gid: u32,
}

impl New<'_> {
    /// Whose it is to be, with which mode and type.
    fn shown(&self) -> OverrideStat {
        let (kind, rdev) = match self.kind {
            NewKind::File => (Kind::File, 0),
            NewKind::Dir => (Kind::Dir, 0),
            NewKind::Symlink(_) => (Kind::Symlink, 0),
            NewKind::Node(kind, rdev) => (kind, rdev),
        };
        let New { uid, gid, perm, .. } = *self;
        OverrideStat {
            uid,
            gid,
            perm,
            kind: Some((kind, rdev)),
        }
    }
}

/// An object that is not visible yet; gone again unless it is published.
#[derive(Debug)]
#[must_use]
pub struct Staged<'a> {
    upper: &'a Upper,
    held: Held,
    published: bool,
}

/// What keeps a staged object.
#[derive(Debug)]
enum Held {
    /// A name in the workdir.
    Name(NameBuf),
    /// A descriptor: a regular file without any name (`O_TMPFILE`).
    File(Arc<OwnedFd>),
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        match &self.held {
            Held::Name(name) if !self.published => self.upper.discard(name),
            Held::Name(_) | Held::File(_) => {}
        }
    }
}

impl<'a> Staged<'a> {
    /// Takes charge of `name` in the workdir.
    pub(super) fn adopt(upper: &'a Upper, name: NameBuf) -> Staged<'a> {
        Staged {
            upper,
            held: Held::Name(name),
            published: false,
        }
    }

    /// Takes charge of a file that has no name.
    pub(super) fn unnamed(upper: &'a Upper, file: Arc<OwnedFd>) -> Staged<'a> {
        Staged {
            upper,
            held: Held::File(file),
            published: false,
        }
    }

    /// Where it lies now.
    pub fn place(&self) -> Place {
        match &self.held {
            Held::Name(name) => Place::at(Arc::clone(&self.upper.work), name),
            Held::File(file) => Place::File(Arc::clone(file)),
        }
    }

    /// Makes it visible as `name` in `dir`, where nothing is.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn publish_new(&mut self, dir: &OwnedFd, name: &Name) -> Result<(), Errno> {
        match &self.held {
            Held::File(_) => link_place(&self.place(), dir, name)?,
            Held::Name(own) => match self.rename(own, dir, name, RenameFlags::NOREPLACE) {
                // Filesystems without the flag: the caller's lock keeps others from the name.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    self.rename(own, dir, name, RenameFlags::empty())?;
                }
                result => result?,
            },
        }
        self.published = true;
        Ok(())
    }

    /// Makes it visible as `name` in `dir` in place of what is there: an object other than a
    /// directory.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn publish_over(&mut self, dir: &OwnedFd, name: &Name) -> Result<(), Errno> {
        let own = self.give_name()?;
        self.rename(&own, dir, name, RenameFlags::empty())?;
        self.published = true;
        Ok(())
    }

    /// Makes it visible as `name` in `dir` in exchange for what is there, which is discarded.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn publish_exchange(mut self, dir: &OwnedFd, name: &Name) -> Result<(), Errno> {
        let own = self.give_name()?;
        self.rename(&own, dir, name, RenameFlags::EXCHANGE)
        // Dropping it now discards what was there.
    }

    /// Its name in the workdir, which it gets now if it has none.
    fn give_name(&mut self) -> Result<NameBuf, Errno> {
        if let Held::Name(name) = &self.held {
            return Ok(name.clone());
        }
        let name = self.upper.temp_name();
        link_place(&self.place(), &self.upper.work, &name)?;
        self.held = Held::Name(name.clone());
        Ok(name)
    }

    fn rename(
        &self,
        own: &Name,
        dir: &OwnedFd,
        name: &Name,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let rename = || rustix::fs::renameat_with(&self.upper.work, own, dir, name, flags);
        match rename() {
            Err(Errno::ACCESS) => {}
            result => return result,
        }
        // A directory that its owner may not write cannot change its parent, unless root asks.
        let place = self.place();
        let perm = place.stat()?.attr.perm;
        set_perm(&place, perm | 0o700)?;
        let result = rename();
        let now = match &result {
            Ok(()) => Place::at(Arc::new(rustix::io::fcntl_dupfd_cloexec(dir, 0)?), name),
            Err(_) => place,
        };
        best_effort("give a mode back", set_perm(&now, perm));
        result
    }
}

impl Upper {
    /// Makes a new object at `name` in `dir`, where the upper has nothing, not even a whiteout.
    /// The descriptor of a regular file is returned: its mode may forbid to open it again.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn create(
        &self,
        dir: &Arc<OwnedFd>,
        name: &Name,
        new: &New<'_>,
    ) -> Result<Option<OwnedFd>> {
        let make = || make_masked(dir, name, new);
        let ours = self.ids;
        let made = if self.owners.store.is_some() {
            Err(Errno::ACCESS) // it must not be seen before its owner is written
        } else if (new.uid, new.gid) == ours {
            make()
        } else if ours.0 == 0 && !matches!(new.kind, NewKind::Node(..)) {
            // As its owner, so that it is theirs from the first moment, ACLs inherited and quota
            // charged. Their supplementary groups are not known here: then the long way.
            as_owner(new.uid, new.gid, make)
        } else {
            Err(Errno::ACCESS)
        };
        match made {
            Err(Errno::ACCESS | Errno::PERM) => {
                let (mut staged, fd) = self.stage(dir, new, false)?;
                staged
                    .publish_new(dir, name)
                    .while_doing(|| "publish a new object")?;
                Ok(fd)
            }
            made => made.while_doing(|| "create in the upper"),
        }
    }

    /// Makes a new object at `name` in `dir` in place of the whiteout that the upper has there.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn create_over_whiteout(
        &self,
        dir: &Arc<OwnedFd>,
        name: &Name,
        new: &New<'_>,
    ) -> Result<Option<OwnedFd>> {
        let is_dir = new.kind == NewKind::Dir;
        let (mut staged, fd) = self.stage(dir, new, is_dir)?;
        let published = match (self.whiteout_is_at_name(dir, name), is_dir) {
            (false, _) => staged.publish_new(dir, name),
            (true, true) => staged.publish_exchange(dir, name),
            (true, false) => staged.publish_over(dir, name),
        };
        published.while_doing(|| "publish a new object")?;
        if self.dialect == Dialect::File {
            // It stopped to act when the object came beside it.
            self.drop_whiteout(dir, name);
        }
        Ok(fd)
    }

    /// Builds a new object in the workdir as if it had been made in `dir`.
    fn stage(
        &self,
        dir: &Arc<OwnedFd>,
        new: &New<'_>,
        opaque: bool,
    ) -> Result<(Staged<'_>, Option<OwnedFd>)> {
        let parent = Place::Fd(Arc::clone(dir))
            .stat_with(self.owners.store)
            .while_doing(|| "stat a directory of the upper")?;
        let mut new = *new;
        if parent.attr.perm & 0o2000 != 0 {
            new.gid = parent.attr.gid;
            if new.kind == NewKind::Dir {
                new.perm |= 0o2000;
            }
        }
        let own = self.temp_name();
        let staged = Staged::adopt(self, own.clone());
        let fd = match self.default_acl(dir)? {
            Some(acl) => self.make_inheriting(&acl, &own, &mut new)?,
            None => {
                new.perm &= !new.umask;
                let usable = if new.kind == NewKind::Dir {
                    0o700
                } else {
                    0o600
                };
                let private = New {
                    kind: self.new_on_disk(new.kind),
                    perm: match self.owners.store {
                        Some(_) => usable,
                        None => new.perm & 0o700 | usable,
                    },
                    umask: 0,
                    ..new
                };
                make_at(&self.work, &own, &private).while_doing(|| "create in the workdir")?
            }
        };
        let place = staged.place();
        if opaque {
            self.set_opaque(&place)?;
        }
        let shown = new.shown();
        self.give_owner(&place, &shown)?;
        self.give_mode(&place, &shown)?;
        // What only stands for a device is no file of that inode.
        Ok((staged, fd.filter(|_| new.kind == NewKind::File)))
    }

    /// What lies on disk for a new object.
    fn new_on_disk<'b>(&self, kind: NewKind<'b>) -> NewKind<'b> {
        match (self.owners.store, kind) {
            (Some(_), NewKind::Node(..)) => NewKind::File,
            (_, kind) => kind,
        }
    }

    /// The default ACL of an upper directory.
    fn default_acl(&self, dir: &Arc<OwnedFd>) -> Result<Option<Vec<u8>>> {
        if !self.acl {
            return Ok(None);
        }
        let place = Place::Fd(Arc::clone(dir));
        let acl = place.get_xattr(ACL_DEFAULT);
        acl.while_doing(|| "read the default ACL")
    }

    /// Makes an object in the workdir that inherits a default ACL: in a directory that has it, for
    /// the filesystem knows best how. `new.perm` becomes what came out of it.
    fn make_inheriting(
        &self,
        acl: &[u8],
        name: &Name,
        new: &mut New<'_>,
    ) -> Result<Option<OwnedFd>> {
        let own = self.temp_name();
        let nursery = Staged::adopt(self, own.clone());
        rustix::fs::mkdirat(&self.work, &*own, Mode::from_raw_mode(0o700))
            .while_doing(|| "create in the workdir")?;
        let (path, _) = nursery.place().proc_path();
        rustix::fs::lsetxattr(&*path, ACL_DEFAULT, acl, XattrFlags::empty())
            .while_doing(|| "pass on a default ACL")?;
        let dir = nursery.place().open(OFlags::PATH | OFlags::DIRECTORY)?;
        let fd = make_masked(&dir, b"new", new).while_doing(|| "create in the workdir")?;
        let made = Stat::at(dir.as_fd(), b"new").while_doing(|| "stat a new object")?;
        let inherited = if new.kind == NewKind::Dir {
            new.perm & 0o2000
        } else {
            0
        };
        new.perm = made.attr.perm | inherited;
        rustix::fs::renameat(&dir, "new", &self.work, name)
            .while_doing(|| "move within the workdir")?;
        Ok(fd)
    }

    /// Marks a directory of the upper (or the workdir) opaque.
    ///
    /// # Errors
    /// The upper's; where no marker at all can be written, `EIO`.
    pub fn set_opaque(&self, place: &Place) -> Result<()> {
        let mut marked = self.set_marker(place, Marker::Opaque, b"y")?;
        if self.dialect == Dialect::File {
            let dir = place.open(OFlags::PATH | OFlags::DIRECTORY)?;
            let make = || make_empty(&dir, WH_OPAQUE);
            let made = match make() {
                Err(Errno::ACCESS) => writable_for_a_moment(place, make),
                made => made,
            };
            made.while_doing(|| "write an opaque sentinel")?;
            marked = true;
        }
        if marked {
            Ok(())
        } else {
            Err(Errno::IO).while_doing(|| "mark a directory opaque")
        }
    }

    /// Sets a marker; false where the upper takes none.
    ///
    /// # Errors
    /// The upper's, such as `ENOSPC`.
    pub fn set_marker(&self, place: &Place, marker: Marker, value: &[u8]) -> Result<bool> {
        let Some(namespace) = self.namespace else {
            return Ok(false);
        };
        let name = namespace.name(marker);
        let set = || place.set_xattr(name.as_bytes(), value, XattrFlags::empty());
        let set = match set() {
            Err(Errno::ACCESS) => writable_for_a_moment(place, set),
            result => result,
        };
        match set {
            Ok(()) => Ok(true),
            // user.* is for files and directories only.
            Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e).while_doing(|| format!("set {name}")),
        }
    }

    /// Removes a marker from an object of the upper; one that is not there is fine.
    ///
    /// # Errors
    /// The upper's.
    pub fn remove_marker(&self, place: &Place, namespace: Namespace, marker: Marker) -> Result<()> {
        let name = namespace.name(marker);
        let remove = || place.remove_xattr(name.as_bytes());
        let removed = match remove() {
            Err(Errno::ACCESS) => writable_for_a_moment(place, remove),
            result => result,
        };
        match removed {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(e) => Err(e).while_doing(|| format!("remove {name}")),
        }
    }

    /// Notes on an upper directory that it holds an object with an origin (the kernel's `impure`).
    /// Whether that was possible.
    pub fn set_impure(&self, dir: &Arc<OwnedFd>) -> bool {
        let place = Place::Fd(Arc::clone(dir));
        let set = self.set_marker(&place, Marker::Impure, b"y");
        best_effort("mark a directory impure", set) == Some(true)
    }
}

/// Does something that the mode of an object of ours forbids a daemon without privileges: with the
/// owner's write bit set for a moment.
pub fn writable_for_a_moment<T>(
    place: &Place,
    f: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let perm = place.stat()?.attr.perm;
    if perm & 0o200 != 0 {
        return Err(Errno::ACCESS); // that is not what is in the way
    }
    set_perm(place, perm | 0o200)?;
    let result = f();
    best_effort("give a mode back", set_perm(place, perm));
    result
}

/// Makes the object itself under its umask.
fn make_masked(dir: &OwnedFd, name: &Name, new: &New<'_>) -> Result<Option<OwnedFd>, Errno> {
    with_umask(new.umask, || make_at(dir, name, new))?
}

/// Makes the object itself; for a regular file also opens it.
fn make_at(dir: &OwnedFd, name: &Name, new: &New<'_>) -> Result<Option<OwnedFd>, Errno> {
    let mode = Mode::from_raw_mode(new.perm);
    match new.kind {
        NewKind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
            rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, mode).map(Some)
        }
        NewKind::Dir => rustix::fs::mkdirat(dir, name, mode).map(|()| None),
        NewKind::Symlink(target) => rustix::fs::symlinkat(target, dir, name).map(|()| None),
        NewKind::Node(kind, rdev) => {
            rustix::fs::mknodat(dir, name, kind.file_type(), mode, rdev).map(|()| None)
        }
    }
}

/// Hard links `from` to `name` in `dir`.
///
/// # Errors
/// Those of linkat(2).
pub(super) fn link_place(from: &Place, dir: &OwnedFd, name: &Name) -> Result<(), Errno> {
    match from {
        Place::At(from, from_name) => {
            rustix::fs::linkat(from, &**from_name, dir, name, AtFlags::empty())
        }
        Place::Fd(_) | Place::File(_) => {
            let (path, _) = from.proc_path();
            rustix::fs::linkat(rustix::fs::CWD, &*path, dir, name, AtFlags::SYMLINK_FOLLOW)
        }
    }
}

impl Upper {
    /// Hard links an object of the upper to `name` in `dir`, in place of the whiteout there if
    /// `over_whiteout`.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn link(
        &self,
        from: &Place,
        dir: &OwnedFd,
        name: &Name,
        over_whiteout: bool,
    ) -> Result<(), Errno> {
        if !over_whiteout || !self.whiteout_is_at_name(dir, name) {
            return link_place(from, dir, name);
        }
        let own = self.temp_name();
        let mut staged = Staged::adopt(self, own.clone());
        link_place(from, &self.work, &own)?;
        staged.publish_over(dir, name)
    }

    /// Whether the whiteout of `name` lies at the name itself. An upper of the `.wh.` dialect may
    /// hold whiteouts of the others, from before.
    fn whiteout_is_at_name(&self, dir: &OwnedFd, name: &Name) -> bool {
        self.dialect != Dialect::File || Stat::at(dir.as_fd(), name).is_ok()
    }
}
