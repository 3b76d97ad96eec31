//! The indexes that are in memory, by number of their directory, bounded in the sum of their names.

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
    budget: u64,
    /// Names inserted since the sum was last taken.
    unchecked: AtomicU64,
}

impl IndexCache {
    /// A cache that means to hold at most `budget` names.
    pub fn new(budget: u64) -> IndexCache {
        IndexCache {
            indexes: DashMap::new(),
            clock: AtomicU64::new(1),
            budget,
            unchecked: AtomicU64::new(0),
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
    pub fn insert(&self, ino: u64, index: Index) -> Arc<DirIndex> {
        self.unchecked
            .fetch_add(index.len() as u64 + 1, Ordering::Relaxed);
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

    /// Directories whose indexes should go, least recently used first; empty while within budget.
    pub fn excess(&self) -> Vec<u64> {
        // The sum is worth taking only when much has come since the last time.
        if self.unchecked.load(Ordering::Relaxed) < self.budget / 4 {
            return Vec::new();
        }
        self.unchecked.store(0, Ordering::Relaxed);
        let mut all: Vec<(u64, u64, u64)> = self
            .indexes
            .iter()
            .map(|e| {
                (
                    e.used.load(Ordering::Relaxed),
                    *e.key(),
                    e.read().len() as u64 + 1,
                )
            })
            .collect();
        let mut sum: u64 = all.iter().map(|(_, _, names)| names).sum();
        all.sort_unstable();
        let target = self.budget - self.budget / 4;
        let mut victims = Vec::new();
        for (_, ino, names) in all {
            if sum <= target {
                break;
            }
            sum -= names;
            victims.push(ino);
        }
        victims
    }

    /// How many indexes there are and how many names they hold.
    pub fn size(&self) -> (u64, u64) {
        self.indexes.iter().fold((0, 0), |(dirs, names), e| {
            (dirs + 1, names + e.read().len() as u64)
        })
    }
}
