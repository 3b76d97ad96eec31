//! Finds where an object of the view really lies: directories by path, from the nearest open one.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Union;
use crate::attr::Attr;
use crate::error::Errno;
use crate::layer::{Layer, LayerId, Place, Readable, Stat};
use crate::marker::override_stat::Store;
use crate::merge::RealPath;
use crate::name::{Name, NameBuf};
use crate::tree::{Alias, Inode, Pin, ROOT, RealId, State};

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// The object was not found.
    IfLost,
    /// Something was renamed meanwhile.
    IfMoved,
}

/// What a directory is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To find names in it.
    Names,
    /// To list it too.
    List,
}

/// How a directory is reached from one that is open.
#[derive(Debug)]
enum Step {
    /// From its parent, by its name.
    Name(NameBuf),
    /// From the root of the layer.
    Path(RealPath),
}

/// Counts renames, so that whoever walks a path can tell that it may have gone astray.
#[derive(Debug, Default)]
pub(super) struct Moves {
    started: AtomicU64,
    finished: AtomicU64,
}

impl Moves {
    /// A rename starts.
    pub(super) fn start(&self) {
        // SeqCst here and below: a walk that saw the disk change must see the count as well.
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    /// A rename is done, memory too.
    pub(super) fn finish(&self) {
        self.finished.fetch_add(1, Ordering::SeqCst);
    }

    /// Before a walk; `None`: a rename is under way.
    fn begin(&self) -> Option<u64> {
        let finished = self.finished.load(Ordering::SeqCst);
        (self.started.load(Ordering::SeqCst) == finished).then_some(finished)
    }

    /// Whether anything was renamed since [`Self::begin`].
    fn since(&self, before: Option<u64>) -> bool {
        before.is_none_or(|before| self.started.load(Ordering::SeqCst) != before)
    }
}

/// How often a walk is tried again when names changed under it.
const TRIES: u32 = 64;

impl Union {
    /// The directory `dir` in `layer`, open `O_PATH`. Which of the directories between the root and
    /// it have to be opened depends on what is cached.
    pub(super) fn dir_fd(&self, dir: &Arc<Inode>, layer: LayerId) -> Result<Arc<OwnedFd>, Errno> {
        Ok(self.find_dir(dir, layer, Purpose::Names)?.0)
    }

    /// The same; whether its descriptor can be listed is the second value.
    fn find_dir(
        &self,
        dir: &Arc<Inode>,
        layer: LayerId,
        purpose: Purpose,
    ) -> Result<(Arc<OwnedFd>, Readable), Errno> {
        let mut missing: Vec<(Arc<Inode>, Step)> = Vec::new();
        let mut at = Arc::clone(dir);
        let mut fd = loop {
            if at.ino == ROOT {
                break Arc::clone(&self.layer(layer)?.root);
            }
            if let Some(fd) = self.dir_fds.get((at.ino, layer)) {
                break fd;
            }
            let state = at.state();
            let (parent, name) = match (
                &state.rare().pin,
                state.names.first().or(state.rare().past.as_ref()),
            ) {
                (Some(Pin::Fd(fd)), _) if Some(layer) == self.upper_id() => break Arc::clone(fd),
                (_, Some(alias)) => (Arc::clone(&alias.parent), NameBuf::from(&alias.name)),
                (_, None) => return Err(Errno::NOENT),
            };
            drop(state);
            // Behind the name: a directory that is renamed gets its ways before its new name, so
            // that either its old name is seen, which holds in a lower for ever, or its way.
            let way = at.dir().and_then(|d| d.stack().way(layer).cloned());
            if let Some(way) = way {
                missing.push((at, Step::Path(way)));
                break Arc::clone(&self.layer(layer)?.root);
            }
            missing.push((at, Step::Name(name)));
            at = parent;
        };
        let mut readable = Readable::No;
        let target = dir.ino;
        for (dir, step) in missing.into_iter().rev() {
            let layer_of = self.layer(layer)?;
            let purpose = match dir.ino == target {
                true => purpose,
                false => Purpose::Names,
            };
            let names = match &step {
                Step::Name(name) => std::slice::from_ref(name),
                Step::Path(path) => path,
            };
            for (behind, name) in names.iter().rev().enumerate().rev() {
                let purpose = if behind == 0 { purpose } else { Purpose::Names };
                let opened = open_dir(layer_of, &fd, name, purpose)?;
                (fd, readable) = (Arc::new(opened.0), opened.1);
            }
            // The name may have been given to another directory meanwhile.
            if dir.id().layer == layer {
                let stat = Stat::at(fd.as_fd(), b"")?;
                if self.real_id(layer, &stat) != dir.id() {
                    return Err(Errno::STALE);
                }
            }
            self.dir_fds
                .insert((dir.ino, layer), Arc::clone(&fd), |_| false, usize::MAX);
        }
        Ok((fd, readable))
    }

    /// The directory `dir` in `layer` to list it, which only one thread at a time does; again, if
    /// names changed meanwhile so that it went astray.
    pub(super) fn dir_to_list(
        &self,
        dir: &Arc<Inode>,
        layer: LayerId,
    ) -> Result<(Arc<OwnedFd>, Readable), Errno> {
        self.again(Again::IfLost, || self.find_dir(dir, layer, Purpose::List))
    }

    /// The same; again, if names changed meanwhile so that it went astray.
    pub(super) fn dir_fd_again(
        &self,
        dir: &Arc<Inode>,
        layer: LayerId,
    ) -> Result<Arc<OwnedFd>, Errno> {
        self.again(Again::IfLost, || self.dir_fd(dir, layer))
    }

