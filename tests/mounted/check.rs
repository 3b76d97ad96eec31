//! `unionmount check`: each kind of trouble planted for real, found, and mended where that loses nothing.
//! That it finds nothing where nothing is wrong, `Lab::expect_same_after_remount` shows in all other tests.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::kit::{Lab, Mounts, Subject, plant, program, snapshot, sys};

const LOWER: &str = "f f text\nf gone text\nd d\nf d/g text\nd renamed\nf renamed/h text\nf linked text\nh linked2 linked";

struct Report {
    status: i32,
    findings: Vec<Value>,
}

impl Report {
    /// `PATH TROUBLE`, of all that was not mended.
    fn left(&self) -> Vec<String> {
        let left = self.findings.iter().filter(|f| f["mended"] == false);
        let text = |f: &Value| {
            let (path, trouble) = (&f["path"], &f["trouble"]);
            format!("{} {}", path.as_str().unwrap(), trouble.as_str().unwrap())
        };
        let mut left: Vec<String> = left.map(text).collect();
        left.sort();
        left
    }
}

fn check(lab: &Lab, lower: &Path, more: &[&str]) -> Report {
    let mut command = Command::new(program());
    command
        .arg("check")
        .arg(lab.upper_dir())
        .arg("--work")
        .arg(lab.work_dir());
    command.arg("--lower").arg(lower).arg("--json").args(more);
    let done = command.output().unwrap();
    let status = done.status.code().unwrap();
    let report: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&done.stderr)));
    let findings = report["findings"].as_array().unwrap().clone();
    Report { status, findings }
}

/// An upper with one of everything that is right, not mounted.
fn worked_in() -> Lab {
    let mut lab = Lab::new().lower(LOWER).upper("").mount();
    sys::append(lab.at("f"), b"more").unwrap();
    sys::unlink(lab.at("gone")).unwrap();
    sys::chmod(lab.at("linked"), 0o600).unwrap();
    sys::rename(lab.at("renamed"), lab.at("moved")).unwrap();
    sys::mkdir(lab.at("gone"), 0o755).unwrap();
    sys::put(lab.at("d/new"), b"new").unwrap();
    lab.umount();
    lab
}

/// Everything below a directory, times included.
fn state(lab: &Lab) -> [snapshot::Snapshot; 2] {
    let look = crate::Look {
        dir_mtime: true,
        ..crate::Look::default()
    };
    [lab.upper_dir(), lab.work_dir()].map(|dir| snapshot::read(&dir, look).snapshot)
}

/// One of everything that is wrong.
fn plant_trouble(lab: &Lab) {
    let root = lab.upper_dir();
    let upper = |name: &str| root.join(name);
    let mark = |name: &str, marker: &str, value: &[u8]| {
        sys::setxattr(upper(name), &format!("trusted.overlay.{marker}"), value, 0).unwrap();
    };
    sys::mknod(upper("idle"), libc::S_IFCHR, 0).unwrap();
    sys::mknod(upper("gone/idle"), libc::S_IFCHR, 0).unwrap();
    mark("f", "origin", b"junk");
    mark("d", "opaque", b"?");
    sys::put(upper("hollow"), b"zeros").unwrap();
    mark("hollow", "metacopy", b"");
    sys::put(upper("odd"), b"zeros").unwrap();
    mark("odd", "metacopy", &[7, 7]);
    for name in ["nowhere", "twin"] {
        sys::mkdir(upper(name), 0o755).unwrap();
    }
    mark("nowhere", "redirect", b"../outside");
    mark("twin", "redirect", b"/renamed");
    for name in ["nowhere", "twin"] {
        mark(name, "origin", b"");
    }
    sys::setxattr(lab.upper_dir(), "trusted.overlay.impure", b"y", 0).unwrap();
    sys::put(lab.work_dir().join("work/#77"), b"half").unwrap();
}

