//! Writes deletions: a name of a lower stops to show.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, XattrFlags};

use super::change::set_perm;
use super::workdir::Upper;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::Place;
use crate::marker::whiteout::{Dialect, WH_PREFIX};
use crate::marker::xattr::{Marker, Namespace};
use crate::name::{Name, NameBuf};

/// Makes an empty file; one that is there already will do.
pub(super) fn make_empty(dir: &OwnedFd, name: &Name) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o444);
    match rustix::fs::mknodat(dir, name, FileType::RegularFile, mode, 0) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Moves directory `name` out of `dir` by `act`. A daemon without privileges cannot change the parent
/// of a directory that its owner may not write; as it goes for good, its mode no longer matters.
fn move_out(
    dir: &Arc<OwnedFd>,
    name: &Name,
    act: impl Fn() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match act() {
        Err(Errno::ACCESS) => {}
        result => return result,
    }
    let place = Place::at(Arc::clone(dir), name);
    let perm = place.stat()?.attr.perm;
    set_perm(&place, perm | 0o700)?;
    // Only if it is still there: what is at the name now may be a whiteout, shared by many.
    act().inspect_err(|_| {
        crate::error::best_effort("give a mode back", set_perm(&place, perm));
    })
}

/// The `.wh.` file of a name.
pub(super) fn wh_name(name: &Name) -> NameBuf {
    [WH_PREFIX, name].concat().into()
}

impl Upper {
    /// The longest name that can also be deleted.
    pub fn name_max(&self) -> usize {
        match self.dialect {
            Dialect::File => crate::name::NAME_MAX - WH_PREFIX.len(),
            Dialect::CharDev | Dialect::Xattr => crate::name::NAME_MAX,
        }
    }

