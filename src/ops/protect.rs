//! Immutable and append-only objects (chattr +i, +a): what may not be done to them.
//!
//! The kernel does not know of these flags in a FUSE filesystem, and the upper's own filesystem knows
//! only of those that are set there: not of those of a lower, which a copy has as a marker
//! (`overlay.protattr`, as in kernel overlayfs). So every change asks here first, in memory.

use std::sync::Arc;

use super::Union;
use crate::attr::Protection;
use crate::error::{Errno, Result};
use crate::layer::{Place, Stat};
use crate::marker::protattr;
use crate::marker::xattr::{Marker, Namespace};
use crate::tree::Inode;

/// What is about to be done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Its attributes, its content as it is now, or its names are changed.
    Change,
    /// Only its times are set, or its content grows.
    Touch,
    /// It, a directory, gets a name.
    AddName,
    /// It, a directory, loses a name.
    RemoveName,
}

/// `EPERM` if that may not be done, as in the kernel's VFS.
pub(super) fn permit(inode: &Inode, act: Act) -> Result<()> {
    let Protection {
        immutable,
        append_only,
    } = inode.protection.get();
    let refused = match act {
        Act::Touch | Act::AddName => immutable,
        Act::Change | Act::RemoveName => immutable || append_only,
    };
    match refused {
        true => Err(Errno::PERM.into()),
        false => Ok(()),
    }
}

impl Union {
    /// The same for a write at `offset`: an append-only file may only grow.
    pub(super) fn permit_write(&self, inode: &Arc<Inode>, offset: u64) -> Result<()> {
        if inode.protection.get() == Protection::default() {
            return Ok(());
        }
        permit(inode, Act::Touch)?;
        match inode.protection.get().append_only && offset < self.stat(inode)?.attr.size {
            true => permit(inode, Act::Change),
            false => Ok(()),
        }
    }
}

/// Adds what the marker of an object of the upper says to its attributes.
pub(super) fn add_protection(stat: &mut Stat, place: &Place) -> Result<()> {
    let value = match place.marker(Marker::Protattr) {
        Err(Errno::ACCESS) => None, // as for any marker
        value => value?,
    };
    if let Some(value) = value {
        let marked = protattr::decode(&value);
        stat.protection.immutable |= marked.immutable;
        stat.protection.append_only |= marked.append_only;
    }
    Ok(())
}

/// The marker of a copy of a protected object.
pub(super) fn marker(protection: Protection) -> Option<(Marker, Vec<u8>)> {
    Some((Marker::Protattr, protattr::encode(protection)?))
}

/// Takes the marker away from an object of the upper, for its flags will say what it said.
pub(super) fn unmark(place: &Place) -> Result<(), Errno> {
    for namespace in Namespace::ALL {
        match place.remove_xattr(namespace.name(Marker::Protattr).as_bytes()) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            // Who may not change such markers has not set them.
            Err(Errno::PERM) if namespace == Namespace::Trusted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
