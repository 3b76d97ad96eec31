//! Whose an object of the upper is, and its mode: on the object itself, or kept in an attribute of it.

use std::borrow::Cow;

use rustix::fs::XattrFlags;

use super::change::{set_owner, set_perm};
use super::workdir::Upper;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::Place;
use crate::marker::override_stat::{self, OverrideStat, Store};

/// What is known of owners in attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnersAside {
    /// Layers may keep them so: such attributes are nobody's own.
    pub known: bool,
    /// The upper does.
    pub store: Option<Store>,
}

impl Upper {
    /// Gives an object that nobody sees yet the owner that it is to show; where owners are kept aside, the mode
    /// and the type too.
    pub(super) fn give_owner(&self, place: &Place, shown: &OverrideStat) -> Result<()> {
        match self.owners.store {
            Some(store) => keep_aside(store, place, shown)
                .while_doing(|| format!("keep the owner in {}", store.name())),
            None => {
                set_owner(place, Some(shown.uid), Some(shown.gid)).while_doing(|| "set the owner")
            }
        }
    }

    /// Gives it the mode.
    pub(super) fn give_mode(&self, place: &Place, shown: &OverrideStat) -> Result<()> {
        if shown.is(Kind::Symlink) || self.owners.store.is_some() {
            return Ok(());
        }
        set_perm(place, shown.perm).while_doing(|| "set the mode")
    }

    /// What an attribute of a lower, named `name` on disk, is named on a copy; `None`: it does not go
    /// along.
    pub(super) fn name_of_copy<'a>(&self, name: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if !self.owners.known {
            return Some(name.into());
        }
        let own = match override_stat::unwrap(name) {
            Some(own) => own,
            None if override_stat::is_private(name) => return None,
            None => name,
        };
        Some(self.on_upper(own))
    }

    /// The name in the upper of what is called `name` in layers that do not wrap.
    pub fn on_upper<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        match self.owners.store.is_some_and(Store::wraps) {
            true => override_stat::wrap(name),
            false => name.into(),
        }
    }

    /// What lies on disk for an object of this kind.
    pub(super) fn kind_on_disk(&self, kind: Kind) -> Kind {
        match (self.owners.store, kind) {
            (None, _) | (_, Kind::Dir | Kind::Symlink) => kind,
            (Some(_), _) => Kind::File,
        }
    }
}

/// Writes down what an object is to show from now on. Only files and directories have such an
/// attribute. A symlink that may not be given away is kept: nothing is permitted by its owner.
///
/// # Errors
/// Those of setxattr(2); for nodes that others have made in the upper those of chown(2) and chmod(2).
pub fn keep_aside(store: Store, place: &Place, shown: &OverrideStat) -> Result<(), Errno> {
    let give_away = || set_owner(place, Some(shown.uid), Some(shown.gid));
    match place.stat()?.attr.kind {
        Kind::File | Kind::Dir => {
            let (name, value) = (store.name().as_bytes(), shown.encode(store));
            place.set_xattr(name, &value, XattrFlags::empty())
        }
        Kind::Symlink => match give_away() {
            Err(Errno::PERM | Errno::INVAL) => Ok(()),
            result => result,
        },
        Kind::Fifo | Kind::Socket | Kind::CharDev | Kind::BlockDev => {
            give_away()?;
            set_perm(place, shown.perm)
        }
    }
}