    /// Deletes `name`, of which the upper directory `dir` has no object.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn whiteout_absent(&self, dir: &Arc<OwnedFd>, name: &Name) -> Result<()> {
        match self.dialect {
            Dialect::File => self.write_wh_file(dir, name),
            Dialect::CharDev => {
                let made = self.link_whiteout(dir, name);
                made.while_doing(|| "write a whiteout")
            }
            Dialect::Xattr => {
                let temp = self.stage_whiteout()?;
                self.mark_holder(dir)?;
                let moved = rustix::fs::renameat_with(
                    &self.work,
                    &*temp,
                    dir,
                    name,
                    RenameFlags::NOREPLACE,
                );
                moved
                    .inspect_err(|_| self.discard(&temp))
                    .while_doing(|| "publish a whiteout")
            }
        }
    }

    /// Deletes `name`, at which the upper directory `dir` has an object other than a directory.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn whiteout_object(&self, dir: &Arc<OwnedFd>, name: &Name) -> Result<()> {
        if self.dialect == Dialect::File {
            self.write_wh_file(dir, name)?;
            let removed = rustix::fs::unlinkat(dir, name, AtFlags::empty());
            return removed.while_doing(|| "unlink in the upper");
        }
        let temp = self.stage_whiteout()?;
        if self.dialect == Dialect::Xattr {
            self.mark_holder(dir)?;
        }
        rustix::fs::renameat(&self.work, &*temp, dir, name)
            .inspect_err(|_| self.discard(&temp))
            .while_doing(|| "publish a whiteout")
    }

    /// Deletes `name`, at which the upper directory `dir` has a directory that is empty in the
    /// view (but may hold whiteouts).
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn whiteout_dir(&self, dir: &Arc<OwnedFd>, name: &Name) -> Result<()> {
        if self.dialect == Dialect::File {
            self.write_wh_file(dir, name)?;
            return self.remove_dir(dir, name);
        }
        let temp = self.stage_whiteout()?;
        if self.dialect == Dialect::Xattr {
            self.mark_holder(dir)?;
        }
        let exchange =
            || rustix::fs::renameat_with(&self.work, &*temp, dir, name, RenameFlags::EXCHANGE);
        move_out(dir, name, exchange)
            .inspect_err(|_| self.discard(&temp))
            .while_doing(|| "publish a whiteout")?;
        self.discard(&temp);
        Ok(())
    }

    /// Removes the object `name`, no directory, that covers nothing.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn unlink(&self, dir: &OwnedFd, name: &Name) -> Result<()> {
        rustix::fs::unlinkat(dir, name, AtFlags::empty()).while_doing(|| "unlink in the upper")
    }

    /// Removes the directory `name`, empty in the view, whatever markers it holds.
    ///
    /// # Errors
    /// The upper's; nothing has changed then.
    pub fn remove_dir(&self, dir: &Arc<OwnedFd>, name: &Name) -> Result<()> {
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            result => return result.while_doing(|| "remove a directory of the upper"),
        }
        let temp = self.temp_name();
        move_out(dir, name, || {
            rustix::fs::renameat(dir, name, &self.work, &*temp)
        })
        .while_doing(|| "move a directory out of the upper")?;
        self.discard(&temp);
        Ok(())
    }

    /// Removes the whiteout of `name` in `dir`, which has an object of the name (`.wh.` dialect),
    /// or covers nothing.
    pub fn drop_whiteout(&self, dir: &Arc<OwnedFd>, name: &Name) {
        crate::error::best_effort(
            "remove a needless whiteout",
            self.remove_whiteout(dir, name),
        );
    }

    /// Removes the whiteout of `name`.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove_whiteout(&self, dir: &Arc<OwnedFd>, name: &Name) -> Result<(), Errno> {
        let at = match self.dialect {
            Dialect::File => wh_name(name),
            Dialect::CharDev | Dialect::Xattr => name.into(),
        };
        rustix::fs::unlinkat(dir, &*at, AtFlags::empty())
    }

    /// Writes the `.wh.` file of `name`. Beside an object of the name it does not act yet, so that
    /// it can be written before the object goes.
    pub(super) fn write_wh_file(&self, dir: &Arc<OwnedFd>, name: &Name) -> Result<()> {
        make_empty(dir, &wh_name(name)).while_doing(|| "write a .wh. file")
    }

    /// A whiteout in the workdir, ready to be renamed into place.
    pub(super) fn stage_whiteout(&self) -> Result<NameBuf> {
        let temp = self.temp_name();
        match self.dialect {
            Dialect::CharDev => {
                self.link_whiteout(&self.work, &temp)
                    .while_doing(|| "stage a whiteout")?;
            }
            Dialect::Xattr | Dialect::File => {
                let namespace = self.namespace.unwrap_or(Namespace::User);
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(&self.work, &*temp, FileType::RegularFile, mode, 0)
                    .while_doing(|| "stage a whiteout")?;
                let (path, _) = Place::at(Arc::clone(&self.work), &temp).proc_path();
                let name = namespace.name(Marker::Whiteout);
                rustix::fs::lsetxattr(&*path, name, b"y", XattrFlags::empty())
                    .inspect_err(|_| self.discard(&temp))
                    .while_doing(|| "mark a whiteout")?;
            }
        }
        Ok(temp)
    }

    /// Makes `name` in `dir` a whiteout: a hard link of the shared one, as the kernel does. A new
    /// shared one is made where there is none yet or it has as many links as it can have.
    fn link_whiteout(&self, dir: &Arc<OwnedFd>, name: &Name) -> Result<(), Errno> {
        let link =
            |shared: &Name| rustix::fs::linkat(&self.work, shared, dir, name, AtFlags::empty());
        let mut shared = self.shared_whiteout.lock();
        if let Some(shared) = &*shared {
            match link(shared) {
                Err(Errno::MLINK | Errno::NOENT | Errno::PERM) => {}
                result => return result,
            }
        }
        let fresh = self.temp_name();
        rustix::fs::mknodat(
            &self.work,
            &*fresh,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )?;
        match link(&fresh) {
            // No hard links here: whiteouts are made one by one.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => {
                rustix::fs::renameat_with(&self.work, &*fresh, dir, name, RenameFlags::NOREPLACE)
            }
            Ok(()) => {
                if let Some(full) = shared.replace(fresh) {
                    self.discard(&full);
                }
                Ok(())
            }
            Err(e) => {
                drop(shared);
                self.discard(&fresh);
                Err(e)
            }
        }
    }

    /// Marks a directory that is about to hold an xattr whiteout, for the kernel's readdir.
    pub(super) fn mark_holder(&self, dir: &Arc<OwnedFd>) -> Result<()> {
        let Some(namespace) = self.namespace else {
            return Ok(());
        };
        let (path, _) = Place::Fd(Arc::clone(dir)).proc_path();
        let name = namespace.name(Marker::Opaque);
        // CREATE: one that is opaque already stays so.
        match rustix::fs::setxattr(&*path, name, b"x", XattrFlags::CREATE) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e).while_doing(|| "mark a directory that holds xattr whiteouts"),
        }
    }
}
