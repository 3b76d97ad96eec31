//! The indexes that are in memory, by number of their directory, bounded in the memory they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::RwLock;

use super::index::Index;

/// An index and when it was last used. Whoever changes or drops it holds the directory's change
/// lock; the lock in here is a leaf, held for no system call.
#[derive(Debug)]
pub struct DirIndex {
    index: RwLock<Index>,
    used: AtomicU64,
}

impl std::ops::Deref for DirIndex {
    type Target = RwLock<Index>;

    fn deref(&self) -> &RwLock<Index> {
        &self.index
    }
}

/// See the module.
#[derive(Debug)]
pub struct IndexCache {
    indexes: DashMap<u64, Arc<DirIndex>>,
    clock: AtomicU64,
    /// Bytes that all may take.
    limit: u64,
    /// Bytes that all take; each index keeps its own share of it up to date.
    total: Arc<AtomicU64>,
}

/// What the indexes amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSize {
    /// Directories.
    pub indexes: u64,
    /// Names in them.
    pub names: u64,
    /// Bytes of memory they take.
    pub bytes: u64,
    /// Bytes they may take.
    pub limit: u64,
}

impl IndexCache {
    /// A cache that means to take at most `limit` bytes.
    pub fn new(limit: u64) -> IndexCache {
        IndexCache {
            indexes: DashMap::new(),
            clock: AtomicU64::new(1),
            limit,
            total: Arc::default(),
        }
    }

    /// The index of directory `ino`, if it is in memory.
    pub fn get(&self, ino: u64) -> Option<Arc<DirIndex>> {
        let found = self.indexes.get(&ino)?;
        // Relaxed: only orders evictions.
        found.used.store(
            self.clock.fetch_add(1, Ordering::Relaxed),
            Ordering::Relaxed,
        );
        Some(Arc::clone(&found))
    }

    /// Remembers the index of directory `ino`.
    pub fn insert(&self, ino: u64, mut index: Index) -> Arc<DirIndex> {
        index.count_in(Arc::clone(&self.total));
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        let index = Arc::new(DirIndex {
            index: RwLock::new(index),
            used,
        });
        self.indexes.insert(ino, Arc::clone(&index));
        index
    }

    /// Drops the index of directory `ino`.
    pub fn remove(&self, ino: u64) {
        self.indexes.remove(&ino);
    }

    /// Directories whose indexes should go, least recently used first; empty while within the limit.
    /// The one that was used last is never among them, however large: it is in use.
    pub fn excess(&self) -> Vec<u64> {
        let taken = self.total.load(Ordering::Relaxed);
        if taken <= self.limit {
            return Vec::new();
        }
        let share =
            |e: &DirIndex, ino: u64| (e.used.load(Ordering::Relaxed), ino, e.read().bytes());
        let mut all: Vec<(u64, u64, u64)> =
            self.indexes.iter().map(|e| share(&e, *e.key())).collect();
        all.sort_unstable();
        all.pop();
        // More than need be, so that not every new index has to look for room.
        let target = self.limit - self.limit / 4;
        let mut left = taken;
        let too_much = |(_, ino, bytes)| {
            let goes = left > target;
            left = left.saturating_sub(bytes);
            goes.then_some(ino)
        };
        all.into_iter().map_while(too_much).collect()
    }

    /// How much there is.
    pub fn size(&self) -> CacheSize {
        let names = self.indexes.iter().map(|e| e.read().len() as u64);
        let (indexes, names) = names.fold((0, 0), |(dirs, sum), len| (dirs + 1, sum + len));
        CacheSize {
            indexes,
            names,
            bytes: self.total.load(Ordering::Relaxed),
            limit: self.limit,
        }
    }

    /// Gives back memory that was used by more indexes than there are now.
    pub fn shrink(&self) {
        self.indexes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Kind;
    use crate::merge::Top;

    fn index(names: u64) -> Index {
        let mut index = Index::empty(1);
        for n in 0..names {
            let (layer, kind) = (0, Kind::File);
            index.set(&n.to_be_bytes(), Top::Leaf { layer, kind }, false, 0);
        }
        index
    }

    #[test]
    fn least_recently_used_go_first() {
        let one = index(10).bytes();
        let cache = IndexCache::new(8 * one);
        for ino in 0..8 {
            cache.insert(ino, index(10));
        }
        assert!(cache.excess().is_empty());
        assert!(cache.get(0).is_some() && cache.get(2).is_some());
        cache.insert(8, index(10));
        // Down to three quarters.
        assert_eq!(cache.excess(), [1, 3, 4]);
        for ino in cache.excess() {
            cache.remove(ino);
        }
        let want = CacheSize {
            indexes: 6,
            names: 60,
            bytes: 6 * one,
            limit: 8 * one,
        };
        assert_eq!(cache.size(), want);
    }

    #[test]
    fn growth_counts_and_the_one_in_use_stays() {
        let cache = IndexCache::new(10_000);
        cache.insert(1, index(10));
        let grows = cache.insert(2, index(0));
        for n in 0..1000_u64 {
            grows.write().set(&n.to_be_bytes(), Top::Whiteout, true, 0);
        }
        assert!(cache.size().bytes > 10_000);
        assert_eq!(cache.excess(), [1]);
        cache.remove(1);
        assert!(cache.excess().is_empty());
        cache.remove(2);
        assert!(cache.size().bytes > 10_000, "somebody still uses it");
        drop(grows);
        assert_eq!(cache.size().bytes, 0);
    }
}