    /// Where the real object of `inode` lies now.
    pub(super) fn place(&self, inode: &Arc<Inode>) -> Result<Place, Errno> {
        if inode.ino == ROOT {
            return Ok(self.layer(inode.id().layer)?.root_place());
        }
        let state = inode.state();
        let layer = state.id.layer;
        match &state.rare().pin {
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
        let aliases = state.names.iter().chain(&state.rare().past);
        let mut aliases = aliases.filter(|a| a.layer == layer);
        let parts = |alias: &Alias| (Arc::clone(&alias.parent), NameBuf::from(&alias.name));
        let (parent, name) = aliases.next().map(parts).ok_or(Errno::STALE)?;
        let others: Vec<_> = match self.may_change() && Some(layer) != self.upper_id() {
            true => aliases.map(parts).collect(),
            false => Vec::new(),
        };
        drop(state);
        let first = Place::At(self.dir_fd(&parent, layer)?, name);
        if others.is_empty() {
            return Ok(first);
        }
        // It may have been renamed behind our back, and lie at one of its names only.
        let id = inode.id();
        let is_it = |place: &Place| place.stat().is_ok_and(|s| self.real_id(layer, &s) == id);
        if is_it(&first) {
            return Ok(first);
        }
        let places = others
            .into_iter()
            .filter_map(|(parent, name)| Some(Place::At(self.dir_fd(&parent, layer).ok()?, name)));
        Ok(places.into_iter().find(is_it).unwrap_or(first))
    }

    fn indexed_place(&self, state: &State) -> Option<Place> {
        let name = state.rare().link.as_ref()?.index_name.as_ref()?;
        self.upper.as_ref()?.links.find(name)
    }

    /// Changes something at the place of `inode`; again, if names changed meanwhile so that it was
    /// not found. (While an object is changed, the kernel keeps its name as it is.)
    pub(super) fn with_place<T>(
        &self,
        inode: &Arc<Inode>,
        f: impl Fn(&Place) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.again(Again::IfLost, || {
            self.place(inode).and_then(|place| f(&place))
        })
    }

    /// Reads something at the place of `inode`; again, if anything was renamed meanwhile: it may
    /// have been read from another object.
    pub(super) fn read_place<T>(
        &self,
        inode: &Arc<Inode>,
        f: impl Fn(&Place) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.again(Again::IfMoved, || {
            self.place(inode).and_then(|place| f(&place))
        })
    }

    fn again<T>(&self, again: Again, f: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        let mut tries = 0;
        loop {
            let before = self.moves.begin();
            let result = f();
            let lost = matches!(result, Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE));
            let moved = self.moves.since(before);
            tries += 1;
            let enough = match again {
                _ if tries > TRIES => true,
                Again::IfLost => !lost || (!moved && tries > 2),
                Again::IfMoved => !moved && (!lost || tries > 2),
            };
            if enough {
                return result;
            }
            std::thread::yield_now();
        }
    }

    /// Attributes of the real object of `inode`; that it is still this object is checked.
    pub(super) fn stat(&self, inode: &Arc<Inode>) -> Result<Stat, Errno> {
        self.with_place(inode, |place| {
            let id = inode.id();
            // That it is the right object is checked: no need to reread.
            let stat = place.stat_with(self.owners_in(id.layer))?;
            let same = self.real_id(id.layer, &stat) == id && stat.attr.kind == inode.kind;
            if inode.ino != ROOT && !same {
                return Err(Errno::STALE);
            }
            Ok(stat)
        })
    }

    /// Where a layer keeps owners, if not on its objects.
    pub(super) fn owners_in(&self, layer: LayerId) -> Option<Store> {
        self.layer(layer).ok()?.owners_in
    }

    /// The identity of a real object.
    pub(super) fn real_id(&self, layer: LayerId, stat: &Stat) -> RealId {
        RealId {
            layer,
            dev: self.table.devices().index(stat.dev),
            ino: stat.attr.ino,
            born: match self.layer(layer).is_ok_and(Layer::tells_birth) {
                true => stat.born,
                false => 0,
            },
        }
    }

    /// The attributes of `inode` in the view, from those of its real object.
    pub(super) fn view_attr(&self, inode: &Arc<Inode>, stat: &Stat) -> Attr {
        let mut attr = stat.attr;
        attr.ino = inode.ino;
        attr.perm = self.shown_perm(inode, attr.perm);
        attr.uid = self.ids.users.shown(attr.uid);
        attr.gid = self.ids.groups.shown(attr.gid);
        if attr.perm & 0o6000 != 0 {
            inode.setid.store(true, Ordering::Relaxed);
        }
        if attr.nlink > 1 {
            inode.linked.store(true, Ordering::Relaxed);
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
        if let Some((atime, mtime)) = state.rare().held_times {
            (attr.atime, attr.mtime) = (atime, mtime);
        }
        match (&state.rare().link, &state.rare().pin) {
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

fn open_dir(
    layer: &Layer,
    dir: &OwnedFd,
    name: &Name,
    purpose: Purpose,
) -> Result<(OwnedFd, Readable), Errno> {
    match purpose {
        Purpose::List => layer.open_dir_to_list(dir.as_fd(), name),
        Purpose::Names => Ok((layer.open_dir_at(dir.as_fd(), name)?, Readable::No)),
    }
}
