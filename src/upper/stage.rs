//! Makes new objects: at once where nothing is in the way, else in the workdir and by one rename.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, XattrFlags};

use super::change::{set_owner, set_perm};
use super::workdir::Upper;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::{Place, Stat};
use crate::marker::whiteout::{Dialect, WH_OPAQUE};
use crate::marker::xattr::Marker;
use crate::name::{Name, NameBuf};
use crate::sys::cred::as_owner;

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
    /// Permission bits, the umask taken off already.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory passes on its own.
    pub gid: u32,
}

/// An object in the workdir that is not visible yet; removed again unless it is published.
#[derive(Debug)]
#[must_use]
pub struct Staged<'a> {
    upper: &'a Upper,
    name: NameBuf,
    published: bool,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.published {
            self.upper.discard(&self.name);
        }
    }
}

impl<'a> Staged<'a> {
    /// Takes charge of `name` in the workdir.
    pub(super) fn adopt(upper: &'a Upper, name: NameBuf) -> Staged<'a> {
        Staged {
            upper,
            name,
            published: false,
        }
    }

    /// Where it lies now.
    pub fn place(&self) -> Place {
        Place::at(Arc::clone(&self.upper.work), &self.name)
    }

    /// Its name in the workdir.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Makes it visible as `name` in `dir`, where nothing is.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn publish_new(mut self, dir: &OwnedFd, name: &Name) -> Result<(), Errno> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.upper.work, &*self.name, dir, name, flags) {
            // Filesystems without the flag: the caller's lock keeps others from the name.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::renameat(&self.upper.work, &*self.name, dir, name)?;
            }
            result => result?,
        }
        self.published = true;
        Ok(())
    }

    /// Makes it visible as `name` in `dir` in place of what is there: an object other than a
    /// directory.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn publish_over(mut self, dir: &OwnedFd, name: &Name) -> Result<(), Errno> {
        rustix::fs::renameat(&self.upper.work, &*self.name, dir, name)?;
        self.published = true;
        Ok(())
    }

    /// Makes it visible as `name` in `dir` in exchange for what is there, which is discarded.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn publish_exchange(self, dir: &OwnedFd, name: &Name) -> Result<(), Errno> {
        let flags = RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(&self.upper.work, &*self.name, dir, name, flags)
        // Dropping it now discards what was there.
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
        let make = || make_at(dir, name, new);
        let ours = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let made = if (new.uid, new.gid) == ours {
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
                let (staged, fd) = self.stage(dir, new, false)?;
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
        let (staged, fd) = self.stage(dir, new, is_dir)?;
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
        use std::os::fd::AsFd;
        let parent = Stat::at(dir.as_fd(), b"").while_doing(|| "stat a directory of the upper")?;
        let mut new = *new;
        if parent.attr.perm & 0o2000 != 0 {
            new.gid = parent.attr.gid;
            if new.kind == NewKind::Dir {
                new.perm |= 0o2000;
            }
        }
        let staged = Staged::adopt(self, self.temp_name());
        let private = New {
            perm: new.perm & 0o700 | 0o600,
            ..new
        };
        let fd =
            make_at(&self.work, &staged.name, &private).while_doing(|| "create in the workdir")?;
        let place = staged.place();
        if opaque {
            self.set_opaque(&place)?;
        }
        set_owner(&place, Some(new.uid), Some(new.gid)).while_doing(|| "set the owner")?;
        if !matches!(new.kind, NewKind::Symlink(_)) {
            set_perm(&place, new.perm).while_doing(|| "set the mode")?;
        }
        Ok((staged, fd))
    }

    /// Marks a directory of the upper (or the workdir) opaque.
    ///
    /// # Errors
    /// The upper's; where no marker at all can be written, `EIO`.
    pub fn set_opaque(&self, place: &Place) -> Result<()> {
        let mut marked = self.set_marker(place, Marker::Opaque, b"y")?;
        if self.dialect == Dialect::File {
            let dir = place.open(OFlags::PATH | OFlags::DIRECTORY)?;
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&dir, WH_OPAQUE, flags, Mode::empty())
                .while_doing(|| "write an opaque sentinel")?;
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
        let (path, follow) = place.proc_path();
        let name = namespace.name(marker);
        let set = match follow {
            true => rustix::fs::setxattr(&*path, name, value, XattrFlags::empty()),
            false => rustix::fs::lsetxattr(&*path, name, value, XattrFlags::empty()),
        };
        match set {
            Ok(()) => Ok(true),
            // user.* is for files and directories only.
            Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e).while_doing(|| format!("set {name}")),
        }
    }

    /// Notes on an upper directory that it holds an object with an origin (the kernel's `impure`).
    pub fn set_impure(&self, dir: &Arc<OwnedFd>) {
        let place = Place::Fd(Arc::clone(dir));
        best_effort(
            "mark a directory impure",
            self.set_marker(&place, Marker::Impure, b"y"),
        );
    }
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
        Place::Fd(_) => {
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
        let staged = Staged::adopt(self, self.temp_name());
        link_place(from, &self.work, &staged.name)?;
        staged.publish_over(dir, name)
    }

    /// Whether the whiteout of `name` lies at the name itself. An upper of the `.wh.` dialect may
    /// hold whiteouts of the others, from before.
    fn whiteout_is_at_name(&self, dir: &OwnedFd, name: &Name) -> bool {
        use std::os::fd::AsFd;
        self.dialect != Dialect::File || Stat::at(dir.as_fd(), name).is_ok()
    }
}
