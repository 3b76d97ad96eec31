//! Origin markers in a union: which one a copy gets, and where the one of an upper object leads.
//!
//! A handle is trusted as far as it can be checked: with the permission to open by handle, the object
//! it names is looked at, generation and all; without, the inode number in it is taken as it is.
//! Whatever comes of it is a wish for a number only: no two objects are joined by it.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::Union;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{Layer, LayerId, Place, Stat, Traced, dir_markers, same_filesystem};
use crate::marker::copied_from::CopiedFrom;
use crate::marker::nlink::{Base, Nlink};
use crate::marker::origin::Origin;
use crate::marker::xattr::Marker;
use crate::merge::Top;
use crate::name::{Name, NameBuf};
use crate::tree::{Inode, RealId};
use crate::upper::{LinkIndex, Origins, Upper};

/// A count of links that is not reached by removing names.
const MANY: i64 = 1 << 20;

/// What of a hard link in a lower is of use for its link count in the view.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lower<'a> {
    /// It was found, and has so many names.
    Found(u32),
    /// It is known by its marker.
    Marked(&'a Origin),
}

impl Union {
    /// The layers below the upper.
    fn lowers(&self) -> &[Layer] {
        let skip = usize::from(self.upper.is_some());
        self.layers.get(skip..).unwrap_or_default()
    }

    /// Whether a marker that names no filesystem can be meant for one only.
    fn has_one_lower_filesystem(&self) -> bool {
        let lowers = self.lowers();
        lowers.windows(2).all(|pair| match pair {
            [a, b] => same_filesystem(a, b),
            _ => true,
        })
    }

