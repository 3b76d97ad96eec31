//! What one directory on disk is: opened once, then only ever reached through its descriptor.
//!
//! Nothing here knows of other layers, and nothing here changes a layer.

mod handles;
mod look;
mod place;
mod root;
mod scan;
mod witness;

pub use handles::{Handles, Traced, compare_handles, same_filesystem};
pub use look::{DirMarkers, Look, MetRedirect, dir_markers, look};
pub use place::{Place, Stat, metacopy_named, metacopy_of, supports_acl};
pub use root::{Layer, LayerId, clone_common_mount};
pub use scan::{ListEntry, Listing, Readable, has_whiteout_xattr, scan};
pub use witness::Witness;
