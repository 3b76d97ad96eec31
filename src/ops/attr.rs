//! getattr and setattr.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::copy_up::Want;
use super::protect::{Act, permit};
use super::{Caller, Union};
use crate::attr::{Attr, Kind, Time};
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::ids;
use crate::marker::override_stat::{OverrideStat, Store};
use crate::sys::cred::Privileges;
use crate::tree::Inode;
use crate::upper::{SetTime, keep_aside, set_owner, set_perm, set_times};

/// How a time is to change.
pub type TimeChange = SetTime;

/// What setattr is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub perm: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Access time.
    pub atime: TimeChange,
    /// Modification time.
    pub mtime: TimeChange,
}

impl SetAttr {
    /// What it is to an object that may only be appended to. (With its writeback cache the kernel itself
    /// sets the modification time, and nothing else, after every append.)
    fn act(&self) -> Act {
        let times = matches!(self.atime, SetTime::To(_));
        match times || self.sets_owner() || self.perm.is_some() || self.size.is_some() {
            true => Act::Change,
            false => Act::Touch,
        }
    }

    /// A change of nothing.
    pub const NONE: SetAttr = SetAttr {
        perm: None,
        uid: None,
        gid: None,
        size: None,
        atime: SetTime::Keep,
        mtime: SetTime::Keep,
    };

    /// Whether an object with these attributes would stay as it is.
    fn changes_nothing(&self, attr: &Attr) -> bool {
        let keeps = |change: SetTime, time: Time| match change {
            SetTime::Keep => true,
            SetTime::Now => false,
            SetTime::To(to) => to == time,
        };
        self.perm.is_none_or(|p| p == attr.perm)
            && self.uid.is_none_or(|u| u == attr.uid)
            && self.gid.is_none_or(|g| g == attr.gid)
            && self.size.is_none() // sets the modification time, whatever the size
            && keeps(self.atime, attr.atime)
            && keeps(self.mtime, attr.mtime)
    }

    fn sets_owner(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }
}

/// The permission bits that are left when setuid and setgid are cleared as the kernel does: a
/// member of the file's group keeps a setgid without group execution.
fn without_privileges(perm: u32, in_group: bool) -> u32 {
    let sgid = if perm & 0o010 != 0 || !in_group {
        0o2000
    } else {
        0
    };
    perm & !(0o4000 | sgid)
}

/// Why setuid and setgid may have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A write of which the kernel has found that its caller may not keep them.
    Write,
    /// Another change of data: what the caller may is still to be found out.
    Change,
}

impl Union {
    /// The attributes of an object.
    ///
    /// # Errors
    /// Those of statx(2) on the layer.
    pub fn getattr(&self, ino: u64) -> Result<Attr> {
        let inode = self.inode(ino)?;
        let stat = self.stat(&inode)?;
        Ok(self.shown_attr(&inode, &stat))
    }

    /// Changes attributes; copies up first, unless nothing would change. A lower file that is cut
    /// is copied only as far as it stays.
    ///
    /// # Errors
    /// The upper's; `EINVAL` for an owner that cannot be.
    pub fn setattr(&self, caller: Caller, ino: u64, change: &SetAttr) -> Result<Attr> {
        let inode = self.inode(ino)?;
        if ![change.uid, change.gid]
            .into_iter()
            .flatten()
            .all(ids::is_valid)
        {
            return Err(Errno::INVAL.into());
        }
        let change = SetAttr {
            uid: change.uid.map(|id| self.ids.users.stored(id)),
            gid: change.gid.map(|id| self.ids.groups.stored(id)),
            ..*change
        };
        permit(&inode, change.act())?;
        let in_upper = |inode: &Inode| self.upper_id() == Some(inode.id().layer);
        let mut is_cut = false;
        if !in_upper(&inode) {
            let stat = self.stat(&inode)?;
            // A change of the owner clears setuid even if the owner stays.
            let clears = change.sets_owner() && stat.attr.perm & 0o6000 != 0;
            if change.changes_nothing(&stat.attr) && !clears {
                return Ok(self.shown_attr(&inode, &stat));
            }
            match inode.kind {
                Kind::Dir => self.upper_dir(&inode).map(drop)?,
                _ => self.copy_up(&inode, change.size.map_or(Want::Attributes, Want::Data))?,
            }
            is_cut = change.size.is_some_and(|size| size < stat.attr.size);
        }
        self.upper()?;
        self.set_owner_and_mode(&inode, &change)?;
        if let Some(size) = change.size {
            match self.truncate(&inode, size, caller) {
                // The copy was made as short as that: it is done, whatever can be said of its times.
                Err(e) if is_cut && self.stat(&inode).is_ok_and(|s| s.attr.size == size) => {
                    best_effort("move the times of a file that is cut", Err::<(), _>(e));
                }
                result => result?,
            }
        }
        if (change.atime, change.mtime) != (SetTime::Keep, SetTime::Keep) {
            let _held = self.hold_attributes(&inode);
            let _times = inode.times.lock();
            self.with_place(&inode, |place| set_times(place, change.atime, change.mtime))
                .while_doing(|| "set the times")?;
        }
        let stat = self.stat(&inode)?;
        Ok(self.shown_attr(&inode, &stat))
    }