    /// The origin marker of an upper object.
    pub(super) fn read_origin(&self, place: &Place) -> Result<Option<Origin>> {
        match place.marker(Marker::Origin) {
            Ok(value) => Ok(value.and_then(|v| Origin::decode(&v))),
            // An object that its owner may not read (and the daemon is no more than that).
            Err(Errno::ACCESS) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The marker of a copy of an object in a lower.
    pub(super) fn origin_for(
        &self,
        upper: &Upper,
        layer: LayerId,
        place: &Place,
    ) -> Result<Option<Origin>> {
        let origin = self.origin_of(layer, place)?;
        Ok(origin.map(|origin| match upper.origins {
            Origins::Anonymous if self.has_one_lower_filesystem() => origin.anonymous(),
            Origins::Anonymous | Origins::Named => origin,
        }))
    }

    /// What names an object in a lower.
    pub(super) fn origin_of(&self, layer: LayerId, place: &Place) -> Result<Option<Origin>> {
        let origin = self.layer(layer)?.handles.origin_of(place);
        origin.while_doing(|| "ask for a file handle")
    }

    /// The layer whose filesystem an origin marker names, if it is one of ours and no other.
    pub(super) fn origin_layer(&self, origin: &Origin) -> Option<&Layer> {
        let follows = |l: &&Layer, uuid: &[u8; 16]| l.handles.may_follow(uuid, origin);
        let named = self.lowers().iter().find(|l| follows(l, &origin.uuid));
        let layer = named.or_else(|| {
            let meant = origin.is_anonymous() && self.has_one_lower_filesystem();
            self.lowers()
                .iter()
                .find(|l| meant && follows(l, &l.handles.uuid))
        })?;
        (!layer.handles.shares_uuid).then_some(layer)
    }

    /// The number that an upper object of kind `kind` takes over from the one that its origin marker
    /// names. As in the kernel, of a hard link only if it is `indexed`: else others may be named so too.
    pub(super) fn origin_number(&self, origin: &Origin, kind: Kind, indexed: bool) -> Option<u64> {
        let layer = self.origin_layer(origin)?;
        let devices = self.table.devices();
        match layer.handles.trace(origin) {
            Traced::Object(stat) => {
                let linked = kind != Kind::Dir && stat.attr.nlink > 1;
                // A file may stand for another kind.
                let stands_in = layer.owners_in.is_some() && stat.attr.kind == Kind::File;
                let same_kind = stat.attr.kind == kind || (stands_in && kind != Kind::Dir);
                let meant = same_kind && (indexed || !linked);
                devices
                    .wanted(devices.index(stat.dev), stat.attr.ino)
                    .filter(|_| meant)
            }
            Traced::Number(ino) => devices.wanted(devices.index(layer.dev), ino),
            Traced::Nowhere => None,
        }
    }

    /// Remembers the number of an upper object that was copied from `old`, if its marker (`None`: it has
    /// none) does not lead to that.
    pub(super) fn remember_number(
        &self,
        inode: &Inode,
        old: RealId,
        new: RealId,
        origin: Option<&Origin>,
    ) {
        let devices = self.table.devices();
        let leads = |origin: &Origin| {
            let layer = self.origin_layer(origin)?;
            let here =
                devices.index(layer.dev) == old.dev && layer.handles.leads_to(origin, old.ino);
            here.then(|| devices.wanted(old.dev, old.ino))?
        };
        if origin.and_then(leads) != Some(inode.ino) {
            self.numbers.lock().insert(new, inode.ino);
        }
    }

    /// The entry of the index for a hard link in a lower with this marker, if there is one.
    pub(super) fn index_entry(
        &self,
        links: &LinkIndex,
        origin: &Origin,
    ) -> Option<(NameBuf, Place)> {
        let find = |origin: &Origin| {
            let name = NameBuf::from(origin.index_name()?.into_bytes());
            let place = links.find(&name)?;
            Some((name, place))
        };
        find(origin).or_else(|| {
            let meant = !origin.is_anonymous() && self.has_one_lower_filesystem();
            find(&origin.anonymous()).filter(|_| meant)
        })
    }

    /// The name in the index of a lower inode that is to be copied up, unless it is taken: by the same
    /// inode seen in another layer, which stays another file.
    pub(super) fn free_index_name(
        &self,
        upper: &Upper,
        origin: Option<&Origin>,
    ) -> Option<NameBuf> {
        let name = NameBuf::from(origin?.index_name()?.into_bytes());
        (!upper.links.is_taken(&name)).then_some(name)
    }

    /// The markers of a copied-up inode with `nlink` names that has one link, in the index.
    pub(super) fn link_markers(&self, layer: LayerId, nlink: u32) -> Vec<(Marker, Vec<u8>)> {
        let difference = i64::from(nlink) - 1;
        let count = Nlink {
            base: Base::Upper,
            difference,
        };
        let mut markers = vec![(Marker::Nlink, count.encode().into_bytes())];
        if let Ok(layer) = self.layer(layer) {
            let layer = layer.handles.identity.clone();
            markers.push((Marker::Layer, CopiedFrom { nlink, layer }.encode()));
        }
        markers
    }

    /// Whether an indexed hard link was copied up from `layer`. Where nothing says so (the kernel wrote
    /// it), it was, unless another filesystem could be meant.
    pub(super) fn came_from(&self, layer: LayerId, indexed: &Place) -> Result<bool> {
        let handles = &self.layer(layer)?.handles;
        Ok(match copied_from(indexed)? {
            Some(from) => from.layer == handles.identity && !handles.has_twin,
            None => !handles.shares_uuid,
        })
    }

    /// The link count of an indexed hard link in the view.
    pub(super) fn read_nlink(&self, place: &Place, stat: &Stat, lower: Lower<'_>) -> Result<u32> {
        let stored = place.marker(Marker::Nlink)?.and_then(|v| Nlink::decode(&v));
        let real = i64::from(stat.attr.nlink);
        let nlink = match stored {
            Some(Nlink {
                base: Base::Upper,
                difference,
            }) => real + difference,
            Some(Nlink {
                base: Base::Lower,
                difference,
            }) => match self.lower_nlink(place, lower)? {
                Some(lower) => i64::from(lower) + difference,
                // Rather too many: what has names left must not lose its entry.
                None => MANY,
            },
            None => real - 1,
        };
        Ok(u32::try_from(nlink.max(1)).unwrap_or(u32::MAX))
    }

    /// How many names the lower inode has that an indexed hard link was copied from.
    fn lower_nlink(&self, indexed: &Place, lower: Lower<'_>) -> Result<Option<u32>> {
        let origin = match lower {
            Lower::Found(nlink) => return Ok(Some(nlink)),
            Lower::Marked(origin) => origin,
        };
        if let Some(from) = copied_from(indexed)? {
            return Ok(Some(from.nlink));
        }
        let traced = self.origin_layer(origin).map(|l| l.handles.trace(origin));
        Ok(match traced {
            Some(Traced::Object(stat)) => Some(stat.attr.nlink),
            _ => None,
        })
    }

    /// The number of an upper directory without an origin over a lower one at the same name: that of
    /// the lower one, as in the kernel, which will write that origin when it meets it.
    pub(super) fn merged_number(
        &self,
        dir: &Arc<Inode>,
        name: &Name,
        top: &Top,
        place: &Place,
    ) -> Result<Option<u64>> {
        let Top::Dir(layers) = top else {
            return Ok(None);
        };
        let (Some(upper), [top, below, ..]) = (&self.upper, &**layers) else {
            return Ok(None);
        };
        if *top != upper.layer {
            return Ok(None);
        }
        let fd = place.open(rustix::fs::OFlags::PATH);
        let fd = Arc::new(fd.while_doing(|| "open a directory of the upper")?);
        let wh_files = self.layer(*top)?.wh_files;
        let markers = match dir_markers(&fd, wh_files) {
            // A directory that its owner may not read (and the daemon is no more than that).
            Err(Errno::ACCESS) => return Ok(None),
            markers => markers.while_doing(|| "look for markers")?,
        };
        if markers.opaque || markers.redirect.is_some() {
            return Ok(None);
        }
        let lower = Stat::at(self.dir_fd_again(dir, *below)?.as_fd(), name)?;
        let devices = self.table.devices();
        Ok(devices.wanted(devices.index(lower.dev), lower.attr.ino))
    }
}

fn copied_from(indexed: &Place) -> Result<Option<CopiedFrom>> {
    let value = indexed.marker(Marker::Layer)?;
    Ok(value.and_then(|v| CopiedFrom::decode(&v)))
}
