//! Copy-up: a change is coming, so the object moves to the upper, its parents first.
//!
//! Data is copied without any directory's lock; only the rename that publishes it holds that of the
//! parent. Until then everybody sees the lower object, from then on the copy: both say the same.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use super::file::FileFd;
use super::metadata_copy::LowerFile;
use super::protect;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::Place;
use crate::marker::origin::Origin;
use crate::marker::xattr::Marker;
use crate::merge::Top;
use crate::name::Name;
use crate::tree::{DataAt, Inode, Pin, RealId, UnionLink};
use crate::upper::{Copied, SetTime, Staged, Upper, set_times, writable_for_a_moment};

/// All of the data.
pub(super) const ALL: u64 = u64::MAX;

/// What a change needs to lie in the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// The object with its attributes; its data may follow later.
    Attributes,
    /// Its first so many bytes too; the rest is about to be cut off.
    Data(u64),
}

impl Union {
    /// Sees to it that `inode`, of whatever kind, lies in the upper.
    pub(super) fn make_upper(&self, inode: &Arc<Inode>) -> Result<()> {
        match inode.kind {
            Kind::Dir => self.upper_dir(inode).map(drop),
            _ => self.copy_up(inode, Want::Attributes),
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
        let old = dir.id();
        let stat = place
            .stat_with(self.owners_in(old.layer))
            .while_doing(|| "stat a lower directory")?;
        if self.real_id(old.layer, &stat) != old || stat.attr.kind != Kind::Dir {
            return Err(Errno::STALE.into());
        }
        let origin = self.origin_for(upper, old.layer, &place)?;
        let mut markers = origin_marker(origin.as_ref());
        markers.extend(protect::marker(dir.protection.get()));
        let Copied {
            mut staged,
            has_origin,
            ..
        } = upper.stage_dataless(&place, &stat.attr, &markers)?;
        let copy = staged.place().stat().while_doing(|| "stat a copy")?;
        self.publish_copy(upper, &parent, &parent_fd, has_origin, |dir_fd| {
            staged.publish_new(dir_fd, &name)
        })?;
        let new = self.real_id(upper.layer, &copy);
        self.remember_number(dir, old, new, origin.as_ref().filter(|_| has_origin));
        let stack = own.stack().with_upper(upper.layer);
        let top = Top::Dir(stack.layers().into());
        let landing = Landing {
            old,
            new,
            has_origin,
            data: DataAt::Here,
            link: None,
        };
        self.note_in_upper(&parent, &name, top, dir.ino, || {
            self.land(dir, &landing, |state| {
                set_alias_layer(state, &parent, &name, upper)
            });
            own.set_stack(stack);
        });
        self.counters.copy_ups.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Publishes a copy into the upper directory of `parent`, whose times do not change by that:
    /// in the view nothing happens. The caller holds the parent's change lock.
    pub(super) fn publish_copy(
        &self,
        upper: &Upper,
        parent: &Inode,
        parent_fd: &Arc<OwnedFd>,
        has_origin: bool,
        mut publish: impl FnMut(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<()> {
        let place = Place::Fd(Arc::clone(parent_fd));
        if has_origin {
            self.note_impure(upper, parent, parent_fd);
        }
        let _times = parent.times.lock();
        let times = place
            .stat()
            .while_doing(|| "stat a directory of the upper")?
            .attr;
        let published = match publish(parent_fd) {
            Err(Errno::ACCESS) => writable_for_a_moment(&place, || publish(parent_fd)),
            published => published,
        };
        published.while_doing(|| "publish a copy")?;
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
        if index.as_ref().is_some_and(|i| i.read().impure.upper) {
            return;
        }
        if upper.set_impure(fd)
            && let Some(index) = index
        {
            index.write().impure.upper = true;
        }
    }

    /// Notes in the index of `parent`, if it is in memory, that the upper now has `name`, over
    /// something of a lower; `land` makes the object the one in the upper in the same instant, so
    /// that no lookup finds the one without the other. The caller holds the parent's change lock.
    pub(super) fn note_in_upper(
        &self,
        parent: &Inode,
        name: &Name,
        top: Top,
        ino: u64,
        land: impl FnOnce(),
    ) {
        let Some(index) = self.indexes.get(parent.ino) else {
            return land();
        };
        let mut index = index.write();
        land();
        index.set(name, top, true, ino);
    }

    /// Copies up an object other than a directory, as far as is wanted.
    pub(super) fn copy_up(&self, inode: &Arc<Inode>, want: Want) -> Result<()> {
        let upper = self.upper()?;
        let (id, data) = {
            let state = inode.state();
            (state.id, state.data)
        };
        if id.layer == upper.layer {
            return match want {
                Want::Data(keep) if data == DataAt::Below => self.bring_data(inode, keep).map(drop),
                _ => Ok(()),
            };
        }
        let copying = inode.copying.lock();
        match self.copy_file_up(upper, inode, want) {
            // A security module may forbid to link what it lets be renamed.
            Err(e)
                if matches!(e.errno(), Errno::PERM | Errno::ACCESS | Errno::XDEV)
                    && upper.give_up_unnamed_files() =>
            {
                tracing::info!("files without a name cannot be published here ({e})");
                self.copy_file_up(upper, inode, want)?;
            }
            result => result?,
        }
        drop(copying);
        match want {
            // Somebody else was faster, and wanted less.
            Want::Data(keep) if inode.state().data == DataAt::Below => {
                self.bring_data(inode, keep).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// The same under the lock on copying the inode.
    fn copy_file_up(&self, upper: &Upper, inode: &Arc<Inode>, want: Want) -> Result<()> {
        let old = inode.id();
        if old.layer == upper.layer {
            return Ok(()); // somebody else just did it
        }
        if let Some((parent, _)) = inode.parent() {
            // What cannot be published need not be copied.
            self.upper_dir(&parent)?;
        }
        let place = self.place(inode)?;
        let stat = place
            .stat_with(self.owners_in(old.layer))
            .while_doing(|| "stat a lower file")?;
        if self.real_id(old.layer, &stat) != old || stat.attr.kind != inode.kind {
            return Err(Errno::STALE.into());
        }
        let file = match inode.kind {
            Kind::File => Some(self.lower_file(upper, inode, &place, &stat, want)?),
            _ => None,
        };
        let origin = self.origin_for(upper, old.layer, &place)?;
        let linked = stat.attr.nlink > 1 && !inode.is_removed();
        let index_name = linked
            .then(|| self.free_index_name(upper, origin.as_ref()))
            .flatten();
        // A hard link that is not in the index is no more what its other names are, as in the kernel.
        let origin = origin.filter(|_| !linked || index_name.is_some());
        let mut markers = origin_marker(origin.as_ref());
        markers.extend(protect::marker(inode.protection.get()));
        if index_name.is_some() {
            markers.extend(self.link_markers(old.layer, stat.attr.nlink));
        }
        let copied = match &file {
            Some(file) => upper.stage_copy(&file.source(&stat.attr, &markers)),
            None => upper.stage_dataless(&place, &stat.attr, &markers),
        }?;
        let copy = copied.stat().while_doing(|| "stat a copy")?;
        let landing = Landing {
            old,
            new: self.real_id(upper.layer, &copy),
            has_origin: copied.has_origin,
            data: file.as_ref().map_or(DataAt::Here, LowerFile::lands_with),
            link: linked.then(|| UnionLink {
                nlink: stat.attr.nlink,
                index_name: index_name.filter(|_| copied.has_origin),
            }),
        };
        let origin = origin.filter(|_| copied.has_origin);
        self.remember_number(inode, old, landing.new, origin.as_ref());
        match &landing.link {
            Some(UnionLink {
                index_name: Some(name),
                ..
            }) => {
                self.publish_indexed(upper, inode, copied.staged, name, &landing)?;
            }
            _ => self.publish_file(upper, inode, copied.staged, &landing)?,
        }
        if let Some(fd) = copied.fd.filter(|_| landing.data == DataAt::Here) {
            self.remember_fd(inode, FileFd::new(fd, landing.new, true));
        }
        self.counters.copy_ups.fetch_add(1, Ordering::Relaxed);
        self.counters
            .copied_bytes
            .fetch_add(copied.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Publishes the copy of a file under its name; of a removed one under none.
    fn publish_file(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        mut staged: Staged<'_>,
        landing: &Landing,
    ) -> Result<()> {
        loop {
            let Some((parent, name)) = inode.parent() else {
                let fd = staged.place().open(rustix::fs::OFlags::PATH)?;
                self.counters.pins.fetch_add(1, Ordering::Relaxed);
                self.land(inode, landing, |state| {
                    state.rare_mut().pin = Some(Pin::Fd(Arc::new(fd)));
                });
                return Ok(()); // dropping `staged` unlinks it
            };
            let parent_fd = self.upper_dir(&parent)?;
            let _change = parent.dir().ok_or(Errno::NOTDIR)?.change.lock();
            if !inode.has_name(&parent, &name) {
                continue; // renamed or removed while its data was copied
            }
            self.publish_copy(upper, &parent, &parent_fd, landing.has_origin, |dir| {
                staged.publish_new(dir, &name)
            })?;
            let top = Top::Leaf {
                layer: upper.layer,
                kind: inode.kind,
            };
            self.note_in_upper(&parent, &name, top, inode.ino, || {
                self.land(inode, landing, |state| {
                    set_alias_layer(state, &parent, &name, upper)
                });
            });
            return Ok(());
        }
    }

    /// In memory, the object is its copy from now on. `also` runs in the same instant.
    pub(super) fn land(
        &self,
        inode: &Arc<Inode>,
        landing: &Landing,
        also: impl FnOnce(&mut crate::tree::State),
    ) {
        self.table.announce(inode, landing.new);
        {
            let mut state = inode.state_mut();
            state.id = landing.new;
            state.has_origin = landing.has_origin;
            state.data = landing.data;
            if landing.link.is_some() {
                let rare = state.rare_mut();
                rare.lower_id = Some(landing.old);
                rare.link.clone_from(&landing.link);
            }
            also(&mut state);
        }
        match &landing.link {
            None => self.table.retire(inode, landing.old),
            Some(link) if link.index_name.is_none() => {
                // Nothing on disk leads from the other names to the copy: memory must not forget.
                inode.kids.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
        }
    }
}

/// What changes in memory when an object was copied up.
#[derive(Debug)]
pub(super) struct Landing {
    /// The lower object.
    pub(super) old: RealId,
    /// Its copy.
    pub(super) new: RealId,
    /// The copy tells where it came from.
    pub(super) has_origin: bool,
    /// Where the data of the copy is.
    pub(super) data: DataAt,
    /// It is a hard link.
    pub(super) link: Option<UnionLink>,
}

/// Notes that `name` in `parent`, so far in a lower, is in the upper now.
pub(super) fn set_alias_layer(
    state: &mut crate::tree::State,
    parent: &Inode,
    name: &Name,
    upper: &Upper,
) {
    if let Some(alias) = state.names.iter_mut().find(|a| a.is(parent, name)) {
        alias.layer = upper.layer;
    }
}

fn origin_marker(origin: Option<&Origin>) -> Vec<(Marker, Vec<u8>)> {
    origin
        .and_then(Origin::encode)
        .map(|value| (Marker::Origin, value))
        .into_iter()
        .collect()
}
