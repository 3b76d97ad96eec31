//! The merged listing of a directory: from memory, or read from its layers.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{LayerId, Listing, scan};
use crate::merge::{DirIndex, Index, merge};
use crate::tree::Inode;

impl Union {
    /// The merged listing of `dir`, from memory or read now.
    pub(super) fn index(&self, dir: &Arc<Inode>) -> Result<Arc<DirIndex>> {
        if let Some(index) = self.indexes.get(dir.ino) {
            self.counters.index_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(index);
        }
        let index = {
            let _change = dir.dir().ok_or(Errno::NOTDIR)?.change.lock();
            self.index_locked(dir)?
        };
        self.evict_indexes();
        Ok(index)
    }

    /// The same for a caller that holds the directory's change lock.
    pub(super) fn index_locked(&self, dir: &Arc<Inode>) -> Result<Arc<DirIndex>> {
        if let Some(index) = self.indexes.get(dir.ino) {
            return Ok(index);
        }
        self.counters.index_misses.fetch_add(1, Ordering::Relaxed);
        let own = dir.dir().ok_or(Errno::NOTDIR)?;
        let stack = own.stack();
        let mut listings: Vec<(LayerId, Listing)> = Vec::with_capacity(stack.layers().len());
        for &layer in stack.layers() {
            let listing = self.list(dir, layer, stack.top())?;
            let (opaque, redirected) = (listing.opaque, listing.redirected);
            listings.push((layer, listing));
            if opaque {
                break;
            }
            if redirected {
                self.refuse_redirect(dir, layer)?;
            }
        }
        if !stack.is_settled() {
            own.set_stack(stack.settle(listings.len()));
        }
        let impure = listings
            .first()
            .is_some_and(|(layer, l)| Some(*layer) == self.upper_id() && l.impure);
        let index = Index::new(self.cookie_key(), impure, merge(listings, self.upper_id()));
        Ok(self.indexes.insert(dir.ino, index))
    }

    /// A directory whose lower part lies elsewhere must not be shown without it.
    fn refuse_redirect(&self, dir: &Arc<Inode>, layer: LayerId) -> Result<()> {
        if self.layers.len() == usize::from(layer) + 1 {
            return Ok(()); // nothing lies below the lowest layer
        }
        Err(Errno::PERM).while_doing(|| {
            format!(
                "{} was renamed by another overlay (overlay.redirect in layer {layer}), which is \
                 not supported",
                dir.path()
            )
        })
    }

    /// Reads the directory of one layer. What is missing below the top layer, or covered by a
    /// mount, counts as empty: layers may change under us, and mounts inside one are not part of it.
    fn list(&self, dir: &Arc<Inode>, layer: LayerId, top: LayerId) -> Result<Listing> {
        let wh_files = self.layer(layer)?.wh_files;
        let (fd, readable) = match self.dir_to_list(dir, layer) {
            Ok(found) => found,
            Err(Errno::XDEV) => {
                tracing::warn!(
                    "{} in layer {:?} is covered by a mount and shown empty",
                    dir.path(),
                    self.layer(layer)?.path
                );
                return Ok(Listing::default());
            }
            Err(Errno::NOENT | Errno::NOTDIR) if layer != top => return Ok(Listing::default()),
            Err(e) => return Err(e.into()),
        };
        scan(fd.as_fd(), readable, wh_files)
            .while_doing(|| format!("list {} in layer {layer}", dir.path()))
    }

    /// The key of readdir cookies: the same for every mount of the same layers.
    pub(super) fn cookie_key(&self) -> u64 {
        self.layers.first().map_or(0, |l| l.dev)
    }

    /// Drops indexes above the limit whose directories nobody is changing.
    pub(super) fn evict_indexes(&self) {
        for ino in self.indexes.excess() {
            let Some(inode) = self.table.get(ino) else {
                self.indexes.remove(ino);
                continue;
            };
            if let Some(_change) = inode.dir().and_then(|d| d.change.try_lock()) {
                self.indexes.remove(ino);
            }
        }
    }
}
