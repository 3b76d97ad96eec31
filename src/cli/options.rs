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
    /// Means nothing here, or what we do anyway: what, is said for the whole group.
    Accept,
    /// The same, with a reason of its own.
    Moot(&'static str),
    /// Would change something that we do not offer: say so once, go on.
    Warn(&'static str),
    /// Accepted with one of these values, a warning with any other.
    WarnUnless(&'static [&'static str], &'static str),
    /// Ignoring it would show wrong things: an error that says why.
    Refuse(&'static str),
}

/// Our own settings, as `-o` words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    LowerDir,
    LowerDirAdd,
    DataDirAdd,
    Metacopy,
    Verity,
    UserXattr,
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
    StatOverride,
    XattrPermissions,
    Acl,
    NoAcl,
    Writeback,
    Whiteout,
    RedirectDir,
    Uuid,
    Io,
    AllowOther,
    FsName,
    Remount,
    Log,
    LogFile,
    Debug,
    Label,
}

impl Setting {
    /// What it does, for the table in docs/COMPAT.md.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Setting::LowerDir => {
                "`--lower`; `\\:` is a colon in a name, `\\,` a comma; behind `::`, `--data`"
            }
            Setting::LowerDirAdd => "one more directory below those named before, colons and all",
            Setting::DataDirAdd => "one more `--data`",
            Setting::Metacopy => "`--metacopy`; fuse-overlayfs always copies the data",
            Setting::Verity => "`--verity`; with `metacopy=off` an error",
            Setting::UserXattr => {
                "markers of both namespaces are read, and written in the one that works; \
                 `metacopy=on` beside it is an error, as in overlayfs"
            }
            Setting::UpperDir => "`--upper`",
            Setting::WorkDir => "`--work`",
            Setting::Volatile => "`--volatile`",
            Setting::Fsync => {
                "0: never sync, and leave no mark of that (`volatile` leaves one); also `sync=0`"
            }
            Setting::Timeout => "`--timeout`; 1000000000 and more is for ever",
            Setting::Threads => "`--threads`",
            Setting::CacheSize => "`--cache-size`",
            Setting::UidMap => "`--uid-map`; a leading colon does no harm",
            Setting::GidMap => "`--gid-map`; the same",
            Setting::SquashToRoot => "all is shown as owned by root",
            Setting::SquashToUid => "all is shown as owned by this user",
            Setting::SquashToGid => "all is shown as owned by this group",
            Setting::StatOverride => "`--stat-override`",
            Setting::XattrPermissions => {
                "`--stat-override`: 0 `read`, 1 `security`, 2 `containers`; called as fuse-overlayfs, 0 \
                 unless said"
            }
            Setting::Acl => "`--acl`; without a value: auto",
            Setting::NoAcl => "`--acl off`; with the value 0: auto",
            Setting::Writeback => "`--writeback`; off unless said, in fuse-overlayfs on",
            Setting::Whiteout => "`--whiteout`",
            Setting::RedirectDir => "`--redirect-dir`",
            Setting::Uuid => {
                "`off`: markers in the upper do not name filesystems; what else is said of it has no effect"
            }
            Setting::Io => "`--io`",
            Setting::AllowOther => "`--allow-other`",
            Setting::FsName => "what mountinfo shows as the source",
            Setting::Remount => "changes the flags of an existing mount",
            Setting::Log => "`--log`",
            Setting::LogFile => "`--log-file`",
            Setting::Debug => "`--foreground --log debug`",
            Setting::Label => "handed to mount(2) where the kernel has SELinux; nothing elsewhere",
        }
    }
}

use Setting as S;
use Treatment::{Accept, Clear, Moot, Ours, Refuse, Set, Warn, WarnUnless};

/// A word and how it is taken.
type Row = (&'static str, Treatment);

/// Words of one origin.
#[derive(Debug)]
pub(crate) struct Group {
    /// Who speaks them.
    pub(crate) title: &'static str,
    /// Why those that are only accepted do no harm.
    pub(crate) accepted: &'static str,
    pub(crate) rows: &'static [Row],
}

/// Every word there is, by who speaks it; a word stands here once.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        title: "unionmount and overlayfs: layers and behaviour",
        accepted: "",
        rows: OURS,
    },
    Group {
        title: "mount(8): flags of the mount",
        accepted: "",
        rows: FLAGS,
    },
    Group {
        title: "mount(8): words for itself",
        accepted: "mount(8) acts on it, or filesystems of another kind",
        rows: FSTAB,
    },
    Group {
        title: "Propagation and bind mounts",
        accepted: "set after the mount, by who wants it",
        rows: PROPAGATION,
    },
    Group {
        title: "SELinux",
        accepted: "shown in mountinfo, nothing to ask for",
        rows: LABELS,
    },
    Group {
        title: "Kernel overlayfs",
        accepted: "is so here in any case",
        rows: OVERLAYFS,
    },
    Group {
        title: "fuse-overlayfs",
        accepted: "a way to be faster there; not needed here",
        rows: FUSE_OVERLAYFS,
    },
    Group {
        title: "libfuse, and what the kernel shows of a FUSE mount",
        accepted: "agreed on with the kernel, or not needed",
        rows: LIBFUSE,
    },
];

