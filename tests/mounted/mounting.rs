//! Mounts themselves: read-only ones, many layers, one upper twice, the end of the daemon.

use std::time::Duration;

use crate::kit::{Lab, Subject, sys};

/// Every change is refused, and nothing is written anywhere.
fn expect_read_only(lab: &Lab) {
    let (f, new) = (lab.at("f"), lab.at("new"));
    assert_eq!(sys::text(&f), "text");
    fails!(sys::open(&f, libc::O_WRONLY, 0), EROFS);
    fails!(sys::open(&f, libc::O_RDONLY | libc::O_TRUNC, 0), EROFS);
    fails!(
        sys::open(&new, libc::O_CREAT | libc::O_WRONLY, 0o600),
        EROFS
    );
    fails!(sys::mkdir(&new, 0o700), EROFS);
    fails!(sys::mknod(&new, libc::S_IFIFO | 0o600, 0), EROFS);
    fails!(sys::symlink("x", &new), EROFS);
    fails!(sys::link(&f, &new), EROFS);
    fails!(sys::unlink(&f), EROFS);
    fails!(sys::rmdir(lab.at("d")), EROFS);
    fails!(sys::rename(&f, &new), EROFS);
    fails!(sys::truncate(&f, 0), EROFS);
    fails!(sys::chmod(&f, 0o600), EROFS);
    fails!(sys::lchown(&f, 1, 1), EROFS);
    fails!(sys::set_mtime(&f, (1, 1)), EROFS);
    fails!(sys::setxattr(&f, "user.x", b"1", 0), EROFS);
    fails!(sys::removexattr(&f, "user.a"), EROFS);
    fails!(sys::access(&f, libc::W_OK), EROFS);
}

const LOWER: &str = "f f text user.a=1\nd d\nf d/x x\nw gone";

#[test]
fn without_an_upper_a_union_is_read_only() {
    for subject in Subject::and_kernel() {
        let mut lab = Lab::new()
            .lower(LOWER)
            .lower("f d/y y\nf gone g")
            .mount_as(&subject);
        lab.expect_paths("d d/x d/y f");
        expect_read_only(&lab);
        lab.expect_same_after_remount();
    }
}

#[test]
fn one_lower_alone() {
    for subject in Subject::modes() {
        let lab = Lab::new()
            .lower("f f text user.a=1\nd d")
            .mount_as(&subject);
        lab.expect_paths("d f");
        expect_read_only(&lab);
    }
}

#[test]
fn an_upper_can_be_mounted_read_only() {
    let mut lab = Lab::new()
        .lower("f d/x x")
        .upper("f f text user.a=1")
        .mount();
    sys::put(lab.at("mine"), b"m").unwrap();
    sys::unlink(lab.at("mine")).unwrap();
    lab.umount();
    if !lab.subject().is_ours() {
        return;
    }
    let before = crate::snapshot::read(&lab.upper_dir(), crate::Look::default()).snapshot;
    for arguments in [&["--read-only"][..], &["-o", "ro"]] {
        lab.remount_as(&Subject::ours(arguments));
        expect_read_only(&lab);
        lab.umount();
        let after = crate::snapshot::read(&lab.upper_dir(), crate::Look::default()).snapshot;
        crate::snapshot::assert_same("the upper of a read-only mount", &before, &after);
    }
}

#[test]
fn five_hundred_lowers() {
    let mut lab = Lab::new();
    for n in 0..500 {
        let text = format!(
            "f d/own{n} {n}\nf d/every {n}\nf top{n} {n}\nd deep/{}",
            n % 10
        );
        lab = lab.lower(&text);
    }
    let mut lab = lab.upper("").mount_as(&Subject::with(&[]));
    assert_eq!(lab.ls("d").len(), 501);
    assert_eq!(lab.ls("").len(), 502);
    assert_eq!(sys::text(lab.at("d/every")), "0");
    assert_eq!(sys::text(lab.at("d/own499")), "499");
    fails!(sys::lstat(lab.at("d/none")), ENOENT);
    sys::unlink(lab.at("d/every")).unwrap();
    sys::append(lab.at("d/own499"), b"+").unwrap();
    fails!(sys::lstat(lab.at("d/every")), ENOENT);
    lab.expect_same_after_remount();
    assert_eq!(lab.ls("d").len(), 500);
}

#[test]
fn an_upper_in_use_is_refused() {
    let lab = Lab::new().lower("f f x").upper("").mount();
    let second = lab.aside("second");
    sys::mkdir(&second, 0o755).unwrap();
    let (upper, work, lower) = (lab.upper_dir(), lab.work_dir(), lab.lower_dir(0));
    let layers = crate::kit::Layers {
        lowers: &[lower],
        upper: Some((&upper, &work)),
        mnt: &second,
    };
    let said = match Subject::default().mount(&layers) {
        Err(said) => said,
        Ok(()) => {
            sys::umount(&second, libc::MNT_DETACH).unwrap();
            panic!("a second mount on the same upper was accepted");
        }
    };
    assert!(
        said.contains("upper") || said.contains("work"),
        "the message names the thing: {said}"
    );
    sys::put(lab.at("still"), b"works").unwrap();
    assert_eq!(sys::text(lab.at("still")), "works");
}

