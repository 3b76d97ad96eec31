//! lookup and forget: names become inodes, inodes go.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use crate::attr::{Attr, Kind};
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{LayerId, Listing, Place, Stat, has_whiteout_xattr, scan};
use crate::marker::nlink::{Base, Nlink};
use crate::marker::origin::Origin;
use crate::marker::xattr::{Marker, Namespace};
use crate::merge::{DirIndex, Found, Index, Stack, Top, merge};
use crate::name::{NAME_MAX, Name, NameBuf};
use crate::tree::{Alias, Inode, Pin, RealId, UnionLink};

/// An object as a reply to the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its attributes; `ino` is the number to use for it.
    pub attr: Attr,
}

/// Whether a lookup counts for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// The kernel is told of the object and will forget it.
    Yes,
    /// Only the operation itself needs it; whoever asks reaps it.
    No,
}

/// What registering an object has found out.
struct Known {
    id: RealId,
    wanted: Option<u64>,
    lower_id: Option<RealId>,
    link: Option<UnionLink>,
    has_origin: bool,
    alias_layer: LayerId,
    stat: Stat,
}

impl Union {
    /// Finds `name` in directory `parent` and counts it.
    ///
    /// # Errors
    /// `ENOENT`, or the error of the layer that has the name.
    pub fn lookup(&self, parent: u64, name: &Name) -> Result<Entry> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        let dir = self.dir(parent)?;
        let (inode, stat) = self.child(&dir, name, Count::Yes)?;
        Ok(Entry {
            attr: self.view_attr(&inode, &stat),
        })
    }

    /// The kernel forgets `n` lookups of `ino`.
    pub fn forget(&self, ino: u64, n: u64) {
        let removed = self.table.forget(ino, n);
        self.release(removed);
    }

    /// Lets go of an inode that an operation looked up without counting.
    pub(super) fn reap(&self, inode: Arc<Inode>) {
        let removed = self.table.reap(inode);
        self.release(removed);
    }

    /// Lets go of everything that is held for inodes that are gone.
    fn release(&self, removed: Vec<Arc<Inode>>) {
        for inode in removed {
            if let Some(dir) = inode.dir() {
                self.indexes.remove(inode.ino);
                for layer in dir.stack().layers() {
                    self.dir_fds.remove((inode.ino, *layer));
                }
            } else if let Some(fd) = self.file_fds.remove(inode.ino) {
                drop(fd);
            }
            let pin = inode.state_mut().pin.take();
            match pin {
                Some(Pin::Fd(_)) => {
                    self.counters.pins.fetch_sub(1, Ordering::Relaxed);
                }
                Some(Pin::Parked(name)) => {
                    if let Some(upper) = &self.upper {
                        upper.discard(&name);
                    }
                }
                None => {}
            }
        }
    }

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
        let fd = match self.dir_fd_again(dir, layer) {
            Ok(fd) => fd,
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
        scan(fd.as_fd(), wh_files).while_doing(|| format!("list {} in layer {layer}", dir.path()))
    }

    /// The key of readdir cookies: the same for every mount of the same layers.
    pub(super) fn cookie_key(&self) -> u64 {
        self.layers.first().map_or(0, |l| l.dev)
    }

    /// Drops indexes above the budget whose directories nobody is changing.
    fn evict_indexes(&self) {
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

    /// The inode at `name` in `dir` and the attributes of its real object.
    pub(super) fn child(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        count: Count,
    ) -> Result<(Arc<Inode>, Stat)> {
        for _ in 0..4 {
            let index = self.index(dir)?;
            if let Some(found) = self.try_child(dir, name, count, &index)? {
                return Ok(found);
            }
        }
        // Overtaken again and again: keep the others out.
        let _change = dir.dir().ok_or(Errno::NOTDIR)?.change.lock();
        self.child_locked(dir, name, count)
    }

    /// The same for a caller that holds the directory's change lock.
    pub(super) fn child_locked(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        count: Count,
    ) -> Result<(Arc<Inode>, Stat)> {
        let index = self.index_locked(dir)?;
        for _ in 0..4 {
            // `None`: the name turned out to be a whiteout; the next look finds that.
            if let Some(found) = self.try_child(dir, name, count, &index)? {
                return Ok(found);
            }
        }
        Err(Errno::STALE.into())
    }

    /// One try; `None` if the directory was changed meanwhile.
    fn try_child(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        count: Count,
        index: &DirIndex,
    ) -> Result<Option<(Arc<Inode>, Stat)>> {
        let (found, version) = {
            let index = index.read();
            (index.find(name), index.version())
        };
        let Some(found) = found.filter(|f| f.top != Top::Whiteout) else {
            return Err(Errno::NOENT.into());
        };
        if let Some(inode) = found
            .hint
            .and_then(|ino| self.known_child(dir, name, ino, count))
        {
            return match self.stat(&inode) {
                Ok(stat) => Ok(Some((inode, stat))),
                Err(e) => {
                    self.uncount(inode, count);
                    Err(e.into())
                }
            };
        }
        let Some(known) = self.identify(dir, name, &found, index)? else {
            // A whiteout after all, or gone.
            let changed = index.read().version() != version;
            return if changed {
                Ok(None)
            } else {
                Err(Errno::NOENT.into())
            };
        };
        let stat = known.stat;
        let (inode, added) = self.register(dir, name, found.top, known, count);
        let index = index.read();
        match index.get(name) {
            Some(entry) if index.version() == version => {
                entry.set_hint(inode.ino);
                drop(index);
                if inode.kind == Kind::Dir {
                    // A directory has one name; another one was changed behind our back.
                    let mut state = inode.state_mut();
                    let others: Vec<Alias> =
                        state.names.extract_if(.., |a| !a.is(dir, name)).collect();
                    drop(state);
                    drop(others);
                }
                Ok(Some((inode, stat)))
            }
            _ => {
                drop(index);
                if added {
                    let mut state = inode.state_mut();
                    let at = state.names.iter().position(|a| a.is(dir, name));
                    let alias = at.map(|at| state.names.remove(at));
                    drop(state);
                    drop(alias);
                }
                self.uncount(inode, count);
                Ok(None)
            }
        }
    }

    fn uncount(&self, inode: Arc<Inode>, count: Count) {
        match count {
            Count::Yes => self.forget(inode.ino, 1),
            Count::No => self.reap(inode),
        }
    }

    /// The live inode with number `ino`, if `name` in `dir` is one of its names.
    fn known_child(&self, dir: &Inode, name: &Name, ino: u64, count: Count) -> Option<Arc<Inode>> {
        self.table
            .with(ino, |inode| {
                if !inode.has_name(dir, name) {
                    return None;
                }
                if count == Count::Yes {
                    self.table.count(inode);
                }
                Some(Arc::clone(inode))
            })
            .flatten()
    }

    /// Looks at the object that a directory has at `name`. `None`: there is nothing after all.
    fn identify(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        found: &Found,
        index: &DirIndex,
    ) -> Result<Option<Known>> {
        let layer = match &found.top {
            Top::Leaf { layer, .. } => *layer,
            Top::Dir(layers) => layers.first().copied().unwrap_or_default(),
            Top::Whiteout => return Ok(None),
        };
        let in_upper = Some(layer) == self.upper_id();
        let fd = self.dir_fd_again(dir, layer)?;
        let stat = match Stat::at(fd.as_fd(), name) {
            Err(Errno::NOENT) => return Ok(None),
            result => {
                result.while_doing(|| format!("stat {} in layer {layer}", name.escape_ascii()))?
            }
        };
        if stat.mount_root && stat.attr.kind != Kind::Dir && !self.layer(layer)?.private_mount {
            return Err(Errno::XDEV).while_doing(|| {
                format!(
                    "{} in layer {layer} is covered by a mount",
                    name.escape_ascii()
                )
            });
        }
        if stat.attr.kind == Kind::File
            && stat.attr.size == 0
            && has_whiteout_xattr(fd.as_fd(), name)
        {
            match in_upper {
                true => index.write().set(name, Top::Whiteout, found.covers, 0),
                false => index.write().remove(name),
            }
            return Ok(None);
        }
        let id = self.real_id(layer, &stat);
        let place = Place::At(fd, name.into());
        if self.table.find(id).is_none()
            && (stat.attr.kind == Kind::Dir) != matches!(found.top, Top::Dir(_))
        {
            return Err(Errno::STALE.into()); // the layer was changed under us
        }
        if in_upper {
            let origin = if index.read().impure {
                self.read_origin(&place)?
            } else {
                None
            };
            return Ok(Some(self.identify_upper(id, &stat, &place, origin)?));
        }
        if stat.attr.kind != Kind::Dir
            && stat.attr.nlink > 1
            && let Some(known) = self.identify_linked(id, &stat, &place)?
        {
            return Ok(Some(known));
        }
        let wanted = self.table.devices().wanted(id.dev, id.ino);
        let (lower_id, link, has_origin) = (None, None, false);
        Ok(Some(Known {
            id,
            wanted,
            lower_id,
            link,
            has_origin,
            alias_layer: layer,
            stat,
        }))
    }

    /// The origin marker of an upper object.
    pub(super) fn read_origin(&self, place: &Place) -> Result<Option<Origin>> {
        for namespace in Namespace::ALL {
            match place.get_xattr(namespace.name(Marker::Origin).as_bytes()) {
                Ok(Some(value)) => return Ok(Origin::decode(&value)),
                // An object that its owner may not read (and the daemon is no more than that).
                Ok(None) | Err(Errno::ACCESS) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(None)
    }

    /// An upper object: its number and link count come from the lower it was copied from.
    fn identify_upper(
        &self,
        id: RealId,
        stat: &Stat,
        place: &Place,
        origin: Option<Origin>,
    ) -> Result<Known> {
        let natural = self.table.devices().wanted(id.dev, id.ino);
        let remembered = self.numbers.lock().get(&id).copied();
        let wanted = remembered
            .or_else(|| self.origin_number(origin.as_ref()?))
            .or(natural);
        let mut link = None;
        if let (Some(origin), Some(upper)) = (&origin, &self.upper) {
            let name = origin.index_name().map(|n| NameBuf::from(n.into_bytes()));
            if let Some(name) = name.filter(|n| upper.links.find(n).is_some()) {
                let same = upper.links.find(&name).and_then(|p| p.stat().ok());
                if same.is_some_and(|s| s.attr.ino == stat.attr.ino) {
                    let nlink = self.read_nlink(place, stat, None)?;
                    link = Some(UnionLink {
                        nlink,
                        index_name: Some(name),
                    });
                }
            }
        }
        let alias_layer = id.layer;
        Ok(Known {
            id,
            wanted,
            lower_id: None,
            link,
            has_origin: origin.is_some(),
            alias_layer,
            stat: *stat,
        })
    }

    /// A name in a lower whose inode was copied up under another name: the upper inode.
    fn identify_linked(&self, id: RealId, stat: &Stat, place: &Place) -> Result<Option<Known>> {
        let Some(upper) = self.upper.as_ref().filter(|u| !u.links.is_empty()) else {
            return Ok(None);
        };
        let Some(origin) = self.origin_of(id.layer, place) else {
            return Ok(None);
        };
        let Some(name) = origin.index_name().map(|n| NameBuf::from(n.into_bytes())) else {
            return Ok(None);
        };
        let Some(indexed) = upper.links.find(&name) else {
            return Ok(None);
        };
        if !self.came_from(id.layer, &indexed)? {
            return Ok(None);
        }
        let real = indexed.stat().while_doing(|| "stat an indexed hard link")?;
        let nlink = self.read_nlink(&indexed, &real, Some(stat.attr.nlink))?;
        Ok(Some(Known {
            id: self.real_id(upper.layer, &real),
            wanted: self.table.devices().wanted(id.dev, id.ino),
            lower_id: Some(id),
            link: Some(UnionLink {
                nlink,
                index_name: Some(name),
            }),
            has_origin: true,
            alias_layer: id.layer,
            stat: real,
        }))
    }

    /// Whether an indexed hard link was copied up from `layer`; where nothing says so (the kernel
    /// wrote it), it was.
    fn came_from(&self, layer: LayerId, indexed: &Place) -> Result<bool> {
        for namespace in Namespace::ALL {
            if let Some(root) = indexed.get_xattr(namespace.name(Marker::Layer).as_bytes())? {
                return Ok(self.root_handle(layer).is_none_or(|own| own == root));
            }
        }
        Ok(true)
    }

    /// What names the root of a layer on disk.
    pub(super) fn root_handle(&self, layer: LayerId) -> Option<Vec<u8>> {
        let root = self.layer(layer).ok()?.root_place();
        self.origin_of(layer, &root)?.encode()
    }

    /// The link count of an indexed hard link in the view.
    fn read_nlink(&self, place: &Place, stat: &Stat, lower: Option<u32>) -> Result<u32> {
        let mut stored = None;
        for namespace in Namespace::ALL {
            let value = place.get_xattr(namespace.name(Marker::Nlink).as_bytes())?;
            stored = stored.or(value.and_then(|v| Nlink::decode(&v)));
        }
        let real = i64::from(stat.attr.nlink);
        let nlink = match stored {
            Some(Nlink {
                base: Base::Upper,
                difference,
            }) => real + difference,
            Some(Nlink {
                base: Base::Lower,
                difference,
            }) => lower.map_or(real - 1, i64::from) + difference,
            None => real - 1,
        };
        Ok(u32::try_from(nlink.max(1)).unwrap_or(u32::MAX))
    }

    /// What the origin marker of a copy of an object in a lower is.
    pub(super) fn origin_of(&self, layer: LayerId, place: &Place) -> Option<Origin> {
        let layer = self.layer(layer).ok()?;
        let handle = match place {
            Place::At(dir, name) => crate::sys::handle::handle_at(dir.as_fd(), name),
            Place::Fd(fd) => crate::sys::handle::handle_at(fd.as_fd(), b""),
        };
        let handle = handle.ok()?;
        let handle_type = u8::try_from(handle.kind).ok()?;
        Some(Origin {
            uuid: layer.uuid,
            handle_type,
            handle: handle.bytes,
        })
    }

    /// The number of the object that an origin marker names, if its layer is among ours.
    pub(super) fn origin_number(&self, origin: &Origin) -> Option<u64> {
        let layer = self.layers.iter().skip(1).find(|l| l.uuid == origin.uuid)?;
        let ino = origin.inode_number(layer.handle_format())?;
        self.table
            .devices()
            .wanted(self.table.devices().index(layer.dev), ino)
    }

    /// Makes (or finds) the inode of an object and gives it this name; whether it did not have the
    /// name before.
    fn register(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        top: Top,
        known: Known,
        count: Count,
    ) -> (Arc<Inode>, bool) {
        let Known {
            id,
            wanted,
            lower_id,
            link,
            has_origin,
            alias_layer,
            stat,
        } = known;
        let kind = stat.attr.kind;
        let stack = match top {
            Top::Dir(layers) => Some(Stack::candidates(layers)),
            _ => None,
        };
        let make = |ino| {
            let alias = Alias::new(dir, name, alias_layer);
            let inode = Inode::new(ino, kind, id, Some(alias), stack);
            {
                let mut state = inode.state_mut();
                (state.lower_id, state.link, state.has_origin) = (lower_id, link, has_origin);
            }
            inode
        };
        let mut added = true;
        let update = |inode: &Arc<Inode>, is_new: bool| {
            added = is_new || !inode.has_name(dir, name);
            if !is_new && added {
                let alias = Alias::new(dir, name, alias_layer);
                inode.state_mut().names.push(alias);
            }
            if lower_id.is_some() {
                inode.state_mut().lower_id = lower_id;
            }
            if count == Count::Yes {
                self.table.count(inode);
            }
        };
        let inode = self.table.find_or_insert(id, wanted, make, update);
        if let Some(lower) = lower_id {
            self.table.also(lower, &inode);
        }
        (inode, added)
    }

    /// Makes the inode of an object that was just created in the upper.
    pub(super) fn register_new(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        top: Top,
        stat: &Stat,
    ) -> Result<Arc<Inode>> {
        let layer = self.upper()?.layer;
        let id = self.real_id(layer, stat);
        let wanted = self.table.devices().wanted(id.dev, id.ino);
        let known = Known {
            id,
            wanted,
            lower_id: None,
            link: None,
            has_origin: false,
            alias_layer: layer,
            stat: *stat,
        };
        Ok(self.register(dir, name, top, known, Count::Yes).0)
    }
}
