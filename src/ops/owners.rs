//! Which layers keep owners, modes and types in attributes of their objects; decided once, when the
//! union is opened.

use rustix::fs::XattrFlags;

use super::StatOverride;
use crate::error::{Errno, SetupError};
use crate::layer::Layer;
use crate::marker::override_stat::{OverrideStat, Store};
use crate::upper::{OwnersAside, Upper};

/// Finds out where the layers keep them, and prepares the upper, which is to do so from now on if
/// `mode` says it. `written`: the upper may be changed. Whether such attributes are nobody's own.
///
/// # Errors
/// A layer cannot be read; the upper keeps them elsewhere already, or cannot keep them.
pub(super) fn settle(
    mode: StatOverride,
    layers: &mut [Layer],
    upper: Option<&mut Upper>,
    written: bool,
) -> Result<bool, SetupError> {
    for layer in &mut *layers {
        let found = layer
            .find_store()
            .map_err(|e| SetupError::at("read layer", &layer.path, e))?;
        match (mode, found) {
            (StatOverride::Off, Some(store)) => tracing::warn!(
                "layer {:?} keeps owners and modes in {}, which is not read: --stat-override read",
                layer.path,
                store.name()
            ),
            (StatOverride::Off, None) => {}
            (StatOverride::Read | StatOverride::Write(_), found) => layer.owners_in = found,
        }
        if let Some(store) = layer.owners_in {
            let root = layer.root_place().stat_with(layer.owners_in);
            root.map_err(|e| SetupError::at(&format!("read {} of", store.name()), &layer.path, e))?;
        }
    }
    let known = mode != StatOverride::Off;
    if let (Some(upper), [own, lowers @ ..]) = (upper, layers) {
        if let StatOverride::Write(store) = mode
            && written
        {
            own.owners_in = Some(begin(store, own, lowers)?);
        }
        let store = own.owners_in;
        upper.owners = OwnersAside { known, store };
        // A list on disk would speak of owners on disk.
        upper.acl &= store.is_none();
    }
    Ok(known)
}

/// Lets the upper keep owners in `store`: its root says so to whoever mounts it next.
fn begin(store: Store, upper: &Layer, lowers: &[Layer]) -> Result<Store, SetupError> {
    match (upper.owners_in, store) {
        (Some(found), _) if found == store => return Ok(found),
        (Some(Store::FuseOverlayfs), Store::Containers) => return Ok(Store::FuseOverlayfs),
        (Some(found), _) => {
            return Err(SetupError::new(format!(
                "upper {:?} keeps owners and modes in {}: it cannot go on in {}",
                upper.path,
                found.name(),
                store.name()
            )));
        }
        (None, _) => {}
    }
    let root = upper.root_place();
    let fail = |e: Errno| {
        SetupError::at(
            &format!("keep owners and modes in {} of", store.name()),
            &upper.path,
            match e {
                Errno::PERM => "only root can write that attribute".to_owned(),
                Errno::OPNOTSUPP => "the filesystem has no such attributes".to_owned(),
                e => e.to_string(),
            },
        )
    };
    // The root of the union looks as before: as the lowers say, or as the directory is.
    let below = lowers.iter().find(|lower| lower.owners_in.is_some());
    let (place, read) = match below {
        Some(lower) => (lower.root_place(), lower.owners_in),
        None => (upper.root_place(), None),
    };
    let attr = place.stat_with(read).map_err(fail)?.attr;
    let value = OverrideStat::of(&attr).encode(store);
    root.set_xattr(store.name().as_bytes(), &value, XattrFlags::empty())
        .map_err(fail)?;
    Ok(store)
}
