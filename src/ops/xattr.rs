//! Extended attributes. Markers are hidden; names that would be read as markers are escaped.

use std::borrow::Cow;
use std::sync::Arc;

use rustix::fs::XattrFlags;

use super::acl::is_acl;
use super::protect::{Act, permit};
use super::{Caller, Union};
use crate::error::{Errno, Result, WhileDoing};
use crate::ids::IdMaps;
use crate::layer::{Layer, LayerId, Place};
use crate::marker::acl;
use crate::marker::override_stat::{self, Store};
use crate::marker::xattr::{OnDisk, on_disk, shown};
use crate::name::NameBuf;
use crate::sys::cred::Privileges;
use crate::tree::{FactsSeen, Inode, XattrFact};

/// File capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// What attributes are named that any layer may have.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

impl Union {
    /// Whether an attribute changes what the kernel has cached of the object's mode: access control
    /// lists change mode bits too.
    pub fn changes_mode(name: &[u8]) -> bool {
        name == acl::ACCESS
    }

    /// The value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` if there is none; `EOPNOTSUPP` for a namespace that the layer does not have.
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        let inode = self.inode(ino)?;
        let Ok(disk) = self.disk_name(name) else {
            return Err(Errno::NODATA.into());
        };
        self.refuse_list(name)?;
        let seen = inode.xattrs.look();
        let absent = *disk == *CAPABILITY && seen.has(XattrFact::NoCapability)
            || name == acl::ACCESS && seen.has(XattrFact::NoAcl);
        // Of what is in no namespace, or is nothing but one, the layer says something else than that
        // it is not there.
        let known = is_acl(name)
            || NAMESPACES.iter().any(|prefix| {
                disk.strip_prefix(*prefix)
                    .is_some_and(|rest| !rest.is_empty())
            });
        // The kernel's own (labels, measurements) come to objects of the upper without our doing.
        let theirs = disk.starts_with(b"security.") && Some(inode.id().layer) == self.upper_id();
        if absent
            || known && !theirs && seen.has(XattrFact::None)
            || known && self.is_not_listed(&inode, seen, &disk)
        {
            return Err(Errno::NODATA.into());
        }
        let wraps = self.wraps(&inode);
        match self.read_place(&inode, |place| read(place, wraps, &disk)) {
            // A layer without lists has none; EOPNOTSUPP would fail the kernel's own checks.
            Err(Errno::OPNOTSUPP) if is_acl(name) => Err(Errno::NODATA.into()),
            Err(Errno::NODATA) => {
                self.learn_absence(&inode, seen, &disk);
                Err(Errno::NODATA.into())
            }
            result => {
                let mut value = result?;
                if is_acl(name) && !self.ids.is_identity() {
                    let IdMaps { users, groups } = &self.ids;
                    acl::map_ids(&mut value, |id| users.named(id), |id| groups.named(id));
                }
                Ok(value)
            }
        }
    }

    /// Where access control lists are not in force nobody can see or change them.
    fn refuse_list(&self, name: &[u8]) -> Result<()> {
        if is_acl(name) && !self.has_acls() {
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(())
    }

    /// Asks an object of a lower for all names instead of the one, once: who asks for one asks for
    /// others next (`ls -l` for a label and a list, engines that compare two mounts for capabilities
    /// and all names), and is then answered from memory.
    fn is_not_listed(&self, inode: &Arc<Inode>, seen: FactsSeen, disk: &[u8]) -> bool {
        if seen.has(XattrFact::Some) || !self.remembers_lists(inode) {
            return false;
        }
        let Ok(names) = self.read_place(inode, Place::list_xattrs) else {
            return false;
        };
        let wrapped = match self.wraps(inode) {
            true => override_stat::wrap(disk),
            false => disk.into(),
        };
        let is_it = |name: &NameBuf| **name == *disk || **name == *wrapped;
        let listed = names.iter().any(is_it);
        let fact = match (names.is_empty(), listed) {
            (true, _) => XattrFact::None,
            (false, false) if *disk == *CAPABILITY => XattrFact::NoCapability,
            (false, _) => XattrFact::Some,
        };
        inode.xattrs.learn(seen, fact);
        !listed
    }

    /// The name on disk, in layers that do not wrap, of what a user calls `name`.
    ///
    /// # Errors
    /// Those of [`on_disk`]; `EPERM` for what keeps owners.
    fn disk_name<'a>(&self, name: &'a [u8]) -> Result<Cow<'a, [u8]>, Errno> {
        if self.owners_aside && override_stat::is_private(name) {
            return Err(Errno::PERM);
        }
        on_disk(name)
    }

    /// Whether the layer of an object keeps what a user cannot set under other names.
    fn wraps(&self, inode: &Inode) -> bool {
        self.owners_in(inode.id().layer).is_some_and(Store::wraps)
    }

    /// Takes its capabilities from a file that is about to change, in an upper that keeps owners aside:
    /// its filesystem may not know them for what they are, and sees no change of an owner.
    pub(super) fn drop_capability(&self, inode: &Arc<Inode>) -> Result<()> {
        let Some(upper) = self.upper.as_ref().filter(|u| u.owners.store.is_some()) else {
            return Ok(());
        };
        let seen = inode.xattrs.look();
        if seen.has(XattrFact::NoCapability) || seen.has(XattrFact::None) {
            return Ok(());
        }
        let name = upper.on_upper(CAPABILITY);
        match self.with_place(inode, |place| place.remove_xattr(&name)) {
            Ok(()) => inode.xattrs.doubt(),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {
                inode.xattrs.learn(seen, XattrFact::NoCapability);
            }
            Err(e) => return Err(e).while_doing(|| "clear capabilities"),
        }
        Ok(())
    }

    /// Whether an object is one of a lower that tells all its attributes when it lists them: nobody
    /// adds any.
    fn remembers_lists(&self, inode: &Inode) -> bool {
        let layer = inode.id().layer;
        self.lasting && Some(layer) != self.upper_id() && self.lists_all(layer)
    }

    /// An attribute is not there: remembers that, and whether any other is.
    fn learn_absence(&self, inode: &Arc<Inode>, seen: FactsSeen, disk: &[u8]) {
        if !self.lasting {
            return;
        }
        if *disk == *CAPABILITY {
            // Asked for before the first write and at each exec, mostly alone.
            inode.xattrs.learn(seen, XattrFact::NoCapability);
        } else if self.lists_all(inode.id().layer)
            && self.read_place(inode, Place::has_no_xattr) == Ok(true)
        {
            inode.xattrs.learn(seen, XattrFact::None);
        } else if *disk == *acl::ACCESS {
            inode.xattrs.learn(seen, XattrFact::NoAcl);
        }
    }

    fn lists_all(&self, layer: LayerId) -> bool {
        self.layer(layer).is_ok_and(Layer::lists_all_xattrs)
    }

    /// The names of all attributes, as shown in the view; those of `trusted.` only to who may read
    /// them.
    ///
    /// # Errors
    /// Those of listxattr(2).
    pub fn listxattr(&self, caller: Caller, ino: u64) -> Result<Vec<NameBuf>> {
        let inode = self.inode(ino)?;
        let seen = inode.xattrs.look();
        let lasts = self.remembers_lists(&inode);
        if lasts && seen.has(XattrFact::None) {
            return Ok(Vec::new());
        }
        let names = self.read_place(&inode, Place::list_xattrs)?;
        if lasts && names.is_empty() {
            inode.xattrs.learn(seen, XattrFact::None);
        }
        let wraps = self.wraps(&inode);
        let names = names.iter().filter_map(|name| match self.owners_aside {
            true if wraps && override_stat::unwrap(name).is_some() => override_stat::unwrap(name),
            true if override_stat::is_private(name) => None,
            _ => Some(&**name),
        });
        let view = names.filter_map(|name| match shown(name) {
            OnDisk::Shown(name) => Some(name.into_owned().into_boxed_slice()),
            OnDisk::Private => None,
        });
        let view = view.filter(|name| self.has_acls() || !is_acl(name));
        let mut view: Vec<NameBuf> = view.collect();
        let trusted = |name: &NameBuf| name.starts_with(b"trusted.");
        if view.iter().any(trusted) && !Privileges::of(caller.pid).cap_sys_admin {
            view.retain(|name| !trusted(name));
        }
        Ok(view)
    }

    /// Sets an attribute, after copying up. `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA` as the flags say; the upper's.
    pub fn setxattr(
        &self,
        caller: Caller,
        ino: u64,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        let upper = self.upper()?;
        let inode = self.inode(ino)?;
        let disk = self.disk_name(name)?;
        let disk = upper.on_upper(&disk);
        self.refuse_list(name)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let mut value = Cow::Borrowed(value);
        if is_acl(name) && !self.ids.is_identity() {
            let IdMaps { users, groups } = &self.ids;
            acl::map_ids(
                value.to_mut(),
                |id| users.stored(id),
                |id| groups.stored(id),
            );
        }
        permit(&inode, Act::Change)?;
        self.make_upper(&inode)?;
        let _held = self.hold_attributes(&inode);
        if name == acl::ACCESS {
            self.clear_setgid(&inode, caller)?;
        }
        inode.xattrs.doubt();
        let set = self.with_place(&inode, |place| place.set_xattr(&disk, &value, flags));
        inode.xattrs.doubt();
        Ok(set?)
    }

    /// Removes an attribute, after copying up if there is one.
    ///
    /// # Errors
    /// `ENODATA` if there is none; the upper's.
    pub fn removexattr(&self, caller: Caller, ino: u64, name: &[u8]) -> Result<()> {
        let upper = self.upper()?;
        let inode = self.inode(ino)?;
        let disk = self.disk_name(name)?;
        let disk = upper.on_upper(&disk);
        self.refuse_list(name)?;
        permit(&inode, Act::Change)?;
        if Some(inode.id().layer) != self.upper_id() {
            match self.getxattr(ino, name) {
                // Removing a list that is not there succeeds, as on other filesystems.
                Err(e) if e.errno() == Errno::NODATA && is_acl(name) => return Ok(()),
                result => drop(result?),
            }
        }
        self.make_upper(&inode)?;
        let _held = self.hold_attributes(&inode);
        if name == acl::ACCESS {
            self.clear_setgid(&inode, caller)?;
        }
        Ok(self.with_place(&inode, |place| place.remove_xattr(&disk))?)
    }
}

/// The value of what is called `disk` in layers that do not wrap. (What one that does was given from
/// outside, such as a label, has its own name there too.)
fn read(place: &Place, wraps: bool, disk: &[u8]) -> Result<Vec<u8>, Errno> {
    if wraps && let Cow::Owned(wrapped) = override_stat::wrap(disk) {
        match place.xattr(&wrapped) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            result => return result,
        }
    }
    place.xattr(disk)
}
