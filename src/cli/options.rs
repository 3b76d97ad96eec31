//! Every word that `-o` may hold, and how each is taken: one table.

use rustix::mount::MountFlags;

/// How a `-o` word is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// One of our own settings.
    Ours(Setting),
    /// Sets a flag of the mount.
    Set(MountFlags),
    /// Clears a flag of the mount.
    Clear(MountFlags),
    /// Means nothing here, or what we do anyway.
    Accept,
    /// Would change something that we do not offer: say so once, go on.
    Warn(&'static str),
    /// Accepted with one of these values, a warning with any other.
    WarnUnless(&'static [&'static str], &'static str),
    /// Ignoring it would show wrong things: an error that says why.
    Refuse(&'static str),
    /// Accepted with one of these values, an error with any other.
    RefuseUnless(&'static [&'static str], &'static str),
}

/// Our own settings, as `-o` words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    LowerDir,
    LowerDirAdd,
    UpperDir,
    WorkDir,
    Volatile,
    Fsync,
    Timeout,
    Threads,
    CacheSize,
    UidMap,
    GidMap,
    SquashToRoot,
    SquashToUid,
    SquashToGid,
    Writeback,
    Whiteout,
    Io,
    AllowOther,
    FsName,
    Remount,
    Log,
    LogFile,
}

use Setting as S;
use Treatment::{Accept, Clear, Ours, Refuse, RefuseUnless, Set, Warn, WarnUnless};

const OWNERS: &str = "owners in attributes are not read, so files would be shown with wrong ones";
const PLUGINS: &str = "layer plug-ins are not supported, so their layers would be missing";
const MOVED: &str = "renaming a directory of a lower gives EXDEV, and redirects are not followed";

