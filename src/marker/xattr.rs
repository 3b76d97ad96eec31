//! Names of extended attributes: which are ours, how a user's own are told apart.
//!
//! The kernel's overlayfs keeps its markers under `trusted.overlay.`, or `user.overlay.` with its
//! option `userxattr`. Both prefixes are read as markers in every layer, so both are escaped: what a
//! user calls `trusted.overlay.x` is stored as `trusted.overlay.overlay.x` (kernel: fs/overlayfs,
//! "escape"; one level per nesting).

use crate::error::Errno;
use crate::name::NAME_MAX;

/// Which prefix the markers of an upper are written under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.`: needs CAP_SYS_ADMIN in the initial user namespace.
    Trusted,
    /// `user.overlay.`: anybody, on regular files and directories only.
    User,
}

/// A marker of the kernel's overlayfs that we read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Directory hides what lies below; value `y` (or `x`: may hold xattr whiteouts).
    Opaque,
    /// File handle of the object that was copied up.
    Origin,
    /// Directory in the upper that holds copied-up objects; value `y`.
    Impure,
    /// Union link count of an indexed hard link, relative to a real one.
    Nlink,
    /// Empty file that stands for a deletion.
    Whiteout,
    /// Ours, on a copied-up hard link: file handle of the root of the layer it came from. One inode
    /// may be linked into two layers, which must not become one file by that. The kernel ignores it.
    Layer,
    /// Directory or metacopy whose lower part lies elsewhere.
    Redirect,
    /// File without data of its own.
    Metacopy,
    /// Copy of an object that may not be changed, or only appended to.
    Protattr,
}

const TRUSTED: &str = "trusted.overlay.";
const USER: &str = "user.overlay.";
const FUSE_OVERLAYFS: &[u8] = b"user.fuseoverlayfs.";

impl Namespace {
    /// Both, in the order in which they are looked for.
    pub const ALL: [Namespace; 2] = [Namespace::Trusted, Namespace::User];

    /// The prefix with its last dot.
    pub fn prefix(self) -> &'static str {
        match self {
            Namespace::Trusted => TRUSTED,
            Namespace::User => USER,
        }
    }

    /// The whole name of `marker`.
    pub fn name(self, marker: Marker) -> &'static str {
        let names = match marker {
            Marker::Opaque => ["trusted.overlay.opaque", "user.overlay.opaque"],
            Marker::Origin => ["trusted.overlay.origin", "user.overlay.origin"],
            Marker::Impure => ["trusted.overlay.impure", "user.overlay.impure"],
            Marker::Nlink => ["trusted.overlay.nlink", "user.overlay.nlink"],
            Marker::Whiteout => ["trusted.overlay.whiteout", "user.overlay.whiteout"],
            Marker::Layer => ["trusted.overlay.layer", "user.overlay.layer"],
            Marker::Redirect => ["trusted.overlay.redirect", "user.overlay.redirect"],
            Marker::Protattr => ["trusted.overlay.protattr", "user.overlay.protattr"],
            Marker::Metacopy => ["trusted.overlay.metacopy", "user.overlay.metacopy"],
        };
        let [trusted, user] = names;
        match self {
            Namespace::Trusted => trusted,
            Namespace::User => user,
        }
    }
}

/// What a name on disk is to a user of the mount.
#[derive(Debug, PartialEq, Eq)]
pub enum OnDisk<'a> {
    /// Shown under this name.
    Shown(std::borrow::Cow<'a, [u8]>),
    /// A marker: never shown.
    Private,
}

/// How the name of an attribute on disk is shown.
pub fn shown(disk: &[u8]) -> OnDisk<'_> {
    if disk.starts_with(FUSE_OVERLAYFS) {
        return OnDisk::Private;
    }
    for prefix in [TRUSTED.as_bytes(), USER.as_bytes()] {
        let Some(rest) = disk.strip_prefix(prefix) else {
            continue;
        };
        return match rest.strip_prefix(b"overlay.".as_slice()) {
            Some(own) => OnDisk::Shown([prefix, own].concat().into()),
            None => OnDisk::Private,
        };
    }
    OnDisk::Shown(disk.into())
}

/// The name on disk of what a user calls `view`.
///
/// # Errors
/// `EOPNOTSUPP` if the escaped name is too long (as the kernel answers), `EPERM` for the names of
/// fuse-overlayfs' own markers.
pub fn on_disk(view: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, Errno> {
    if view.starts_with(FUSE_OVERLAYFS) {
        return Err(Errno::PERM);
    }
    for prefix in [TRUSTED.as_bytes(), USER.as_bytes()] {
        let Some(rest) = view.strip_prefix(prefix) else {
            continue;
        };
        let name = [prefix, b"overlay.", rest].concat();
        return if name.len() > NAME_MAX {
            Err(Errno::OPNOTSUPP)
        } else {
            Ok(name.into())
        };
    }
    Ok(view.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_hidden_and_users_names_escaped() {
        for (view, disk) in [
            ("user.x", "user.x"),
            ("security.capability", "security.capability"),
            ("trusted.overlay.opaque", "trusted.overlay.overlay.opaque"),
            ("user.overlay.opaque", "user.overlay.overlay.opaque"),
            (
                "user.overlay.overlay.opaque",
                "user.overlay.overlay.overlay.opaque",
            ),
            ("user.overlayx", "user.overlayx"),
        ] {
            assert_eq!(on_disk(view.as_bytes()).unwrap(), disk.as_bytes(), "{view}");
            assert_eq!(
                shown(disk.as_bytes()),
                OnDisk::Shown(view.as_bytes().into()),
                "{disk}"
            );
        }
        for marker in [
            "trusted.overlay.opaque",
            "user.overlay.x",
            "user.fuseoverlayfs.opaque",
        ] {
            assert_eq!(shown(marker.as_bytes()), OnDisk::Private, "{marker}");
        }
        assert_eq!(on_disk(b"user.fuseoverlayfs.opaque"), Err(Errno::PERM));
        let long = format!("user.overlay.{}", "x".repeat(240));
        assert_eq!(on_disk(long.as_bytes()), Err(Errno::OPNOTSUPP));
    }
}
