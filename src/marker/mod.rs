//! The on-disk vocabulary of overlay filesystems: encode and decode, no I/O.
//!
//! Every format here is somebody else's (the kernel's, AUFS's, OCI's, fuse-overlayfs's); each file
//! says whose.

pub mod acl;
pub mod copied_from;
pub mod metacopy;
pub mod nlink;
pub mod opaque;
pub mod origin;
pub mod override_stat;
pub mod protattr;
pub mod redirect;
pub mod whiteout;
pub mod xattr;
