//! Moves an object within the upper, leaving a whiteout where it covered something of a lower.
//!
//! [`plan`] decides, purely; [`Upper::rename`] acts. Every step but the decisive one changes nothing
//! in the view, so that a crash leaves the old view or the new one. Two plans of the fallbacks (no
//! `RENAME_WHITEOUT`) have a moment in between: a file shows under both names, or a directory that
//! was replaced shows, empty, under the old name.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::RenameFlags;

use super::stage::{Staged, link_place};
use super::whiteout::wh_name;
use super::workdir::Upper;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{Place, Stat};
use crate::marker::whiteout::Dialect;
use crate::name::Name;

/// What the upper has at the new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    Nothing,
    /// A whiteout.
    Whiteout,
    /// An object other than a directory.
    Object,
    /// A directory that is empty in the view.
    EmptyDir,
}

/// A move to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The object is a directory.
    pub is_dir: bool,
    /// A lower shows the old name: leave a whiteout.
    pub leave_whiteout: bool,
    /// What the upper has at the new name.
    pub target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Write `.wh.OLD`; it acts once OLD is gone.
    WhFileAtOld,
    /// Put a whiteout at the new name, where nothing is.
    WhiteoutAtNew,
    /// Rename, failing if the new name exists.
    MoveNew,
    /// Rename over what is there.
    MoveOver,
    /// Rename, the filesystem leaving a whiteout.
    MoveLeavingWhiteout,
    /// Swap both names.
    Exchange,
    /// Hard link the old name over the new one.
    LinkOver,
    /// Put a whiteout in place of the object at the old name.
    ReplaceOldObject,
    /// Put a whiteout in place of the directory at the old name.
    ReplaceOldDir,
    /// Remove the whiteout at the old name: it covers nothing.
    DropWhiteoutAtOld,
    /// Remove the `.wh.` file of the new name.
    DropWhFileAtNew,
}

/// The steps of a move. `wh_files`: deletions are `.wh.` files; else they lie at the name itself.
fn plan(wh_files: bool, rename_whiteout: bool, m: Move) -> Vec<Step> {
    use Step::*;
    use Target::*;
    if wh_files {
        let mut steps = Vec::new();
        if m.leave_whiteout {
            steps.push(WhFileAtOld);
        }
        steps.push(match m.target {
            Nothing | Whiteout => MoveNew,
            Object | EmptyDir => MoveOver,
        });
        if m.target == Whiteout {
            steps.push(DropWhFileAtNew);
        }
        return steps;
    }
    match (m.target, m.leave_whiteout) {
        (Whiteout, false) if m.is_dir => vec![Exchange, DropWhiteoutAtOld],
        (Whiteout, false) => vec![MoveOver],
        (Whiteout, true) if m.is_dir || !rename_whiteout => vec![Exchange],
        (Nothing, false) => vec![MoveNew],
        (Object | EmptyDir, false) => vec![MoveOver],
        (_, true) if rename_whiteout => vec![MoveLeavingWhiteout],
        (Nothing | Whiteout, true) => vec![WhiteoutAtNew, Exchange],
        (Object | EmptyDir, true) if m.is_dir => vec![Exchange, ReplaceOldDir],
        (Object | EmptyDir, true) => vec![LinkOver, ReplaceOldObject],
    }
}

/// One end of a move.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The upper directory.
    pub dir: &'a Arc<OwnedFd>,
    /// The name in it.
    pub name: &'a Name,
}

impl Upper {
    /// Moves an object of the upper.
    ///
    /// # Errors
    /// The upper's; before the decisive step nothing has changed.
    pub fn rename(&self, from: End<'_>, to: End<'_>, m: Move) -> Result<()> {
        let at_name = self.dialect != Dialect::File
            || m.target == Target::Whiteout && Stat::at(to.dir.as_fd(), to.name).is_ok();
        let wh_files = self.dialect == Dialect::File && !at_name;
        if self.dialect == Dialect::Xattr && m.leave_whiteout {
            self.mark_holder(from.dir)?;
        }
        if self.dialect == Dialect::File && at_name && m.leave_whiteout {
            self.write_wh_file(from.dir, from.name)?;
        }
        let steps = plan(wh_files, self.rename_whiteout, m);
        // What can fail for want of space comes before the first step that shows.
        let replaces = |s: &Step| matches!(s, Step::ReplaceOldObject | Step::ReplaceOldDir);
        let mut whiteout = None;
        if steps.iter().any(replaces) {
            whiteout = Some(Staged::adopt(self, self.stage_whiteout()?));
        }
        for &step in &steps {
            let done = self.step(step, from, to, &mut whiteout);
            if done.is_err()
                && step == Step::Exchange
                && steps.first() == Some(&Step::WhiteoutAtNew)
            {
                self.drop_whiteout(to.dir, to.name);
            }
            done.while_doing(|| format!("rename in the upper ({step:?})"))?;
        }
        Ok(())
    }

