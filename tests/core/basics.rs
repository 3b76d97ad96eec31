//! Merging, copy-up, deletion, renaming, in each form of whiteouts.

use std::fs;

use unionmount::error::Errno;
use unionmount::ops::{NewObject, RenameMode, WhiteoutChoice};

use crate::lab::Lab;

const FORMS: [WhiteoutChoice; 3] = [
    WhiteoutChoice::CharDev,
    WhiteoutChoice::Xattr,
    WhiteoutChoice::File,
];

/// Runs `test` on two lowers in each form of whiteouts.
fn check(test: impl Fn(&Lab)) {
    for form in FORMS {
        let top = |dir: &std::path::Path| {
            fs::create_dir_all(dir.join("d/sub")).unwrap();
            fs::write(dir.join("d/top"), "top").unwrap();
            fs::write(dir.join("both"), "upper one").unwrap();
        };
        let bottom = |dir: &std::path::Path| {
            fs::create_dir_all(dir.join("d/sub")).unwrap();
            fs::create_dir(dir.join("e")).unwrap();
            fs::write(dir.join("d/bottom"), "bottom").unwrap();
            fs::write(dir.join("d/sub/deep"), "deep").unwrap();
            fs::write(dir.join("both"), "lower one").unwrap();
            fs::write(dir.join("f"), "f").unwrap();
        };
        let lab = Lab::new(form, &[&top, &bottom]);
        test(&lab);
        let before = lab.tree();
        let lab = lab.reopen();
        assert_eq!(lab.tree(), before, "{form:?}, opened again");
    }
}

#[test]
fn layers_merge() {
    check(|lab| {
        assert_eq!(lab.list(""), ["both", "d", "e", "f"]);
        assert_eq!(lab.list("d"), ["bottom", "sub", "top"]);
        assert_eq!(lab.read("both"), "upper one");
        assert_eq!(lab.read("d/sub/deep"), "deep");
        assert_eq!(lab.find("nothing"), Err(Errno::NOENT));
    });
}

#[test]
fn a_number_survives_copy_up() {
    check(|lab| {
        let paths = ["f", "d", "d/sub", "d/sub/deep"];
        let before = paths.map(|p| lab.ino(p));
        lab.write("d/sub/deep", "changed");
        lab.write("f", "changed too");
        assert_eq!(paths.map(|p| lab.ino(p)), before);
        assert_eq!(
            fs::read_to_string(lab.upper().join("d/sub/deep")).unwrap(),
            "changed"
        );
    });
}

#[test]
fn deleted_and_made_again() {
    check(|lab| {
        lab.unlink("both").unwrap();
        assert_eq!(lab.find("both"), Err(Errno::NOENT));
        assert_eq!(lab.rmdir("d"), Err(Errno::NOTEMPTY));
        for path in ["d/top", "d/bottom", "d/sub/deep"] {
            lab.unlink(path).unwrap();
        }
        lab.rmdir("d/sub").unwrap();
        lab.rmdir("d").unwrap();
        assert_eq!(lab.list(""), ["e", "f"]);
        lab.create("d", NewObject::Dir).unwrap();
        assert!(lab.list("d").is_empty());
        lab.create("d/sub", NewObject::Dir).unwrap();
        assert!(lab.list("d/sub").is_empty());
        lab.write("both", "new");
        lab.unlink("both").unwrap();
        lab.create("both", NewObject::Symlink(b"f")).unwrap();
        assert_eq!(lab.list(""), ["both", "d", "e", "f"]);
    });
}

#[test]
fn renames_leave_nothing_behind() {
    check(|lab| {
        let replace = RenameMode::Replace;
        lab.rename("f", "g", replace).unwrap();
        lab.rename("both", "f", replace).unwrap();
        lab.rename("f", "both", replace).unwrap();
        assert_eq!(
            (lab.read("both"), lab.read("g")),
            ("upper one".into(), "f".into())
        );
        lab.rename("d", "x", replace).unwrap();
        assert_eq!(lab.find("d"), Err(Errno::NOENT));
        assert_eq!(lab.list("x"), ["bottom", "sub", "top"]);
        lab.rename("x/sub", "d", replace).unwrap();
        lab.rename("x", "d/x", replace).unwrap();
        assert_eq!(lab.list("d"), ["deep", "x"]);
        assert_eq!(lab.list("d/x"), ["bottom", "top"]);
        assert_eq!(
            lab.rename("g", "both", RenameMode::NoReplace),
            Err(Errno::EXIST)
        );
        lab.rename("g", "both", RenameMode::Exchange).unwrap();
        assert_eq!(
            (lab.read("both"), lab.read("g")),
            ("f".into(), "upper one".into())
        );
        // A directory over an empty one of a lower hides it for good.
        lab.create("new", NewObject::Dir).unwrap();
        lab.write("new/own", "own");
        lab.rename("new", "e", replace).unwrap();
        lab.rename("e", "moved", replace).unwrap();
        assert_eq!(lab.find("e"), Err(Errno::NOENT));
        lab.rename("moved", "e", replace).unwrap();
        assert_eq!(lab.list("e"), ["own"]);
        assert_eq!(lab.rename("e", "e/below", replace), Err(Errno::INVAL));
        assert_eq!(lab.rename("g", "e", replace), Err(Errno::ISDIR));
        assert_eq!(lab.rename("e", "g", replace), Err(Errno::NOTDIR));
    });
}

#[test]
fn wh_names_are_plain_unless_the_upper_is_of_that_form() {
    for form in FORMS {
        let lab = Lab::new(form, &[&|dir| fs::write(dir.join("f"), "f").unwrap()]);
        let made = lab.create(".wh.f", NewObject::File).map(drop);
        let want = if form == WhiteoutChoice::File {
            Err(Errno::PERM)
        } else {
            Ok(())
        };
        assert_eq!(made, want);
        assert_eq!(lab.read("f"), "f");
        let long = "n".repeat(252);
        let made = lab.create(&long, NewObject::Dir).map(drop);
        let want = if form == WhiteoutChoice::File {
            Err(Errno::NAMETOOLONG)
        } else {
            Ok(())
        };
        assert_eq!(made, want);
    }
}
