//! The first change of a lower object: what is copied, and what must come along.

use crate::kit::{Subject, acl, capability, sys};
use crate::{all_io, both, ours};

#[test]
fn everything_about_an_object_is_kept() {
    let lower = "d d mode=03770 uid=11 gid=12 mtime=-7.123456789 user.d=1\n\
                 f d/f pattern=100000 mode=06751 uid=13 gid=14 mtime=99.000000001 user.a=1 trusted.b=2\n\
                 l d/l target uid=15 gid=16 mtime=5.5\n\
                 p d/p mode=0612 uid=17 mtime=6.5\n\
                 c d/c 1:3 mode=0606 gid=18 mtime=7.5";
    both(&[lower], |lab| {
        let before = lab.tree();
        // A new xattr, and gone again: nothing else about the object may differ.
        for name in ["d/f", "d/l", "d/p", "d/c", "d"] {
            sys::setxattr(lab.at(name), "trusted.probe", b"1", 0).unwrap();
            sys::removexattr(lab.at(name), "trusted.probe").unwrap();
            assert!(
                sys::exists(lab.in_upper(name)),
                "{name} is not in the upper"
            );
        }
        crate::snapshot::assert_same("before and after copy-up", &before, &lab.tree());
        lab.remount();
        crate::snapshot::assert_same("before and after a remount", &before, &lab.tree());
    });
}

#[test]
fn acls_and_capabilities_come_along() {
    let mut lab = crate::Lab::new().lower("f f text\nd d");
    let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
    let value = acl(7, (1000, 5), 5, 5, 1);
    sys::setxattr(lab.lower_dir(0).join("f"), access, &value, 0).unwrap();
    sys::setxattr(lab.lower_dir(0).join("d"), default, &value, 0).unwrap();
    let caps = capability(10);
    sys::setxattr(lab.lower_dir(0).join("f"), "security.capability", &caps, 0).unwrap();
    lab = lab.upper("").mount();
    sys::set_mtime(lab.at("f"), (5, 5)).unwrap();
    sys::set_mtime(lab.at("d"), (5, 5)).unwrap();
    for root in [lab.mnt(), lab.upper_dir()] {
        assert_eq!(sys::getxattr(root.join("f"), access).unwrap(), value);
        assert_eq!(sys::getxattr(root.join("d"), default).unwrap(), value);
        assert_eq!(
            sys::getxattr(root.join("f"), "security.capability").unwrap(),
            caps
        );
    }
    assert_eq!(sys::lstat(lab.at("f")).unwrap().perm(), 0o751);
}

#[test]
fn parents_come_first_and_keep_their_attributes() {
    let lower =
        "d a mode=0700 uid=5\nd a/b mode=0555 gid=6 mtime=9.9\nd a/b/c mode=01777\nf a/b/c/f x";
    both(&[lower], |lab| {
        let before = lab.tree();
        sys::append(lab.at("a/b/c/f"), b"y").unwrap();
        let after = lab.tree();
        for dir in ["a", "a/b", "a/b/c"] {
            let key = dir.as_bytes();
            assert_eq!(before.entries[key], after.entries[key], "{dir}");
            let (real, seen) = (
                sys::lstat(lab.in_upper(dir)).unwrap(),
                sys::lstat(lab.at(dir)).unwrap(),
            );
            assert_eq!(
                (real.mode, real.uid, real.gid),
                (seen.mode, seen.uid, seen.gid),
                "{dir} on disk"
            );
        }
    });
}

#[test]
fn holes_stay_holes() {
    both(&["f f size=50000000 at=0:head at=40000000:island"], |lab| {
        sys::append(lab.at("f"), b"tail").unwrap();
        let real = sys::lstat(lab.in_upper("f")).unwrap();
        assert_eq!(real.size, 50_000_004);
        assert!(
            real.blocks < 20_000,
            "{} blocks: the holes were filled",
            real.blocks
        );
        let fd = sys::open(lab.at("f"), libc::O_RDONLY, 0).unwrap();
        assert_eq!(sys::pread(&fd, 40_000_000, 7).unwrap(), b"island\0");
        assert_eq!(sys::pread(&fd, 0, 5).unwrap(), b"head\0");
    });
}

/// Metadata only: the data of the old file is not copied first.
#[test]
fn o_trunc_copies_no_data() {
    let subject = Subject::default();
    if !subject.is_ours() {
        return;
    }
    ours(
        &["f big pattern=20000000\nf half pattern=20000000"],
        |lab| {
            sys::put(lab.at("big"), b"new").unwrap();
            let copied = lab.control("stats")["copied_bytes"].as_u64().unwrap();
            assert_eq!(copied, 0, "bytes copied for O_TRUNC");
            sys::truncate(lab.at("half"), 1_000_000).unwrap();
            let copied = lab.control("stats")["copied_bytes"].as_u64().unwrap();
            assert!(copied <= 1_000_000, "{copied} bytes copied to keep 1000000");
        },
    );
}

#[test]
fn a_failed_or_finished_copy_leaves_nothing_behind() {
    both(&["f f pattern=100000\nd d\nf d/g g\nl l x"], |lab| {
        sys::append(lab.at("f"), b"x").unwrap();
        sys::unlink(lab.at("d/g")).unwrap();
        sys::lchown(lab.at("l"), 1, 1).unwrap();
        lab.umount();
        let left: Vec<String> = sys::names(lab.work_dir().join("work"))
            .into_iter()
            .filter(|name| {
                // The kernel keeps the whiteout that it links from.
                let st = sys::lstat(lab.work_dir().join("work").join(name)).unwrap();
                !(st.kind() == libc::S_IFCHR && st.rdev == 0)
            })
            .collect();
        assert_eq!(left, [""; 0], "left in the workdir");
        let subject = lab.subject().clone();
        lab.remount_as(&subject);
    });
}

#[test]
fn many_threads_copy_one_file_up_once() {
    all_io(&["f f pattern=3000000\nd a/b/c\nf a/b/c/g g"], |lab| {
        std::thread::scope(|scope| {
            for n in 0..8_u64 {
                let (f, g) = (lab.at("f"), lab.at("a/b/c/g"));
                scope.spawn(move || {
                    sys::overwrite(&f, n * 100_000, &[n as u8; 1000]).unwrap();
                    sys::overwrite(&g, n, &[b'0' + n as u8]).unwrap();
                });
            }
        });
        let mut want = sys::pattern(1, 3_000_000);
        for n in 0..8 {
            want[n * 100_000..n * 100_000 + 1000].fill(n as u8);
        }
        assert!(sys::get(lab.at("f")).unwrap() == want);
        assert_eq!(sys::text(lab.at("a/b/c/g")), "01234567");
        if lab.subject().is_ours() {
            assert_eq!(lab.control("stats")["copy_ups"].as_u64(), Some(5));
        }
    });
}

/// A program that runs from the lower goes on when its file is replaced or removed.
#[test]
fn a_running_program_survives() {
    both(&["d bin"], |lab| {
        let at = lab.at("bin/sleep");
        let sleep = std::fs::read("/bin/sleep").unwrap();
        std::fs::write(&at, sleep).unwrap();
        sys::chmod(&at, 0o755).unwrap();
        let mut child = std::process::Command::new(&at).arg("600").spawn().unwrap();
        sys::unlink(&at).unwrap();
        sys::put(&at, b"something else").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none(), "it died");
        child.kill().unwrap();
        child.wait().unwrap();
        sys::unlink(&at).unwrap();
    });
}
