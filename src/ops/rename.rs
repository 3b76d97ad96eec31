//! rename, with `RENAME_NOREPLACE` and `RENAME_EXCHANGE`.
//!
//! Everything that moves is in the upper first. A directory that has lower parts gets a redirect to
//! them, if such are written; else it does not move (`EXDEV`, on which mv(1) and friends copy). One
//! without that comes to lie over a name of a lower becomes opaque before it moves, so that it never
//! shows what is not its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::Union;
use super::copy_up::Want;
use super::create::check_new_name;
use super::lookup::Count;
use super::metadata_copy::Reach;
use super::protect::{Act, permit};
use super::relocate::Destination;
use crate::attr::Kind;
use crate::error::{Errno, Result};
use crate::layer::Place;
use crate::merge::{Found, Top};
use crate::name::Name;
use crate::tree::{Alias, Inode};
use crate::upper::{End, Move, Target, Upper};

/// What rename does if the new name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// `EEXIST`.
    NoReplace,
    /// Swaps the two.
    Exchange,
}

/// One end of a rename, looked up.
struct Side<'a> {
    dir: &'a Arc<Inode>,
    fd: Arc<OwnedFd>,
    name: &'a Name,
    inode: Option<Arc<Inode>>,
}

impl Side<'_> {
    fn end(&self) -> End<'_> {
        End {
            dir: &self.fd,
            name: self.name,
        }
    }

    /// The object in the upper.
    fn place(&self) -> Place {
        Place::at(Arc::clone(&self.fd), self.name)
    }

    fn going_to(&self, to: &Side<'_>, covered: bool) -> Destination {
        Destination {
            same_parent: self.dir.ino == to.dir.ino,
            covered,
        }
    }
}

impl Union {
    /// Renames `name` in `parent` to `new_name` in `new_parent`.
    ///
    /// # Errors
    /// Those of rename(2); `EXDEV` for a directory with parts in a lower that may not be redirected.
    pub fn rename(
        &self,
        parent: u64,
        name: &Name,
        new_parent: u64,
        new_name: &Name,
        mode: RenameMode,
    ) -> Result<()> {
        let upper = self.upper()?;
        let (dir, new_dir) = (self.dir(parent)?, self.dir(new_parent)?);
        check_new_name(upper, new_name)?;
        if mode == RenameMode::Exchange {
            check_new_name(upper, name)?;
        }
        let (source, _) = self.child(&dir, name, Count::Held)?;
        let target = match self.child(&new_dir, new_name, Count::Held) {
            Ok((target, _)) => Some(target),
            Err(e) if e.errno() == Errno::NOENT => None,
            Err(e) => {
                self.reap(source);
                return Err(e);
            }
        };
        let from = (&dir, name, &source);
        let to = (&new_dir, new_name, target.as_ref());
        let result = self.rename_inodes(upper, from, to, mode);
        self.reap(source);
        if let Some(target) = target {
            self.reap(target);
        }
        result
    }

    fn rename_inodes(
        &self,
        upper: &Upper,
        (dir, name, source): (&Arc<Inode>, &Name, &Arc<Inode>),
        (new_dir, new_name, target): (&Arc<Inode>, &Name, Option<&Arc<Inode>>),
        mode: RenameMode,
    ) -> Result<()> {
        check_kinds(source, target, mode)?;
        if target.is_some_and(|t| Arc::ptr_eq(t, source)) {
            return Ok(()); // two names of one object: nothing happens
        }
        permit(dir, Act::RemoveName)?;
        permit(source, Act::Change)?;
        permit(new_dir, Act::AddName)?;
        if let Some(target) = target {
            permit(new_dir, Act::RemoveName)?;
            permit(target, Act::Change)?;
        }
        let reach = match dir.ino == new_dir.ino {
            true => Reach::Beside,
            false => Reach::Anywhere,
        };
        self.prepare_mover(upper, source, (dir, name), reach)?;
        match target {
            Some(target) if mode == RenameMode::Exchange => {
                self.prepare_mover(upper, target, (new_dir, new_name), reach)?;
            }
            Some(target) if target.kind != Kind::Dir => self.prepare_hard_link(target)?,
            _ => {}
        }
        let from_fd = self.upper_dir(dir)?;
        let to_fd = self.upper_dir(new_dir)?;
        let _names = target.and_then(|t| self.lock_names(t));
        let _renames = (dir.ino != new_dir.ino).then(|| self.renames.lock());
        let _locks = self.lock_dirs(dir, new_dir)?;
        let from = Side {
            dir,
            fd: from_fd,
            name,
            inode: Some(Arc::clone(source)),
        };
        let to = Side {
            dir: new_dir,
            fd: to_fd,
            name: new_name,
            inode: target.cloned(),
        };
        let found = self.find_same(dir, name, source)?;
        let new_found = self.expect_target(&to)?;
        if source.kind == Kind::Dir && new_dir.is_within(source) {
            return Err(Errno::INVAL.into());
        }
        if target.is_some_and(|t| t.kind == Kind::Dir && dir.is_within(t)) {
            // The target holds the source: not empty, and its lock is held already.
            return Err(match mode {
                RenameMode::Exchange => Errno::INVAL.into(),
                _ => Errno::NOTEMPTY.into(),
            });
        }
        self.moves.start();
        let result = match mode {
            RenameMode::Exchange => self.swap(upper, &from, &to, &found, new_found.as_ref()),
            _ => self.displace(upper, &from, &to, &found, new_found.as_ref()),
        };
        self.moves.finish();
        result
    }

