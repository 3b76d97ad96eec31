//! Opaque directories: what lies below them is hidden.
//!
//! Five spellings are read: the xattr of the kernel in both namespaces, that of fuse-overlayfs, and
//! (seen while listing) the sentinel file of AUFS and OCI.

use super::xattr::{Marker, Namespace};

/// The xattr of fuse-overlayfs; read, never written.
pub const FUSE_OVERLAYFS_OPAQUE: &str = "user.fuseoverlayfs.opaque";

/// What a directory says of the layers below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Opacity {
    /// It merges with them.
    #[default]
    Clear,
    /// It merges, and may hold xattr whiteouts (`x`, Linux 6.8).
    MayHoldXattrWhiteouts,
    /// It hides them (`y`).
    Opaque,
}

/// The names to look for in a directory's list of attributes.
pub fn xattr_names() -> [&'static str; 3] {
    [
        Namespace::Trusted.name(Marker::Opaque),
        Namespace::User.name(Marker::Opaque),
        FUSE_OVERLAYFS_OPAQUE,
    ]
}

/// Decodes the value of one of [`xattr_names`]; the kernel takes exactly one byte.
pub fn decode(value: &[u8]) -> Opacity {
    match value {
        b"y" => Opacity::Opaque,
        b"x" => Opacity::MayHoldXattrWhiteouts,
        _ => Opacity::Clear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_byte_counts() {
        assert_eq!(decode(b"y"), Opacity::Opaque);
        assert_eq!(decode(b"x"), Opacity::MayHoldXattrWhiteouts);
        for value in [&b""[..], b"yes", b"y\n", b"n", b"Y"] {
            assert_eq!(decode(value), Opacity::Clear, "{value:?}");
        }
    }
}
