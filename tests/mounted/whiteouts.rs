//! Deletions in lowers, in every spelling, read as formats.md 1.5 has it; and how ours writes them.

use crate::kit::{Lab, Subject, sys};
use crate::{both, ours};

#[test]
fn character_devices_hide_files_and_trees() {
    both(
        &[
            "w f\nw d\nd m\nw m/x",
            "f f hidden\nf d/sub/x hidden\nf m/x hidden\nf m/y seen",
        ],
        |lab| {
            lab.expect_paths("m m/y");
            for hidden in ["f", "d", "d/sub/x", "m/x"] {
                fails!(sys::lstat(lab.at(hidden)), ENOENT);
            }
            fails!(sys::unlink(lab.at("f")), ENOENT);
            fails!(sys::rmdir(lab.at("d")), ENOENT);
            sys::put(lab.at("f"), b"new").unwrap();
            sys::mkdir(lab.at("d"), 0o700).unwrap();
            lab.expect_paths("d f m m/y");
            lab.remount();
            lab.expect_paths("d f m m/y");
        },
    );
}

#[test]
fn dot_wh_files_hide_files_and_trees() {
    let top = "w. f\nw. d\nd m\nw. m/x";
    ours(
        &[
            top,
            "f f hidden\nf d/sub/x hidden\nf m/x hidden\nf m/y seen",
        ],
        |lab| {
            lab.expect_paths("m m/y");
            fails!(sys::lstat(lab.at(".wh.f")), ENOENT);
            fails!(sys::lstat(lab.at("d/sub/x")), ENOENT);
            sys::mkdir(lab.at("d"), 0o700).unwrap();
            sys::put(lab.at("m/x"), b"new").unwrap();
            lab.remount();
            lab.expect_paths("d m m/x m/y");
        },
    );
}

#[test]
fn xattr_whiteouts_hide_files_and_trees() {
    let top = "wx f\nwx d\nd m\nwx m/x\nf m/full text trusted.overlay.whiteout=y";
    both(
        &[
            top,
            "f f hidden\nf d/sub/x hidden\nf m/x hidden\nf m/y seen",
        ],
        |lab| {
            lab.expect_paths("m m/full m/y");
            fails!(sys::lstat(lab.at("d/sub/x")), ENOENT);
            sys::mkdir(lab.at("d"), 0o700).unwrap();
            sys::put(lab.at("m/x"), b"new").unwrap();
            lab.remount();
            lab.expect_paths("d m m/full m/x m/y");
        },
    );
}

/// Also where nothing announces them, in a directory of one layer, and in the user namespace form.
#[test]
fn xattr_whiteouts_need_no_mark() {
    let top = "f d/x trusted.overlay.whiteout=y size=0\nf d/u size=0 user.overlay.whiteout=y\nf d/keep k\n\
               f alone/x size=0 trusted.overlay.whiteout=y";
    ours(&[top, "f d/x hidden\nf d/u hidden"], |lab| {
        lab.expect_paths("alone d d/keep");
    });
}

/// A deletion between two directories of one name: the lowest must not shine through.
#[test]
fn every_spelling_stops_a_merge_in_the_middle() {
    for (spelling, kernel) in [("w", true), ("w.", false), ("wx", true)] {
        let layers = [
            "f d/top t\nf e/top t",
            &format!("{spelling} d\nf e x"),
            "f d/low l\nf e/low l",
        ];
        let test = |lab: &mut Lab| {
            lab.expect_paths("d d/top e e/top");
            fails!(sys::lstat(lab.at("d/low")), ENOENT);
            sys::put(lab.at("d/new"), b"n").unwrap();
            lab.remount();
            lab.expect_paths("d d/new d/top e e/top");
        };
        if kernel {
            both(&layers, test)
        } else {
            ours(&layers, test)
        }
    }
}

