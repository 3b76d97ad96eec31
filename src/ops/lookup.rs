//! lookup and forget: names become inodes, inodes go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use crate::attr::{Attr, Kind};
use crate::error::{Errno, Result};
use crate::layer::Stat;
use crate::merge::{DirIndex, Top};
use crate::name::{NAME_MAX, Name};
use crate::tree::Inode;

/// An object as a reply to the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its attributes; `ino` is the number to use for it.
    pub attr: Attr,
}

/// Whether a lookup counts for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// The kernel is told of the object and will forget it.
    Yes,
    /// Only the operation itself needs it: it stays known until whoever asked reaps it. (Else another
    /// thread could let go of it and find it again as another inode, while this one changes it.)
    Held,
}

impl Union {
    /// Finds `name` in directory `parent` and counts it.
    ///
    /// # Errors
    /// `ENOENT`, or the error of the layer that has the name.
    pub fn lookup(&self, parent: u64, name: &Name) -> Result<Entry> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        let dir = self.dir(parent)?;
        let (inode, stat) = self.child(&dir, name, Count::Yes)?;
        Ok(Entry {
            attr: self.shown_attr(&inode, &stat),
        })
    }

    /// The kernel forgets `n` lookups of `ino`.
    pub fn forget(&self, ino: u64, n: u64) {
        let removed = self.table.forget(ino, n);
        self.release(removed);
    }

    /// Lets go of an inode that an operation looked up without counting.
    pub(super) fn reap(&self, inode: Arc<Inode>) {
        inode.kids.fetch_sub(1, Ordering::Relaxed);
        let removed = self.table.reap(inode);
        self.release(removed);
    }

    /// Lets go of everything that is held for inodes that are gone.
    fn release(&self, removed: Vec<Arc<Inode>>) {
        for inode in removed {
            if let Some(dir) = inode.dir() {
                self.indexes.remove(inode.ino);
                for layer in dir.stack().layers() {
                    self.dir_fds.remove((inode.ino, *layer));
                }
            } else if let Some(fd) = self.file_fds.remove(inode.ino) {
                drop(fd);
            }
            self.undo_pin(&inode);
        }
    }

    /// The inode at `name` in `dir` and the attributes of its real object.
    pub(super) fn child(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        count: Count,
    ) -> Result<(Arc<Inode>, Stat)> {
        for _ in 0..4 {
            let index = self.index(dir)?;
            if let Some(found) = self.try_child(dir, name, count, &index)? {
                return Ok(found);
            }
        }
        // Overtaken again and again: keep the others out.
        let _change = dir.dir().ok_or(Errno::NOTDIR)?.change.lock();
        self.child_locked(dir, name, count)
    }

    /// The inode at `name` in `dir`, held, for whom its attributes do not matter: one that is
    /// known is not looked at again.
    pub(super) fn child_inode(&self, dir: &Arc<Inode>, name: &Name) -> Result<Arc<Inode>> {
        let index = self.index(dir)?;
        let found = index.read().find(name);
        let hint = found
            .filter(|f| f.top != Top::Whiteout)
            .and_then(|f| f.hint);
        if let Some(inode) = hint.and_then(|ino| self.known_child(dir, name, ino, Count::Held)) {
            return Ok(inode);
        }
        Ok(self.child(dir, name, Count::Held)?.0)
    }

    /// The same for a caller that holds the directory's change lock.
    pub(super) fn child_locked(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        count: Count,
    ) -> Result<(Arc<Inode>, Stat)> {
        let index = self.index_locked(dir)?;
        for _ in 0..4 {
            // `None`: the name turned out to be a whiteout; the next look finds that.
            if let Some(found) = self.try_child(dir, name, count, &index)? {
                return Ok(found);
            }
        }
        Err(Errno::STALE.into())
    }

    /// One try; `None` if the directory was changed meanwhile.
    fn try_child(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        count: Count,
        index: &DirIndex,
    ) -> Result<Option<(Arc<Inode>, Stat)>> {
        let (found, version) = {
            let index = index.read();
            (index.find(name), index.version())
        };
        let Some(found) = found.filter(|f| f.top != Top::Whiteout) else {
            return Err(Errno::NOENT.into());
        };
        if let Some(inode) = found
            .hint
            .and_then(|ino| self.known_child(dir, name, ino, count))
        {
            let stat = self.stat(&inode);
            match stat {
                Ok(stat) => return Ok(Some((inode, stat))),
                // A layer was changed under us: another object may have the name.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => self.uncount(inode, count),
                Err(e) => {
                    self.uncount(inode, count);
                    return Err(e.into());
                }
            }
        }
        let link_changes = || self.upper.as_ref().map(|u| u.links.changes());
        let links = link_changes();
        let Some(known) = self.identify(dir, name, &found, (index, version))? else {
            // A whiteout after all, or gone.
            let changed = index.read().version() != version;
            return if changed {
                Ok(None)
            } else {
                Err(Errno::NOENT.into())
            };
        };
        let (id, stat) = (known.id, known.stat);
        let (inode, added) = self.register(dir, name, found.top, known, count);
        let index = index.read();
        match index.get(name) {
            // A hard link may have been copied up under another name since it was identified.
            Some(entry) if index.version() == version && link_changes() == links => {
                entry.set_hint(inode.ino);
                drop(index);
                if inode.kind == Kind::Dir {
                    // A directory has one name; another one was changed behind our back.
                    let mut state = inode.state_mut();
                    let others = state.names.retain(|a| a.is(dir, name));
                    drop(state);
                    drop(others);
                }
                if inode.id() == id {
                    return Ok(Some((inode, stat)));
                }
                // Another name of a hard link that was copied up, as only memory knows.
                match self.stat(&inode) {
                    Ok(stat) => Ok(Some((inode, stat))),
                    Err(e) => {
                        self.uncount(inode, count);
                        Err(e.into())
                    }
                }
            }
            _ => {
                drop(index);
                if added {
                    let mut state = inode.state_mut();
                    let alias = state.names.remove_first(|a| a.is(dir, name));
                    drop(state);
                    drop(alias);
                }
                self.uncount(inode, count);
                Ok(None)
            }
        }
    }

    /// Counts a lookup of an inode that cannot leave the table just now.
    pub(super) fn note_lookup(&self, inode: &Inode, count: Count) {
        match count {
            Count::Yes => self.table.count(inode),
            // Relaxed: read for removal only under the table's shard lock.
            Count::Held => drop(inode.kids.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn uncount(&self, inode: Arc<Inode>, count: Count) {
        match count {
            Count::Yes => self.forget(inode.ino, 1),
            Count::Held => self.reap(inode),
        }
    }

    /// The live inode with number `ino`, if `name` in `dir` is one of its names.
    fn known_child(&self, dir: &Inode, name: &Name, ino: u64, count: Count) -> Option<Arc<Inode>> {
        self.table
            .with(ino, |inode| {
                if !inode.has_name(dir, name) {
                    return None;
                }
                self.note_lookup(inode, count);
                Some(Arc::clone(inode))
            })
            .flatten()
    }
}
