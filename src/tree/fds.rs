//! A bounded cache of open descriptors: second chance, least recently used first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How often a cache was asked and had an answer.
#[derive(Debug, Default)]
pub struct FdStats {
    /// Found.
    pub hits: AtomicU64,
    /// Had to be opened.
    pub misses: AtomicU64,
}

/// See the module. Values are shared, so that one may be evicted while it is in use.
#[derive(Debug)]
pub struct FdCache<K, V> {
    inner: Mutex<Inner<K, V>>,
    capacity: usize,
    /// Hits and misses.
    pub stats: FdStats,
}

#[derive(Debug)]
struct Inner<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Every key of `slots` once; keys that were removed since may linger.
    queue: VecDeque<K>,
}

#[derive(Debug)]
struct Slot<V> {
    value: Arc<V>,
    used: bool,
}

impl<K: Copy + Eq + Hash, V> FdCache<K, V> {
    /// A cache that means to hold at most `capacity` values.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner {
            slots: HashMap::new(),
            queue: VecDeque::new(),
        };
        FdCache {
            inner: Mutex::new(inner),
            capacity,
            stats: FdStats::default(),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: K) -> Option<Arc<V>> {
        let mut inner = self.inner.lock();
        let found = inner.slots.get_mut(&key).map(|slot| {
            slot.used = true;
            Arc::clone(&slot.value)
        });
        drop(inner);
        let counter = if found.is_some() {
            &self.stats.hits
        } else {
            &self.stats.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Remembers a value in place of any other of the key; returns what had to make room, for the
    /// caller to close. Values for which `keep` says so stay above the capacity, up to `most`.
    pub fn insert(
        &self,
        key: K,
        value: Arc<V>,
        keep: impl Fn(&V) -> bool,
        most: usize,
    ) -> Vec<(K, Arc<V>)> {
        let mut inner = self.inner.lock();
        let slot = Slot { value, used: false };
        let mut evicted = Vec::new();
        match inner.slots.insert(key, slot) {
            Some(old) => evicted.push((key, old.value)),
            None => inner.queue.push_back(key),
        }
        // A few each time: where most must be kept, a search for room would take all of them.
        let mut tries = 8;
        while inner.slots.len() > self.capacity && tries > 0 {
            tries -= 1;
            let inner_len = inner.slots.len();
            let Some(oldest) = inner.queue.pop_front() else {
                break;
            };
            let Some(slot) = inner.slots.get_mut(&oldest) else {
                continue;
            };
            let must_go = inner_len > most && oldest != key;
            if !must_go && (slot.used || oldest == key || keep(&slot.value)) {
                slot.used = false;
                inner.queue.push_back(oldest);
            } else if let Some(slot) = inner.slots.remove(&oldest) {
                evicted.push((oldest, slot.value));
            }
        }
        evicted
    }

    /// Forgets `key` and returns its value for the caller to close.
    pub fn remove(&self, key: K) -> Option<Arc<V>> {
        let mut inner = self.inner.lock();
        let old = inner.slots.remove(&key).map(|slot| slot.value);
        // Removed keys may not pile up in the queue.
        if inner.queue.len() > 2 * inner.slots.len() + 64 {
            let Inner { slots, queue } = &mut *inner;
            let mut seen = std::collections::HashSet::new();
            queue.retain(|k| slots.contains_key(k) && seen.insert(*k));
        }
        old
    }

    /// All values.
    pub fn values(&self) -> Vec<(K, Arc<V>)> {
        self.inner
            .lock()
            .slots
            .iter()
            .map(|(k, s)| (*k, Arc::clone(&s.value)))
            .collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.lock().slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_the_used_survive() {
        let cache = FdCache::new(3);
        for k in 0..3 {
            assert!(
                cache
                    .insert(k, Arc::new(k), |_| false, usize::MAX)
                    .is_empty()
            );
        }
        assert_eq!(cache.get(0).as_deref(), Some(&0));
        let evicted = cache.insert(3, Arc::new(3), |_| false, usize::MAX);
        assert_eq!(evicted.len(), 1);
        assert_ne!(*evicted[0].1, 0, "0 was used since");
        assert_eq!(cache.len(), 3);
        for k in 10..1000 {
            cache.insert(k, Arc::new(k), |_| false, usize::MAX);
            cache.remove(k);
        }
        assert!(cache.inner.lock().queue.len() < 200);
    }

    #[test]
    fn kept_values_stay_above_the_capacity() {
        let cache = FdCache::new(2);
        for k in 0..10 {
            assert!(
                cache
                    .insert(k, Arc::new(k), |_| true, usize::MAX)
                    .is_empty()
            );
        }
        assert_eq!(cache.len(), 10);
        // Once they may go, a few go with each insertion.
        for k in 10..20 {
            cache.insert(k, Arc::new(k), |_| false, usize::MAX);
        }
        assert_eq!(cache.len(), 2);
        for k in 20..40 {
            cache.insert(k, Arc::new(k), |_| true, 5);
        }
        assert_eq!(cache.len(), 5);
    }
}