#[test]
fn an_upper_is_free_again_after_umount() {
    let mut lab = Lab::new().lower("f f x").upper("").mount();
    for n in 0..5 {
        sys::put(lab.at(format!("n{n}")), b"x").unwrap();
        lab.remount();
    }
    assert_eq!(lab.ls(""), ["f", "n0", "n1", "n2", "n3", "n4"]);
}

/// What an earlier mount left half done is neither shown nor used.
#[test]
fn stale_work_is_cleaned_at_mount() {
    let mut lab = Lab::new().lower("f f text\nf g text").upper("");
    for name in ["work/#1", "work/1", "work/#abcdef", "work/dir/sub/file"] {
        let at = lab.work_dir().join(name);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        sys::put(&at, &[b'S'; 10_000]).unwrap();
    }
    lab = lab.mount();
    assert_eq!(sys::names(lab.work_dir().join("work")), [""; 0]);
    sys::append(lab.at("f"), b"!").unwrap();
    assert_eq!(sys::text(lab.at("f")), "text!");
    lab.expect_paths("f g");
}

/// Dirty data is on disk and the mount is gone, without any help.
#[test]
fn signals_end_the_daemon_cleanly() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        for arguments in [&[][..], &["--writeback"]] {
            let mut lab = Lab::new()
                .lower("f f x")
                .upper("")
                .mount_as(&Subject::with(arguments));
            if lab.subject().is_kernel() {
                return;
            }
            sys::put(lab.at("new"), &sys::pattern(3, 200_000)).unwrap();
            let daemons = lab.daemons().to_vec();
            assert!(!daemons.is_empty(), "no daemon found");
            for &pid in &daemons {
                assert_eq!(sys::kill(pid, signal), Ok(()));
            }
            crate::kit::wait_gone(&daemons, Duration::from_secs(10)).unwrap();
            assert!(!sys::is_mounted(lab.mnt()), "the daemon left a dead mount");
            lab.is_unmounted();
            assert!(sys::get(lab.in_upper("new")).unwrap() == sys::pattern(3, 200_000));
            lab.remount();
            assert_eq!(lab.ls(""), ["f", "new"]);
        }
    }
}

/// Engines unmount the lowers behind us; a mountpoint may lie over its own lower.
#[test]
fn a_mount_over_its_own_lower() {
    if !Subject::default().is_ours() {
        return;
    }
    let lab = Lab::new().lower("f f text").upper("");
    let (lower, upper, work) = (lab.lower_dir(0), lab.upper_dir(), lab.work_dir());
    let layers = crate::kit::Layers {
        lowers: std::slice::from_ref(&lower),
        upper: Some((&upper, &work)),
        mnt: &lower,
    };
    let subject = Subject::default();
    subject.mount(&layers).unwrap();
    let outcome = std::panic::catch_unwind(|| {
        sys::append(lower.join("f"), b"+").unwrap();
        assert_eq!(sys::text(lower.join("f")), "text+");
    });
    subject.umount(&lower, &[]).unwrap();
    outcome.unwrap();
    assert_eq!(sys::text(lower.join("f")), "text");
}

#[test]
fn paths_with_every_separator() {
    let lab = Lab::new();
    let odd = lab.aside("a:b,c=d e\\f");
    std::fs::create_dir_all(&odd).unwrap();
    let dirs: Vec<_> = ["lower:1", "lower,2", "up", "wk", "m:,t"]
        .map(|n| odd.join(n))
        .into();
    for dir in &dirs {
        std::fs::create_dir_all(dir).unwrap();
    }
    sys::put(dirs[0].join("one"), b"1").unwrap();
    sys::put(dirs[1].join("two"), b"2").unwrap();
    let subject = Subject::default();
    if !subject.is_ours() {
        return;
    }
    let layers = crate::kit::Layers {
        lowers: &dirs[..2],
        upper: Some((&dirs[2], &dirs[3])),
        mnt: &dirs[4],
    };
    subject.mount(&layers).unwrap();
    let names = sys::names(&dirs[4]);
    subject.umount(&dirs[4], &[]).unwrap();
    assert_eq!(names, ["one", "two"]);
}

