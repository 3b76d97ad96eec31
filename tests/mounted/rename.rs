//! Renames: plain, NOREPLACE, EXCHANGE, and the ones that are refused.

use crate::kit::{Subject, sys};
use crate::{both, on, ours};

const TOP: &str = "f top t\nd a\nf a/f af\nd b\nf b/f bf\nl a/l f\nd merged\nf merged/x x\nd ea";
const LOW: &str = "f low l\nd merged\nf merged/y y\nd lowdir\nf lowdir/z z\nf a/hidden-by-none h";

#[test]
fn files_move_over_nothing_and_over_others() {
    both(&[TOP, LOW], |lab| {
        sys::rename(lab.at("top"), lab.at("a/new")).unwrap();
        sys::rename(lab.at("a/f"), lab.at("b/f")).unwrap();
        sys::rename(lab.at("a/l"), lab.at("low")).unwrap();
        sys::rename(lab.at("b/f"), lab.at("b/f")).unwrap();
        assert_eq!(sys::text(lab.at("a/new")), "t");
        assert_eq!(sys::text(lab.at("b/f")), "af");
        assert_eq!(sys::readlink(lab.at("low")).unwrap(), b"f");
        for gone in ["top", "a/f", "a/l"] {
            fails!(sys::lstat(lab.at(gone)), ENOENT);
        }
        fails!(sys::rename(lab.at("top"), lab.at("x")), ENOENT);
        fails!(sys::rename(lab.at("low"), lab.at("a")), EISDIR);
    });
}

#[test]
fn noreplace_and_exchange() {
    both(&[TOP, LOW], |lab| {
        fails!(
            sys::rename2(lab.at("top"), lab.at("low"), libc::RENAME_NOREPLACE),
            EEXIST
        );
        sys::rename2(lab.at("top"), lab.at("new"), libc::RENAME_NOREPLACE).unwrap();
        sys::rename2(lab.at("low"), lab.at("a/f"), libc::RENAME_EXCHANGE).unwrap();
        assert_eq!(
            (sys::text(lab.at("low")), sys::text(lab.at("a/f"))),
            ("af".into(), "l".into())
        );
        fails!(
            sys::rename2(lab.at("low"), lab.at("none"), libc::RENAME_EXCHANGE),
            ENOENT
        );
        sys::mkdir(lab.at("fresh"), 0o700).unwrap();
        sys::put(lab.at("fresh/in"), b"in").unwrap();
        sys::rename2(lab.at("fresh"), lab.at("b/f"), libc::RENAME_EXCHANGE).unwrap();
        assert_eq!(
            (sys::text(lab.at("fresh")), sys::text(lab.at("b/f/in"))),
            ("bf".into(), "in".into())
        );
        assert!(sys::lstat(lab.at("b/f")).unwrap().is_dir());
    });
}

#[test]
fn the_whiteout_flag_is_not_for_users() {
    both(&[TOP, LOW], |lab| {
        fails!(
            sys::rename2(lab.at("top"), lab.at("x"), libc::RENAME_WHITEOUT),
            EINVAL
        );
        let flags = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
        fails!(sys::rename2(lab.at("top"), lab.at("low"), flags), EINVAL);
        assert_eq!(sys::text(lab.at("top")), "t");
    });
}

#[test]
fn without_redirects_a_directory_with_lower_parts_is_another_device() {
    let subjects = [
        Subject::KernelWithoutRedirects,
        Subject::with(&["--redirect-dir", "off"]),
        Subject::with(&["-o", "redirect_dir=nofollow"]),
        Subject::with(&["--redirect-dir", "follow"]),
    ];
    on(&subjects, &[TOP, LOW], true, |lab| {
        for dir in ["merged", "lowdir", "a", "ea"] {
            fails!(sys::rename(lab.at(dir), lab.at("new")), EXDEV);
        }
        sys::mkdir(lab.at("pure"), 0o700).unwrap();
        fails!(
            sys::rename2(lab.at("pure"), lab.at("merged"), libc::RENAME_EXCHANGE),
            EXDEV
        );
        fails!(
            sys::rename2(lab.at("top"), lab.at("merged"), libc::RENAME_EXCHANGE),
            EXDEV
        );
        assert_eq!(lab.ls("merged"), ["x", "y"]);
    });
}

