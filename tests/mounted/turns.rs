//! Kernel overlayfs and this union take turns on one upper: each finds what the other left, hard links
//! and inode numbers included.

use std::collections::BTreeMap;
use std::path::Path;

use crate::kit::{Lab, Look, Mounts, Snapshot, Subject, plant, snapshot, sys};

const LOWER: &str = "f a data\nh d/b a\nh d/e/c a\nf lone l\nl sym x\nh sym2 sym\np fifo\nh fifo2 fifo\n\
                     f v w\nh v2 v\nh d/v3 v\nf t 0\nh t2 t\nf d/deep 1";

/// One change, on any tree.
type Step = fn(&Path);

/// What is done in turn; each touches what those before have left.
const STEPS: [Step; 14] = [
    |at| sys::append(at.join("d/b"), b"+b").unwrap(),
    |at| sys::chmod(at.join("a"), 0o600).unwrap(),
    |at| sys::link(at.join("d/e/c"), at.join("new")).unwrap(),
    |at| sys::unlink(at.join("a")).unwrap(),
    |at| sys::rename(at.join("d/e/c"), at.join("d/moved")).unwrap(),
    |at| sys::append(at.join("d/moved"), b"+m").unwrap(),
    |at| {
        sys::put(at.join("other"), b"o").unwrap();
        sys::rename(at.join("other"), at.join("new")).unwrap();
    },
    |at| sys::lchown(at.join("sym2"), 7, 7).unwrap(),
    |at| {
        sys::unlink(at.join("v2")).unwrap();
        sys::append(at.join("d/v3"), b"+").unwrap();
    },
    |at| sys::rename2(at.join("fifo"), at.join("lone"), libc::RENAME_EXCHANGE).unwrap(),
    |at| {
        sys::unlink(at.join("t")).unwrap();
        sys::unlink(at.join("t2")).unwrap();
    },
    |at| sys::link(at.join("lone"), at.join("fifo3")).unwrap(),
    |at| {
        sys::unlink(at.join("d/b")).unwrap();
        sys::unlink(at.join("d/moved")).unwrap();
    },
    |at| sys::append(at.join("v"), b"+v").unwrap(),
];

#[track_caller]
fn read(root: &Path) -> (Snapshot, BTreeMap<Vec<u8>, u64>) {
    let reading = snapshot::read(
        root,
        Look {
            since: Some(0),
            ..Look::default()
        },
    );
    assert!(reading.faults.is_empty(), "{:#?}", reading.faults);
    let mut inos = reading.inos;
    inos.remove(&b""[..]); // the root's is always 1 in ours
    (reading.snapshot, inos)
}

/// Whether numbers too are those of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    Same,
    Own,
}

/// The subjects mount the same layers one after the other, `each` steps at a time. What they show is
/// what the same steps make of a plain directory, and numbers do not change by a turn.
fn take_turns(subjects: &[Subject], lab: &mut Lab, each: usize, numbers: Numbers) {
    let plain = lab.aside("plain");
    plant(&plain, LOWER);
    for (n, steps) in STEPS.chunks(each).enumerate() {
        let subject = &subjects[n % subjects.len()];
        lab.remount_as(subject);
        for step in steps {
            step(&lab.mnt());
            step(&plain);
        }
        let (tree, inos) = read(&lab.mnt());
        let turn = format!("{subjects:?} by {each}, turn {n}");
        if numbers == Numbers::Same || subject.is_ours() {
            let who = format!("{turn}: a plain directory (<) and {subject:?} (>)");
            snapshot::assert_same(&who, &read(&plain).0, &tree);
        }
        for other in subjects {
            if numbers == Numbers::Own && other.is_kernel() {
                continue;
            }
            lab.remount_as(other);
            let (seen, again) = read(&lab.mnt());
            let who = format!("{turn}: {subject:?} (<) and then {other:?} (>)");
            snapshot::assert_same(&who, &read(&plain).0, &seen);
            if numbers == Numbers::Same || subject == other {
                assert_eq!(inos, again, "{who}");
            }
        }
    }
}

