//! Removing, and making anew under a name that was removed: nothing old may come back.

use crate::both;
use crate::kit::sys;

const TOP: &str = "d d\nf d/top t\nd d/sub\nf d/sub/t t\nf plain p";
const LOW: &str =
    "d d\nf d/low l\nd d/sub\nf d/sub/l l\nd d/sub/deep\nf d/sub/deep/x x\nd other\nf other/o o";

#[test]
fn a_removed_tree_stays_away() {
    both(&[TOP, LOW], |lab| {
        sys::remove_tree(lab.at("d")).unwrap();
        fails!(sys::lstat(lab.at("d")), ENOENT);
        fails!(sys::lstat(lab.at("d/low")), ENOENT);
        lab.expect_paths("plain other other/o");
        lab.remount();
        lab.expect_paths("plain other other/o");
    });
}

#[test]
fn a_directory_made_anew_at_the_root_is_empty() {
    both(&[TOP, LOW], |lab| {
        for round in 0..2 {
            sys::remove_tree(lab.at("d")).unwrap();
            sys::mkdir(lab.at("d"), 0o700).unwrap();
            assert_eq!(lab.ls("d"), [""; 0], "round {round}");
            fails!(sys::lstat(lab.at("d/sub/l")), ENOENT);
            lab.remount();
            assert_eq!(lab.ls("d"), [""; 0], "round {round}");
            fails!(sys::lstat(lab.at("d/low")), ENOENT);
            sys::put(lab.at("d/low"), b"new").unwrap();
        }
        // A child under an old name must not merge with the old one either.
        sys::mkdir(lab.at("d/sub"), 0o700).unwrap();
        sys::mkdir(lab.at("d/sub/deep"), 0o700).unwrap();
        lab.remount();
        lab.expect_paths("d d/low d/sub d/sub/deep other other/o plain");
    });
}

#[test]
fn a_directory_made_anew_below_the_root_is_empty() {
    both(&[TOP, LOW], |lab| {
        sys::remove_tree(lab.at("d/sub")).unwrap();
        sys::mkdir(lab.at("d/sub"), 0o755).unwrap();
        sys::mkdir(lab.at("d/sub/deep"), 0o755).unwrap();
        assert_eq!(lab.ls("d/sub"), ["deep"]);
        assert_eq!(lab.ls("d/sub/deep"), [""; 0]);
        lab.remount();
        assert_eq!(lab.ls("d/sub/deep"), [""; 0]);
        lab.expect_paths("d d/low d/top d/sub d/sub/deep other other/o plain");
    });
}

#[test]
fn types_replace_each_other() {
    both(&[TOP, LOW], |lab| {
        sys::remove_tree(lab.at("d")).unwrap();
        sys::put(lab.at("d"), b"now a file").unwrap();
        sys::unlink(lab.at("plain")).unwrap();
        sys::mkdir(lab.at("plain"), 0o755).unwrap();
        sys::remove_tree(lab.at("other")).unwrap();
        sys::symlink("plain", lab.at("other")).unwrap();
        lab.remount();
        lab.expect_paths("d other plain");
        sys::unlink(lab.at("d")).unwrap();
        sys::mkdir(lab.at("d"), 0o755).unwrap();
        assert_eq!(lab.ls("d"), [""; 0]);
    });
}

#[test]
fn a_removed_name_can_be_every_type_again() {
    both(&[TOP, LOW], |lab| {
        let at = lab.at("plain");
        sys::unlink(&at).unwrap();
        for round in 0..3 {
            sys::put(&at, b"file").unwrap();
            sys::unlink(&at).unwrap();
            sys::mkdir(&at, 0o700).unwrap();
            sys::rmdir(&at).unwrap();
            sys::symlink("x", &at).unwrap();
            sys::unlink(&at).unwrap();
            sys::mknod(&at, libc::S_IFIFO | 0o600, 0).unwrap();
            sys::unlink(&at).unwrap();
            sys::link(lab.at("other/o"), &at).unwrap();
            sys::unlink(&at).unwrap();
            fails!(sys::lstat(&at), ENOENT);
            assert!(!lab.ls("").contains(&"plain".to_owned()), "round {round}");
        }
        sys::rename(lab.at("other/o"), &at).unwrap();
    });
}

#[test]
fn only_what_is_empty_can_be_removed() {
    both(&[TOP, LOW], |lab| {
        sys::unlink(lab.at("d/top")).unwrap();
        fails!(sys::rmdir(lab.at("d")), ENOTEMPTY);
        sys::unlink(lab.at("d/low")).unwrap();
        fails!(sys::rmdir(lab.at("d")), ENOTEMPTY);
        sys::remove_tree(lab.at("d/sub")).unwrap();
        sys::rmdir(lab.at("d")).unwrap();
        sys::remove_tree(lab.at("other")).unwrap();
        lab.expect_paths("plain");
        fails!(sys::rmdir(lab.mnt()), EBUSY);
    });
}

#[test]
fn sticky_directories_protect_their_files() {
    crate::for_all_users(
        &["d t mode=01777\nf t/root r mode=0666\nf t/mine m uid=1000"],
        |lab| {
            let at = |name: &str| lab.at("t").join(name);
            let (root, mine, new) = (at("root"), at("mine"), at("new"));
            sys::as_user(1000, 1000, || {
                fails!(sys::unlink(&root), EPERM);
                fails!(sys::rename(&root, &new), EPERM);
                sys::unlink(&mine).unwrap();
                sys::put(&new, b"n").unwrap();
            });
            let st = sys::lstat(&new).unwrap();
            assert_eq!((st.uid, st.gid), (1000, 1000));
        },
    );
}

/// A directory that only holds deletions is empty, however many and of which spelling.
#[test]
fn a_lower_directory_full_of_deletions_goes_at_once() {
    for spelling in ["w", "w.", "wx", "unmarked"] {
        let (mut top, mut upper) = (String::from("d d\n"), String::from("d u\n"));
        for n in 0..100 {
            let line = |dir: &str| match spelling {
                "unmarked" => format!("f {dir}/x{n} size=0 trusted.overlay.whiteout=\n"),
                _ => format!("{spelling} {dir}/x{n}\n"),
            };
            top += &line("d");
            if spelling != "w." {
                upper += &line("u");
            }
        }
        let mut lab = crate::Lab::new().lower(&top).upper(&upper).mount();
        for dir in ["d", "u"] {
            sys::rmdir(lab.at(dir)).unwrap_or_else(|e| panic!("{spelling} {dir}: {e:?}"));
        }
        lab.expect_paths("");
        lab.remount();
        lab.expect_paths("");
    }
}
