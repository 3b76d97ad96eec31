//! Overlays within overlays, as containers within containers have them: upper and workdir, or lowers,
//! lie in another union. The same work as on a plain directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kit::{Lab, Layers, Look, Mounts, Subject, must, plant, snapshot};
use crate::work::{self, BASE, Lacks};

const NO_LINKS: Lacks = Lacks {
    xattrs: false,
    links: true,
};

/// An overlay whose directories lie wherever the test says; unmounted on drop.
struct Inner<'a> {
    subject: &'a Subject,
    lowers: [PathBuf; 2],
    upper: (PathBuf, PathBuf),
    mnt: PathBuf,
}

impl Inner<'_> {
    fn mount(&self) {
        let layers = Layers {
            lowers: &self.lowers,
            upper: Some((&self.upper.0, &self.upper.1)),
            mnt: &self.mnt,
        };
        let mounted = self.subject.mount(&layers);
        mounted.unwrap_or_else(|why| panic!("{:?}: {why}", self.subject));
    }

    fn umount(&self) {
        self.subject.umount(&self.mnt, &[]).unwrap();
    }
}

impl Drop for Inner<'_> {
    fn drop(&mut self) {
        if crate::kit::sys::is_mounted(&self.mnt) {
            self.subject.umount(&self.mnt, &[]).ok();
        }
    }
}

#[track_caller]
fn expect_same(what: &str, model: &Path, got: &Path, since: i64) {
    let look = Look {
        since: Some(since),
        skip_ghosts: true,
        ..Look::default()
    };
    let (want, got) = (snapshot::read(model, look), snapshot::read(got, look));
    assert!(got.faults.is_empty(), "{what}: {:#?}", got.faults);
    snapshot::assert_same(what, &want.snapshot, &got.snapshot);
}

/// Does the work in an inner overlay whose directories are `dirs` (top, base, upper, work) and compares
/// with a plain directory; the inner one is mounted again, and after `between` a second time.
fn check(what: &str, subject: &Subject, dirs: [PathBuf; 4], between: impl FnOnce()) {
    let mounts = Mounts::new();
    let (model, mnt, since) = (mounts.path("model"), mounts.dir("mnt"), work::now());
    work::model(&model, NO_LINKS);
    let [top, base, upper, workdir] = dirs;
    plant(&top, &work::top(NO_LINKS));
    plant(&base, BASE);
    for dir in [&upper, &workdir] {
        std::fs::create_dir(dir).unwrap();
    }
    let inner = Inner {
        subject,
        lowers: [top, base],
        upper: (upper, workdir),
        mnt,
    };
    inner.mount();
    expect_same(&format!("{what}, untouched"), &model, &inner.mnt, since);
    work::work(&model, NO_LINKS);
    work::work(&inner.mnt, NO_LINKS);
    expect_same(
        &format!("{what}, after the work"),
        &model,
        &inner.mnt,
        since,
    );
    inner.umount();
    inner.mount();
    expect_same(&format!("{what}, remounted"), &model, &inner.mnt, since);
    inner.umount();
    between();
    inner.mount();
    expect_same(&format!("{what}, all remounted"), &model, &inner.mnt, since);
}

fn outer() -> Lab {
    Lab::new().lower("f outer/file x").upper("").mount()
}

#[test]
fn a_union_whose_upper_lies_in_a_union() {
    if !Subject::default().is_ours() {
        return;
    }
    let mounts = Mounts::new();
    let mut lab = outer();
    let dirs = [
        mounts.path("top"),
        mounts.path("base"),
        lab.at("upper"),
        lab.at("work"),
    ];
    check("upper in a union", &Subject::default(), dirs, || {
        lab.remount()
    });
}

#[test]
fn a_union_all_of_whose_layers_lie_in_a_union() {
    if !Subject::default().is_ours() {
        return;
    }
    let mut lab = outer();
    let dirs = ["outer/top", "outer/base", "upper", "work"].map(|name| lab.at(name));
    check("all in a union", &Subject::default(), dirs, || {
        lab.remount()
    });
}

#[test]
fn a_kernel_overlay_whose_lowers_lie_in_a_union() {
    let mounts = Mounts::new();
    let mut lab = outer();
    let dirs = [
        lab.at("top"),
        lab.at("outer/base"),
        mounts.path("upper"),
        mounts.path("work"),
    ];
    check("kernel over a union", &Subject::Kernel, dirs, || {
        lab.remount()
    });
}

/// The same in a user namespace, as rootless engines do it.
#[test]
fn a_union_in_a_union_in_a_user_namespace() {
    if !Subject::default().is_ours() {
        return;
    }
    let mounts = Mounts::new();
    plant(
        &mounts.path("lower"),
        "f d/f text\nf gone g\nf tree/deep/x x",
    );
    for name in ["u", "w", "m", "m2"] {
        mounts.dir(name);
    }
    let script = "
        check() {
            test \"$(cat m2/d/f)\" = text+
            test ! -e m2/gone
            test \"$(ls m2/tree)\" = anew
            test \"$(ls m2)\" = \"$(printf 'd\\ntree')\"
        }
        $U --lower lower --upper u --work w m
        mkdir m/u m/w
        $U --lower lower --upper m/u --work m/w m2
        printf + >>m2/d/f
        rm m2/gone
        rm -r m2/tree
        mkdir m2/tree
        echo new >m2/tree/old
        mv m2/tree/old m2/tree/anew
        check
        $U umount m2
        $U umount m
        $U --lower lower --upper u --work w m
        $U --lower lower --upper m/u --work m/w m2
        check
        $U umount m2
        $U umount m";
    let mut command = Command::new("unshare");
    command
        .args(["-Urm", "sh", "-euc", script])
        .env("U", crate::kit::program())
        .current_dir(mounts.path("."));
    must(&mut command);
}

/// It wants to make whiteouts of its own there, which nobody may; it says so at the mount. An upper on
/// another kernel overlay is refused as well.
#[test]
fn a_kernel_overlay_whose_upper_lies_in_a_union_is_refused() {
    for subject in Subject::and_kernel() {
        let mounts = Mounts::new();
        let lab = Lab::new().lower("f f x").upper("").mount_as(&subject);
        let (upper, work) = (lab.at("upper"), lab.at("work"));
        for dir in [&upper, &work] {
            std::fs::create_dir(dir).unwrap();
        }
        let (lower, mnt) = (mounts.dir("lower"), mounts.dir("mnt"));
        let layers = Layers {
            lowers: &[lower],
            upper: Some((&upper, &work)),
            mnt: &mnt,
        };
        let said = Subject::Kernel.mount(&layers).unwrap_err();
        assert!(said.contains("EINVAL"), "{subject:?}: {said}");
    }
}
