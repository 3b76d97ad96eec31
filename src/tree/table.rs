//! All live inodes, by number and by the real object they stand for.
//!
//! An inode lives while the kernel knows it (its lookup count) or something needs it as a parent.
//! The kernel's FORGET carries only a number, so there is one count per number.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::inode::{Inode, RealId};
use super::number::{Devices, ROOT};
use crate::attr::Kind;

/// See the module. Its shard locks are leaves; where both maps are locked, `displaced` comes first.
#[derive(Debug)]
pub struct Table {
    by_number: DashMap<u64, Arc<Inode>>,
    /// Live objects whose number is not the one their real object wants: copied up, or displaced.
    displaced: DashMap<RealId, u64>,
    devices: Devices,
}

impl Table {
    /// A table with only `root` in it.
    pub fn new(root: Arc<Inode>, devices: Devices) -> Table {
        let by_number = DashMap::new();
        by_number.insert(ROOT, root);
        Table {
            by_number,
            displaced: DashMap::new(),
            devices,
        }
    }

    /// The devices the numbers are made of.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The inode with a number.
    pub fn get(&self, ino: u64) -> Option<Arc<Inode>> {
        self.by_number.get(&ino).map(|e| Arc::clone(&e))
    }

    /// The live inode of `id`, an object of kind `kind`, or a new one with number `wanted` (or
    /// another, if that is taken), made by `make`. `update` runs on whichever it is while it cannot be
    /// removed from the table; whether it is new is its second argument.
    pub fn find_or_insert(
        &self,
        (id, kind): (RealId, Kind),
        wanted: Option<u64>,
        make: impl FnOnce(u64) -> Inode,
        update: impl FnOnce(&Arc<Inode>, bool),
    ) -> Arc<Inode> {
        let natural = self.devices.wanted(id.dev, id.ino);
        // Locked for the whole insertion, so that one object becomes one inode.
        let displaced = self.displaced.entry(id);
        let known = match &displaced {
            Entry::Occupied(entry) => Some(*entry.get()),
            Entry::Vacant(_) => None,
        };
        let number = known.or(wanted).unwrap_or_else(|| self.devices.synthetic());
        // The number may be used again by an object of another kind, in a layer that changes.
        let is_it = |inode: &Inode| inode.kind == kind && inode.state().is(id);
        let natural_one = natural.filter(|n| known.is_none() && *n != number);
        if let Some(found) = natural_one
            .and_then(|n| self.by_number.get(&n))
            .filter(|i| is_it(i))
        {
            update(&found, false);
            return Arc::clone(&found);
        }
        // The place is kept locked until it is filled: another object may want the same number.
        let inode = match self.by_number.entry(number) {
            Entry::Occupied(entry) if is_it(entry.get()) => {
                update(entry.get(), false);
                return Arc::clone(entry.get());
            }
            Entry::Occupied(entry) => {
                drop(entry);
                let number = self.devices.synthetic();
                let inode = Arc::new(make(number));
                update(&inode, true);
                self.by_number.insert(number, Arc::clone(&inode));
                inode
            }
            Entry::Vacant(entry) => {
                let inode = Arc::new(make(number));
                update(&inode, true);
                entry.insert(Arc::clone(&inode));
                inode
            }
        };
        if natural != Some(inode.ino) {
            displaced.insert(inode.ino);
        }
        inode
    }

    /// `id`, which nobody has seen yet, will be that of `inode`.
    pub fn announce(&self, inode: &Inode, id: RealId) {
        if self.devices.wanted(id.dev, id.ino) != Some(inode.ino) {
            self.displaced.insert(id, inode.ino);
        }
    }

    /// `id` is that of `inode` no more.
    pub fn retire(&self, inode: &Inode, id: RealId) {
        self.displaced
            .remove_if(&id, |_, number| *number == inode.ino);
    }

    /// `lower` leads to `inode` too: it was copied up to it.
    pub fn also(&self, lower: RealId, inode: &Inode) {
        if self.devices.wanted(lower.dev, lower.ino) != Some(inode.ino) {
            self.displaced.insert(lower, inode.ino);
        }
    }

    /// Counts one more lookup of an inode that is known to be live.
    pub fn count(&self, inode: &Inode) {
        // Relaxed: removal reads the count under the shard lock, see `reap`.
        inode.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// The kernel forgets `n` lookups of number `ino`.
    pub fn forget(&self, ino: u64, n: u64) -> Vec<Arc<Inode>> {
        let Some(inode) = self.get(ino) else {
            return Vec::new();
        };
        let subtract = |count: u64| Some(count.saturating_sub(n));
        if let Err(count) =
            inode
                .lookups
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract)
        {
            tracing::error!(ino, count, n, "lookup count could not be lowered");
        }
        self.reap(inode)
    }

    /// Removes `inode`, and then its parents, if nothing needs them any more; returns the removed
    /// ones for the caller to release what it holds for them.
    pub fn reap(&self, inode: Arc<Inode>) -> Vec<Arc<Inode>> {
        let (mut candidates, mut removed) = (vec![inode], Vec::new());
        while let Some(inode) = candidates.pop() {
            let unused = |inode: &Inode| {
                inode.ino != ROOT
                    && inode.lookups.load(Ordering::Relaxed) == 0
                    && inode.kids.load(Ordering::Relaxed) == 0
            };
            if !unused(&inode) {
                continue;
            }
            // Lookups count under the shard's lock, so the second look is the one that holds.
            let same = |_: &u64, i: &Arc<Inode>| Arc::ptr_eq(i, &inode) && unused(i);
            if self.by_number.remove_if(&inode.ino, same).is_none() {
                continue;
            }
            let mut state = inode.state_mut();
            let ids = [Some(state.id), state.rare().lower_id];
            let names = std::mem::take(&mut state.names);
            let past = match state.rare().past {
                Some(_) => state.rare_mut().past.take(),
                None => None,
            };
            drop(state);
            for id in ids.into_iter().flatten() {
                // Not if the object has come back under its number meanwhile.
                let stale =
                    |_: &RealId, n: &u64| *n == inode.ino && !self.by_number.contains_key(n);
                self.displaced.remove_if(&id, stale);
            }
            candidates.extend(names.iter().chain(&past).map(|a| Arc::clone(&a.parent)));
            drop((names, past));
            removed.push(inode);
        }
        removed
    }

    /// Runs `f` on the inode with number `ino` while it cannot be removed.
    pub fn with<T>(&self, ino: u64, f: impl FnOnce(&Arc<Inode>) -> T) -> Option<T> {
        self.by_number.get(&ino).map(|inode| f(&inode))
    }

    /// Gives back memory that was used by more inodes than there are now.
    pub fn shrink(&self) {
        self.by_number.shrink_to_fit();
        self.displaced.shrink_to_fit();
    }

    /// All that are live, in no particular order.
    pub fn all(&self) -> Vec<Arc<Inode>> {
        self.by_number.iter().map(|e| Arc::clone(&e)).collect()
    }

    /// How many inodes are live.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Never: the root is always there.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}
