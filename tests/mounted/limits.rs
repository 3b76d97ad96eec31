//! Limits: names, depth, quotas, and an upper that stops to be writable. Each is met with its own
//! errno, nothing is left half made, and everything works again afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kit::{Errno, Lab, Mounts, Subject, must, sys};
use crate::snapshot;

/// With `.wh.` files a name of a lower needs four bytes more to be deleted or moved away. It can be
/// looked at and changed whatever its length.
#[test]
fn names_of_252_to_255_bytes_where_deletions_are_files() {
    let name = |len: usize| "n".repeat(len);
    let mut lower = String::new();
    for len in 250..=255 {
        lower += &format!("f {} text\nf d{len}/{} text\n", name(len), name(len));
    }
    let mut lab = Lab::new().lower(&lower).upper("");
    lab.remount_as(&Subject::ours(&["--whiteout", "file"]));
    assert_eq!(sys::statvfs(lab.mnt()).unwrap().f_namemax, 251);
    for len in 250..=255 {
        let (at, inner) = (lab.at(name(len)), lab.at(format!("d{len}")).join(name(len)));
        assert_eq!(sys::text(&at), "text");
        sys::append(&at, b"!").unwrap();
        sys::chmod(&inner, 0o600).unwrap();
        let before = lab.timeless_tree();
        let changes: [Result<(), Errno>; 4] = [
            sys::rename(&at, lab.at("elsewhere")),
            sys::unlink(&inner),
            sys::rename2(
                &inner,
                lab.at(format!("elsewhere{len}")),
                libc::RENAME_NOREPLACE,
            ),
            sys::put(lab.at("x".repeat(len)), b"new"),
        ];
        if len <= 251 {
            assert_eq!(changes[..2], [Ok(()), Ok(())], "{len}");
            assert_eq!(changes[3], Ok(()), "{len}");
            sys::unlink(lab.at("elsewhere")).unwrap();
        } else {
            assert_eq!(changes, [Err(Errno(libc::ENAMETOOLONG)); 4], "{len}");
            snapshot::assert_same("after what was refused", &before, &lab.timeless_tree());
        }
    }
    let before = lab.timeless_tree();
    lab.remount();
    snapshot::assert_same("after a remount", &before, &lab.timeless_tree());
}

/// Deeper than any path can be named: by one directory at a time.
#[test]
fn trees_deeper_than_a_path_can_be() {
    const DEPTH: usize = 300;
    let name = "d".repeat(40);
    let (fresh, low) = ("fresh", "low");
    for subject in [Subject::Kernel, Subject::with(&[])] {
        let mut lab = Lab::new().lower("d low").upper("");
        deepen(&lab.lower_dir(0).join(low), &name, DEPTH);
        lab.remount_as(&subject);
        sys::mkdir(lab.at(fresh), 0o755).unwrap();
        deepen(&lab.at(fresh), &name, DEPTH);
        for top in [fresh, low] {
            let bottom = descend(&lab.at(top), &name, DEPTH);
            let file = inside(&bottom, "f");
            assert_eq!(sys::text(&file), "deep");
            sys::append(&file, b"er").unwrap();
            sys::rename(&file, inside(&bottom, "g")).unwrap();
            sys::put(&file, b"again").unwrap();
        }
        lab.remount();
        for top in [fresh, low] {
            let bottom = descend(&lab.at(top), &name, DEPTH);
            assert_eq!(sys::text(inside(&bottom, "g")), "deeper");
            assert_eq!(sys::text(inside(&bottom, "f")), "again");
            drop(bottom);
            must(Command::new("rm").arg("-rf").arg(lab.at(top)));
            assert!(!sys::exists(lab.at(top)));
        }
        assert_eq!(lab.ls(""), [""; 0]);
    }
}