/// Sorted by who speaks the word; a word stands here once.
const TABLE: &[(&str, Treatment)] = &[
    // Ours, with the spellings of overlayfs where it has one.
    ("lowerdir", Ours(S::LowerDir)),
    ("lowerdir+", Ours(S::LowerDirAdd)),
    ("upperdir", Ours(S::UpperDir)),
    ("workdir", Ours(S::WorkDir)),
    ("volatile", Ours(S::Volatile)),
    ("fsync", Ours(S::Fsync)),
    ("timeout", Ours(S::Timeout)),
    ("threads", Ours(S::Threads)),
    ("cache_size", Ours(S::CacheSize)),
    ("writeback", Ours(S::Writeback)),
    ("whiteout", Ours(S::Whiteout)),
    ("io", Ours(S::Io)),
    ("allow_other", Ours(S::AllowOther)),
    ("fsname", Ours(S::FsName)),
    ("remount", Ours(S::Remount)),
    ("log", Ours(S::Log)),
    ("log-file", Ours(S::LogFile)),
    // mount(8): flags.
    ("ro", Set(MountFlags::RDONLY)),
    ("rw", Clear(MountFlags::RDONLY)),
    ("nosuid", Set(MountFlags::NOSUID)),
    ("suid", Clear(MountFlags::NOSUID)),
    ("nodev", Set(MountFlags::NODEV)),
    ("dev", Clear(MountFlags::NODEV)),
    ("noexec", Set(MountFlags::NOEXEC)),
    ("exec", Clear(MountFlags::NOEXEC)),
    ("sync", Set(MountFlags::SYNCHRONOUS)),
    ("async", Clear(MountFlags::SYNCHRONOUS)),
    ("dirsync", Set(MountFlags::DIRSYNC)),
    ("noatime", Set(MountFlags::NOATIME)),
    ("atime", Clear(MountFlags::NOATIME)),
    ("nodiratime", Set(MountFlags::NODIRATIME)),
    ("diratime", Clear(MountFlags::NODIRATIME)),
    ("relatime", Set(MountFlags::RELATIME)),
    ("norelatime", Clear(MountFlags::RELATIME)),
    ("strictatime", Set(MountFlags::STRICTATIME)),
    ("nostrictatime", Clear(MountFlags::STRICTATIME)),
    ("lazytime", Set(MountFlags::LAZYTIME)),
    ("nolazytime", Clear(MountFlags::LAZYTIME)),
    ("silent", Set(MountFlags::SILENT)),
    ("loud", Clear(MountFlags::SILENT)),
    ("nosymfollow", Set(MountFlags::NOSYMFOLLOW)),
    ("symfollow", Clear(MountFlags::NOSYMFOLLOW)),
    // mount(8): words for mount(8) itself, or for filesystems that keep versions and locks.
    ("defaults", Accept),
    ("auto", Accept),
    ("noauto", Accept),
    ("user", Accept),
    ("nouser", Accept),
    ("users", Accept),
    ("nousers", Accept),
    ("owner", Accept),
    ("noowner", Accept),
    ("group", Accept),
    ("nogroup", Accept),
    ("_netdev", Accept),
    ("nofail", Accept),
    ("comment", Accept),
    ("uhelper", Accept),
    ("helper", Accept),
    ("iversion", Accept),
    ("noiversion", Accept),
    ("mand", Accept),
    ("nomand", Accept),
    // Propagation: what mount(8) sets after the mount; podman and buildah pass `private`.
    ("private", Accept),
    ("rprivate", Accept),
    ("shared", Accept),
    ("rshared", Accept),
    ("slave", Accept),
    ("rslave", Accept),
    ("unbindable", Accept),
    ("runbindable", Accept),
    (
        "bind",
        Refuse("a union is not a bind mount: use mount --bind"),
    ),
    (
        "rbind",
        Refuse("a union is not a bind mount: use mount --rbind"),
    ),
    ("move", Refuse("use mount --move")),
    // SELinux labels: without SELinux they mean nothing; fuse-overlayfs ignores them too.
    ("context", Accept),
    ("fscontext", Accept),
    ("defcontext", Accept),
    ("rootcontext", Accept),
    ("seclabel", Accept),
    // Kernel overlayfs.
    ("default_permissions", Accept),
    ("userxattr", Accept),
    ("xino", Accept),
    ("index", Accept),
    ("uuid", Accept),
    ("override_creds", Accept),
    ("nooverride_creds", Accept),
    ("redirect_dir", WarnUnless(&["off", "nofollow"], MOVED)),
    (
        "metacopy",
        WarnUnless(&["off"], "copy-up always copies the data"),
    ),
    (
        "nfs_export",
        WarnUnless(&["off"], "the union cannot be exported over NFS"),
    ),
    (
        "verity",
        RefuseUnless(&["off", "on"], "digests are not checked"),
    ),
    ("datadir+", Warn("data-only layers are not used")),
    // fuse-overlayfs.
    ("uidmapping", Ours(S::UidMap)),
    ("gidmapping", Ours(S::GidMap)),
    ("squash_to_root", Ours(S::SquashToRoot)),
    ("squash_to_uid", Ours(S::SquashToUid)),
    ("squash_to_gid", Ours(S::SquashToGid)),
    ("xattr_permissions", RefuseUnless(&["0"], OWNERS)),
    ("plugins", Refuse(PLUGINS)),
    ("threaded", Accept),
    ("fast_ino", Accept),
    ("fast_ino_check", Accept),
    ("static_nlink", Accept),
    (
        "noacl",
        WarnUnless(&["0"], "access control lists stay in force"),
    ),
    (
        "noxattrs",
        WarnUnless(&["0"], "extended attributes stay visible"),
    ),
    ("ino32_t", Warn("inode numbers have 64 bits")),
    ("debug", Accept),
    // libfuse, and what the kernel shows of a FUSE mount in /proc/mounts.
    ("allow_root", Warn("use allow_other")),
    (
        "auto_unmount",
        Warn("the mount stays if the daemon is killed: unionmount umount"),
    ),
    ("subtype", Accept),
    ("nonempty", Accept),
    ("kernel_cache", Accept),
    ("auto_cache", Accept),
    ("big_writes", Accept),
    ("max_write", Accept),
    ("max_read", Accept),
    ("max_readahead", Accept),
    ("max_background", Accept),
    ("max_idle_threads", Accept),
    ("clone_fd", Accept),
    ("use_ino", Accept),
    ("readdir_ino", Accept),
    ("hard_remove", Accept),
    ("splice_read", Accept),
    ("splice_write", Accept),
    ("splice_move", Accept),
    ("no_splice_read", Accept),
    ("no_splice_write", Accept),
    ("no_splice_move", Accept),
    ("fd", Accept),
    ("rootmode", Accept),
    ("user_id", Accept),
    ("group_id", Accept),
    ("blksize", Accept),
];

/// How `word` is taken; `None` if nobody knows it.
pub(crate) fn treatment(word: &str) -> Option<Treatment> {
    if ["x-", "X-"].iter().any(|prefix| word.starts_with(prefix)) {
        return Some(Accept);
    }
    TABLE
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, treatment)| *treatment)
}

/// The words for the flags in `flags`, for fusermount3 and for people.
pub(crate) fn flag_words(flags: MountFlags) -> impl Iterator<Item = &'static str> {
    TABLE
        .iter()
        .filter_map(move |(word, treatment)| match treatment {
            Set(flag) if flags.contains(*flag) => Some(*word),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stands_in_the_table_once() {
        let mut words: Vec<_> = TABLE.iter().map(|(word, _)| word).collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn treatments() {
        for (word, want) in [
            ("ro", Some(Set(MountFlags::RDONLY))),
            ("x-systemd.automount", Some(Accept)),
            ("X-mount.mkdir", Some(Accept)),
            ("private", Some(Accept)),
            ("lowerdir", Some(Ours(S::LowerDir))),
            ("plugins", Some(Refuse(PLUGINS))),
            ("frobnicate", None),
            ("", None),
        ] {
            assert_eq!(treatment(word), want, "{word}");
        }
    }

    #[test]
    fn flags_have_words() {
        let flags = MountFlags::RDONLY | MountFlags::NODEV;
        assert_eq!(flag_words(flags).collect::<Vec<_>>(), ["ro", "nodev"]);
    }
}
