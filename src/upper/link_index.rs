//! `work/index`: where hard links of the lowers live once they were copied up.
//!
//! The kernel's format (index=on): one hard link to each upper inode, named by the hex of the origin
//! marker of the lower inode. A name that still lies in the lower leads here by its file handle,
//! also after a remount or when memory forgot, so that all names stay one file.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::workdir::{entries, make_dir, open_dir};
use crate::error::{Errno, best_effort};
use crate::layer::Place;
use crate::marker::nlink::{Base, Nlink};
use crate::marker::xattr::{Marker, Namespace};
use crate::name::{Name, NameBuf};

/// See the module.
#[derive(Debug)]
pub struct LinkIndex {
    workdir: OwnedFd,
    name: &'static str,
    inner: RwLock<Inner>,
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// The directory; not made before it is needed.
    dir: Option<Arc<OwnedFd>>,
    /// What is in it.
    names: HashSet<NameBuf>,
}

impl LinkIndex {
    /// Reads the index in the workdir, if there is one.
    /// Unless `read_only`, entries of inodes that have lost their last name are removed: a crash
    /// came between the two.
    pub(super) fn open(
        workdir: OwnedFd,
        name: &'static str,
        read_only: bool,
    ) -> Result<LinkIndex, Errno> {
        let mut inner = Inner::default();
        match crate::layer::Stat::at(workdir.as_fd(), name.as_bytes()) {
            Ok(_) => {
                let dir = open_dir(workdir.as_fd(), name.as_bytes())?;
                inner.names = entries(dir.as_fd())?.into_iter().collect();
                let dir = Arc::new(dir);
                if !read_only {
                    inner.names.retain(|name| !removed_orphan(&dir, name));
                }
                inner.dir = Some(dir);
            }
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        Ok(LinkIndex {
            workdir,
            name,
            inner: RwLock::new(inner),
            changes: AtomicU64::new(0),
        })
    }

    /// Whether nothing was ever copied up as a hard link: lookups need not ask.
    pub fn is_empty(&self) -> bool {
        self.inner.read().names.is_empty()
    }

    /// A number that changes with every change, so that a lookup can tell that it was overtaken.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Where the upper inode of an entry lies.
    pub fn find(&self, name: &Name) -> Option<Place> {
        let inner = self.inner.read();
        inner.names.get(name)?;
        inner
            .dir
            .as_ref()
            .map(|dir| Place::at(Arc::clone(dir), name))
    }

    /// The directory, made now if it is missing.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn dir(&self) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(dir) = &self.inner.read().dir {
            return Ok(Arc::clone(dir));
        }
        let mut inner = self.inner.write();
        let dir = match &inner.dir {
            Some(dir) => Arc::clone(dir),
            None => Arc::new(make_dir(self.workdir.as_fd(), self.name.as_bytes())?),
        };
        inner.dir = Some(Arc::clone(&dir));
        Ok(dir)
    }

    /// Notes an entry that was published.
    pub fn note(&self, name: &Name) {
        self.inner.write().names.insert(name.into());
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes the entry of an inode that lost its last name.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self, name: &Name) -> Result<(), Errno> {
        let dir = self.dir()?;
        self.inner.write().names.remove(name);
        self.changes.fetch_add(1, Ordering::SeqCst);
        rustix::fs::unlinkat(&dir, name, rustix::fs::AtFlags::empty())
    }
}

/// Removes an entry if its inode has no name left in the view; whether it did.
fn removed_orphan(dir: &Arc<OwnedFd>, name: &Name) -> bool {
    let place = Place::at(Arc::clone(dir), name);
    let Ok(stat) = place.stat() else { return false };
    let count = Namespace::ALL.iter().find_map(|namespace| {
        let value = place
            .get_xattr(namespace.name(Marker::Nlink).as_bytes())
            .ok()??;
        Nlink::decode(&value)
    });
    let names = match count {
        Some(Nlink {
            base: Base::Upper,
            difference,
        }) => i64::from(stat.attr.nlink) + difference,
        _ => return false,
    };
    let gone = || rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty());
    stat.attr.nlink == 1 && names <= 0 && best_effort("remove an orphan", gone()).is_some()
}
