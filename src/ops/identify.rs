//! What the object at a name is: which real object, which number, which hard link of a lower.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use super::lookup::Count;
use super::origin::Lower;
use super::protect::add_protection;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{LayerId, Place, Stat, has_whiteout_xattr};
use crate::marker::origin::Origin;
use crate::merge::{DirIndex, Found, Stack, Top};
use crate::name::Name;
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
        let Some(mut stat) = self.stat_in(layer, &fd, name)? else {
            return Ok(None);
        };
        if stat.attr.kind == Kind::File
            && stat.attr.size == 0
            && has_whiteout_xattr(fd.as_fd(), name).while_doing(|| "look for a whiteout")?
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
        place
            .override_stat(self.owners_in(layer), &mut stat.attr)
            .while_doing(|| "read the owner of an object")?;
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
            if origin.is_some() {
                add_protection(&mut stat, &place)?;
            }
            let mut known = self.identify_upper(id, &stat, &place, origin.as_ref())?;
            if origin.is_none() && known.wanted.is_none() {
                known.wanted = self.merged_number(dir, name, &found.top, &place)?;
            }
            known.wanted = known.wanted.or(self.table.devices().wanted(id.dev, id.ino));
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

    /// Attributes of what directory `dir` of a layer has at `name`, if anything.
    fn stat_in(&self, layer: LayerId, dir: &OwnedFd, name: &Name) -> Result<Option<Stat>> {
        let shown = || format!("{} in layer {layer}", name.escape_ascii());
        let mut stat = match Stat::at(dir.as_fd(), name) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.while_doing(|| format!("stat {}", shown()))?,
        };
        let layer = self.layer(layer)?;
        stat.protection = layer.protection(&stat);
        if stat.mount_root && stat.attr.kind != Kind::Dir && !layer.private_mount {
            return Err(Errno::XDEV).while_doing(|| format!("{} is covered by a mount", shown()));
        }
        Ok(Some(stat))
    }

    /// An upper object: its number (if it does not have its own) and link count come from the lower it
    /// was copied from.
    fn identify_upper(
        &self,
        id: RealId,
        stat: &Stat,
        place: &Place,
        origin: Option<&Origin>,
    ) -> Result<Known> {
        let mut link = None;
        if let (Some(origin), Some(upper)) = (origin, &self.upper)
            && let Some((name, indexed)) = self.index_entry(&upper.links, origin)
            && indexed.stat().is_ok_and(|s| s.attr.ino == stat.attr.ino)
        {
            link = Some(UnionLink {
                nlink: self.read_nlink(place, stat, Lower::Marked(origin))?,
                index_name: Some(name),
            });
        }
        let remembered = self.numbers.lock().get(&id).copied();
        let wanted =
            remembered.or_else(|| self.origin_number(origin?, stat.attr.kind, link.is_some()));
        Ok(Known {
            id,
            wanted,
            lower_id: None,
            link,
            has_origin: origin.is_some(),
            redirected: false,
            alias_layer: id.layer,
            data: self.data_at(place, stat),
            stat: *stat,
        })
    }

    /// A name in a lower whose inode was copied up under another name: the upper inode.
    fn identify_linked(&self, id: RealId, stat: &Stat, place: &Place) -> Result<Option<Known>> {
        let Some(upper) = self.upper.as_ref().filter(|u| !u.links.is_empty()) else {
            return Ok(None);
        };
        let Some(origin) = self.origin_of(id.layer, place)? else {
            return Ok(None);
        };
        let Some((name, indexed)) = self.index_entry(&upper.links, &origin) else {
            return Ok(None);
        };
        if !self.came_from(id.layer, &indexed)? {
            return Ok(None);
        }
        let mut real = indexed
            .stat_with(upper.owners.store)
            .while_doing(|| "stat an indexed hard link")?;
        add_protection(&mut real, &indexed)?;
        if real.attr.kind != stat.attr.kind {
            return Ok(None);
        }
        let nlink = self.read_nlink(&indexed, &real, Lower::Found(stat.attr.nlink))?;
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
            inode.protection.set(stat.protection);
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
