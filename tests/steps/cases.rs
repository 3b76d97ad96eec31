//! The changes that are tried, and what they are tried on.

use unionmount::attr::Kind;
use unionmount::marker::whiteout::Dialect;
use unionmount::ops::{NewObject, RenameMode, SetAttr, TimeChange};

use crate::kit::Lab;
use crate::paths::{Done, Paths};

/// One change.
pub struct Case {
    pub name: &'static str,
    pub act: fn(&Paths) -> Done,
}

/// Below everything.
const LOWER: &str = "
    f file lower user.x=1 mode=0640 uid=5
    f big pattern=9000
    f linked text
    h linked2 linked
    l symlink target
    d dir mode=0750
    f dir/a one
    f dir/b two
    d dir/sub
    f dir/sub/deep deep
    d empty
    d gone
    f gone/x x
    f gone2 x
    f shadowed below
    d merged
    f merged/low low
    d hollow
    f hollow/x x
";

/// What an earlier mount left.
const UPPER: &str = "
    f up upper
    f up2 upper2
    h uplink up2
    f shadowed above
    w gone
    w gone2
    d updir
    f updir/f f
    d merged trusted.overlay.impure=y
    f merged/up up
    d hollow
    w hollow/x
    d updir2
";

/// Layers for one try.
pub fn lab(dialect: Dialect) -> Lab {
    let upper = match dialect {
        Dialect::CharDev => UPPER.to_owned(),
        Dialect::Xattr => UPPER.replace("    w ", "    wx "),
        Dialect::File => UPPER.replace("    w ", "    w. "),
    };
    Lab::new().lower(LOWER).upper(&upper)
}

const NONE: SetAttr = SetAttr::NONE;
const FILE: NewObject<'_> = NewObject::File;
const DIR: NewObject<'_> = NewObject::Dir;
const PLAIN: RenameMode = RenameMode::Replace;
const SWAP: RenameMode = RenameMode::Exchange;

macro_rules! cases {
    ($($name:literal: |$u:ident| $act:expr;)*) => {
        &[$(Case { name: $name, act: |$u| $act }),*]
    };
}

pub const MAKING: &[Case] = cases![
    "create": |u| u.make("new", FILE);
    "create in a lower directory": |u| u.make("dir/sub/new", FILE);
    "create over a deletion": |u| u.make("gone2", FILE);
    "mkdir": |u| u.make("newdir", DIR);
    "mkdir over a deleted directory": |u| u.make("gone", DIR);
    "mkdir over a deletion below": |u| u.make("hollow/x", DIR);
    "symlink": |u| u.make("dir/link", NewObject::Symlink(b"there"));
    "symlink over a deletion": |u| u.make("gone2", NewObject::Symlink(b"there"));
    "mknod": |u| u.make("pipe", NewObject::Special(Kind::Fifo));
    "link of the upper": |u| u.link("up", "up3");
    "link of a lower": |u| u.link("file", "dir/new");
    "link of a linked lower": |u| u.link("linked", "linked3");
    "link over a deletion": |u| u.link("file", "gone2");
];

pub const REMOVING: &[Case] = cases![
    "unlink in the upper": |u| u.unlink("up");
    "unlink of one name in the upper": |u| u.unlink("uplink");
    "unlink in both": |u| u.unlink("shadowed");
    "unlink in a lower": |u| u.unlink("file");
    "unlink in a lower directory": |u| u.unlink("dir/sub/deep");
    "unlink of one name of a lower": |u| u.unlink("linked2");
    "unlink of a symlink": |u| u.unlink("symlink");
    "rmdir in the upper": |u| u.rmdir("updir2");
    "rmdir in a lower": |u| u.rmdir("empty");
    "rmdir of deletions": |u| u.rmdir("hollow");
];

pub const MOVING: &[Case] = cases![
    "rename in the upper": |u| u.rename("up", "moved", PLAIN);
    "rename of a lower": |u| u.rename("file", "dir/moved", PLAIN);
    "rename of both": |u| u.rename("shadowed", "moved", PLAIN);
    "rename over a deletion": |u| u.rename("up", "gone2", PLAIN);
    "rename of a lower over a deletion": |u| u.rename("file", "gone2", PLAIN);
    "rename over a lower": |u| u.rename("up", "file", PLAIN);
    "rename of a lower over a lower": |u| u.rename("file", "big", PLAIN);
    "rename of a lower over the upper": |u| u.rename("file", "up", PLAIN);
    "rename of a linked lower": |u| u.rename("linked", "dir/linked", PLAIN);
    "rename over one name of a lower": |u| u.rename("up", "linked2", PLAIN);
    "rename of a symlink": |u| u.rename("symlink", "dir/symlink", PLAIN);
    "rename of a directory": |u| u.rename("updir", "dir/moved", PLAIN);
    "rename of a directory over a deletion": |u| u.rename("updir", "gone", PLAIN);
    "rename of a directory over an empty one": |u| u.rename("updir", "empty", PLAIN);
    "rename of a directory over deletions": |u| u.rename("updir", "hollow", PLAIN);
    "exchange in the upper": |u| u.rename("up", "up2", SWAP);
    "exchange with a lower": |u| u.rename("up", "dir/a", SWAP);
    "exchange of lowers": |u| u.rename("file", "dir/b", SWAP);
    "exchange of a file and a directory": |u| u.rename("file", "updir", SWAP);
];

pub const CHANGING: &[Case] = cases![
    "chmod": |u| u.set("up", &SetAttr { perm: Some(0o600), ..NONE });
    "chmod of a lower": |u| u.set("file", &SetAttr { perm: Some(0o600), ..NONE });
    "chmod of a lower directory": |u| u.set("dir/sub", &SetAttr { perm: Some(0o700), ..NONE });
    "chown of a lower": |u| u.set("dir/a", &SetAttr { uid: Some(7), gid: Some(8), ..NONE });
    "chown of a linked lower": |u| u.set("linked", &SetAttr { uid: Some(7), ..NONE });
    "chown of a symlink": |u| u.set("symlink", &SetAttr { uid: Some(7), ..NONE });
    "times of a lower": |u| u.set("file", &SetAttr { mtime: TimeChange::Now, ..NONE });
    "truncate": |u| u.set("up", &SetAttr { size: Some(2), ..NONE });
    "truncate of a lower": |u| u.set("file", &SetAttr { size: Some(2), ..NONE });
    "longer lower": |u| u.set("file", &SetAttr { size: Some(20_000), ..NONE });
    "write": |u| u.write("up", 3, b"written");
    "write to a lower": |u| u.write("big", 100, b"written");
    "write to a linked lower": |u| u.write("linked2", 0, b"written");
    "write below a lower directory": |u| u.write("dir/sub/deep", 0, b"written");
    "allocate of a lower": |u| u.allocate("file", 10_000);
    "copy_file_range to a lower": |u| u.copy_range("big", "file", 5000);
    "setxattr": |u| u.setxattr("up", "user.new", b"value");
    "setxattr of a lower": |u| u.setxattr("file", "user.x", b"value");
    "removexattr of a lower": |u| u.removexattr("file", "user.x");
];

/// The file that is synced was changed before, whatever comes of the sync.
pub const SYNCING: &[Case] = cases![
    "write and fsync": |u| { u.write("file", 0, b"written")?; u.fsync("file") };
];