    fn set_owner_and_mode(&self, inode: &Arc<Inode>, change: &SetAttr) -> Result<()> {
        if !change.sets_owner() && change.perm.is_none() {
            return Ok(());
        }
        let _held = self.hold_attributes(inode);
        self.write_owner_and_mode(inode, change)
    }

    /// The same for who holds the attributes already.
    fn write_owner_and_mode(&self, inode: &Arc<Inode>, change: &SetAttr) -> Result<()> {
        if let Some(store) = self.upper()?.owners.store {
            return self.change_aside(store, inode, change);
        }
        if change.sets_owner() {
            self.with_place(inode, |place| set_owner(place, change.uid, change.gid))
                .while_doing(|| "set the owner")?;
        }
        if let Some(perm) = change.perm {
            self.with_place(inode, |place| set_perm(place, perm))
                .while_doing(|| "set the mode")?;
        }
        Ok(())
    }

    /// The same where the upper keeps owner and mode in an attribute. What the kernel does to an object
    /// that gets another owner is to be done here then: it loses setuid, setgid and capabilities.
    fn change_aside(&self, store: Store, inode: &Arc<Inode>, change: &SetAttr) -> Result<()> {
        let _alone = inode.times.lock();
        let mut attr = self.stat(inode)?.attr;
        if change.sets_owner() && inode.kind != Kind::Dir {
            attr.perm = without_privileges(attr.perm, true);
            self.drop_capability(inode)?;
        }
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.perm = change.perm.unwrap_or(attr.perm);
        let shown = OverrideStat::of(&attr);
        self.with_place(inode, |place| keep_aside(store, place, &shown))
            .while_doing(|| format!("keep the owner in {}", store.name()))
    }

    fn set_mode(&self, inode: &Arc<Inode>, perm: u32) -> Result<()> {
        let change = SetAttr {
            perm: Some(perm),
            ..SetAttr::NONE
        };
        self.write_owner_and_mode(inode, &change)
    }

    fn truncate(&self, inode: &Arc<Inode>, size: u64, caller: Caller) -> Result<()> {
        if inode.kind != Kind::File {
            return Err(Errno::INVAL.into());
        }
        self.copy_up(inode, Want::Data(size))?;
        let fd = self.write_fd(inode)?;
        self.clear_privileges(inode, caller, Cause::Change)?;
        fd.mark_dirty();
        rustix::fs::ftruncate(fd.fd(), size).while_doing(|| "truncate in the upper")
    }

    /// Clears setuid and setgid before a change of the data, unless the caller may keep them. The
    /// file's capabilities are cleared by the upper's own filesystem. Whether anything was cleared.
    pub(super) fn clear_privileges(
        &self,
        inode: &Arc<Inode>,
        caller: Caller,
        cause: Cause,
    ) -> Result<bool> {
        self.drop_capability(inode)?;
        // Relaxed: set before the kernel was told of the bits, and only ever a reason to look.
        if !inode.setid.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let attr = self.stat(inode)?.attr;
        if attr.perm & 0o6000 == 0 {
            return Ok(false);
        }
        let process = Privileges::of(caller.pid);
        let in_group = self.is_member(caller, &process, attr.gid);
        let left = without_privileges(attr.perm, in_group);
        if left == attr.perm || (cause == Cause::Change && process.cap_fsetid) {
            return Ok(false);
        }
        self.set_mode(inode, left)?;
        Ok(true)
    }

    /// Clears setgid before an access control list changes, unless the caller may keep it: who does
    /// not belong to a group may not hand out its rights. The upper would see the daemon's.
    pub(super) fn clear_setgid(&self, inode: &Arc<Inode>, caller: Caller) -> Result<()> {
        let attr = self.stat(inode)?.attr;
        if attr.perm & 0o2000 == 0 {
            return Ok(());
        }
        let process = Privileges::of(caller.pid);
        if process.cap_fsetid || self.is_member(caller, &process, attr.gid) {
            return Ok(());
        }
        self.set_mode(inode, attr.perm & !0o2000)
    }

    /// Whether the caller belongs to a group, given by its number on disk.
    fn is_member(&self, caller: Caller, process: &Privileges, gid: u32) -> bool {
        let group = self.ids.groups.shown(gid);
        caller.gid == group || process.groups.contains(&group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_cleared_as_the_kernel_does() {
        for (perm, in_group, left) in [
            (0o4755, true, 0o755),
            (0o2755, true, 0o755),
            (0o2745, true, 0o2745),
            (0o2745, false, 0o745),
            (0o6777, false, 0o777),
            (0o1755, false, 0o1755),
        ] {
            assert_eq!(without_privileges(perm, in_group), left, "{perm:o}");
        }
    }
}
