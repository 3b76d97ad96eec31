//! The names of one directory of the view, complete: what is not in it does not exist.
//!
//! Ordered by cookie, a keyed hash of the name, so that a listing needs no snapshot: every name that
//! is there throughout a scan is returned exactly once whatever comes and goes meanwhile, and a
//! cookie means the same after the index was dropped and read again.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use super::listing::Merged;
use crate::attr::Kind;
use crate::layer::LayerId;
use crate::name::{Name, NameBuf};

/// The smallest cookie of a name; 1 and 2 are those of `.` and `..`.
pub const COOKIE_FIRST: u64 = 16;

/// Cookies that are tried, from the hash on, for names whose hashes collide.
const PROBE: u64 = 64;

/// What is at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Top {
    /// Nothing: the upper holds a whiteout.
    Whiteout,
    /// An object other than a directory.
    Leaf {
        /// The layer it lies in.
        layer: LayerId,
        /// Its kind.
        kind: Kind,
    },
    /// A directory, and the layers that have one, topmost first.
    Dir(Box<[LayerId]>),
}

/// One name of a directory.
#[derive(Debug)]
pub struct Entry {
    name: NameBuf,
    /// What is there.
    pub top: Top,
    /// A layer below the upper shows the name: deleting it takes a whiteout.
    pub covers: bool,
    /// Number of the inode that was last seen here, 0 if none. Only a hint: whoever uses it asks
    /// the inode whether this is one of its names.
    hint: AtomicU64,
}

impl Entry {
    /// The name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Number of the inode last seen here.
    pub fn hint(&self) -> Option<u64> {
        match self.hint.load(Ordering::Relaxed) {
            0 => None,
            ino => Some(ino),
        }
    }

    /// Remembers the inode seen here.
    pub fn set_hint(&self, ino: u64) {
        // Relaxed: a hint, checked by its reader.
        self.hint.store(ino, Ordering::Relaxed);
    }
}

/// What a lookup needs of an entry, copied out from under the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What is there.
    pub top: Top,
    /// Deleting it takes a whiteout.
    pub covers: bool,
    /// The inode last seen here.
    pub hint: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Index {
    key: u64,
    entries: BTreeMap<u64, Entry>,
    visible: usize,
    /// Changes with every change, so that a lookup can tell that it was overtaken.
    version: u64,
    /// The upper directory holds objects with an origin marker.
    pub impure: bool,
}

impl Index {
    /// An index of no names; `key` must be the same for every life of the directory.
    pub fn empty(key: u64) -> Index {
        Index {
            key,
            entries: BTreeMap::new(),
            visible: 0,
            version: 0,
            impure: false,
        }
    }