fn inside(dir: &impl std::os::fd::AsRawFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

fn descend(top: &Path, name: &str, depth: usize) -> std::os::fd::OwnedFd {
    let mut at = sys::open(top, libc::O_PATH, 0).unwrap();
    for _ in 0..depth {
        at = sys::open(inside(&at, name), libc::O_PATH, 0).unwrap();
    }
    at
}

/// Makes `depth` directories within each other, with a file in the last one.
fn deepen(top: &Path, name: &str, depth: usize) {
    let mut at = sys::open(top, libc::O_PATH, 0).unwrap();
    for _ in 0..depth {
        sys::mkdir(inside(&at, name), 0o755).unwrap();
        at = sys::open(inside(&at, name), libc::O_PATH, 0).unwrap();
    }
    sys::put(inside(&at, "f"), b"deep").unwrap();
}

/// A quota on the upper is met as EDQUOT, by whatever call needs the room.
#[test]
fn a_quota_on_the_upper() {
    let low = Mounts::new();
    let (lower, large) = (low.dir("lower"), sys::pattern(3, 8 << 20));
    for (name, data) in [("large", &large[..]), ("small", b"text")] {
        sys::put(lower.join(name), data).unwrap();
    }
    sys::link(lower.join("large"), lower.join("linked")).unwrap();
    for subject in [
        Subject::Kernel,
        Subject::with(&[]),
        Subject::with(&["--whiteout", "xattr"]),
    ] {
        let mut mounts = Mounts::new();
        let fs = mounts.format(&["mkfs.btrfs", "-q"], 256, "fs");
        let part = fs.join("part");
        must(
            Command::new("btrfs")
                .args(["-q", "subvolume", "create"])
                .arg(&part),
        );
        must(Command::new("btrfs").args(["quota", "enable"]).arg(&fs));
        let limit = |size: &str| {
            must(
                Command::new("btrfs")
                    .args(["qgroup", "limit", size])
                    .arg(&part),
            )
        };
        limit("4M");
        let mut lab = Lab::within(&part)
            .lower_at(&lower)
            .upper("")
            .mount_as(&subject);
        let before = lab.timeless_tree();
        for name in ["large", "linked"] {
            let at = lab.at(name);
            let answers = [sys::append(&at, b"!"), sys::truncate(&at, 7 << 20)];
            assert_eq!(
                answers,
                [Err(Errno(libc::EDQUOT)); 2],
                "{name} of {subject:?}"
            );
            assert!(sys::get(&at).unwrap() == large, "a copy shows in part");
        }
        snapshot::assert_same("after copies that failed", &before, &lab.timeless_tree());
        assert_eq!(
            sys::put(lab.at("new"), &large),
            Err(Errno(libc::EDQUOT)),
            "{subject:?}"
        );
        assert!(sys::lstat(lab.at("new")).unwrap().size < 8 << 20);
        let half_made = lab.work_dir().join("work");
        let left: Vec<String> = sys::names(half_made)
            .into_iter()
            .filter(|name| !subject.is_kernel() && name.starts_with('#'))
            .collect();
        assert_eq!(left, [""; 0], "left in the workdir by {subject:?}");
        limit("none");
        sys::append(lab.at("linked"), b"!").unwrap();
        sys::append(lab.at("small"), b"!").unwrap();
        sys::put(lab.at("new"), &large).unwrap();
        lab.remount();
        for name in ["large", "linked"] {
            assert_eq!(sys::lstat(lab.at(name)).unwrap().size, (8 << 20) + 1);
        }
        assert!(sys::get(lab.at("new")).unwrap() == large);
    }
}

/// The right to exceed quotas is root's; files belong to others. Kernel overlayfs gives it up as well.
#[test]
fn the_daemon_gives_up_the_right_to_exceed_quotas() {
    const SYS_RESOURCE: u32 = 24;
    let lab = Lab::new()
        .lower("f f f")
        .upper("")
        .mount_as(&Subject::ours(&[]));
    assert!(!lab.daemons().is_empty());
    for pid in lab.daemons() {
        for task in sys::names(format!("/proc/{pid}/task")) {
            let status =
                std::fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).unwrap();
            let caps = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))
                .unwrap();
            let caps = u64::from_str_radix(caps.trim(), 16).unwrap();
            assert_eq!(caps & (1 << SYS_RESOURCE), 0, "{caps:x}");
        }
    }
}

/// Somebody remounts the filesystem of the upper read-only, as ext4 does by itself after an error.
#[test]
fn an_upper_that_becomes_read_only() {
    for writeback in [&[][..], &["--writeback"]] {
        let mut mounts = Mounts::new();
        let fs = mounts.format(&["mkfs.ext4", "-q"], 32, "fs");
        let mut lab = Lab::within(&fs)
            .lower("f f text\nd d\nf d/x x\nf l1 l\nh l2 l1")
            .upper("");
        lab.remount_as(&Subject::with(writeback));
        sys::put(lab.at("up"), b"up").unwrap();
        sys::unlink(lab.at("d/x")).unwrap();
        let before = lab.timeless_tree();
        // Descriptors for writing are given up after a second.
        let remount = |how: &str| {
            let done = Command::new("mount")
                .args(["-o", &format!("remount,{how}")])
                .arg(&fs)
                .output();
            done.unwrap().status.success()
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !remount("ro") {
            assert!(std::time::Instant::now() < end, "the upper stays in use");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let changes = [
            ("create", sys::mkdir(lab.at("new"), 0o755)),
            ("create over a whiteout", sys::mkdir(lab.at("d/x"), 0o755)),
            ("copy-up by chmod", sys::chmod(lab.at("f"), 0o600)),
            ("copy-up of a link", sys::chmod(lab.at("l1"), 0o600)),
            ("unlink of a lower file", sys::unlink(lab.at("f"))),
            ("unlink of an upper file", sys::unlink(lab.at("up"))),
            ("rename", sys::rename(lab.at("up"), lab.at("other"))),
            ("setxattr", sys::setxattr(lab.at("up"), "user.x", b"1", 0)),
            ("truncate", sys::truncate(lab.at("up"), 1)),
            ("link", sys::link(lab.at("l1"), lab.at("l3"))),
        ];
        for (what, answer) in changes {
            assert_eq!(answer, Err(Errno(libc::EROFS)), "{what} {writeback:?}");
        }
        let write = |name: &str| {
            let fd = sys::open(lab.at(name), libc::O_WRONLY, 0)?;
            sys::pwrite(&fd, 0, b"TEXT")?;
            sys::fsync(&fd)
        };
        for name in ["f", "up"] {
            assert_eq!(
                write(name),
                Err(Errno(libc::EROFS)),
                "write to {name} {writeback:?}"
            );
        }
        assert!(remount("rw"));
        if writeback.is_empty() {
            snapshot::assert_same("after what was refused", &before, &lab.timeless_tree());
        }
        for name in ["f", "up"] {
            write(name).unwrap();
        }
        sys::unlink(lab.at("d").join("x")).unwrap_err();
        sys::mkdir(lab.at("d/x"), 0o755).unwrap();
        sys::chmod(lab.at("l1"), 0o600).unwrap();
        lab.remount();
        assert_eq!(sys::text(lab.at("f")), "TEXT");
        assert_eq!(sys::lstat(lab.at("l2")).unwrap().perm(), 0o600);
    }
}