/// Why layers of plug-ins are refused.
pub(crate) const PLUGINS: &str =
    "layer plug-ins are not supported, so their layers would be missing";

const OURS: &[Row] = &[
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
    ("redirect_dir", Ours(S::RedirectDir)),
    ("acl", Ours(S::Acl)),
    ("stat_override", Ours(S::StatOverride)),
    ("io", Ours(S::Io)),
    ("allow_other", Ours(S::AllowOther)),
    ("fsname", Ours(S::FsName)),
    ("remount", Ours(S::Remount)),
    ("log", Ours(S::Log)),
    ("log-file", Ours(S::LogFile)),
];

const FLAGS: &[Row] = &[
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
];

const FSTAB: &[Row] = &[
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
];

/// What mount(8) sets after the mount; podman and buildah pass `private`.
const PROPAGATION: &[Row] = &[
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
];

const LABELS: &[Row] = &[
    ("context", Ours(S::Label)),
    ("fscontext", Ours(S::Label)),
    ("defcontext", Ours(S::Label)),
    ("rootcontext", Ours(S::Label)),
    ("seclabel", Accept),
];

const OVERLAYFS: &[Row] = &[
    ("default_permissions", Accept),
    ("userxattr", Ours(S::UserXattr)),
    (
        "xino",
        Moot("numbers are distinct across devices always, see docs/SEMANTICS.md"),
    ),
    ("index", Moot("hard links are indexed always")),
    ("uuid", Ours(S::Uuid)),
    ("override_creds", Moot("the daemon acts as itself")),
    ("nooverride_creds", Moot("the daemon acts as itself")),
    ("metacopy", Ours(S::Metacopy)),
    (
        "nfs_export",
        WarnUnless(&["off"], "the union cannot be exported over NFS"),
    ),
    ("verity", Ours(S::Verity)),
    ("datadir+", Ours(S::DataDirAdd)),
];

const FUSE_OVERLAYFS: &[Row] = &[
    ("uidmapping", Ours(S::UidMap)),
    ("gidmapping", Ours(S::GidMap)),
    ("squash_to_root", Ours(S::SquashToRoot)),
    ("squash_to_uid", Ours(S::SquashToUid)),
    ("squash_to_gid", Ours(S::SquashToGid)),
    ("xattr_permissions", Ours(S::XattrPermissions)),
    ("plugins", Refuse(PLUGINS)),
    ("threaded", Moot("there are always several threads")),
    ("fast_ino", Accept),
    ("fast_ino_check", Accept),
    (
        "static_nlink",
        Moot("directories that lie in several layers have one link always"),
    ),
    ("noacl", Ours(S::NoAcl)),
    (
        "noxattrs",
        WarnUnless(&["0"], "extended attributes stay visible"),
    ),
    ("ino32_t", Warn("inode numbers have 64 bits")),
    ("debug", Ours(S::Debug)),
];

const LIBFUSE: &[Row] = &[
    ("allow_root", Warn("use allow_other")),
    (
        "auto_unmount",
        Warn("the mount stays if the daemon is killed: unionmount umount"),
    ),
    (
        "subtype",
        Moot("the type is `fuse.unionmount`, or `fuse.fuse-overlayfs` under that name"),
    ),
    ("nonempty", Moot("any directory may be mounted over")),
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
    rows()
        .find(|(known, _)| *known == word)
        .map(|(_, treatment)| *treatment)
}

fn rows() -> impl Iterator<Item = &'static Row> {
    GROUPS.iter().flat_map(|group| group.rows)
}

/// The words for the flags in `flags`, for fusermount3 and for people.
pub(crate) fn flag_words(flags: MountFlags) -> impl Iterator<Item = &'static str> {
    rows().filter_map(move |(word, treatment)| match treatment {
        Set(flag) if flags.contains(*flag) => Some(*word),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stands_in_the_table_once() {
        let mut words: Vec<_> = rows().map(|(word, _)| word).collect();
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
