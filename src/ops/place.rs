//! Finds where an object of the view really lies: directories by path, from the nearest open one.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use crate::attr::Attr;
use crate::error::Errno;
use crate::layer::{LayerId, Place, Stat};
use crate::name::NameBuf;
use crate::tree::{Inode, Pin, ROOT, RealId, State};

/// How often a walk is tried again when names changed under it.
const TRIES: u32 = 64;

impl Union {
    /// The directory `dir` in `layer`, open `O_PATH`. Which of the directories between the root and
    /// it have to be opened depends on what is cached.
    pub(super) fn dir_fd(&self, dir: &Arc<Inode>, layer: LayerId) -> Result<Arc<OwnedFd>, Errno> {
        let mut missing: Vec<(u64, NameBuf)> = Vec::new();
        let mut at = Arc::clone(dir);
        let mut fd = loop {
            if at.ino == ROOT {
                break Arc::clone(&self.layer(layer)?.root);
            }
            if let Some(fd) = self.dir_fds.get((at.ino, layer)) {
                break fd;
            }
            let state = at.state();
            let (parent, name) = match (&state.pin, state.names.first().or(state.past.as_ref())) {
                (Some(Pin::Fd(fd)), _) if Some(layer) == self.upper_id() => break Arc::clone(fd),
                (_, Some(alias)) => (Arc::clone(&alias.parent), alias.name.clone()),
                (_, None) => return Err(Errno::NOENT),
            };
            drop(state);
            missing.push((at.ino, name));
            at = parent;
        };
        for (ino, name) in missing.into_iter().rev() {
            fd = Arc::new(self.layer(layer)?.open_dir_at(fd.as_fd(), &name)?);
            self.dir_fds
                .insert((ino, layer), Arc::clone(&fd), |_| false);
        }
        Ok(fd)
    }

    /// Where the real object of `inode` lies now.
    pub(super) fn place(&self, inode: &Arc<Inode>) -> Result<Place, Errno> {
        if inode.ino == ROOT {
            return Ok(self.layer(inode.id().layer)?.root_place());
        }
        let state = inode.state();
        let layer = state.id.layer;
        match &state.pin {
            Some(Pin::Fd(fd)) => return Ok(Place::Fd(Arc::clone(fd))),
            Some(Pin::Parked(name)) => {
                let upper = self.upper.as_ref().ok_or(Errno::STALE)?;
                return Ok(Place::at(Arc::clone(&upper.work), name));
            }
            None => {}
        }
        if let Some(place) = self.indexed_place(&state) {
            return Ok(place);
        }
        let alias = state
            .names
            .iter()
            .chain(&state.past)
            .find(|a| a.layer == layer);
        let alias = alias.ok_or(Errno::STALE)?;
        let (parent, name) = (Arc::clone(&alias.parent), alias.name.clone());
        drop(state);
        Ok(Place::At(self.dir_fd(&parent, layer)?, name))
    }

    fn indexed_place(&self, state: &State) -> Option<Place> {
        let name = state.link.as_ref()?.index_name.as_ref()?;
        self.upper.as_ref()?.links.find(name)
    }

    /// Runs `f` on the place of `inode`; again, if names changed meanwhile so that it went astray.
    pub(super) fn with_place<T>(
        &self,
        inode: &Arc<Inode>,
        f: impl Fn(&Place) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut tries = 0;
        loop {
            let before = self.moves.load(Ordering::Acquire);
            let result = self.place(inode).and_then(|place| f(&place));
            let lost = matches!(result, Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE));
            // Acquire pairs with the Release in rename: an unchanged even number means that no
            // directory moved while the path was walked.
            let moved = before % 2 == 1 || self.moves.load(Ordering::Acquire) != before;
            tries += 1;
            if !lost || tries > TRIES || (!moved && tries > 2) {
                return result;
            }
            std::thread::yield_now();
        }
    }

    /// Attributes of the real object of `inode`; that it is still this object is checked.
    pub(super) fn stat(&self, inode: &Arc<Inode>) -> Result<Stat, Errno> {
        self.with_place(inode, |place| {
            let stat = place.stat()?;
            let id = inode.id();
            if inode.ino != ROOT && self.real_id(id.layer, &stat) != id {
                return Err(Errno::STALE);
            }
            Ok(stat)
        })
    }

    /// The identity of a real object.
    pub(super) fn real_id(&self, layer: LayerId, stat: &Stat) -> RealId {
        RealId {
            layer,
            dev: self.table.devices().index(stat.dev),
            ino: stat.attr.ino,
        }
    }

    /// The attributes of `inode` in the view, from those of its real object.
    pub(super) fn view_attr(&self, inode: &Inode, stat: &Stat) -> Attr {
        let mut attr = stat.attr;
        attr.ino = inode.ino;
        if attr.perm & 0o6000 != 0 {
            inode.setid.store(true, Ordering::Relaxed);
        }
        if let Some(dir) = inode.dir() {
            if inode.is_removed() {
                attr.nlink = 0;
            } else if dir.stack().is_merged() {
                // As in the kernel: the true number would take a listing of all layers.
                attr.nlink = 1;
            }
            return attr;
        }
        let state = inode.state();
        match (&state.link, &state.pin) {
            (Some(link), _) => attr.nlink = link.nlink,
            (None, Some(Pin::Parked(_))) => attr.nlink = attr.nlink.saturating_sub(1),
            (None, _) if state.names.is_empty() && Some(state.id.layer) != self.upper_id() => {
                attr.nlink = 0; // removed from the view; the lower still has it
            }
            (None, _) => {}
        }
        attr
    }
}
