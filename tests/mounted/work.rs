//! Work of every kind on one tree, so that a union can be compared with a plain directory that holds
//! the same.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::kit::{Lab, Look, Snapshot, plant, snapshot, sys};

/// What lies in the topmost lower. Times are whole seconds: some images hold no others.
pub const TOP: &str = "
    d . mtime=1000
    d merged mode=0750 mtime=1001
    f merged/top top mtime=1002 user.note=top
    f merged/both of-top mode=0640 uid=3 gid=4 mtime=1003
    d tree mtime=1004
    d tree/deep mtime=1005
    f tree/deep/file text mtime=1006
    f big pattern=300000 mtime=1007
    f empty mtime=1008
    f suid x mode=04755 mtime=1009
    f linked hard mtime=1010
    h tree/linked linked mtime=1010
    h merged/linked linked mtime=1010
    l sym merged/top mtime=1011
    l dangling no/where mtime=1012
    p fifo mtime=1013
    s socket mtime=1014
    c null 1:3 mtime=1015
    b block 7:99 mtime=1016";

/// What lies below it, in a plain directory.
pub const BASE: &str = "
    d merged mode=0700 mtime=2001
    f merged/base base mtime=2002
    f merged/both of-base mtime=2003
    d tree mtime=2004
    f tree/base base mtime=2005
    f only-base text mtime=2006";

/// What a lower, or the upper, cannot do.
#[derive(Clone, Copy, Default)]
pub struct Lacks {
    /// Extended attributes.
    pub xattrs: bool,
    /// Hard links that last: without file handles they come apart at a remount.
    pub links: bool,
}

/// [`TOP`], as far as it can be had.
pub fn top(lacks: Lacks) -> String {
    let lines = TOP
        .lines()
        .filter(|line| !lacks.links || !line.trim().starts_with("h "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A plain directory that holds what the union of both shows.
pub fn model(at: &Path, lacks: Lacks) {
    plant(at, &format!("{BASE}\n{}", top(lacks)));
    if lacks.xattrs {
        sys::removexattr(at.join("merged/top"), "user.note").unwrap();
    }
}

/// Copies up, removes, replaces, renames, links: each step must do the same wherever it is done.
pub fn work(root: &Path, lacks: Lacks) {
    let at = |path: &str| root.join(path);
    // Copies of every kind.
    sys::append(at("big"), b"more").unwrap();
    sys::truncate(at("merged/both"), 3).unwrap();
    sys::chmod(at("suid"), 0o4711).unwrap();
    sys::lchown(at("sym"), 5, 6).unwrap();
    for node in ["fifo", "socket", "null", "block"] {
        sys::chmod(at(node), 0o600).unwrap();
    }
    sys::set_mtime(at("tree/deep"), (5, 6)).unwrap();
    if !lacks.xattrs {
        sys::setxattr(at("tree/deep/file"), "user.new", b"value", 0).unwrap();
        assert_eq!(
            sys::getxattr(at("merged/top"), "user.note").unwrap(),
            b"top"
        );
    }
    // Deletions, and something else in their place.
    sys::unlink(at("empty")).unwrap();
    sys::unlink(at("only-base")).unwrap();
    sys::mkdir(at("only-base"), 0o711).unwrap();
    sys::put(at("only-base/inside"), b"new").unwrap();
    sys::remove_tree(at("tree")).unwrap();
    sys::mkdir(at("tree"), 0o755).unwrap();
    sys::put(at("tree/anew"), b"anew").unwrap();
    sys::unlink(at("dangling")).unwrap();
    sys::symlink("elsewhere", at("dangling")).unwrap();
    // Moves.
    sys::rename(at("merged/top"), at("merged/moved")).unwrap();
    sys::rename(at("merged/base"), at("merged/both")).unwrap();
    sys::mkdir(at("fresh"), 0o755).unwrap();
    sys::put(at("fresh/f"), b"f").unwrap();
    sys::rename(at("fresh"), at("merged/fresh")).unwrap();
    // Links; `tree/linked` went with its directory.
    if !lacks.links {
        sys::append(at("linked"), b"+").unwrap();
        assert_eq!(sys::text(at("merged/linked")), "hard+");
    }
    sys::link(at("big"), at("merged/big2")).unwrap();
}

/// Asserts that the union shows the same as the plain directory `model`.
#[track_caller]
pub fn expect_same(what: &str, lab: &Lab, model: &Path, since: i64) {
    let look = Look {
        since: Some(since),
        ..Look::default()
    };
    let want = snapshot::read(model, look).snapshot;
    let got = lab.read(look);
    assert!(got.faults.is_empty(), "{what}: {:#?}", got.faults);
    let (want, got) = (settled(want), settled(got.snapshot));
    snapshot::assert_same(
        &format!("{what}: a plain directory (<) and {:?} (>)", lab.subject()),
        &want,
        &got,
    );
}

/// Without the time of the root, which the scratch directory of each sets.
fn settled(mut tree: Snapshot) -> Snapshot {
    for entry in tree.entries.values_mut() {
        if entry.mode & libc::S_IFMT == libc::S_IFDIR {
            entry.mtime.clear();
        }
    }
    tree
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().cast_signed()
}

/// The whole check: the union of `lab`, mounted, against a plain directory, before and after the work,
/// after a remount too, and on kernel overlayfs if it may.
#[track_caller]
pub fn check(what: &str, lab: &mut Lab, lacks: Lacks, kernel_may: bool) {
    let (plain, since) = (lab.aside("model"), now());
    model(&plain, lacks);
    expect_same(&format!("{what}, untouched"), lab, &plain, since);
    work(&plain, lacks);
    work(&lab.mnt(), lacks);
    expect_same(&format!("{what}, after the work"), lab, &plain, since);
    lab.remount();
    expect_same(&format!("{what}, remounted"), lab, &plain, since);
    if kernel_may {
        let ours = lab.subject().clone();
        lab.remount_as(&crate::kit::Subject::Kernel);
        expect_same(&format!("{what}, in the kernel"), lab, &plain, since);
        lab.remount_as(&ours);
    }
}
