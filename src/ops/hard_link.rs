//! Hard links of a lower: when one is copied up, all its names follow, through `work/index`.
//!
//! As in the kernel: an inode is in the index from its first copy-up on. A name gets its own link in
//! the upper when it is about to be changed itself, so that real and union counts move together.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use super::copy_up::{Landing, set_alias_layer};
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::{Place, Stat};
use crate::marker::nlink::{Base, Nlink};
use crate::marker::xattr::Marker;
use crate::merge::Top;
use crate::name::Name;
use crate::tree::{Alias, Inode, UnionLink};
use crate::upper::{Staged, Upper};

impl Union {
    /// Publishes the copy of a hard link in the index, where all its names lead; then, as far as
    /// that is possible, also under the name through which it is being changed.
    pub(super) fn publish_indexed(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        mut staged: Staged<'_>,
        index_name: &Name,
        landing: &Landing,
    ) -> Result<()> {
        let dir = upper.links.dir().while_doing(|| "make the link index")?;
        staged
            .publish_new(&dir, index_name)
            .while_doing(|| "publish in the link index")?;
        self.land(inode, landing, |_| upper.links.note(index_name));
        best_effort(
            "link a copied-up hard link",
            self.link_up_somewhere(upper, inode),
        );
        Ok(())
    }

    fn link_up_somewhere(&self, upper: &Upper, inode: &Arc<Inode>) -> Result<()> {
        loop {
            let Some((parent, name)) = inode.parent() else {
                return Ok(());
            };
            self.upper_dir(&parent)?;
            let _change = parent.dir().ok_or(Errno::NOTDIR)?.change.lock();
            if inode.has_name(&parent, &name) {
                return self.link_up(upper, inode, &parent, &name);
            }
        }
    }

    /// Gives a hard link that was copied up its `name` in the upper directory of `parent` too,
    /// where it so far showed through from a lower. The caller holds the parent's change lock.
    pub(super) fn link_up(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        parent: &Arc<Inode>,
        name: &Name,
    ) -> Result<()> {
        let (alias, link) = {
            let state = inode.state();
            let alias = state
                .names
                .iter()
                .find(|a| a.is(parent, name))
                .map(|a| a.layer);
            (alias, state.rare().link.clone())
        };
        let (Some(layer), Some(link)) = (alias, link) else {
            return Ok(());
        };
        if layer == upper.layer {
            return Ok(());
        }
        let indexed = link.index_name.as_ref().and_then(|n| upper.links.find(n));
        let place = match indexed {
            Some(place) => place,
            None => self.place(inode)?,
        };
        // While the real count changes and that of the view does not, it is kept relative to the
        // lower's, which stands still: right before and after.
        let lower = Stat::at(self.dir_fd(parent, layer)?.as_fd(), name)?
            .attr
            .nlink;
        self.store_count(upper, &link, &place, Base::Lower, lower)?;
        let parent_fd = self.dir_fd(parent, upper.layer)?;
        self.publish_copy(upper, parent, &parent_fd, true, |dir| {
            upper.link(&place, dir, name, false)
        })?;
        let top = Top::Leaf {
            layer: upper.layer,
            kind: inode.kind,
        };
        self.note_in_upper(parent, name, top, inode.ino, || {
            set_alias_layer(&mut inode.state_mut(), parent, name, upper);
        });
        best_effort("store a link count", self.store_nlink(upper, inode, &place));
        Ok(())
    }

    /// Gives an indexed hard link its name in the upper before that name is changed.
    pub(super) fn link_up_if_linked(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        dir: &Arc<Inode>,
        name: &Name,
    ) -> Result<()> {
        if inode.state().rare().link.is_some() {
            self.link_up(upper, inode, dir, name)?;
        }
        Ok(())
    }

    /// Stores the link count of an indexed hard link relative to the real one, before both change
    /// together.
    pub(super) fn store_nlink(&self, upper: &Upper, inode: &Inode, place: &Place) -> Result<()> {
        let Some(link) = inode.state().rare().link.clone() else {
            return Ok(());
        };
        let real = place.stat().while_doing(|| "stat a hard link")?.attr.nlink;
        self.store_count(upper, &link, place, Base::Upper, real)
    }

    fn store_count(
        &self,
        upper: &Upper,
        link: &UnionLink,
        place: &Place,
        base: Base,
        real: u32,
    ) -> Result<()> {
        if link.index_name.is_none() {
            return Ok(());
        }
        let difference = i64::from(link.nlink) - i64::from(real);
        let nlink = Nlink { base, difference };
        upper.set_marker(place, Marker::Nlink, nlink.encode().as_bytes())?;
        Ok(())
    }

    /// A hard link of a lower is copied up before it loses a name: the count of the names that are
    /// left is kept with the copy.
    pub(super) fn prepare_hard_link(&self, inode: &Arc<Inode>) -> Result<()> {
        let linked = inode.linked.load(Ordering::Relaxed);
        if self.upper_id() == Some(inode.id().layer) || !linked {
            return Ok(());
        }
        self.copy_up(inode, super::copy_up::Want::Attributes)
    }

    /// Whether `name` in `dir` is a name of the object in the upper itself.
    pub(super) fn has_upper_alias(
        &self,
        upper: &Upper,
        inode: &Inode,
        dir: &Inode,
        name: &Name,
    ) -> bool {
        let is = |a: &Alias| a.is(dir, name) && a.layer == upper.layer;
        inode.state().names.iter().any(is)
    }
}