    fn step(
        &self,
        step: Step,
        from: End<'_>,
        to: End<'_>,
        whiteout: &mut Option<Staged<'_>>,
    ) -> Result<()> {
        let rename = |flags| rustix::fs::renameat_with(from.dir, from.name, to.dir, to.name, flags);
        match step {
            Step::WhFileAtOld => self.write_wh_file(from.dir, from.name)?,
            Step::WhiteoutAtNew => self.whiteout_absent(to.dir, to.name)?,
            Step::MoveNew => match rename(RenameFlags::NOREPLACE) {
                Err(Errno::INVAL) => rename(RenameFlags::empty())?,
                result => result?,
            },
            Step::MoveOver => rename(RenameFlags::empty())?,
            Step::MoveLeavingWhiteout => rename(RenameFlags::WHITEOUT)?,
            Step::Exchange => rename(RenameFlags::EXCHANGE)?,
            Step::LinkOver => {
                let own = self.temp_name();
                let mut staged = Staged::adopt(self, own.clone());
                let old = Place::at(Arc::clone(from.dir), from.name);
                link_place(&old, &self.work, &own)?;
                staged.publish_over(to.dir, to.name)?;
            }
            Step::ReplaceOldObject => {
                let mut staged = whiteout.take().ok_or(Errno::IO)?;
                staged.publish_over(from.dir, from.name)?;
            }
            Step::ReplaceOldDir => {
                let staged = whiteout.take().ok_or(Errno::IO)?;
                staged.publish_exchange(from.dir, from.name)?;
            }
            Step::DropWhiteoutAtOld => self.drop_whiteout(from.dir, from.name),
            Step::DropWhFileAtNew => {
                let name = wh_name(to.name);
                crate::error::best_effort(
                    "remove a needless .wh. file",
                    rustix::fs::unlinkat(to.dir, &*name, rustix::fs::AtFlags::empty()),
                );
            }
        }
        Ok(())
    }

    /// Swaps two objects of the upper.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn exchange(&self, a: End<'_>, b: End<'_>) -> Result<()> {
        rustix::fs::renameat_with(a.dir, a.name, b.dir, b.name, RenameFlags::EXCHANGE)
            .while_doing(|| "exchange in the upper")
    }

    /// Replaces a directory that is empty in the view, but not on disk, by an empty one that is
    /// opaque: the view does not change, and the directory can then be renamed over.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn clear_dir(&self, end: End<'_>) -> Result<()> {
        let place = Place::at(Arc::clone(end.dir), end.name);
        let stat = place
            .stat()
            .while_doing(|| "stat a directory of the upper")?;
        let mut staged = self.stage_dataless(&place, &stat.attr, &[])?.staged;
        if self.dialect == Dialect::File {
            // A sentinel would be in the way of the rename; a `.wh.` file beside says the same.
            self.write_wh_file(end.dir, end.name)?;
        } else {
            self.set_opaque(&staged.place())?;
        }
        if self.exchange {
            let cleared = staged.publish_exchange(end.dir, end.name);
            return cleared.while_doing(|| "clear a directory");
        }
        // A crash in between leaves nothing at the name, where nothing but an empty directory was.
        let old = self.temp_name();
        rustix::fs::renameat(end.dir, end.name, &self.work, &*old)
            .while_doing(|| "move a directory out of the upper")?;
        let cleared = staged.publish_new(end.dir, end.name);
        match &cleared {
            Ok(()) => self.discard(&old),
            Err(_) => {
                let back = rustix::fs::renameat(&self.work, &*old, end.dir, end.name);
                crate::error::best_effort("put a directory back", back);
            }
        }
        cleared.while_doing(|| "clear a directory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_move_has_a_plan_that_hides_what_it_must() {
        use Step::*;
        let m = |is_dir, leave_whiteout, target| Move {
            is_dir,
            leave_whiteout,
            target,
        };
        for (rename_whiteout, m, want) in [
            (true, m(false, false, Target::Nothing), vec![MoveNew]),
            (
                true,
                m(false, true, Target::Nothing),
                vec![MoveLeavingWhiteout],
            ),
            (
                true,
                m(false, true, Target::Whiteout),
                vec![MoveLeavingWhiteout],
            ),
            (true, m(true, true, Target::Whiteout), vec![Exchange]),
            (
                true,
                m(true, false, Target::Whiteout),
                vec![Exchange, DropWhiteoutAtOld],
            ),
            (
                true,
                m(true, true, Target::EmptyDir),
                vec![MoveLeavingWhiteout],
            ),
            (true, m(false, false, Target::Object), vec![MoveOver]),
            (
                false,
                m(false, true, Target::Nothing),
                vec![WhiteoutAtNew, Exchange],
            ),
            (false, m(false, true, Target::Whiteout), vec![Exchange]),
            (
                false,
                m(false, true, Target::Object),
                vec![LinkOver, ReplaceOldObject],
            ),
            (
                false,
                m(true, true, Target::EmptyDir),
                vec![Exchange, ReplaceOldDir],
            ),
        ] {
            assert_eq!(
                plan(false, rename_whiteout, m),
                want,
                "{rename_whiteout} {m:?}"
            );
        }
        let all = [
            Target::Nothing,
            Target::Whiteout,
            Target::Object,
            Target::EmptyDir,
        ];
        for target in all {
            let steps = plan(true, false, m(false, true, target));
            assert_eq!(
                steps.first(),
                Some(&WhFileAtOld),
                "the whiteout is there before the move"
            );
        }
    }
}
