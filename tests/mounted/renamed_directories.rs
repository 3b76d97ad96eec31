//! Renames of directories that have parts in a lower: redirects are written.

use crate::both;
use crate::kit::{Lab, Subject, sys};

/// The value of the redirect of an object in the upper.
fn redirect(lab: &Lab, path: &str) -> String {
    let value = sys::getxattr(lab.in_upper(path), "trusted.overlay.redirect");
    String::from_utf8(value.unwrap_or_default()).unwrap()
}

const TREE: &str = "f d/f text\nf d/sub/g g\nf d/sub/deep/h h\nl d/l f\nf other/x x\nd empty";

#[test]
fn a_directory_of_a_lower_is_renamed() {
    both(&["f d/top t", TREE], |lab| {
        sys::rename(lab.at("d"), lab.at("new")).unwrap();
        lab.expect_paths(
            "empty new new/f new/l new/sub new/sub/deep new/sub/deep/h new/sub/g new/top other \
             other/x",
        );
        fails!(sys::lstat(lab.at("d")), ENOENT);
        assert_eq!(redirect(lab, "new"), "d");
        // Again, elsewhere, and back.
        sys::rename(lab.at("new"), lab.at("newer")).unwrap();
        assert_eq!(redirect(lab, "newer"), "d");
        sys::rename(lab.at("newer"), lab.at("other/d")).unwrap();
        assert_eq!(redirect(lab, "other/d"), "/d");
        assert_eq!(sys::text(lab.at("other/d/sub/g")), "g");
        lab.remount();
        assert_eq!(sys::text(lab.at("other/d/sub/g")), "g");
        sys::rename(lab.at("other/d"), lab.at("d")).unwrap();
        lab.expect_paths(
            "d d/f d/l d/sub d/sub/deep d/sub/deep/h d/sub/g d/top empty other other/x",
        );
    });
}

/// Of the data nothing; the daemon need not even see what is in the directory.
#[test]
fn a_rename_copies_nothing_and_takes_no_time() {
    if !Subject::default().is_ours() {
        return;
    }
    let files: String = (0..2000)
        .map(|n| format!("f d/{}/f{n} x\n", n % 20))
        .collect();
    let lab = Lab::new().lower(&files).upper("").mount();
    let mut best = std::time::Duration::MAX;
    let (mut from, mut to) = (lab.at("d"), lab.at("e"));
    for _ in 0..5 {
        let start = std::time::Instant::now();
        sys::rename(&from, &to).unwrap();
        best = best.min(start.elapsed());
        std::mem::swap(&mut from, &mut to);
    }
    assert!(best < std::time::Duration::from_millis(5), "{best:?}");
    assert_eq!(lab.control("stats")["copied_bytes"], 0);
    assert!(sys::names(lab.in_upper("e")).is_empty());
    assert_eq!(sys::names(lab.at("e/7")).len(), 100);
}

#[test]
fn what_is_inside_moves_on_its_own() {
    both(&[TREE], |lab| {
        sys::rename(lab.at("d"), lab.at("other/new")).unwrap();
        // Inside, out of it, and a parent of it.
        sys::rename(lab.at("other/new/sub/deep"), lab.at("other/new/sub/deeper")).unwrap();
        assert_eq!(redirect(lab, "other/new/sub/deeper"), "deep");
        sys::rename(lab.at("other/new/sub"), lab.at("out")).unwrap();
        assert_eq!(redirect(lab, "out"), "/d/sub");
        sys::rename(lab.at("out/deeper"), lab.at("empty/deepest")).unwrap();
        assert_eq!(redirect(lab, "empty/deepest"), "/d/sub/deep");
        sys::rename(lab.at("other"), lab.at("another")).unwrap();
        let paths = "another another/new another/new/f another/new/l another/x empty \
                     empty/deepest empty/deepest/h out out/g";
        lab.expect_paths(paths);
        lab.remount();
        lab.expect_paths(paths);
        // A new directory takes the old names, with nothing of the old in it.
        for name in ["d", "d/sub", "other"] {
            sys::mkdir(lab.at(name), 0o755).unwrap();
        }
        lab.expect_paths(&format!("{paths} d d/sub other"));
    });
}

