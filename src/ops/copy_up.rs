//! Copy-up: a change is coming, so the object moves to the upper, its parents first.
//!
//! Data is copied without any directory's lock; only the rename that publishes it holds that of the
//! parent. Until then everybody sees the lower object, from then on the copy: both say the same.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use super::file::FileFd;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::{Place, Stat};
use crate::marker::nlink::{Base, Nlink};
use crate::marker::origin::Origin;
use crate::marker::xattr::Marker;
use crate::merge::Top;
use crate::name::{Name, NameBuf};
use crate::tree::{Inode, Pin, UnionLink};
use crate::upper::{Copied, SetTime, Source, Staged, Upper, set_times};

/// All of the data.
pub(super) const ALL: u64 = u64::MAX;

impl Union {
    /// Sees to it that `inode`, of whatever kind, lies in the upper.
    pub(super) fn make_upper(&self, inode: &Arc<Inode>) -> Result<()> {
        match inode.kind {
            Kind::Dir => self.upper_dir(inode).map(drop),
            _ => self.copy_up(inode, ALL),
        }
    }

    /// The directory `dir` in the upper, copied up now if it is not there yet.
    pub(super) fn upper_dir(&self, dir: &Arc<Inode>) -> Result<Arc<OwnedFd>> {
        let upper = self.upper()?;
        let is_upper = |dir: &Inode| dir.dir().is_some_and(|d| d.stack().top() == upper.layer);
        let mut missing = Vec::new();
        let mut at = Arc::clone(dir);
        while !is_upper(&at) {
            let Some((parent, name)) = at.parent() else {
                return Err(Errno::NOENT.into());
            };
            missing.push((Arc::clone(&at), name));
            at = parent;
        }
        for (dir, _) in missing.into_iter().rev() {
            self.copy_up_dir(upper, &dir)?;
        }
        Ok(self.dir_fd(dir, upper.layer)?)
    }

