//! What one layer has at one name, and what a directory says of the layers below, for who follows a
//! path in a layer without listing its directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::place::{Place, Stat};
use super::scan::has_whiteout_xattr;
use crate::attr::Kind;
use crate::error::Errno;
use crate::marker::opaque::{self, Opacity};
use crate::marker::redirect::Redirect;
use crate::marker::whiteout::{Class, WH_OPAQUE, WH_PREFIX, WhFiles, classify};
use crate::marker::xattr::{Marker, Namespace};
use crate::name::Name;

/// What one layer has at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Nothing,
    /// A whiteout.
    Whiteout,
    /// An object.
    Object {
        /// Its kind.
        kind: Kind,
        /// A `.wh.` file beside it hides what the layers below have at the name.
        hides: bool,
    },
}

/// A redirect that was met on an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetRedirect {
    /// Where the marker was found.
    pub namespace: Namespace,
    /// What it says, or why it says nothing.
    pub target: Result<Redirect, Errno>,
}

impl MetRedirect {
    /// Looks for the marker; `get` reads an attribute of the object.
    ///
    /// # Errors
    /// Those of getxattr(2) but that there is none.
    pub fn find(
        get: impl Fn(&'static str) -> Result<Vec<u8>, Errno>,
    ) -> Result<Option<MetRedirect>, Errno> {
        for namespace in Namespace::ALL {
            match get(namespace.name(Marker::Redirect)) {
                Ok(value) => {
                    let target = Redirect::decode(&value);
                    return Ok(Some(MetRedirect { namespace, target }));
                }
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The redirect on the object at `place`.
    ///
    /// # Errors
    /// Those of getxattr(2) but that there is none.
    pub fn at(place: &Place) -> Result<Option<MetRedirect>, Errno> {
        MetRedirect::find(|name| place.xattr(name.as_bytes()))
    }
}

/// What a directory says of the layers below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirMarkers {
    /// Nothing below it shows.
    pub opaque: bool,
    /// Its lower part lies at another path.
    pub redirect: Option<MetRedirect>,
}

/// What `dir` has at `name`. A name too long for the layer is not there.
///
/// # Errors
/// Those of statx(2).
pub fn look(dir: BorrowedFd<'_>, name: &Name, wh_files: WhFiles) -> Result<Look, Errno> {
    let hides = wh_files == WhFiles::Meant
        && stat(dir, &[WH_PREFIX, name].concat())?.is_some_and(|s| s.attr.kind == Kind::File);
    let Some(stat) = stat(dir, name)? else {
        return Ok(if hides { Look::Whiteout } else { Look::Nothing });
    };
    let kind = stat.attr.kind;
    let whiteout = match kind {
        Kind::CharDev => stat.attr.rdev == 0,
        Kind::File => stat.attr.size == 0 && has_whiteout_xattr(dir, name)?,
        _ => false,
    };
    Ok(match classify(name, kind, wh_files) {
        Class::Object if whiteout => Look::Whiteout,
        Class::Object => Look::Object { kind, hides },
        Class::Whiteout(_) | Class::Opaque | Class::Hidden => Look::Nothing,
    })
}

/// The markers of a directory of a layer.
///
/// # Errors
/// Those of getxattr(2) and statx(2).
pub fn dir_markers(dir: &Arc<OwnedFd>, wh_files: WhFiles) -> Result<DirMarkers, Errno> {
    let place = Place::Fd(Arc::clone(dir));
    let mut markers = DirMarkers {
        opaque: wh_files == WhFiles::Meant
            && stat(dir.as_fd(), WH_OPAQUE)?.is_some_and(|s| s.attr.kind == Kind::File),
        redirect: None,
    };
    if markers.opaque || matches!(place.has_no_xattr(), Ok(true) | Err(Errno::OPNOTSUPP)) {
        return Ok(markers);
    }
    for name in opaque::xattr_names() {
        let value = place.get_xattr(name.as_bytes())?;
        markers.opaque |= value.is_some_and(|v| opaque::decode(&v) == Opacity::Opaque);
    }
    if !markers.opaque {
        markers.redirect = MetRedirect::at(&place)?;
    }
    Ok(markers)
}

fn stat(dir: BorrowedFd<'_>, name: &Name) -> Result<Option<Stat>, Errno> {
    match Stat::at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
        Err(e) => Err(e),
    }
}