#[test]
fn directories_are_exchanged() {
    both(
        &[
            "f a/top t\nd pure",
            "f a/1 1\nf b/2 2\nf b/sub/3 3\nf in/c/4 4",
        ],
        |lab| {
            let exchange = |a: &str, b: &str| {
                sys::rename2(lab.at(a), lab.at(b), libc::RENAME_EXCHANGE).unwrap();
            };
            sys::mkdir(lab.at("fresh"), 0o755).unwrap();
            exchange("a", "b");
            exchange("b", "in/c");
            exchange("fresh", "a");
            exchange("in/c/1", "fresh/sub");
            let paths = "a b b/4 fresh fresh/2 fresh/sub in in/c in/c/1 in/c/1/3 in/c/top pure";
            lab.expect_paths(paths);
            lab.remount();
            lab.expect_paths(paths);
            assert_eq!(sys::text(lab.at("fresh/sub")), "1");
        },
    );
}

#[test]
fn a_renamed_directory_replaces_an_empty_one() {
    let low = "f d/f f\nd empty\nd merged\nf cleared/x x\nd other/empty";
    both(&["d merged\nd upper", low], |lab| {
        sys::unlink(lab.at("cleared/x")).unwrap();
        for (from, to) in [
            ("d", "empty"),
            ("empty", "merged"),
            ("merged", "cleared"),
            ("cleared", "upper"),
            ("upper", "other/empty"),
        ] {
            sys::rename(lab.at(from), lab.at(to)).unwrap();
            assert_eq!(lab.ls(to), ["f"], "{to}");
            fails!(sys::lstat(lab.at(from)), ENOENT);
        }
        fails!(
            sys::rename(lab.at("other/empty"), lab.at("other")),
            ENOTEMPTY
        );
        sys::mkdir(lab.at("full"), 0o755).unwrap();
        sys::put(lab.at("full/x"), b"").unwrap();
        fails!(
            sys::rename(lab.at("other/empty"), lab.at("full")),
            ENOTEMPTY
        );
    });
}

#[test]
fn a_renamed_directory_is_removed_with_all_it_shows() {
    both(&["f d/top t", TREE], |lab| {
        sys::rename(lab.at("d"), lab.at("new")).unwrap();
        sys::rename(lab.at("new/sub"), lab.at("new/bus")).unwrap();
        sys::remove_tree(lab.at("new")).unwrap();
        lab.expect_paths("empty other other/x");
        sys::mkdir(lab.at("new"), 0o755).unwrap();
        sys::mkdir(lab.at("d"), 0o755).unwrap();
        lab.remount();
        lab.expect_paths("d empty new other other/x");
    });
}

/// Each union becomes the lowers of the next one; in the end kernel overlayfs and ours show the same.
#[test]
fn renamed_again_and_again_in_one_union_over_the_other() {
    for (first, second) in [
        (Subject::Kernel, Subject::default()),
        (Subject::default(), Subject::Kernel),
    ] {
        let scratch = crate::kit::Scratch::new();
        let base = scratch.path().join("base");
        crate::kit::plant(&base, TREE);
        let mut lowers = vec![base];
        let moves = [
            [("d", "e"), ("e/sub", "e/bus")],
            [("e", "other/f"), ("other/f/bus/deep", "top")],
            [("other", "elsewhere"), ("elsewhere/f", "g")],
            [("g", "d"), ("d/bus", "d/sub")],
        ];
        for (n, moves) in moves.iter().enumerate() {
            let subject = if n % 2 == 0 { &first } else { &second };
            let mut lab = Lab::new();
            for lower in &lowers {
                lab = lab.lower_at(lower);
            }
            let mut lab = lab.upper("").mount_as(subject);
            for (from, to) in moves {
                sys::rename(lab.at(from), lab.at(to)).unwrap();
            }
            let name = format!("new{n}");
            sys::put(lab.at(moves[1].1).join(&name), b"new").unwrap();
            let tree = lab.tree();
            for other in Subject::and_kernel() {
                lab.remount_as(&other);
                crate::snapshot::assert_same(&format!("{n}: {other:?}"), &tree, &lab.tree());
            }
            lab.umount();
            let kept = scratch.path().join(format!("layer{n}"));
            std::fs::rename(lab.upper_dir(), &kept).unwrap();
            sys::mkdir(lab.upper_dir(), 0o755).unwrap();
            lowers.insert(0, kept);
        }
        let mut lab = Lab::new();
        for lower in &lowers {
            lab = lab.lower_at(lower);
        }
        for subject in Subject::and_kernel() {
            lab.remount_as(&subject);
            lab.expect_paths(
                "d d/f d/l d/new2 d/sub d/sub/g d/sub/new0 d/sub/new3 elsewhere elsewhere/x \
                 empty top top/h top/new1",
            );
        }
    }
}