#[test]
fn what_is_wrong_is_found_and_mended_where_nothing_is_lost() {
    let mut lab = worked_in();
    let lower = lab.lower_dir(0);
    let clean = check(&lab, &lower, &[]);
    assert_eq!((clean.status, clean.left()), (0, Vec::new()));

    plant_trouble(&lab);
    let root = lab.upper_dir();
    let upper = |name: &str| root.join(name);
    let before = state(&lab);
    let found = check(&lab, &lower, &[]);
    let wrong = [
        "/d bad-opaque",
        "/f bad-origin",
        "/gone/idle idle-whiteout",
        "/hollow no-data",
        "/idle idle-whiteout",
        "/nowhere bad-redirect",
        "/odd no-data",
        "work/#77 leftover",
    ];
    let shared = |left: &[String]| left.iter().any(|f| f.ends_with(" shared-redirect"));
    let but_shared = |report: &Report| -> Vec<String> {
        let left = report.left();
        assert!(shared(&left), "{left:?}");
        left.into_iter()
            .filter(|f| !f.ends_with(" shared-redirect"))
            .collect()
    };
    assert_eq!(
        (found.status, but_shared(&found)),
        (4, wrong.map(str::to_owned).to_vec())
    );
    for (old, new) in before.iter().zip(&state(&lab)) {
        snapshot::assert_same("before and after a check", old, new);
    }

    // Nothing that counts on all lowers being named is done unasked.
    lab.remount();
    let shown = lab.ls("");
    lab.umount();
    let kept = check(&lab, &lower, &["--repair"]);
    let idle = ["/gone/idle idle-whiteout", "/idle idle-whiteout"];
    assert!(idle.iter().all(|f| kept.left().contains(&(*f).to_owned())));
    let mended = check(&lab, &lower, &["--repair", "--prune"]);
    let stays = [
        "/d bad-opaque",
        "/hollow no-data",
        "/nowhere bad-redirect",
        "/odd no-data",
    ];
    assert_eq!(
        (mended.status, but_shared(&mended)),
        (4, stays.map(str::to_owned).to_vec())
    );
    assert!(!sys::exists(upper("idle")) && !sys::exists(upper("gone/idle")));
    fails!(sys::getxattr(upper("f"), "trusted.overlay.origin"), ENODATA);
    assert_eq!(check(&lab, &lower, &[]).status, 4);

    // By hand, as it says; then nothing is left.
    for name in ["hollow", "odd"] {
        sys::unlink(upper(name)).unwrap();
    }
    for name in ["nowhere", "twin"] {
        sys::rmdir(upper(name)).unwrap();
    }
    sys::removexattr(upper("d"), "trusted.overlay.opaque").unwrap();
    let clean = check(&lab, &lower, &[]);
    assert_eq!((clean.status, clean.left()), (0, Vec::new()));
    lab.remount();
    let gone = ["hollow", "nowhere", "odd", "twin"];
    let kept: Vec<String> = shown
        .into_iter()
        .filter(|name| !gone.contains(&&**name))
        .collect();
    assert_eq!(lab.ls(""), kept);
    let ours = lab.timeless_tree();
    lab.remount_as(&Subject::Kernel);
    snapshot::assert_same("ours and the kernel's", &ours, &lab.timeless_tree());
}

#[test]
fn deletions_stay_where_lowers_are_missing() {
    let mut mounts = Mounts::new();
    let lowers = [
        mounts.format(&["mkfs.ext4", "-q"], 64, "a"),
        mounts.format(&["mkfs.ext4", "-q"], 64, "b"),
    ];
    plant(&lowers[0], "f f text");
    plant(&lowers[1], LOWER);
    let mut lab = Lab::new()
        .lower_at(&lowers[0])
        .lower_at(&lowers[1])
        .upper("")
        .mount();
    sys::append(lab.at("d/g"), b"more").unwrap();
    sys::unlink(lab.at("gone")).unwrap();
    lab.umount();
    let before = state(&lab);
    let report = check(&lab, &lowers[0], &["--repair", "--prune"]);
    assert!(
        report.left().contains(&"/gone idle-whiteout".to_owned()),
        "{:?}",
        report.left()
    );
    let after = state(&lab);
    assert!(before[0].entries.keys().eq(after[0].entries.keys()));
    lab.expect_nothing_wrong();
}

#[test]
fn what_cannot_be_checked_is_said() {
    let mut lab = worked_in();
    let run = |lab: &Lab| {
        let mut command = Command::new(program());
        command
            .arg("check")
            .arg(lab.upper_dir())
            .arg("--work")
            .arg(lab.work_dir());
        let done = command
            .arg("--lower")
            .arg(lab.lower_dir(0))
            .output()
            .unwrap();
        let said = [&done.stdout[..], &done.stderr[..]].concat();
        (done.status.code(), String::from_utf8(said).unwrap())
    };
    lab.remount();
    let (status, said) = run(&lab);
    let process = format!("(process {})", lab.daemons()[0]);
    assert!(
        status == Some(8) && said.contains("in use") && said.contains(&process),
        "{said}"
    );
    lab.umount();
    assert_eq!(run(&lab).0, Some(0));
    std::fs::create_dir_all(lab.work_dir().join("work/incompat/volatile")).unwrap();
    let (status, said) = run(&lab);
    assert!(status == Some(4) && said.contains("volatile"), "{said}");
}

/// What kernel overlayfs writes is as right as what we write.
#[test]
fn nothing_is_wrong_with_an_upper_of_the_kernel() {
    let options = "redirect_dir=on,metacopy=on,index=on";
    let mut lab = Lab::new().lower(LOWER).upper("");
    lab.remount_as(&Subject::KernelWith(options.into()));
    sys::chmod(lab.at("f"), 0o600).unwrap();
    sys::append(lab.at("linked"), b"more").unwrap();
    sys::unlink(lab.at("gone")).unwrap();
    sys::rename(lab.at("renamed"), lab.at("moved")).unwrap();
    sys::rename(lab.at("f"), lab.at("d/f")).unwrap();
    sys::unlink(lab.at("d/g")).unwrap();
    sys::mkdir(lab.at("gone"), 0o755).unwrap();
    lab.umount();
    let report = check(&lab, &lab.lower_dir(0), &[]);
    assert_eq!((report.status, report.left()), (0, Vec::new()));
}