    /// What is about to be moved lies wholly in the upper.
    fn prepare_mover(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        at: (&Arc<Inode>, &Name),
        reach: Reach,
    ) -> Result<()> {
        if inode.kind == Kind::Dir {
            return self.prepare_dir(inode);
        }
        self.copy_up(inode, Want::Attributes)?;
        self.point_to_data(upper, inode, at, reach)
    }

    /// Takes the change locks of both directories: the ancestor first, else by number. The rename
    /// lock, held by the caller, keeps their relation as it is.
    fn lock_dirs<'a>(
        &self,
        a: &'a Arc<Inode>,
        b: &'a Arc<Inode>,
    ) -> Result<(MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>)> {
        if a.ino == b.ino {
            return Ok((self.lock_dir(a)?, None));
        }
        let a_first = b.is_within(a) || (!a.is_within(b) && a.ino < b.ino);
        let (first, second) = if a_first { (a, b) } else { (b, a) };
        Ok((self.lock_dir(first)?, Some(self.lock_dir(second)?)))
    }

    /// What is at the new name, which must still be what was looked up.
    fn expect_target(&self, to: &Side<'_>) -> Result<Option<Found>> {
        match &to.inode {
            Some(target) => self.find_same(to.dir, to.name, target).map(Some),
            None => {
                let covers = self.free_name(to.dir, to.name)?;
                Ok(covers.map(|covers| Found {
                    top: Top::Whiteout,
                    covers,
                    hint: None,
                }))
            }
        }
    }

    /// The plain rename: what is at the new name goes.
    fn displace(
        &self,
        upper: &Upper,
        from: &Side<'_>,
        to: &Side<'_>,
        found: &Found,
        new_found: Option<&Found>,
    ) -> Result<()> {
        let Some(source) = &from.inode else {
            return Err(Errno::NOENT.into());
        };
        let is_dir = source.kind == Kind::Dir;
        self.link_up_if_linked(upper, source, from.dir, from.name)?;
        let _target_change = match &to.inode {
            Some(target) if is_dir => {
                let change = target.dir().map(|d| d.change.lock());
                self.require_empty(target)?;
                change
            }
            Some(target) => {
                self.link_up_if_linked(upper, target, to.dir, to.name)?;
                None
            }
            None => None,
        };
        let target = self.upper_target(upper, to)?;
        let covered = new_found.is_some_and(|found| found.covers);
        if is_dir {
            self.mark_mover(upper, source, &from.place(), from.going_to(to, covered))?;
        }
        let clear = target == Target::EmptyDir && self.holds_markers(to)?;
        if let Some(inode) = &to.inode {
            let in_upper = matches!(target, Target::Object | Target::EmptyDir);
            self.before_removal(upper, inode, in_upper.then_some((&to.fd, to.name)))?;
            if clear {
                self.clear_target(upper, inode, to)?;
            }
        }
        if source.state().has_origin {
            self.note_impure(upper, to.dir, &to.fd);
        }
        let plan = Move {
            is_dir,
            leave_whiteout: found.covers,
            target,
        };
        if let Err(e) = upper.rename(from.end(), to.end(), plan) {
            // A directory that was cleared stays pinned: what has its name now is another.
            if let Some(inode) = to.inode.as_ref().filter(|_| !clear) {
                self.undo_pin(inode);
            }
            return Err(e);
        }
        if let Some(inode) = &to.inode {
            self.lose_name(upper, inode, to.dir, to.name);
        }
        self.note_moved(upper, source, from, to, covered)?;
        let index = self.index_locked(from.dir)?;
        match found.covers {
            true => index.write().set(from.name, Top::Whiteout, true, 0),
            false => index.write().remove(from.name),
        }
        Ok(())
    }

    /// What the upper itself has at the new name.
    fn upper_target(&self, upper: &Upper, to: &Side<'_>) -> Result<Target> {
        let Some(inode) = &to.inode else {
            let index = self.index_locked(to.dir)?;
            let whiteout = index.read().get(to.name).is_some();
            return Ok(if whiteout {
                Target::Whiteout
            } else {
                Target::Nothing
            });
        };
        let in_upper = match inode.dir() {
            Some(dir) => dir.stack().top() == upper.layer,
            None => inode
                .state()
                .names
                .iter()
                .any(|a| a.is(to.dir, to.name) && a.layer == upper.layer),
        };
        Ok(match (in_upper, inode.kind) {
            (false, _) => Target::Nothing,
            (true, Kind::Dir) => Target::EmptyDir,
            (true, _) => Target::Object,
        })
    }

    /// Whether the directory at the new name, empty in the view, has anything on disk.
    fn holds_markers(&self, to: &Side<'_>) -> Result<bool> {
        let Some(dir) = &to.inode else {
            return Ok(false);
        };
        let merged = dir.dir().is_some_and(|d| d.stack().is_merged());
        let index = self.index_locked(dir)?;
        // A sentinel does not show in the index; only the `.wh.` dialect writes them.
        let sentinel = self.upper()?.dialect == crate::marker::whiteout::Dialect::File;
        Ok(merged || sentinel || !index.read().is_empty())
    }

    /// Makes an empty directory that holds markers one that can be renamed over. It is pinned
    /// already, for its name will stand for the fresh directory.
    fn clear_target(&self, upper: &Upper, inode: &Inode, to: &Side<'_>) -> Result<()> {
        upper
            .clear_dir(to.end())
            .inspect_err(|_| self.undo_pin(inode))
    }

    /// `RENAME_EXCHANGE`.
    fn swap(
        &self,
        upper: &Upper,
        from: &Side<'_>,
        to: &Side<'_>,
        found: &Found,
        new_found: Option<&Found>,
    ) -> Result<()> {
        let (Some(source), Some(target), Some(new_found)) = (&from.inode, &to.inode, new_found)
        else {
            return Err(Errno::NOENT.into());
        };
        self.link_up_if_linked(upper, source, from.dir, from.name)?;
        self.link_up_if_linked(upper, target, to.dir, to.name)?;
        for (side, inode, other) in [(from, source, new_found), (to, target, found)] {
            if inode.kind == Kind::Dir {
                let destination = from.going_to(to, other.covers);
                self.mark_mover(upper, inode, &side.place(), destination)?;
            }
        }
        for (inode, other) in [(source, to), (target, from)] {
            if inode.state().has_origin {
                self.note_impure(upper, other.dir, &other.fd);
            }
        }
        upper.exchange(from.end(), to.end())?;
        self.note_moved(upper, source, from, to, new_found.covers)?;
        self.note_moved(upper, target, to, from, found.covers)
    }

    /// Notes that `inode` now is what `to` names.
    fn note_moved(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        from: &Side<'_>,
        to: &Side<'_>,
        covers: bool,
    ) -> Result<()> {
        let alias = Alias::new(to.dir, to.name, upper.layer);
        let old = {
            let mut state = inode.state_mut();
            match state.names.iter_mut().find(|a| a.is(from.dir, from.name)) {
                Some(old) => Some(std::mem::replace(old, alias)),
                None => {
                    state.names.push(alias);
                    None
                }
            }
        };
        drop(old);
        let top = match inode.kind {
            Kind::Dir => Top::Dir(Box::new([upper.layer])),
            kind => Top::Leaf {
                layer: upper.layer,
                kind,
            },
        };
        self.index_locked(to.dir)?
            .write()
            .set(to.name, top, covers, inode.ino);
        Ok(())
    }
}

/// The rules of rename(2) on what may replace what.
fn check_kinds(source: &Inode, target: Option<&Arc<Inode>>, mode: RenameMode) -> Result<(), Errno> {
    match (mode, target) {
        (RenameMode::NoReplace, Some(_)) => Err(Errno::EXIST),
        (RenameMode::Exchange, None) => Err(Errno::NOENT),
        (RenameMode::Replace, Some(target)) => {
            match (source.kind == Kind::Dir, target.kind == Kind::Dir) {
                (true, false) => Err(Errno::NOTDIR),
                (false, true) => Err(Errno::ISDIR),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