/// As in the kernel: 256 bytes; a longer path is not written.
#[test]
fn a_path_that_is_too_long_to_write_is_another_device() {
    let long = "n".repeat(200);
    both(&[&format!("f {long}/{long}/d/f f\nd e")], |lab| {
        let at = lab.at(&long).join(&long);
        fails!(sys::rename(at.join("d"), lab.at("e/d")), EXDEV);
        sys::rename(at.join("d"), at.join("d2")).unwrap();
        fails!(sys::rename(at.join("d2"), lab.at("e/d")), EXDEV);
        assert_eq!(sys::text(at.join("d2/f")), "f");
        assert!(lab.ls("e").is_empty());
        sys::rename(&at, lab.at(&long).join("short")).unwrap();
        sys::rename(lab.at(&long), lab.at("short")).unwrap();
        assert_eq!(sys::text(lab.at("short/short/d2/f")), "f");
    });
}

/// One that was made when the directory had a lower part, which is gone from the layers since.
#[test]
fn a_redirect_that_leads_nowhere_does_not_lead_somewhere_after_a_move() {
    let mut lab = Lab::new()
        .lower("f in/gone/no n\nd in/x")
        .upper("d moved trusted.overlay.redirect=gone\nf moved/f f");
    for subject in Subject::and_kernel() {
        lab.remount_as(&subject);
        assert_eq!(lab.ls("moved"), ["f"]);
        sys::rename(lab.at("moved"), lab.at("in/moved")).unwrap();
        assert_eq!(lab.ls("in/moved"), ["f"]);
        lab.remount();
        assert_eq!(lab.ls("in/moved"), ["f"], "{subject:?}");
        sys::rename(lab.at("in/moved"), lab.at("moved")).unwrap();
        sys::removexattr(lab.in_upper("moved"), "trusted.overlay.opaque").unwrap();
    }
}

/// In every form of deletions, where it was asked for; by default only in that of kernel overlayfs.
#[test]
fn in_uppers_of_other_dialects() {
    if !Subject::default().is_ours() {
        return;
    }
    for form in ["chardev", "xattr", "file"] {
        let default = Subject::ours(&["--whiteout", form]);
        let mut lab = Lab::new().lower(TREE).upper("").mount_as(&default);
        let renamed = sys::rename(lab.at("d"), lab.at("new"));
        assert_eq!(renamed.is_ok(), form != "file");
        if let Err(errno) = renamed {
            assert_eq!(errno, sys::Errno(libc::EXDEV));
            lab.remount_as(&Subject::ours(&[
                "--whiteout",
                form,
                "--redirect-dir",
                "on",
            ]));
            sys::rename(lab.at("d"), lab.at("new")).unwrap();
        }
        sys::rename(lab.at("new/sub"), lab.at("empty/sub")).unwrap();
        sys::rename(lab.at("other"), lab.at("d")).unwrap();
        sys::rename2(lab.at("new"), lab.at("d"), libc::RENAME_EXCHANGE).unwrap();
        let paths =
            "d d/f d/l empty empty/sub empty/sub/deep empty/sub/deep/h empty/sub/g new new/x";
        lab.expect_paths(paths);
        lab.expect_same_after_remount();
        lab.expect_paths(paths);
    }
}

/// What holds a directory before it moves holds it afterwards.
#[test]
fn descriptors_and_working_directories_move_along() {
    both(&[TREE], |lab| {
        let (dir, file) = (
            std::fs::File::open(lab.at("d/sub")).unwrap(),
            std::fs::File::open(lab.at("d/sub/g")).unwrap(),
        );
        sys::rename(lab.at("d"), lab.at("other/new")).unwrap();
        let by_dir = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
        assert_eq!(sys::text(format!("{by_dir}/deep/h")), "h");
        sys::put(format!("{by_dir}/new"), b"new").unwrap();
        assert_eq!(sys::text(lab.at("other/new/sub/new")), "new");
        sys::append(lab.at("other/new/sub/g"), b"!").unwrap();
        assert_eq!(std::io::read_to_string(&file).unwrap(), "g!");
    });
}

