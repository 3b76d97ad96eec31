//! `work/index`: where hard links of the lowers live once they were copied up.
//!
//! The kernel's format (index=on): one hard link to each upper inode, named by the hex of the origin
//! marker of the lower inode. A name that still lies in the lower leads here by its file handle,
//! also after a remount or when memory forgot, so that all names stay one file.
//!
//! With `nfs_export=on` the kernel also keeps entries for directories there (directories), and
//! whiteouts for what was removed. Those are left alone, and lead nowhere.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::workdir::{entries, make_dir, open_dir, remove_tree};
use crate::attr::Kind;
use crate::error::{Errno, best_effort};
use crate::layer::Place;
use crate::marker::nlink::{Base, Nlink};
use crate::marker::origin::Origin;
use crate::marker::xattr::Marker;
use crate::name::{Name, NameBuf};

/// What the origin markers of copies say of the filesystem that they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origins {
    /// Its UUID.
    #[default]
    Named,
    /// Nothing: the kernel's `uuid=off`.
    Anonymous,
}

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
    entries: HashMap<NameBuf, Entry>,
    /// What was found in it that nothing needs.
    rubbish: Vec<NameBuf>,
}

/// What an entry of the index is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// A hard link of an upper inode that was copied from the inode that the name says.
    Link,
    /// What is not for us, or cannot be understood: it leads nowhere, and stays.
    Foreign,
    /// Nothing needs it: what a crash left, an inode without a name, an inode that was copied from
    /// another one than the name says. The kernel removes it too.
    Rubbish,
}

impl LinkIndex {
    /// Reads the index in the workdir, if there is one. Unless `read_only`, rubbish is removed.
    pub(super) fn open(
        workdir: OwnedFd,
        name: &'static str,
        read_only: bool,
    ) -> Result<LinkIndex, Errno> {
        let mut inner = Inner::default();
        match crate::layer::Stat::at(workdir.as_fd(), name.as_bytes()) {
            Ok(_) => {
                let dir = open_dir(workdir.as_fd(), name.as_bytes())?;
                let dir = Arc::new(dir);
                for name in entries(dir.as_fd())? {
                    let mut entry = judge(&dir, &name)?;
                    if entry == Entry::Rubbish {
                        if !is_whiteout(&dir, &name) {
                            inner.rubbish.push(name.clone());
                        }
                        let gone = || remove_tree(dir.as_fd(), &name);
                        if !read_only && best_effort("clean the link index", gone()).is_some() {
                            continue;
                        }
                        entry = Entry::Foreign;
                    }
                    inner.entries.insert(name, entry);
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

    /// What was found when it was opened that nothing needs; it is gone, if it may be.
    pub fn rubbish(&self) -> Vec<NameBuf> {
        self.inner.read().rubbish.clone()
    }

    /// Whether nothing was ever copied up as a hard link: lookups need not ask.
    pub fn is_empty(&self) -> bool {
        self.inner.read().entries.is_empty()
    }

    /// Whether no entry can be made under that name.
    pub fn is_taken(&self, name: &Name) -> bool {
        self.inner.read().entries.contains_key(name)
    }

    /// A number that changes with every change, so that a lookup can tell that it was overtaken.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Where the upper inode of an entry lies.
    pub fn find(&self, name: &Name) -> Option<Place> {
        let inner = self.inner.read();
        if *inner.entries.get(name)? != Entry::Link {
            return None;
        }
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
        self.inner.write().entries.insert(name.into(), Entry::Link);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes the entry of an inode that lost its last name.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self, name: &Name) -> Result<(), Errno> {
        let dir = self.dir()?;
        self.inner.write().entries.remove(name);
        self.changes.fetch_add(1, Ordering::SeqCst);
        rustix::fs::unlinkat(&dir, name, rustix::fs::AtFlags::empty())
    }
}

/// The kernel keeps the whiteout that all others are links of here.
fn is_whiteout(dir: &Arc<OwnedFd>, name: &Name) -> bool {
    let stat = Place::at(Arc::clone(dir), name).stat();
    stat.is_ok_and(|stat| stat.attr.kind == Kind::CharDev && stat.attr.rdev == 0)
}

/// What an entry is, by the rules of the kernel (`ovl_verify_index`).
///
/// # Errors
/// Those of looking at it: an entry that is passed over shows the old file under its other names.
fn judge(dir: &Arc<OwnedFd>, name: &Name) -> Result<Entry, Errno> {
    if name.starts_with(b"#") {
        return Ok(Entry::Rubbish); // the kernel builds what it links here
    }
    let Some(says) = Origin::from_index_name(name) else {
        return Ok(Entry::Foreign);
    };
    let place = Place::at(Arc::clone(dir), name);
    let stat = place.stat()?;
    let whiteout = stat.attr.kind == Kind::CharDev && stat.attr.rdev == 0;
    if stat.attr.kind == Kind::Dir || whiteout {
        return Ok(Entry::Foreign);
    }
    let origin = match place.marker(Marker::Origin) {
        // What its owner may not read (and the daemon is no more than that) is what its name says.
        Err(Errno::ACCESS) => return Ok(Entry::Link),
        value => value?.and_then(|value| Origin::decode(&value)),
    };
    match origin {
        Some(origin) if origin == says => {}
        Some(_) => return Ok(Entry::Rubbish),
        None => return Ok(Entry::Foreign),
    }
    // A count relative to the lower is only there while a name is being added.
    let count = place.marker(Marker::Nlink)?;
    Ok(match count.and_then(|value| Nlink::decode(&value)) {
        Some(Nlink {
            base: Base::Upper,
            difference,
        }) if stat.attr.nlink == 1 && difference < 0 => Entry::Rubbish,
        _ => Entry::Link,
    })
}