#[test]
fn whiteouts_hide_through_many_layers() {
    ours(
        &[
            "f z z",
            "w. f",
            "f other o",
            "wx g\nw h",
            "f f x\nf g x\nf h x",
        ],
        |lab| {
            lab.expect_paths("other z");
        },
    );
    ours(&["f f new", "w f", "f f old"], |lab| {
        assert_eq!(sys::text(lab.at("f")), "new")
    });
}

/// OCI: a whiteout applies to the layers below; the entry beside it is the newer state.
#[test]
fn an_entry_beats_the_whiteout_beside_it() {
    ours(
        &["f f same\nw. f\nf d/same s\nw. d", "f f low\nf d/low l"],
        |lab| {
            assert_eq!(sys::text(lab.at("f")), "same");
            lab.expect_paths("d d/same f");
            fails!(sys::lstat(lab.at("d/low")), ENOENT);
            sys::append(lab.at("d/same"), b"!").unwrap();
            lab.remount();
            lab.expect_paths("d d/same f");
        },
    );
}

/// Kernel overlayfs lists some of these; nobody may see any.
#[test]
fn whiteouts_with_nothing_to_hide_are_invisible() {
    let top = "w a\nw. b\nwx c\nw only/a\nw. only/b\nwx only/c\no opaque\nw opaque/a\nw. opaque/b\nf only/f f";
    ours(
        &[
            top,
            "f opaque/low l\nw lowest/a\nw. lowest/b\nwx lowest/c\nw root",
        ],
        |lab| {
            lab.expect_paths("lowest only only/f opaque");
            for dir in ["lowest", "opaque"] {
                sys::rmdir(lab.at(dir)).unwrap();
            }
            fails!(sys::rmdir(lab.at("only")), ENOTEMPTY);
            lab.expect_paths("only only/f");
        },
    );
}

/// Only a regular file is a `.wh.` whiteout; a device 0/0 with that name deletes that very name.
#[test]
fn the_type_decides_what_a_dot_wh_name_means() {
    let top = "w .wh.f\nd .wh.d\nl .wh.l x\nf .wh..wh.g";
    ours(&[top, "f f seen\nf d seen\nf l seen\nf g seen"], |lab| {
        for name in ["f", "d", "l", "g"] {
            assert_eq!(sys::text(lab.at(name)), "seen", "{name}");
        }
        fails!(sys::lstat(lab.at(".wh.f")), ENOENT);
    });
}

#[test]
fn a_device_zero_of_block_type_is_no_whiteout() {
    both(&["b d 0:0\nc e 0:1", "f d low\nf e low"], |lab| {
        assert_eq!(sys::lstat(lab.at("d")).unwrap().kind(), libc::S_IFBLK);
        assert_eq!(sys::lstat(lab.at("e")).unwrap().kind(), libc::S_IFCHR);
    });
}

#[test]
fn deletions_are_written_as_the_kernel_writes_them() {
    both(&["f a a\nf b b\nf d/c c\nd e"], |lab| {
        for name in ["a", "b", "d/c"] {
            sys::unlink(lab.at(name)).unwrap();
        }
        sys::rmdir(lab.at("e")).unwrap();
        for name in ["a", "b", "d/c", "e"] {
            let st = sys::lstat(lab.in_upper(name)).unwrap();
            assert_eq!((st.mode, st.rdev), (libc::S_IFCHR, 0), "{name}");
        }
        sys::rmdir(lab.at("d")).unwrap();
        assert_eq!(sys::lstat(lab.in_upper("d")).unwrap().kind(), libc::S_IFCHR);
    });
}

/// What only ever was in the upper leaves no trace there.
#[test]
fn removing_what_no_lower_has_leaves_no_whiteout() {
    both(&["d d"], |lab| {
        sys::put(lab.at("d/new"), b"n").unwrap();
        sys::unlink(lab.at("d/new")).unwrap();
        sys::mkdir(lab.at("new"), 0o700).unwrap();
        sys::rmdir(lab.at("new")).unwrap();
        fails!(sys::lstat(lab.in_upper("d/new")), ENOENT);
        fails!(sys::lstat(lab.in_upper("new")), ENOENT);
    });
}