fn turns(lab: impl Fn() -> Lab, kernel: &Subject, each: usize, numbers: Numbers) {
    turns_of(lab, kernel, &Subject::default(), each, numbers);
}

fn turns_of(
    lab: impl Fn() -> Lab,
    kernel: &Subject,
    ours: &Subject,
    each: usize,
    numbers: Numbers,
) {
    for subjects in [
        [kernel.clone(), ours.clone()],
        [ours.clone(), kernel.clone()],
    ] {
        let mut lab = lab().upper("").mount_as(&subjects[0]);
        take_turns(&subjects, &mut lab, each, numbers);
    }
}

fn kernel_with(option: &str) -> Subject {
    Subject::KernelWith(format!(
        "redirect_dir=off,metacopy=off,xino=on,index=on,{option}"
    ))
}

fn usual() -> Lab {
    Lab::new().lower(LOWER)
}

#[test]
fn after_every_change() {
    turns(usual, &Subject::Kernel, 1, Numbers::Same);
}

#[test]
fn after_several_changes() {
    turns(usual, &Subject::Kernel, 3, Numbers::Same);
}

/// The index then holds an entry for every copy, directories for directories, and whiteouts. (The kernel
/// itself shows other numbers after a remount there, and counts an entry as a link.)
#[test]
fn with_what_nfs_export_leaves() {
    let kernel = kernel_with("nfs_export=on");
    turns(usual, &kernel, 1, Numbers::Own);
}

/// Filesystems whose file handles have forms of their own.
const FILESYSTEMS: [(&[&str], u64); 3] = [
    (&["mkfs.ext4", "-q", "-F"], 32),
    (&["mkfs.xfs", "-q", "-f"], 320),
    (&["mkfs.btrfs", "-q", "-f"], 128),
];

#[test]
fn on_every_filesystem() {
    for (mkfs, megabytes) in FILESYSTEMS {
        let mut mounts = Mounts::new();
        let at = mounts.format(mkfs, megabytes, "fs");
        let lab = || Lab::within(&at).lower(LOWER);
        turns(lab, &Subject::Kernel, 2, Numbers::Same);
    }
}

/// Markers then name no filesystem, though it has a UUID.
#[test]
fn with_what_uuid_off_leaves() {
    let mut mounts = Mounts::new();
    let at = mounts.format(FILESYSTEMS[0].0, FILESYSTEMS[0].1, "fs");
    let lab = || Lab::within(&at).lower(LOWER);
    let kernel = kernel_with("uuid=off");
    let ours = Subject::with(&["-o", "uuid=off"]);
    turns_of(lab, &kernel, &ours, 1, Numbers::Same);
    // The kernel has to be told, we need not be.
    let mut lab = lab().upper("").mount_as(&kernel);
    take_turns(
        &[kernel, Subject::default()],
        &mut lab,
        STEPS.len(),
        Numbers::Same,
    );
}

/// Numbers are then made of the device too, which the kernel counts in another order.
#[test]
fn with_layers_on_several_devices() {
    for (mkfs, megabytes) in FILESYSTEMS {
        let mut mounts = Mounts::new();
        let at = mounts.format(mkfs, megabytes, "lower");
        plant(&at.join("top"), LOWER);
        let lab = || Lab::new().lower_at(&at.join("top")).lower("f z z\nh z2 z");
        let mut union = lab().upper("").mount();
        let plain = union.aside("plain");
        plant(&plain, LOWER);
        plant(&plain, "f z z\nh z2 z");
        let (tree, inos) = read(&union.mnt());
        snapshot::assert_same(
            "a plain directory (<) and the union (>)",
            &read(&plain).0,
            &tree,
        );
        for step in STEPS {
            step(&union.mnt());
        }
        union.expect_same_after_remount();
        let left = read(&union.mnt()).1;
        for name in ["d", "fifo2", "d/deep", "v"] {
            let name = name.as_bytes();
            assert_eq!(inos.get(name), left.get(name), "{mkfs:?}: {name:?}");
        }
        drop(union);
    }
}
