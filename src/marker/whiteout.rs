//! Whiteouts: what an entry of a layer's directory means, from its name and type.

use crate::attr::Kind;
use crate::name::Name;

/// Prefix of the whiteout files of AUFS and OCI.
pub const WH_PREFIX: &[u8] = b".wh.";
/// Their opaque sentinel.
pub const WH_OPAQUE: &[u8] = b".wh..wh..opq";
/// Left behind by old versions of fuse-overlayfs; means nothing.
const WH_STRAY_OPAQUE: &[u8] = b".wh..opq";
/// AUFS' own files (`.wh..wh.aufs`, `.wh..wh.plnk`, ...).
const WH_AUFS: &[u8] = b".wh..wh.";

/// Whether `.wh.` names carry meaning in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhFiles {
    /// They are whiteouts: every lower, and an upper of that dialect.
    Meant,
    /// They are plain names.
    Plain,
}

/// The form in which deletions are written into an upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Character device 0/0.
    CharDev,
    /// Empty file with an xattr.
    Xattr,
    /// `.wh.NAME` file.
    File,
}

impl Dialect {
    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::CharDev => "chardev",
            Dialect::Xattr => "xattr",
            Dialect::File => "file",
        }
    }

    /// How `.wh.` names are read in an upper of this dialect.
    pub fn wh_files(self) -> WhFiles {
        match self {
            Dialect::File => WhFiles::Meant,
            Dialect::CharDev | Dialect::Xattr => WhFiles::Plain,
        }
    }
}

/// What an entry of a layer's directory means.
#[derive(Debug, PartialEq, Eq)]
pub enum Class<'a> {
    /// An object to show. A character device may yet turn out to be a whiteout (device 0/0), an
    /// empty file too (xattr): that takes a look at the object.
    Object,
    /// `.wh.NAME`: NAME is deleted in the layers below.
    Whiteout(&'a Name),
    /// The directory hides everything below.
    Opaque,
    /// Metadata of another system: not shown.
    Hidden,
}

/// Classifies an entry by `name` and `kind`. `.wh.` names delete only as regular files; a character
/// device called `.wh.f` is the kernel's whiteout of `.wh.f`, anything else of the name is hidden.
pub fn classify(name: &Name, kind: Kind, wh_files: WhFiles) -> Class<'_> {
    let Some(target) = name.strip_prefix(WH_PREFIX) else {
        return Class::Object;
    };
    if wh_files == WhFiles::Plain || kind == Kind::CharDev {
        return Class::Object;
    }
    if name == WH_OPAQUE {
        return if kind == Kind::File {
            Class::Opaque
        } else {
            Class::Hidden
        };
    }
    if name == WH_STRAY_OPAQUE || name.starts_with(WH_AUFS) {
        return Class::Hidden;
    }
    match (kind, target) {
        (_, b"" | b"." | b"..") => Class::Hidden,
        (Kind::File, target) => Class::Whiteout(target),
        // As AUFS: the prefix is reserved. Shown, it could not be deleted in its own dialect.
        _ => Class::Hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types() {
        use Class::*;
        for (name, kind, wh, want) in [
            ("f", Kind::File, WhFiles::Meant, Object),
            (".wh.f", Kind::File, WhFiles::Meant, Whiteout(b"f")),
            (".wh.f", Kind::File, WhFiles::Plain, Object),
            (".wh.f", Kind::CharDev, WhFiles::Meant, Object),
            (".wh.f", Kind::Dir, WhFiles::Meant, Hidden),
            (".wh..wh..opq", Kind::File, WhFiles::Meant, Opaque),
            (".wh..wh..opq", Kind::Dir, WhFiles::Meant, Hidden),
            (".wh..wh..opq", Kind::File, WhFiles::Plain, Object),
            (".wh..wh.plnk", Kind::Dir, WhFiles::Meant, Hidden),
            (".wh..opq", Kind::File, WhFiles::Meant, Hidden),
            (".wh.", Kind::File, WhFiles::Meant, Hidden),
            (".wh..", Kind::File, WhFiles::Meant, Hidden),
            (".wh...", Kind::File, WhFiles::Meant, Hidden),
            (".wh....", Kind::File, WhFiles::Meant, Whiteout(b"...")),
            (".whx", Kind::File, WhFiles::Meant, Object),
        ] {
            assert_eq!(
                classify(name.as_bytes(), kind, wh),
                want,
                "{name} {kind:?} {wh:?}"
            );
        }
    }
}