fn dialect(name: &str, check: impl Fn(&Lab)) {
    if !Subject::default().is_ours() {
        return;
    }
    let subject = Subject::ours(&["--whiteout", name]);
    let lower = "f f x\nf d/a x\nf d/b x\nf m/x x\nf m/y y";
    crate::on(&[subject], &[lower], false, |lab| {
        sys::unlink(lab.at("f")).unwrap();
        sys::remove_tree(lab.at("d")).unwrap();
        sys::mkdir(lab.at("d"), 0o700).unwrap();
        sys::rename(lab.at("m/x"), lab.at("moved")).unwrap();
        for _ in 0..2 {
            lab.expect_paths("d m m/y moved");
            check(lab);
            lab.remount();
        }
        sys::put(lab.at("f"), b"again").unwrap();
        sys::put(lab.at("d/a"), b"again").unwrap();
        lab.remount();
        lab.expect_paths("d d/a f m m/y moved");
    });
}

#[test]
fn deletions_written_as_files() {
    dialect("file", |lab| {
        for name in [".wh.f", "m/.wh.x"] {
            let st = sys::lstat(lab.in_upper(name)).unwrap();
            assert!(st.is_file() && st.size == 0, "{name}");
        }
        for name in [".wh.new", "m/.wh.y"] {
            assert!(
                sys::put(lab.at(name), b"").is_err(),
                "{name} would be a deletion"
            );
            assert!(sys::mkdir(lab.at(name), 0o700).is_err());
            assert!(sys::rename(lab.at("moved"), lab.at(name)).is_err());
            assert!(sys::link(lab.at("moved"), lab.at(name)).is_err());
            assert!(sys::symlink("x", lab.at(name)).is_err());
        }
    });
}

#[test]
fn deletions_written_as_xattrs() {
    dialect("xattr", |lab| {
        for name in ["f", "m/x"] {
            let at = lab.in_upper(name);
            assert!(sys::lstat(&at).unwrap().is_file(), "{name}");
            let marks = ["trusted.overlay.whiteout", "user.overlay.whiteout"];
            assert!(
                marks.iter().any(|mark| sys::getxattr(&at, mark).is_ok()),
                "{name}"
            );
        }
    });
}

#[test]
fn deletions_written_as_devices() {
    dialect("chardev", |lab| {
        assert_eq!(sys::lstat(lab.in_upper("m/x")).unwrap().mode, libc::S_IFCHR);
    });
}

/// An upper that others have written is read as they meant it (formats.md 13.1).
#[test]
fn an_upper_may_hold_foreign_spellings() {
    let upper = "w f\nf g size=0 trusted.overlay.whiteout=\nf h size=0 user.overlay.whiteout=y\n\
                 ou d\nf d/own o\nof e\no i\nf kept size=3 trusted.overlay.whiteout=y";
    let lower = "f f x\nf g x\nf h x\nf d/x x\nf e/x x\nf i/x x\nf kept x";
    let mut lab = Lab::new().lower(lower).upper(upper).mount();
    if lab.subject().is_kernel() {
        return;
    }
    lab.expect_paths("d d/own e i kept");
    for name in ["f", "g", "h"] {
        fails!(sys::lstat(lab.at(name)), ENOENT);
        sys::put(lab.at(name), b"new").unwrap();
        assert_eq!(sys::text(lab.at(name)), "new");
        sys::unlink(lab.at(name)).unwrap();
        fails!(sys::lstat(lab.at(name)), ENOENT);
    }
    sys::mkdir(lab.at("g"), 0o700).unwrap();
    lab.remount();
    lab.expect_paths("d d/own e g i kept");
}

#[test]
fn dot_wh_files_in_an_upper_of_devices_are_plain() {
    if !Subject::default().is_ours() {
        return;
    }
    let lab = Lab::new().lower("f x low").upper("f .wh.x plain\nw gone");
    let lab = lab.mount_as(&Subject::ours(&["--whiteout", "chardev"]));
    lab.expect_paths(".wh.x x");
}
