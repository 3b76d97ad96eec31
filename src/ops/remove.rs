//! unlink and rmdir.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::OFlags;

use super::Union;
use super::lookup::Count;
use super::protect::{Act, permit};
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::Place;
use crate::merge::{Found, Top};
use crate::name::{Name, NameBuf};
use crate::tree::{Inode, Pin};
use crate::upper::Upper;

/// What is to be removed.
struct Victim<'a> {
    dir: &'a Arc<Inode>,
    /// The directory in the upper.
    fd: &'a Arc<OwnedFd>,
    name: &'a Name,
    inode: &'a Arc<Inode>,
}

impl Union {
    /// Removes `name`, which must not be a directory.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`; the upper's.
    pub fn unlink(&self, parent: u64, name: &Name) -> Result<()> {
        self.remove(parent, name, Self::unlink_inode)
    }

    /// Removes directory `name`, which must be empty.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`; the upper's.
    pub fn rmdir(&self, parent: u64, name: &Name) -> Result<()> {
        self.remove(parent, name, Self::rmdir_inode)
    }

    /// Looks up what is to be removed and lets `remove` do it.
    fn remove(
        &self,
        parent: u64,
        name: &Name,
        remove: impl FnOnce(&Self, &Upper, &Victim<'_>) -> Result<()>,
    ) -> Result<()> {
        let upper = self.upper()?;
        let dir = self.dir(parent)?;
        let inode = self.child_inode(&dir, name)?;
        let permitted = permit(&dir, Act::RemoveName).and_then(|()| permit(&inode, Act::Change));
        let fd = permitted.and_then(|()| self.upper_dir(&dir));
        let result = fd.and_then(|fd| {
            let victim = Victim {
                dir: &dir,
                fd: &fd,
                name,
                inode: &inode,
            };
            remove(self, upper, &victim)
        });
        self.reap(inode);
        result
    }

    fn unlink_inode(&self, upper: &Upper, victim: &Victim<'_>) -> Result<()> {
        let Victim {
            dir,
            fd,
            name,
            inode,
        } = *victim;
        if inode.kind == Kind::Dir {
            return Err(Errno::ISDIR.into());
        }
        self.prepare_hard_link(inode)?;
        let _names = self.lock_names(inode);
        let _change = self.lock_dir(dir)?;
        let covers = self.find_same(dir, name, inode)?.covers;
        self.link_up_if_linked(upper, inode, dir, name)?;
        let in_upper = self.has_upper_alias(upper, inode, dir, name);
        self.take_away(upper, victim, in_upper, covers, || {
            match (in_upper, covers) {
                (true, true) => upper.whiteout_object(fd, name),
                (true, false) => upper.unlink(fd, name),
                (false, _) => upper.whiteout_absent(fd, name),
            }
        })
    }

    /// Keeps others from taking another name of an object at the same time: each would find that
    /// it has one left, and nobody would see to what must outlive the last.
    pub(super) fn lock_names<'a>(
        &self,
        inode: &'a Inode,
    ) -> Option<parking_lot::MutexGuard<'a, ()>> {
        let several = inode.state().names.iter().count() > 1;
        several.then(|| inode.copying.lock())
    }

    fn rmdir_inode(&self, upper: &Upper, victim: &Victim<'_>) -> Result<()> {
        let Victim {
            dir,
            fd,
            name,
            inode,
        } = *victim;
        let own = inode.dir().ok_or(Errno::NOTDIR)?;
        let _change = self.lock_dir(dir)?;
        let covers = self.find_same(dir, name, inode)?.covers;
        let _own_change = own.change.lock();
        self.require_empty(inode)?;
        let in_upper = own.stack().top() == upper.layer;
        self.take_away(upper, victim, in_upper, covers, || {
            match (in_upper, covers) {
                (true, true) => upper.whiteout_dir(fd, name),
                (true, false) => upper.remove_dir(fd, name),
                (false, _) => upper.whiteout_absent(fd, name),
            }
        })
    }

    /// Removes from disk by `act`, then from memory.
    fn take_away(
        &self,
        upper: &Upper,
        victim: &Victim<'_>,
        in_upper: bool,
        covers: bool,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Victim {
            dir,
            fd,
            name,
            inode,
        } = *victim;
        self.before_removal(upper, inode, in_upper.then_some((fd, name)))?;
        act().inspect_err(|_| self.undo_pin(inode))?;
        self.note_removed(dir, name, covers)?;
        self.lose_name(upper, inode, dir, name);
        Ok(())
    }

    /// `ENOTEMPTY` unless `dir`, whose change lock the caller holds, shows no name.
    pub(super) fn require_empty(&self, dir: &Arc<Inode>) -> Result<()> {
        let index = self.index_locked(dir)?;
        loop {
            let first = index
                .read()
                .after(0)
                .next()
                .map(|(_, e)| NameBuf::from(e.name()));
            let Some(name) = first else { return Ok(()) };
            match self.child_locked(dir, &name, Count::Held) {
                // An empty file that turned out to be a whiteout has left the index by now.
                Err(e) if e.errno() == Errno::NOENT && index.read().shows(&name) => {
                    return Err(Errno::NOTEMPTY.into());
                }
                Err(e) if e.errno() == Errno::NOENT => {}
                Ok((inode, _)) => {
                    self.reap(inode);
                    return Err(Errno::NOTEMPTY.into());
                }
                Err(_) => return Err(Errno::NOTEMPTY.into()),
            }
        }
    }

    /// What `dir` has at `name`, if that still is `inode`, and whether a lower shows the name; the
    /// caller holds the change lock.
    pub(super) fn find_same(&self, dir: &Arc<Inode>, name: &Name, inode: &Inode) -> Result<Found> {
        let index = self.index_locked(dir)?;
        let found = index.read().find(name);
        match found {
            Some(mut found) if found.top != Top::Whiteout && inode.has_name(dir, name) => {
                // What only a lower has will be covered by whatever comes in its place.
                found.covers |= Some(top_layer(&found.top)) != self.upper_id();
                Ok(found)
            }
            _ => Err(Errno::NOENT.into()),
        }
    }

    /// Before an object loses the name `at` in the upper: stores the link count of a hard link, and
    /// pins what would not be reached any more. Also if the kernel does not know the object: until
    /// it has left the table, its number must not be used again by another.
    pub(super) fn before_removal(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        at: Option<(&Arc<OwnedFd>, &Name)>,
    ) -> Result<()> {
        let Some((dir, name)) = at else { return Ok(()) };
        let place = Place::at(Arc::clone(dir), name);
        self.store_nlink(upper, inode, &place)?;
        let state = inode.state();
        let others = state
            .names
            .iter()
            .filter(|a| a.layer == upper.layer)
            .count()
            > 1;
        let link = state.rare().link.as_ref();
        let indexed = link.is_some_and(|l| l.index_name.is_some() && l.nlink > 1);
        let pinned = state.rare().pin.is_some();
        drop(state);
        if others || indexed || pinned {
            return Ok(());
        }
        let pin = self.make_pin(upper, inode, &place)?;
        inode.state_mut().rare_mut().pin = Some(pin);
        Ok(())
    }

    fn make_pin(&self, upper: &Upper, inode: &Inode, place: &Place) -> Result<Pin> {
        let scarce = self.counters.pins.load(Ordering::Relaxed) >= self.pin_limit;
        if scarce && inode.kind != Kind::Dir {
            let name = upper.temp_name();
            upper
                .link(place, &upper.work, &name, false)
                .while_doing(|| "park a removed file")?;
            return Ok(Pin::Parked(name));
        }
        // One that is open already will do.
        let fd = match self.cached_fd(inode).filter(|fd| !fd.is_lent()) {
            Some(file) => file.share(),
            None => Arc::new(
                place
                    .open(OFlags::PATH)
                    .while_doing(|| "pin a removed object")?,
            ),
        };
        self.counters.pins.fetch_add(1, Ordering::Relaxed);
        Ok(Pin::Fd(fd))
    }

    /// Lets go of what a removed object was reached by: it is forgotten, or was not removed after
    /// all.
    pub(super) fn undo_pin(&self, inode: &Inode) {
        if inode.state().rare().pin.is_none() {
            return;
        }
        let pin = inode.state_mut().rare_mut().pin.take();
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

    /// Notes in the index that `name` is gone, with a whiteout in the upper if it `covers`.
    fn note_removed(&self, dir: &Arc<Inode>, name: &Name, covers: bool) -> Result<()> {
        let index = self.index_locked(dir)?;
        let mut index = index.write();
        match covers {
            true => index.set(name, Top::Whiteout, true, 0),
            false => index.remove(name),
        }
        Ok(())
    }

    /// Takes `name` in `dir` from the names of `inode`, after the fact.
    pub(super) fn lose_name(&self, upper: &Upper, inode: &Arc<Inode>, dir: &Inode, name: &Name) {
        let mut state = inode.state_mut();
        let Some(alias) = state.names.remove_first(|a| a.is(dir, name)) else {
            return;
        };
        let mut unindexed = None;
        if state.rare().link.is_some()
            && let Some(link) = &mut state.rare_mut().link
        {
            link.nlink = link.nlink.saturating_sub(1);
            if link.nlink == 0 {
                unindexed = link.index_name.take();
                if unindexed.is_none() {
                    // Memory alone knew of the link and was kept for it.
                    inode.kids.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        let link = state.rare().link.as_ref();
        let dropped = if state.names.is_empty() && link.is_none_or(|l| l.nlink == 0) {
            state.rare_mut().past.replace(alias)
        } else {
            Some(alias)
        };
        if state.names.is_empty() {
            self.numbers.lock().remove(&state.id);
        }
        drop(state);
        drop(dropped);
        if let Some(name) = unindexed {
            best_effort(
                "remove an entry of the link index",
                upper.links.remove(&name),
            );
        }
    }
}

/// The layer of what is on top.
pub(super) fn top_layer(top: &Top) -> crate::layer::LayerId {
    match top {
        Top::Leaf { layer, .. } => *layer,
        Top::Dir(layers) => layers.first().copied().unwrap_or_default(),
        Top::Whiteout => 0,
    }
}
