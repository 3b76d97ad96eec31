//! `unionmount refresh`: what was read from the layers is forgotten and read again.
//!
//! First the union forgets, then the kernel is told; so nothing that the kernel asks for after that
//! comes from before. Files that are open and were removed or replaced in their layer keep what they
//! have, as far as it is in memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::Union;
use crate::error::Result;
use crate::merge::Top;
use crate::name::NameBuf;
use crate::tree::Inode;

/// How much was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// Directories.
    pub directories: u64,
    /// Other objects.
    pub others: u64,
}

/// What the kernel has to forget.
#[derive(Debug, Default)]
pub struct Outdated {
    /// Names, each in its directory; of missing objects too.
    pub names: Vec<(u64, NameBuf)>,
    /// Objects, with their attributes and data.
    pub objects: Vec<u64>,
    /// How much that is.
    pub count: Refreshed,
}

impl Union {
    /// Forgets what is known of object `ino` and, if it is a directory, of all below it.
    ///
    /// # Errors
    /// `ESTALE`: the object is not known.
    pub fn refresh(&self, ino: u64) -> Result<Outdated> {
        let top = self.inode(ino)?;
        self.refreshed.store(true, Ordering::Relaxed);
        let mut all = self.table.all();
        all.retain(|inode| inode.is_within(&top));
        let mut outdated = Outdated::default();
        if let Some((parent, name)) = top.parent() {
            self.forget_names(&parent);
            outdated.names.push((parent.ino, name));
        }
        // Parents first, for what is in them decides what the others are made of.
        all.sort_by_cached_key(|inode| inode.depth());
        let mut known = Vec::new();
        for dir in all.iter().filter(|i| i.dir().is_some()) {
            known.push((Arc::clone(dir), self.forget_names(dir)));
        }
        for inode in &all {
            let state = inode.state();
            let names = state.names.iter();
            let names = names.map(|a| (a.parent.ino, NameBuf::from(&a.name)));
            outdated.names.extend(names);
            drop(state);
            let counter = match inode.dir() {
                Some(_) => &mut outdated.count.directories,
                None => &mut outdated.count.others,
            };
            *counter += 1;
            if self.forget_content(inode) {
                outdated.objects.push(inode.ino);
            }
        }
        for (dir, before) in known {
            self.note_names(&dir, before.as_ref(), &mut outdated);
        }
        outdated.names.sort_unstable();
        outdated.names.dedup();
        Ok(outdated)
    }

    /// Forgets the listing of a directory and returns the names it had; `None` if none was in memory.
    fn forget_names(&self, dir: &Arc<Inode>) -> Option<HashSet<NameBuf>> {
        let _change = dir.dir()?.change.lock();
        let index = self.indexes.get(dir.ino);
        self.drop_listing(dir);
        let index = index?;
        let index = index.read();
        Some(index.after(0).map(|(_, e)| e.name().into()).collect())
    }

    /// Forgets attributes and data of an object. `false` if it is no longer where it was: then what the
    /// kernel has of it is all there is.
    fn forget_content(&self, inode: &Arc<Inode>) -> bool {
        if self.stat(inode).is_err() {
            return false;
        }
        inode.xattrs.doubt();
        if inode.dir().is_none() && Some(inode.id().layer) != self.upper_id() {
            drop(self.file_fds.remove(inode.ino));
        }
        true
    }

    /// Finds out anew which layers have a directory.
    fn find_parts(&self, dir: &Arc<Inode>) {
        let Some((parent, name)) = dir.parent() else {
            return;
        };
        let found = self.index(&parent).ok();
        let found = found.and_then(|index| index.read().find(&name));
        if let Some(Top::Dir(layers)) = found.map(|f| f.top) {
            self.restack(dir, &layers);
        }
    }

    /// The kernel may know of a name that is new that it is missing; and of any other, by an answer that
    /// was overtaken on the way, an object that is not known by that name any more.
    fn note_names(
        &self,
        dir: &Arc<Inode>,
        before: Option<&HashSet<NameBuf>>,
        outdated: &mut Outdated,
    ) {
        let known = before.into_iter().flatten().cloned();
        outdated.names.extend(known.map(|name| (dir.ino, name)));
        self.find_parts(dir);
        let index = match self.index(dir) {
            Ok(index) => index,
            Err(e) => return tracing::debug!("{}: {e}", dir.path()),
        };
        let is_new = |name: &NameBuf| before.is_none_or(|known| !known.contains(name));
        let index = index.read();
        let names = index.after(0).map(|(_, e)| NameBuf::from(e.name()));
        let new = names.filter(is_new).map(|name| (dir.ino, name));
        outdated.names.extend(new);
    }
}