    /// Copies up a directory whose parent is in the upper.
    fn copy_up_dir(&self, upper: &Upper, dir: &Arc<Inode>) -> Result<()> {
        let Some((parent, name)) = dir.parent() else {
            return Err(Errno::NOENT.into());
        };
        let own = dir.dir().ok_or(Errno::NOTDIR)?;
        let _parent_change = parent.dir().ok_or(Errno::NOTDIR)?.change.lock();
        let _change = own.change.lock();
        if own.stack().top() == upper.layer {
            return Ok(());
        }
        if !dir.has_name(&parent, &name) {
            return Err(Errno::NOENT.into());
        }
        let parent_fd = self.dir_fd(&parent, upper.layer)?;
        let place = self.place(dir)?;
        let stat = place.stat().while_doing(|| "stat a lower directory")?;
        let old = dir.id();
        let origin = self.origin_of(old.layer, &place);
        let Copied {
            staged, has_origin, ..
        } = self.stage(upper, &place, &stat, 0, origin.as_ref())?;
        let copy = staged.place().stat().while_doing(|| "stat a copy")?;
        self.publish_copy(upper, &parent, &parent_fd, has_origin, |dir_fd| {
            staged.publish_new(dir_fd, &name)
        })?;
        let new = self.real_id(upper.layer, &copy);
        {
            let mut state = dir.state_mut();
            state.id = new;
            state.has_origin = has_origin;
            for alias in &mut state.names {
                alias.layer = upper.layer;
            }
        }
        self.table.moved(dir, old, new, false);
        self.remember_number(new, dir.ino, origin.as_ref().filter(|_| has_origin));
        let stack = own.stack().with_upper(upper.layer);
        let top = Top::Dir(stack.layers().into());
        own.set_stack(stack);
        self.note_in_upper(&parent, &name, top, dir.ino);
        self.counters.copy_ups.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn stage<'a>(
        &self,
        upper: &'a Upper,
        place: &Place,
        stat: &Stat,
        keep: u64,
        origin: Option<&Origin>,
    ) -> Result<Copied<'a>> {
        let origin = origin.and_then(Origin::encode);
        let source = Source {
            place,
            attr: &stat.attr,
            keep,
            origin: origin.as_deref(),
        };
        upper.stage_copy(&source)
    }

    /// Publishes a copy into the upper directory of `parent`, whose times do not change by that:
    /// in the view nothing happens. The caller holds the parent's change lock.
    fn publish_copy(
        &self,
        upper: &Upper,
        parent: &Inode,
        parent_fd: &Arc<OwnedFd>,
        has_origin: bool,
        publish: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<()> {
        let place = Place::Fd(Arc::clone(parent_fd));
        if has_origin {
            self.note_impure(upper, parent, parent_fd);
        }
        let times = place
            .stat()
            .while_doing(|| "stat a directory of the upper")?
            .attr;
        publish(parent_fd).while_doing(|| "publish a copy")?;
        let (atime, mtime) = (SetTime::To(times.atime), SetTime::To(times.mtime));
        best_effort(
            "restore the times of a directory",
            set_times(&place, atime, mtime),
        );
        Ok(())
    }

    /// Marks the upper directory of `dir` as one that holds objects with an origin.
    pub(super) fn note_impure(&self, upper: &Upper, dir: &Inode, fd: &Arc<OwnedFd>) {
        let index = self.indexes.get(dir.ino);
        if index.as_ref().is_some_and(|i| i.read().impure) {
            return;
        }
        upper.set_impure(fd);
        if let Some(index) = index {
            index.write().impure = true;
        }
    }

    /// Notes in the index of `parent`, if it is in memory, that the upper now has `name`, over
    /// something of a lower.
    pub(super) fn note_in_upper(&self, parent: &Inode, name: &Name, top: Top, ino: u64) {
        if let Some(index) = self.indexes.get(parent.ino) {
            index.write().set(name, top, true, ino);
        }
    }

    /// Copies up an object other than a directory; of its data only the first `keep` bytes.
    pub(super) fn copy_up(&self, inode: &Arc<Inode>, keep: u64) -> Result<()> {
        let upper = self.upper()?;
        if inode.id().layer == upper.layer {
            return Ok(());
        }
        let _copying = inode.copying.lock();
        let old = inode.id();
        if old.layer == upper.layer {
            return Ok(()); // somebody else just did it
        }
        let place = self.place(inode)?;
        let stat = place.stat().while_doing(|| "stat a lower file")?;
        if self.real_id(old.layer, &stat) != old {
            return Err(Errno::STALE.into());
        }
        let linked = stat.attr.nlink > 1 && !inode.is_removed();
        let origin = self.origin_of(old.layer, &place);
        let Copied {
            staged,
            bytes,
            fd,
            has_origin,
        } = self.stage(upper, &place, &stat, keep, origin.as_ref())?;
        let copy = staged.place().stat().while_doing(|| "stat a copy")?;
        let index_name = if linked && has_origin {
            origin.as_ref().and_then(Origin::index_name)
        } else {
            None
        };
        let index_name = index_name.map(|n| NameBuf::from(n.into_bytes()));
        // Taken: the same inode of another layer was copied up before.
        let index_name = index_name.filter(|n| upper.links.find(n).is_none());
        let new = self.real_id(upper.layer, &copy);
        {
            let mut state = inode.state_mut();
            state.has_origin = has_origin;
            if linked {
                state.lower_id = Some(old);
                state.link = Some(UnionLink {
                    nlink: stat.attr.nlink,
                    index_name: index_name.clone(),
                });
            }
        }
        let published = match &index_name {
            Some(name) => self.publish_indexed(upper, inode, staged, name, &stat),
            None => self.publish_file(upper, inode, staged),
        };
        if let Err(e) = published {
            let mut state = inode.state_mut();
            (state.has_origin, state.lower_id, state.link) = (false, None, None);
            return Err(e);
        }
        if linked && index_name.is_none() {
            // Nothing on disk leads from the other names to the copy, so memory must not forget.
            inode.kids.fetch_add(1, Ordering::Relaxed);
        }
        inode.state_mut().id = new;
        self.table.moved(inode, old, new, linked);
        self.remember_number(new, inode.ino, origin.as_ref().filter(|_| has_origin));
        if let Some(fd) = fd {
            self.remember_fd(inode, FileFd::new(fd, new, true));
        }
        self.counters.copy_ups.fetch_add(1, Ordering::Relaxed);
        self.counters
            .copied_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Publishes the copy of a file under its name; of a removed one under none.
    fn publish_file(&self, upper: &Upper, inode: &Arc<Inode>, staged: Staged<'_>) -> Result<()> {
        let has_origin = inode.state().has_origin;
        loop {
            let Some((parent, name)) = inode.parent() else {
                let fd = staged.place().open(rustix::fs::OFlags::PATH)?;
                inode.state_mut().pin = Some(Pin::Fd(Arc::new(fd)));
                self.counters.pins.fetch_add(1, Ordering::Relaxed);
                return Ok(()); // dropping `staged` unlinks it
            };
            let parent_fd = self.upper_dir(&parent)?;
            let _change = parent.dir().ok_or(Errno::NOTDIR)?.change.lock();
            if !inode.has_name(&parent, &name) {
                continue; // renamed or removed while its data was copied
            }
            self.publish_copy(upper, &parent, &parent_fd, has_origin, |dir| {
                staged.publish_new(dir, &name)
            })?;
            self.note_alias_in_upper(upper, inode, &parent, &name);
            return Ok(());
        }
    }

    /// Notes that `name` in `parent`, so far in a lower, is in the upper now.
    fn note_alias_in_upper(&self, upper: &Upper, inode: &Inode, parent: &Inode, name: &Name) {
        if let Some(alias) = inode
            .state_mut()
            .names
            .iter_mut()
            .find(|a| a.is(parent, name))
        {
            alias.layer = upper.layer;
        }
        let top = Top::Leaf {
            layer: upper.layer,
            kind: inode.kind,
        };
        self.note_in_upper(parent, name, top, inode.ino);
    }

    /// Publishes the copy of a hard link: first in the index, where all its names lead, then under
    /// the name through which it is being changed.
    fn publish_indexed(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        staged: Staged<'_>,
        index_name: &Name,
        stat: &Stat,
    ) -> Result<()> {
        let difference = i64::from(stat.attr.nlink) - 1;
        let nlink = Nlink {
            base: Base::Upper,
            difference,
        };
        upper.set_marker(&staged.place(), Marker::Nlink, nlink.encode().as_bytes())?;
        if let Some(root) = self.root_handle(inode.id().layer) {
            upper.set_marker(&staged.place(), Marker::Layer, &root)?;
        }
        let dir = upper.links.dir().while_doing(|| "make the link index")?;
        staged
            .publish_new(&dir, index_name)
            .while_doing(|| "publish in the link index")?;
        upper.links.note(index_name);
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
        let in_upper = |a: &crate::tree::Alias| a.is(parent, name) && a.layer == upper.layer;
        if inode.state().names.iter().any(in_upper) {
            return Ok(());
        }
        let place = {
            let state = inode.state();
            let name = state.link.as_ref().and_then(|l| l.index_name.clone());
            name.and_then(|n| upper.links.find(&n))
        };
        let place = match place {
            Some(place) => place,
            None => self.place(inode)?,
        };
        self.store_nlink(upper, inode, &place, 1)?;
        let parent_fd = self.dir_fd(parent, upper.layer)?;
        self.publish_copy(upper, parent, &parent_fd, true, |dir| {
            upper.link(&place, dir, name, false)
        })?;
        self.note_alias_in_upper(upper, inode, parent, name);
        Ok(())
    }

    /// Stores the link count of an indexed hard link relative to what the real one will be after
    /// it has changed by `coming` while that of the view does not.
    pub(super) fn store_nlink(
        &self,
        upper: &Upper,
        inode: &Inode,
        place: &Place,
        coming: i64,
    ) -> Result<()> {
        let link = inode.state().link.clone();
        let Some(UnionLink {
            nlink,
            index_name: Some(_),
        }) = link
        else {
            return Ok(());
        };
        let real = i64::from(place.stat().while_doing(|| "stat a hard link")?.attr.nlink);
        let difference = i64::from(nlink) - (real + coming);
        let nlink = Nlink {
            base: Base::Upper,
            difference,
        };
        upper.set_marker(place, Marker::Nlink, nlink.encode().as_bytes())?;
        Ok(())
    }
}
