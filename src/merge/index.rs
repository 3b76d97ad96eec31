//! The names of one directory of the view, complete: what is not in it does not exist.
//!
//! Ordered by cookie, a keyed hash of the name, so that a listing needs no snapshot: every name that
//! is there throughout a scan is returned exactly once whatever comes and goes meanwhile, and a
//! cookie means the same after the index was dropped and read again.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::listing::Merged;
use crate::attr::Kind;
use crate::layer::{LayerId, Witness};
use crate::name::{KeptName, Name, NameBuf};

/// The smallest cookie of a name; 1 and 2 are those of `.` and `..`.
pub const COOKIE_FIRST: u64 = 16;

/// Cookies that are tried, from the hash on, for names whose hashes collide.
const PROBE: u64 = 64;

/// Memory that an index without names takes, with its place in the cache.
const EMPTY_BYTES: u64 = 256;

/// Memory that an entry takes in the map: the nodes of a B-tree are between half full and full.
const ENTRY_BYTES: usize = (size_of::<u64>() + size_of::<Entry>()) * 5 / 4;

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
    name: KeptName,
    /// What is there.
    pub top: Top,
    /// A layer below the upper shows the name: deleting it takes a whiteout.
    pub covers: bool,
    /// Number of the inode that was last seen here, 0 if none. Only a hint: whoever uses it asks
    /// the inode whether this is one of its names.
    hint: AtomicU64,
}

impl Entry {
    fn new(name: &Name, top: Top, covers: bool, hint: u64) -> Entry {
        Entry {
            name: name.into(),
            top,
            covers,
            hint: AtomicU64::new(hint),
        }
    }

    /// Memory that it takes in an index.
    fn bytes(&self) -> u64 {
        let layers = match &self.top {
            Top::Dir(layers) => size_of_val(&**layers),
            Top::Leaf { .. } | Top::Whiteout => 0,
        };
        // An allocation costs what is asked for and about 16 more.
        let allocated = [layers, self.name.allocated()].map(|n| if n > 0 { n + 16 } else { 0 });
        (ENTRY_BYTES + allocated.iter().sum::<usize>()) as u64
    }

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

/// What the parts of a directory in lowers looked like when they were listed; none where nobody will
/// ask. `None` for a part that was not there.
pub type Witnesses = Arc<[(LayerId, Option<Witness>)]>;

/// See the module.
#[derive(Debug)]
pub struct Index {
    key: u64,
    entries: BTreeMap<u64, Entry>,
    visible: usize,
    bytes: u64,
    /// The sum of `bytes` of all indexes of a cache, once it is in one.
    total: Option<Arc<AtomicU64>>,
    /// Changes with every change, so that a lookup can tell that it was overtaken.
    version: u64,
    /// Where there are objects with an origin marker.
    pub impure: Impure,
    /// By which it can be told that a lower was changed since.
    pub witnesses: Witnesses,
}

/// Which parts of a directory hold objects that were copied up, or say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Impure {
    /// That in the upper.
    pub upper: bool,
    /// One in a lower, which was an upper once.
    pub lower: bool,
}

impl Index {
    /// An index of no names; `key` must be the same for every life of the directory.
    pub fn empty(key: u64) -> Index {
        Index {
            key,
            entries: BTreeMap::new(),
            visible: 0,
            bytes: EMPTY_BYTES,
            total: None,
            version: 0,
            impure: Impure::default(),
            witnesses: Witnesses::default(),
        }
    }

    /// The index of a merged directory.
    pub fn new(key: u64, impure: Impure, merged: HashMap<NameBuf, Merged>) -> Index {
        let mut index = Index::empty(key);
        index.impure = impure;
        let mut entries: Vec<(u64, Entry)> = merged
            .into_iter()
            .map(|(name, Merged { top, covers })| {
                (index.hash(&name), Entry::new(&name, top, covers, 0))
            })
            .collect();
        // By name too, so that the cookies of colliding names come out the same each time.
        entries.sort_unstable_by(|a, b| (a.0, &*a.1.name).cmp(&(b.0, &*b.1.name)));
        let mut free = 0;
        for (cookie, entry) in &mut entries {
            *cookie = free.max(*cookie);
            free = *cookie + 1;
            index.visible += usize::from(entry.top != Top::Whiteout);
            index.bytes += entry.bytes();
        }
        // In one go, for its nodes come out full.
        index.entries = entries.into_iter().collect();
        index
    }