#[test]
fn new_directories_move_with_all_they_hold() {
    both(&[TOP, LOW], |lab| {
        sys::mkdir(lab.at("new"), 0o711).unwrap();
        sys::mkdir(lab.at("new/sub"), 0o700).unwrap();
        sys::put(lab.at("new/sub/f"), b"deep").unwrap();
        sys::rename(lab.at("low"), lab.at("new/sub/low")).unwrap();
        sys::rename(lab.at("new"), lab.at("lowdir/moved")).unwrap();
        assert_eq!(sys::text(lab.at("lowdir/moved/sub/f")), "deep");
        assert_eq!(sys::text(lab.at("lowdir/moved/sub/low")), "l");
        fails!(
            sys::rename(lab.at("lowdir/moved"), lab.at("lowdir/moved/sub/x")),
            EINVAL
        );
        fails!(
            sys::rename(lab.at("lowdir/moved"), lab.at("merged")),
            ENOTEMPTY
        );
        fails!(sys::rename(lab.at("lowdir/moved"), lab.at("top")), ENOTDIR);
        sys::rename(lab.at("lowdir/moved"), lab.at("lowdir/again")).unwrap();
        assert_eq!(lab.ls("lowdir"), ["again", "z"]);
    });
}

/// The empty one may hold whiteouts, and what they hide must not come back.
#[test]
fn a_directory_replaces_an_emptied_one() {
    both(&[TOP, LOW], |lab| {
        sys::mkdir(lab.at("new"), 0o700).unwrap();
        sys::put(lab.at("new/own"), b"own").unwrap();
        for name in ["x", "y"] {
            sys::unlink(lab.at("merged").join(name)).unwrap();
        }
        sys::rename(lab.at("new"), lab.at("merged")).unwrap();
        assert_eq!(lab.ls("merged"), ["own"]);
        sys::mkdir(lab.at("other"), 0o700).unwrap();
        sys::rename(lab.at("other"), lab.at("ea")).unwrap();
        assert_eq!(lab.ls("ea"), [""; 0]);
        lab.remount();
        assert_eq!(lab.ls("merged"), ["own"]);
    });
}

/// A directory that takes the place of a lower one's name must not merge with it.
#[test]
fn a_new_directory_under_an_old_name_is_opaque() {
    both(&[TOP, LOW], |lab| {
        sys::remove_tree(lab.at("lowdir")).unwrap();
        sys::mkdir(lab.at("new"), 0o700).unwrap();
        sys::put(lab.at("new/n"), b"n").unwrap();
        sys::rename(lab.at("new"), lab.at("lowdir")).unwrap();
        assert_eq!(lab.ls("lowdir"), ["n"]);
        lab.remount();
        assert_eq!(lab.ls("lowdir"), ["n"]);
    });
}

#[test]
fn two_names_of_one_object_are_left_alone() {
    both(&[TOP, LOW], |lab| {
        sys::link(lab.at("low"), lab.at("low2")).unwrap();
        sys::rename(lab.at("low"), lab.at("low2")).unwrap();
        assert_eq!(sys::lstat(lab.at("low")).unwrap().nlink, 2);
    });
}

/// Whoever listed or looked the tree up before must see the moved names after.
#[test]
fn cached_names_follow_a_rename() {
    ours(&[TOP, LOW], |lab| {
        lab.tree();
        sys::mkdir(lab.at("p"), 0o700).unwrap();
        sys::mkdir(lab.at("p/q"), 0o700).unwrap();
        sys::put(lab.at("p/q/f"), b"1").unwrap();
        lab.tree();
        for _ in 0..50 {
            sys::rename(lab.at("p"), lab.at("r")).unwrap();
            assert_eq!(sys::text(lab.at("r/q/f")), "1");
            fails!(sys::lstat(lab.at("p/q/f")), ENOENT);
            sys::rename(lab.at("r"), lab.at("p")).unwrap();
        }
    });
}
