//! Opaque directories: every spelling hides what is below, and ours writes the kernel's.

use crate::kit::{Lab, Subject, sys};
use crate::{both, ours};

const LOW: &str = "f d/low l\nf d/sub/x x\nf m/low l";

#[test]
fn every_spelling_hides_the_layers_below() {
    for (spelling, kernel) in [("o", true), ("ou", false), ("of", false), ("o.", false)] {
        let layers = [&format!("{spelling} d\nf d/own o"), "f d/middle m", LOW];
        let test = |lab: &mut Lab| {
            lab.expect_paths("d d/own m m/low");
            fails!(sys::lstat(lab.at("d/low")), ENOENT);
            fails!(sys::lstat(lab.at("d/sub")), ENOENT);
            // Copied up, made empty, made anew: it stays cut off.
            sys::put(lab.at("d/new"), b"n").unwrap();
            lab.remount();
            lab.expect_paths("d d/new d/own m m/low");
            sys::unlink(lab.at("d/new")).unwrap();
            sys::unlink(lab.at("d/own")).unwrap();
            sys::rmdir(lab.at("d")).unwrap();
            lab.remount();
            lab.expect_paths("m m/low");
        };
        if kernel {
            both(&layers, test)
        } else {
            ours(&layers, test)
        }
    }
}

#[test]
fn in_the_middle_it_hides_only_what_is_below() {
    for spelling in ["o", "ou", "of", "o."] {
        let layers = ["f d/top t", &format!("{spelling} d\nf d/middle m"), LOW];
        ours(&layers, |lab| {
            lab.expect_paths("d d/middle d/top m m/low");
        });
    }
}

/// The kernel ignores it there; a layer's author meant it (docs/SEMANTICS.md).
#[test]
fn on_a_layers_root_it_hides_all_layers_below() {
    for spelling in ["o", "ou", "of", "o."] {
        let layers = ["f top t", &format!("{spelling} .\nf middle m"), LOW];
        ours(&layers, |lab| lab.expect_paths("middle top"));
    }
}

#[test]
fn other_values_are_not_opaque() {
    let layers = "d x trusted.overlay.opaque=x\nd long trusted.overlay.opaque=yes\nd n trusted.overlay.opaque=n\n\
                  f file f trusted.overlay.opaque=y";
    both(
        &[layers, "f x/low l\nf long/low l\nf n/low l\nf file l"],
        |lab| {
            lab.expect_paths("file long long/low n n/low x x/low");
        },
    );
}

#[test]
fn a_directory_over_a_deleted_one_is_marked() {
    both(&[LOW], |lab| {
        sys::remove_tree(lab.at("d")).unwrap();
        sys::mkdir(lab.at("d"), 0o700).unwrap();
        let mark = sys::getxattr(lab.in_upper("d"), "trusted.overlay.opaque").unwrap();
        assert_eq!(mark, b"y");
        // A sentinel would be a visible file for kernel overlayfs.
        assert_eq!(sys::names(lab.in_upper("d")), [""; 0]);
    });
}

#[test]
fn the_sentinel_is_never_seen() {
    ours(&["o. d\no. d/sub\nf d/.wh..opq x\nf f f", LOW], |lab| {
        assert!(
            !lab.ls("d").iter().any(|name| name.starts_with(".wh.")),
            "{:?}",
            lab.ls("d")
        );
        fails!(sys::lstat(lab.at("d/.wh..wh..opq")), ENOENT);
        assert_eq!(lab.ls("d/sub"), [""; 0]);
    });
}

/// It writes that file beside the attribute in every upper, also one that was ours before.
#[test]
fn what_fuse_overlayfs_leaves_in_an_opaque_directory_of_the_upper_is_hidden() {
    let sentinel = |dir: &str| format!("o {dir}\nf {dir}/.wh..wh..opq mode=0700\n");
    let upper = ["d", "gone", "over"].map(sentinel).concat();
    let plain = "d plain\nf plain/.wh..wh..opq mode=0700\no own\nf own/.wh..wh..opq text";
    let mut lab = Lab::new()
        .lower("f d/hidden h\nf gone/hidden h\nf over/hidden h\nd own\nd plain")
        .upper(&format!("{upper}{plain}"))
        .mount_as(&Subject::ours(&[]));
    let others = "own own/.wh..wh..opq plain plain/.wh..wh..opq";
    lab.expect_paths(&format!("d gone over {others}"));
    sys::rmdir(lab.at("gone")).unwrap();
    sys::mkdir(lab.at("new"), 0o755).unwrap();
    sys::rename(lab.at("new"), lab.at("over")).unwrap();
    sys::put(lab.at("d/.wh..wh..opq"), b"a user's").unwrap();
    lab.expect_paths(&format!("d d/.wh..wh..opq over {others}"));
    lab.expect_same_after_remount();
}
