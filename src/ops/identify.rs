//! What the object at a name is: which real object, which number, which hard link of a lower.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use super::lookup::Count;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{LayerId, Place, Stat, has_whiteout_xattr};
use crate::marker::nlink::{Base, Nlink};
use crate::marker::origin::Origin;
use crate::marker::xattr::{Marker, Namespace};
use crate::merge::{DirIndex, Found, Stack, Top};
use crate::name::{Name, NameBuf};
use crate::tree::{Alias, DataAt, Inode, RealId, UnionLink};

/// What registering an object has found out.
pub(super) struct Known {
    /// What was found at the name; its inode may be that of a copy already.
    pub(super) id: RealId,
    wanted: Option<u64>,
    lower_id: Option<RealId>,
    link: Option<UnionLink>,
    has_origin: bool,
    /// A directory with a redirect, which nothing else tells that it is merged.
    redirected: bool,
    alias_layer: LayerId,
    data: DataAt,
    /// Attributes of the real object.
    pub(super) stat: Stat,
}

impl Union {
    /// Looks at the object that a directory has at `name`, found in its index at `version`. `None`:
    /// there is nothing after all, or the index has changed.
    pub(super) fn identify(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        found: &Found,
        (index, version): (&DirIndex, u64),
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
            let mut index = index.write();
            // If it has changed meanwhile, the whiteout may be of another time.
            match in_upper {
                _ if index.version() != version => {}
                true => index.set(name, Top::Whiteout, found.covers, 0),
                false => index.remove(name),
            }
            return Ok(None);
        }
        let id = self.real_id(layer, &stat);
        let place = Place::At(fd, name.into());
        if (stat.attr.kind == Kind::Dir) != matches!(found.top, Top::Dir(_)) {
            if index.read().version() != version {
                return Ok(None);
            }
            return Err(Errno::STALE.into()); // the layer was changed under us
        }
        let impure = index.read().impure;
        if in_upper {
            let origin = if impure.upper {
                self.read_origin(&place)?
            } else {
                None
            };
            let redirected = self.is_redirected(&found.top, origin.is_some(), &place)?;
            let lower = || self.lower_count(dir, name, id.layer, origin.as_ref());
            let known = self.identify_upper(id, &stat, &place, origin.as_ref(), lower)?;
            return Ok(Some(Known {
                redirected,
                ..known
            }));
        }
        if stat.attr.kind != Kind::Dir
            && stat.attr.nlink > 1
            && let Some(known) = self.identify_linked(id, &stat, &place)?
        {
            return Ok(Some(known));
        }
        let wanted = self.table.devices().wanted(id.dev, id.ino);
        let (lower_id, link, has_origin) = (None, None, false);
        let redirected = self.is_redirected(&found.top, impure.lower, &place)?;
        Ok(Some(Known {
            id,
            wanted,
            lower_id,
            link,
            has_origin,
            redirected,
            alias_layer: layer,
            data: self.data_at(&place, &stat),
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
        origin: Option<&Origin>,
        lower: impl FnOnce() -> Option<u32>,
    ) -> Result<Known> {
        let natural = self.table.devices().wanted(id.dev, id.ino);
        let remembered = self.numbers.lock().get(&id).copied();
        let wanted = remembered
            .or_else(|| self.origin_number(origin?))
            .or(natural);
        let mut link = None;
        if let (Some(origin), Some(upper)) = (origin, &self.upper) {
            let name = origin.index_name().map(|n| NameBuf::from(n.into_bytes()));
            if let Some(name) = name.filter(|n| upper.links.find(n).is_some()) {
                let same = upper.links.find(&name).and_then(|p| p.stat().ok());
                if same.is_some_and(|s| s.attr.ino == stat.attr.ino) {
                    let nlink = self.read_nlink(place, stat, lower)?;
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
            redirected: false,
            alias_layer,
            data: self.data_at(place, stat),
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
        let nlink = self.read_nlink(&indexed, &real, || Some(stat.attr.nlink))?;
        Ok(Some(Known {
            id: self.real_id(upper.layer, &real),
            wanted: self.table.devices().wanted(id.dev, id.ino),
            lower_id: Some(id),
            link: Some(UnionLink {
                nlink,
                index_name: Some(name),
            }),
            has_origin: true,
            redirected: false,
            alias_layer: id.layer,
            data: self.data_at(&indexed, &real),
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
    fn read_nlink(
        &self,
        place: &Place,
        stat: &Stat,
        lower: impl FnOnce() -> Option<u32>,
    ) -> Result<u32> {
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
            }) => lower().map_or(real - 1, i64::from) + difference,
            None => real - 1,
        };
        Ok(u32::try_from(nlink.max(1)).unwrap_or(u32::MAX))
    }

    /// The link count of the lower object that was copied up from under this very name. Counts are
    /// relative to it for a moment while a name gets its link in the upper: a crash may leave that.
    fn lower_count(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        upper: LayerId,
        origin: Option<&Origin>,
    ) -> Option<u32> {
        let stack = dir.dir()?.stack();
        let mut lowers = stack.layers().iter().filter(|layer| **layer != upper);
        lowers.find_map(|&layer| {
            let fd = self.dir_fd(dir, layer).ok()?;
            let stat = Stat::at(fd.as_fd(), name).ok()?;
            let found = self.origin_of(layer, &Place::At(fd, name.into()));
            (found.is_some() && found.as_ref() == origin).then_some(stat.attr.nlink)
        })
    }

    /// What the origin marker of a copy of an object in a lower is.
    pub(super) fn origin_of(&self, layer: LayerId, place: &Place) -> Option<Origin> {
        let layer = self.layer(layer).ok()?;
        let handle = match place {
            Place::At(dir, name) => crate::sys::handle::handle_at(dir.as_fd(), name),
            Place::Fd(fd) | Place::File(fd) => crate::sys::handle::handle_at(fd.as_fd(), b""),
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
    pub(super) fn register(
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
            redirected,
            alias_layer,
            data,
            stat,
        } = known;
        let kind = stat.attr.kind;
        let candidates = match &top {
            Top::Dir(layers) if !redirected && self.may_change() => Some(layers.clone()),
            _ => None,
        };
        let stack = match top {
            Top::Dir(layers) if redirected => Some(Stack::candidates(layers).redirected()),
            Top::Dir(layers) => Some(Stack::candidates(layers)),
            _ => None,
        };
        let make = |ino| {
            let alias = Alias::new(dir, name, alias_layer);
            let inode = Inode::new(ino, kind, id, Some(alias), stack);
            inode.linked.store(stat.attr.nlink > 1, Ordering::Relaxed);
            {
                let mut state = inode.state_mut();
                (state.has_origin, state.data) = (has_origin, data);
                if lower_id.is_some() || link.is_some() {
                    let rare = state.rare_mut();
                    (rare.lower_id, rare.link) = (lower_id, link);
                }
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
                inode.state_mut().rare_mut().lower_id = lower_id;
            }
            self.note_lookup(inode, count);
        };
        let inode = self.table.find_or_insert((id, kind), wanted, make, update);
        if let Some(lower) = lower_id {
            self.table.also(lower, &inode);
        }
        if let Some(layers) = candidates {
            self.restack(&inode, &layers);
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
            redirected: false,
            alias_layer: layer,
            data: DataAt::Here,
            stat: *stat,
        };
        Ok(self.register(dir, name, top, known, Count::Yes).0)
    }
}