/// A whole program's life: nothing of what containers do first may fail.
#[test]
fn a_shell_works_in_it() {
    for subject in Subject::and_kernel() {
        let lab = Lab::new()
            .lower("d tmp mode=01777\nf data text")
            .upper("")
            .mount_as(&subject);
        let script = "set -e; cp data tmp/a; mkdir -p x/y/z; echo more >> tmp/a; cat data tmp/a > x/y/z/all; \
                      mv x/y x/w; ln -s w x/link; ln tmp/a x/hard; tar cf t.tar x; rm -rf x; tar xf t.tar; \
                      test \"$(cat x/link/z/all)\" = 'texttextmore'; touch -d 1999-01-01 data; \
                      test \"$(stat -c %h tmp/a)\" -ge 1; find . | wc -l; rm t.tar; sync .";
        let done = std::process::Command::new("sh")
            .arg("-c")
            .arg(script)
            .current_dir(lab.mnt())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{subject:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// The kit itself: a test that panics with a file still open leaves neither mount nor daemon.
#[test]
fn a_panicking_test_leaves_no_mount() {
    for subject in Subject::and_kernel() {
        let lab = Lab::new().lower("f f text").upper("").mount_as(&subject);
        let (mnt, daemons) = (lab.mnt(), lab.daemons().to_vec());
        let busy = sys::open(lab.at("f"), libc::O_RDONLY, 0).unwrap();
        let panicked = std::thread::spawn(move || {
            let _lab = lab;
            panic!("on purpose: this message is part of a passing test");
        });
        assert!(panicked.join().is_err());
        assert!(!sys::is_mounted(&mnt), "{subject:?} is still mounted");
        drop(busy);
        crate::kit::wait_gone(&daemons, Duration::from_secs(10)).unwrap();
    }
}

/// syncfs(2) never reaches a FUSE server: this command does what it would.
#[test]
fn the_sync_command_writes_everything_out() {
    if !Subject::default().is_ours() {
        return;
    }
    let lab = Lab::new().lower("f f text").upper("");
    let lab = lab.mount_as(&Subject::ours(&["--writeback"]));
    for n in 0..20 {
        sys::put(lab.at(format!("n{n}")), &sys::pattern(n, 10_000)).unwrap();
    }
    let mut command = std::process::Command::new(crate::kit::program());
    let done = command.arg("sync").arg(lab.mnt()).output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    for n in 0..20 {
        let real = sys::get(lab.in_upper(format!("n{n}"))).unwrap();
        assert!(real == sys::pattern(n, 10_000), "n{n} is not in the upper");
    }
}

/// One large copy-up must not keep anybody else waiting.
#[test]
fn others_work_during_a_large_copy_up() {
    let lab = Lab::new().lower("f big\nf small text").upper("");
    let big = lab.lower_dir(0).join("big");
    let block = sys::pattern(1, 1 << 20);
    for n in 0..400 {
        sys::append(&big, &block[..(1 << 20) - n]).unwrap();
    }
    let lab = lab.mount();
    let finished = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::SeqCst;
    let mut meanwhile = 0;
    std::thread::scope(|scope| {
        let (lab, finished) = (&lab, &finished);
        scope.spawn(move || {
            sys::append(lab.at("big"), b"end").unwrap();
            finished.store(true, ordering);
        });
        while !finished.load(ordering) {
            let at = lab.at(format!("n{meanwhile}"));
            sys::put(&at, b"x").unwrap();
            sys::unlink(&at).unwrap();
            meanwhile += 1;
        }
    });
    assert!(
        meanwhile >= 5,
        "{meanwhile} files made and removed during a copy of 400 MiB"
    );
}

/// Hard links that were changed are found again without a word written, not even to the workdir.
#[test]
fn a_read_only_mount_knows_changed_hard_links() {
    if !Subject::default().is_ours() {
        return;
    }
    let lower = "f a text\nh d/b a\nh d/c a\nf gone g";
    for dialect in ["chardev", "xattr", "file"] {
        let mut lab = Lab::new().lower(lower).upper("");
        lab = lab.mount_as(&Subject::ours(&["--whiteout", dialect]));
        sys::append(lab.at("a"), b"+more").unwrap();
        sys::unlink(lab.at("gone")).unwrap();
        lab.umount();
        let look = crate::Look {
            dir_mtime: true,
            ..crate::Look::default()
        };
        let read = |lab: &Lab| {
            [lab.upper_dir(), lab.work_dir()].map(|dir| crate::snapshot::read(&dir, look).snapshot)
        };
        let before = read(&lab);
        lab.remount_as(&Subject::ours(&["--read-only"]));
        let first = sys::lstat(lab.at("d/b")).unwrap();
        for name in ["d/c", "a", "d/b"] {
            let st = sys::lstat(lab.at(name)).unwrap();
            assert_eq!((st.ino, st.nlink), (first.ino, 3), "{dialect}: {name}");
            assert_eq!(sys::text(lab.at(name)), "text+more", "{dialect}: {name}");
        }
        lab.expect_paths("a d d/b d/c");
        fails!(sys::append(lab.at("d/c"), b"x"), EROFS);
        lab.umount();
        for (before, after) in before.iter().zip(&read(&lab)) {
            crate::snapshot::assert_same("layers of a read-only mount", before, after);
        }
    }
}
