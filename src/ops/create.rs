//! mknod, mkdir, symlink: new objects, all made in the upper.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::file::FileFd;
use super::protect::{Act, permit};
use super::{Caller, Entry, Union};
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::ids;
use crate::layer::{Place, Stat};
use crate::marker::whiteout::{Dialect, WH_PREFIX};
use crate::merge::{Index, Stack, Top};
use crate::name::Name;
use crate::tree::{Inode, XattrFact};
use crate::upper::{New, NewKind, Upper};

/// What to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewObject<'a> {
    /// An empty regular file.
    File,
    /// A directory.
    Dir,
    /// A symlink with this target.
    Symlink(&'a [u8]),
    /// A fifo or socket.
    Special(Kind),
    /// A device node and its number.
    Device(Kind, u64),
}

/// Permission bits of a new object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Perm {
    /// The bits asked for.
    pub perm: u32,
    /// What the caller takes off them; 0 if that was done already.
    pub umask: u32,
}

impl NewObject<'_> {
    fn kind(&self) -> Kind {
        match self {
            NewObject::File => Kind::File,
            NewObject::Dir => Kind::Dir,
            NewObject::Symlink(_) => Kind::Symlink,
            NewObject::Special(kind) | NewObject::Device(kind, _) => *kind,
        }
    }
}

impl Union {
    /// Creates `name` in `parent`, owned by the caller, with the permission bits `perm` less
    /// `umask` (unless a default ACL says what they are).
    ///
    /// # Errors
    /// `EEXIST`; `EOVERFLOW` for a caller without an id; `EPERM` for what would be read as a whiteout; the upper's.
    pub fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &Name,
        object: NewObject<'_>,
        Perm { perm, umask }: Perm,
    ) -> Result<Entry> {
        let upper = self.upper()?;
        let dir = self.dir(parent)?;
        if ![caller.uid, caller.gid].into_iter().all(ids::is_valid) {
            return Err(Errno::OVERFLOW.into());
        }
        if object == NewObject::Device(Kind::CharDev, 0) {
            return Err(Errno::PERM.into());
        }
        check_new_name(upper, name)?;
        permit(&dir, Act::AddName)?;
        let dir_fd = self.upper_dir(&dir)?;
        let kind = match object {
            NewObject::File => NewKind::File,
            NewObject::Dir => NewKind::Dir,
            NewObject::Symlink(target) => NewKind::Symlink(target),
            NewObject::Special(kind) => NewKind::Node(kind, 0),
            NewObject::Device(kind, rdev) => NewKind::Node(kind, rdev),
        };
        let new = New {
            kind,
            perm: perm & 0o7777,
            umask: umask & 0o777,
            uid: self.ids.users.stored(caller.uid),
            gid: self.ids.groups.stored(caller.gid),
        };
        let _change = self.lock_dir(&dir)?;
        let covers = self.free_name(&dir, name)?;
        let fd = match covers {
            Some(_) => upper.create_over_whiteout(&dir_fd, name, &new)?,
            None => upper.create(&dir_fd, name, &new)?,
        };
        let place = Place::at(Arc::clone(&dir_fd), name);
        let stat = match &fd {
            Some(fd) => Stat::at(fd.as_fd(), b""),
            None => place.stat(),
        };
        let stat = stat
            .and_then(|mut stat| {
                place.override_stat(upper.owners.store, &mut stat.attr)?;
                Ok(stat)
            })
            // It is there, and whoever asks again must find it.
            .inspect_err(|_| self.drop_listing(&dir))
            .while_doing(|| "stat a new object")?;
        let covers = covers.unwrap_or(false);
        let inode = self.note_new(upper, &dir, name, object.kind(), covers, &stat)?;
        let facts = inode.xattrs.look();
        inode.xattrs.learn(facts, XattrFact::NoCapability); // nothing is born with one
        if let Some(fd) = fd {
            self.remember_fd(&inode, FileFd::new(fd, inode.id(), true));
        }
        Ok(Entry {
            attr: self.view_attr(&inode, &stat),
        })
    }

    /// Takes the right to change `dir`, which must still exist.
    pub(super) fn lock_dir<'a>(
        &self,
        dir: &'a Arc<Inode>,
    ) -> Result<parking_lot::MutexGuard<'a, ()>> {
        let change = dir.dir().ok_or(Errno::NOTDIR)?.change.lock();
        if dir.is_removed() {
            return Err(Errno::NOENT.into());
        }
        Ok(change)
    }

    /// Makes sure that `name` is free in `dir`, whose change lock the caller holds. If the upper
    /// has a whiteout there: whether that covers something of a lower.
    pub(super) fn free_name(&self, dir: &Arc<Inode>, name: &Name) -> Result<Option<bool>> {
        let index = self.index_locked(dir)?;
        let found = index.read().find(name);
        match found {
            None => Ok(None),
            Some(found) if found.top == Top::Whiteout => Ok(Some(found.covers)),
            Some(_) => match self.child_locked(dir, name, super::lookup::Count::Held) {
                // It was a whiteout after all, or is gone.
                Err(e) if e.errno() == Errno::NOENT => Ok(None),
                Err(e) => Err(e),
                Ok((inode, _)) => {
                    self.reap(inode);
                    Err(Errno::EXIST.into())
                }
            },
        }
    }

    /// Takes a new object into memory, counted.
    fn note_new(
        &self,
        upper: &Upper,
        dir: &Arc<Inode>,
        name: &Name,
        kind: Kind,
        covers: bool,
        stat: &Stat,
    ) -> Result<Arc<Inode>> {
        let top = match kind {
            Kind::Dir => Top::Dir(Box::new([upper.layer])),
            kind => Top::Leaf {
                layer: upper.layer,
                kind,
            },
        };
        let inode = self.register_new(dir, name, top.clone(), stat)?;
        if let Some(own) = inode.dir() {
            // Nothing is in it, and nothing shows through: no layer need ever be asked.
            own.set_stack(Stack::pure(upper.layer));
            let key = self.cookie_key();
            self.indexes.insert(inode.ino, Index::empty(key));
        }
        self.index_locked(dir)?
            .write()
            .set(name, top, covers, inode.ino);
        Ok(inode)
    }
}

/// Refuses names that could not be deleted again, or would be read as a whiteout.
pub(super) fn check_new_name(upper: &Upper, name: &Name) -> Result<()> {
    if name.len() > upper.name_max() {
        return Err(Errno::NAMETOOLONG.into());
    }
    if upper.dialect == Dialect::File && name.starts_with(WH_PREFIX) {
        return Err(Errno::PERM.into());
    }
    Ok(())
}