/// What a crash before the rename itself leaves: a marker that says what the name says.
#[test]
fn a_redirect_that_was_written_before_a_crash_changes_nothing() {
    for redirect in ["d", "/d"] {
        let mut lab = Lab::new().lower(TREE).upper("").mount();
        sys::chmod(lab.at("d"), 0o750).unwrap();
        let tree = lab.tree();
        lab.umount();
        let value = redirect.as_bytes();
        sys::setxattr(lab.in_upper("d"), "trusted.overlay.redirect", value, 0).unwrap();
        for subject in Subject::and_kernel() {
            lab.remount_as(&subject);
            crate::snapshot::assert_same(redirect, &tree, &lab.tree());
        }
    }
}

/// When the kernel has forgotten a renamed directory, the marker alone leads to its parts.
#[test]
fn forgotten_directories_are_found_again() {
    both(&[TREE], |lab| {
        sys::rename(lab.at("d"), lab.at("other/new")).unwrap();
        sys::rename(lab.at("other/new/sub"), lab.at("other/new/bus")).unwrap();
        for round in 0..3 {
            sys::drop_caches();
            assert_eq!(sys::lstat(lab.at("other/new")).unwrap().nlink, 1);
            assert_eq!(sys::text(lab.at("other/new/bus/deep/h")), "h");
            sys::put(lab.at(format!("other/new/bus/deep/{round}")), b"").unwrap();
            sys::rename(lab.at("other"), lab.at("another")).unwrap();
            sys::rename(lab.at("another"), lab.at("other")).unwrap();
        }
    });
}

/// Names, descriptors and copy-ups while directories with lower parts get other names, also when the
/// daemon must find everything again by its path.
#[test]
fn renamed_while_others_work_in_them() {
    const DIRS: usize = 20;
    const FILES: usize = 10;
    let mut low = String::new();
    for (dir, file) in (0..DIRS).flat_map(|d| (0..FILES).map(move |f| (d, f))) {
        low += &format!("f in{}/d{dir}/sub/f{file} {dir}-{file}\n", dir % 2);
    }
    for subject in [Subject::default(), Subject::Cramped(256)] {
        let mut lab = Lab::new().lower(&low).upper("").mount_as(&subject);
        let name = |dir: usize| lab.at(format!("in{}/d{dir}", dir % 2));
        let aside = |dir: usize| lab.at(format!("in{}/away{dir}", dir / 2 % 2));
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let subs: Vec<_> = (0..DIRS)
            .map(|dir| sys::open(name(dir).join("sub"), flags, 0).unwrap())
            .collect();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    for dir in 0..DIRS {
                        sys::rename(name(dir), aside(dir)).unwrap();
                        sys::rename(aside(dir), name(dir)).unwrap();
                    }
                }
            });
            let outcome = std::panic::catch_unwind(|| work_in(&subs, FILES));
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            outcome.unwrap();
        });
        drop(subs);
        for (dir, file) in (0..DIRS).flat_map(|d| (0..FILES).map(move |f| (d, f))) {
            let text = sys::text(name(dir).join(format!("sub/f{file}")));
            let more = if file % 2 == 0 { "+" } else { "" };
            assert_eq!(text, format!("{dir}-{file}{more}"));
        }
        let tree = lab.tree();
        for subject in Subject::and_kernel() {
            lab.remount_as(&subject);
            crate::snapshot::assert_same("after a remount", &tree, &lab.tree());
        }
    }
}

/// Reads everything, copies up every other file, and makes new ones, through held directories.
fn work_in(subs: &[std::os::fd::OwnedFd], files: usize) {
    use std::os::fd::AsRawFd;
    for file in 0..files {
        for (dir, sub) in subs.iter().enumerate() {
            let below = |name: String| format!("/proc/self/fd/{}/{name}", sub.as_raw_fd());
            let path = below(format!("f{file}"));
            assert_eq!(sys::text(&path), format!("{dir}-{file}"));
            if file % 2 == 0 {
                sys::append(&path, b"+").unwrap_or_else(|e| panic!("{dir}/f{file}: {e:?}"));
            }
            sys::put(below(format!("new{file}")), b"new").unwrap();
            fails!(sys::lstat(below(format!("none{file}"))), ENOENT);
        }
        sys::drop_caches();
    }
}
