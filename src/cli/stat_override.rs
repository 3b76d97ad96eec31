//! The ways to say that owners and modes are kept in attributes: ours, and fuse-overlayfs' numbers.

use std::ffi::OsStr;

use super::args::Override;
use super::failure::Failure;
use super::plan::Personality;
use crate::ops::{StatOverride, Store};

/// What `--stat-override` means.
pub(crate) fn meant(mode: Override) -> StatOverride {
    match mode {
        Override::Off => StatOverride::Off,
        Override::Read => StatOverride::Read,
        Override::Containers => StatOverride::Write(Store::Containers),
        Override::Security => StatOverride::Write(Store::Security),
    }
}

/// What `xattr_permissions=` means.
///
/// # Errors
/// It is none of fuse-overlayfs' numbers.
pub(crate) fn numbered(number: &OsStr) -> Result<StatOverride, Failure> {
    match number.as_encoded_bytes() {
        b"0" => Ok(StatOverride::Read),
        b"1" => Ok(StatOverride::Write(Store::Security)),
        b"2" => Ok(StatOverride::Write(Store::Containers)),
        _ => Err(Failure::Usage(format!(
            "{number:?} is not a value of xattr_permissions (use 0, 1 or 2)"
        ))),
    }
}

/// What holds if nothing is said: stores of engines are full of such attributes.
pub(crate) fn usual(who: Personality) -> StatOverride {
    match who {
        Personality::FuseOverlayfs => StatOverride::Read,
        Personality::Plain | Personality::Helper => StatOverride::Off,
    }
}

/// The word for it, unless it is off.
pub(crate) fn word(mode: StatOverride) -> Option<&'static str> {
    match mode {
        StatOverride::Off => None,
        StatOverride::Read => Some("read"),
        StatOverride::Write(Store::Security) => Some("security"),
        StatOverride::Write(Store::Containers | Store::FuseOverlayfs) => Some("containers"),
    }
}
