//! The merged listing of a directory: from memory, or read from its layers.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use super::redirect::Trail;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{LayerId, Listing, Look, MetRedirect, Readable, look, scan};
use crate::marker::whiteout::WhFiles;
use crate::merge::{DirIndex, Impure, Index, Stack, merge};
use crate::tree::{Dir, Inode, ROOT};

impl Union {
    /// The merged listing of `dir`, from memory or read now.
    pub(super) fn index(&self, dir: &Arc<Inode>) -> Result<Arc<DirIndex>> {
        let known = self.indexes.get(dir.ino);
        if let Some(index) = known.filter(|index| self.is_current(dir, index)) {
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
            if self.is_current(dir, &index) {
                return Ok(index);
            }
            self.drop_listing(dir);
        }
        self.counters.index_misses.fetch_add(1, Ordering::Relaxed);
        let own = dir.dir().ok_or(Errno::NOTDIR)?;
        // Before they are listed: what is changed meanwhile is to be found out.
        let mut witnesses = self.watch(dir, own.stack().layers());
        let listings = self.list_parts(dir, own)?;
        if own.stack().is_redirected() {
            witnesses = self.watch(dir, own.stack().layers());
        }
        let mut impure = Impure::default();
        for (layer, _) in listings.iter().filter(|(_, l)| l.impure) {
            match Some(*layer) == self.upper_id() {
                true => impure.upper = true,
                false => impure.lower = true,
            }
        }
        let mut index = Index::new(self.cookie_key(), impure, merge(listings, self.upper_id()));
        index.witnesses = witnesses;
        Ok(self.indexes.insert(dir.ino, index))
    }

    /// Lists all parts of a directory. If it was not known what they are, it is afterwards.
    fn list_parts(&self, dir: &Arc<Inode>, own: &Dir) -> Result<Vec<(LayerId, Listing)>> {
        let stack = own.stack();
        let mut listings: Vec<(LayerId, Listing)> = Vec::with_capacity(stack.layers().len());
        let mut met = None;
        for &layer in stack.layers() {
            let mut listing = self.list(dir, layer, stack.top())?;
            let opaque = listing.opaque;
            met = self.take_redirect(dir, layer, &mut listing);
            if met.is_some() && self.is_cut_off(dir, layer)? {
                met = None;
            }
            listings.push((layer, listing));
            if opaque || (met.is_some() && !stack.is_settled()) {
                break;
            }
        }
        if !stack.is_settled() {
            let mut stack = stack.settle(listings.len());
            if let Some(met) = met {
                stack = self.list_redirected(dir, stack, met, &mut listings)?;
            }
            own.set_stack(stack);
        }
        Ok(listings)
    }

    /// Whether a `.wh.` file beside a directory hides what lies below it, wherever that is.
    fn is_cut_off(&self, dir: &Arc<Inode>, layer: LayerId) -> Result<bool> {
        let at = self.layer(layer)?;
        if at.wh_files != WhFiles::Meant {
            return Ok(false);
        }
        // Where it really lies: by a redirect, or since it was renamed, not at its name.
        let path = self.real_path(dir, layer)?;
        let Some((name, parents)) = path.split_last() else {
            return Ok(false);
        };
        let mut beside = Arc::clone(&at.root);
        for parent in parents {
            let next = at.open_dir_at(beside.as_fd(), parent);
            beside = Arc::new(next.while_doing(|| "open a directory of a layer")?);
        }
        let found = look(beside.as_fd(), name, at.wh_files);
        let found = found.while_doing(|| "look for a .wh. file")?;
        Ok(matches!(found, Look::Object { hides: true, .. }))
    }

    /// The redirect of one part of a directory, if it means anything. A root has none, as in the
    /// kernel.
    fn take_redirect(
        &self,
        dir: &Inode,
        layer: LayerId,
        listing: &mut Listing,
    ) -> Option<MetRedirect> {
        let met = listing.redirect.take();
        met.filter(|_| !listing.opaque && dir.ino != ROOT && self.has_layer_below(layer))
    }

    /// Lists the parts of a directory below the redirect `met` of the last one in `stack`.
    fn list_redirected(
        &self,
        dir: &Arc<Inode>,
        mut stack: Stack,
        met: MetRedirect,
        listings: &mut Vec<(LayerId, Listing)>,
    ) -> Result<Stack> {
        let mut layer = stack.layers().last().copied().unwrap_or_default();
        let (parent, _) = dir.last_name().ok_or(Errno::STALE)?;
        let mut trail = Trail::new(parent, self.follow(met, layer, || dir.path())?);
        while let Some(hit) = self.next_part(&mut trail, layer)? {
            if hit.kind != Kind::Dir {
                break;
            }
            layer = hit.layer;
            let found = self
                .layer(layer)?
                .open_dir_to_list(hit.dir.as_fd(), &hit.name);
            let found = found.map(|(fd, readable)| (Arc::new(fd), readable));
            let mut listing = self.list_found(dir, layer, found)?;
            stack = stack.with_part(layer, hit.path);
            let opaque = listing.opaque;
            if let Some(met) = self.take_redirect(dir, layer, &mut listing) {
                trail.turn(self.follow(met, layer, || dir.path())?);
            }
            listings.push((layer, listing));
            if opaque {
                break;
            }
        }
        Ok(stack)
    }

    /// Reads the directory of one layer. What is missing below the top layer, or covered by a
    /// mount, counts as empty: layers may change under us, and mounts inside one are not part of it.
    fn list(&self, dir: &Arc<Inode>, layer: LayerId, top: LayerId) -> Result<Listing> {
        match self.dir_to_list(dir, layer) {
            Err(Errno::NOENT | Errno::NOTDIR) if layer != top => Ok(Listing::default()),
            found => self.list_found(dir, layer, found),
        }
    }

    /// The same of a part that was just opened.
    fn list_found(
        &self,
        dir: &Arc<Inode>,
        layer: LayerId,
        found: Result<(Arc<OwnedFd>, Readable), Errno>,
    ) -> Result<Listing> {
        let wh_files = self.layer(layer)?.wh_files;
        let (fd, readable) = match found {
            Ok(found) => found,
            Err(Errno::XDEV) => {
                tracing::warn!(
                    "{} in layer {:?} is covered by a mount and shown empty",
                    dir.path(),
                    self.layer(layer)?.path
                );
                return Ok(Listing::default());
            }
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