    /// From now on its memory counts in `total`.
    pub(super) fn count_in(&mut self, total: Arc<AtomicU64>) {
        // Relaxed here and below: a sum for decisions about memory only.
        total.fetch_add(self.bytes, Ordering::Relaxed);
        self.total = Some(total);
    }

    /// Notes that an entry took the place of another one.
    fn replaced(&mut self, old: Option<&Entry>, new: Option<(u64, bool)>) {
        let (more, shown) = new.unwrap_or_default();
        let less = old.map_or(0, Entry::bytes);
        let was_shown = old.is_some_and(|e| e.top != Top::Whiteout);
        self.visible = self.visible + usize::from(shown) - usize::from(was_shown);
        self.bytes = self.bytes + more - less;
        if let Some(total) = &self.total {
            total.fetch_add(more, Ordering::Relaxed);
            total.fetch_sub(less, Ordering::Relaxed);
        }
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
        let entry = Entry::new(name, top, covers, hint);
        let new = (entry.bytes(), entry.top != Top::Whiteout);
        let old = self.entries.insert(cookie, entry);
        self.replaced(old.as_ref(), Some(new));
    }

    /// Forgets `name` altogether.
    pub fn remove(&mut self, name: &Name) {
        self.version += 1;
        let old = self.cookie(name).and_then(|c| self.entries.remove(&c));
        self.replaced(old.as_ref(), None);
    }

    /// The visible names behind `cookie`, in order, each with its own cookie.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries
            .range(cookie.saturating_add(1)..)
            .filter(|(_, e)| e.top != Top::Whiteout)
            .map(|(c, e)| (*c, e))
    }

    /// All names, what is there, and whether a layer below the upper shows them.
    pub fn all(&self) -> impl Iterator<Item = (&Name, &Top, bool)> {
        let entries = self.entries.values();
        entries.map(|entry| (entry.name(), &entry.top, entry.covers))
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

    /// About how much memory it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A number that changes with every change.
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.fetch_sub(self.bytes, Ordering::Relaxed);
        }
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
        index.remove(b"a");
        assert!(index.is_empty());
        assert_eq!(index.visible(), 0);
    }

    #[test]
    fn an_index_read_at_once_is_as_one_made_name_by_name() {
        let name = |i: u32| NameBuf::from(format!("name{i}").into_bytes());
        let top = |i: u32| match i % 3 {
            0 => Top::Whiteout,
            1 => leaf(),
            _ => Top::Dir(Box::new([1, 2])),
        };
        let covers = true;
        let merged = (0..1000).map(|i| {
            (
                name(i),
                Merged {
                    top: top(i),
                    covers,
                },
            )
        });
        let whole = Index::new(5, Impure::default(), merged.collect());
        let mut grown = Index::empty(5);
        for i in 0..1000 {
            grown.set(&name(i), top(i), covers, 0);
        }
        let list = |i: &Index| {
            let entries = i.entries.iter();
            entries
                .map(|(c, e)| (*c, e.name().to_vec(), e.top.clone(), e.covers))
                .collect::<Vec<_>>()
        };
        assert_eq!(list(&whole), list(&grown));
        assert_eq!(whole.visible(), 666);
        assert_eq!(
            (whole.visible(), whole.bytes()),
            (grown.visible(), grown.bytes())
        );
    }

    #[test]
    fn memory_is_counted() {
        assert_eq!(size_of::<Entry>(), 64);
        let total = Arc::new(AtomicU64::new(0));
        let sum = || total.load(Ordering::Relaxed);
        let mut index = Index::empty(1);
        index.set(b"before", leaf(), false, 0);
        index.count_in(Arc::clone(&total));
        let one = EMPTY_BYTES + ENTRY_BYTES as u64;
        assert_eq!((sum(), index.bytes()), (one, one));
        index.set(b"before", Top::Whiteout, true, 0);
        assert_eq!(sum(), one);
        index.set(&[b'x'; 100], Top::Dir(Box::new([1, 2, 3])), false, 0);
        assert_eq!(sum(), one + ENTRY_BYTES as u64 + 116 + 22);
        index.remove(b"before");
        index.remove(b"none");
        assert_eq!(sum(), one + 116 + 22);
        drop(index);
        assert_eq!(sum(), 0);
    }
}