    /// The index of a merged directory.
    pub fn new(key: u64, impure: bool, merged: HashMap<NameBuf, Merged>) -> Index {
        let mut index = Index {
            impure,
            ..Index::empty(key)
        };
        let mut names: Vec<_> = merged.into_iter().collect();
        // By name, so that the cookies of colliding names come out the same each time.
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, Merged { top, covers }) in names {
            index.set(&name, top, covers, 0);
        }
        index
    }

    fn hash(&self, name: &Name) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(self.key);
        hasher.write(name);
        // Below 2^63 with room for probing; never one of the small cookies.
        (hasher.finish() >> 2).max(COOKIE_FIRST)
    }

    fn cookie(&self, name: &Name) -> Option<u64> {
        let hash = self.hash(name);
        self.entries
            .range(hash..hash + PROBE)
            .find(|(_, e)| *e.name == *name)
            .map(|(c, _)| *c)
    }

    /// The entry of a name, also if it is a whiteout.
    pub fn get(&self, name: &Name) -> Option<&Entry> {
        self.entries.get(&self.cookie(name)?)
    }

    /// What is at a name, also if it is a whiteout.
    pub fn find(&self, name: &Name) -> Option<Found> {
        let entry = self.get(name)?;
        Some(Found {
            top: entry.top.clone(),
            covers: entry.covers,
            hint: entry.hint(),
        })
    }

    /// Whether a name is visible.
    pub fn shows(&self, name: &Name) -> bool {
        self.get(name).is_some_and(|e| e.top != Top::Whiteout)
    }

    /// Puts `top` at `name`, whatever was there.
    pub fn set(&mut self, name: &Name, top: Top, covers: bool, hint: u64) {
        self.version += 1;
        let cookie = self.cookie(name).unwrap_or_else(|| {
            let hash = self.hash(name);
            (hash..)
                .find(|c| !self.entries.contains_key(c))
                .unwrap_or(hash)
        });
        let shown = top != Top::Whiteout;
        let entry = Entry {
            name: name.into(),
            top,
            covers,
            hint: AtomicU64::new(hint),
        };
        let old = self.entries.insert(cookie, entry);
        let was_shown = old.is_some_and(|e| e.top != Top::Whiteout);
        self.visible = self.visible + usize::from(shown) - usize::from(was_shown);
    }

    /// Forgets `name` altogether.
    pub fn remove(&mut self, name: &Name) {
        self.version += 1;
        if let Some(old) = self.cookie(name).and_then(|c| self.entries.remove(&c)) {
            self.visible -= usize::from(old.top != Top::Whiteout);
        }
    }

    /// The visible names behind `cookie`, in order, each with its own cookie.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries
            .range(cookie.saturating_add(1)..)
            .filter(|(_, e)| e.top != Top::Whiteout)
            .map(|(c, e)| (*c, e))
    }

    /// How many names are visible.
    pub fn visible(&self) -> usize {
        self.visible
    }

    /// How many names there are, whiteouts included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no name at all, not even a whiteout.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A number that changes with every change.
    pub fn version(&self) -> u64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Top {
        Top::Leaf {
            layer: 0,
            kind: Kind::File,
        }
    }

    #[test]
    fn scan_returns_stable_names_once_whatever_changes() {
        let mut index = Index::empty(7);
        for i in 0..1000 {
            index.set(format!("stable{i}").as_bytes(), leaf(), false, 0);
        }
        let (mut cookie, mut seen, mut round) = (0, Vec::new(), 0);
        loop {
            let chunk: Vec<_> = index
                .after(cookie)
                .take(10)
                .map(|(c, e)| (c, e.name().to_vec()))
                .collect();
            let Some((last, _)) = chunk.last() else { break };
            cookie = *last;
            seen.extend(
                chunk
                    .into_iter()
                    .map(|(_, n)| n)
                    .filter(|n| n.starts_with(b"stable")),
            );
            index.set(format!("new{round}").as_bytes(), leaf(), false, 0);
            index.remove(format!("new{}", round / 2).as_bytes());
            round += 1;
        }
        assert_eq!(seen.len(), 1000);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn cookies_survive_another_order_of_creation() {
        let (mut a, mut b) = (Index::empty(1), Index::empty(1));
        for i in 0..100 {
            a.set(format!("{i}").as_bytes(), leaf(), false, 0);
            b.set(format!("{}", 99 - i).as_bytes(), leaf(), false, 0);
        }
        let list = |i: &Index| {
            i.after(0)
                .map(|(c, e)| (c, e.name().to_vec()))
                .collect::<Vec<_>>()
        };
        assert_eq!(list(&a), list(&b));
    }

    #[test]
    fn whiteouts_are_found_but_not_listed() {
        let mut index = Index::empty(1);
        index.set(b"a", Top::Whiteout, true, 0);
        assert_eq!(
            (index.visible(), index.len(), index.after(0).count()),
            (0, 1, 0)
        );
        index.set(b"a", leaf(), true, 5);
        assert_eq!((index.visible(), index.len()), (1, 1));
        assert_eq!(index.find(b"a").unwrap().hint, Some(5));
        index.remove(b"a");
        assert!(index.is_empty());
        assert_eq!(index.visible(), 0);
    }
}
