//! Names: any bytes, up to 255 of them; `.wh.` is nothing special where devices mark deletions.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::both;
use crate::kit::sys;

#[test]
fn names_of_255_bytes() {
    let (long, other) = ("x".repeat(255), "y".repeat(255));
    both(&[&format!("f {long} text\nf d/{long} text")], |lab| {
        assert_eq!(sys::text(lab.at(&long)), "text");
        sys::rename(lab.at(&long), lab.at(&other)).unwrap();
        fails!(sys::lstat(lab.at(&long)), ENOENT);
        sys::mkdir(lab.at(&long), 0o700).unwrap();
        sys::put(lab.at(&long).join(&long), b"deep").unwrap();
        sys::unlink(lab.at("d").join(&long)).unwrap();
        sys::symlink(&other, lab.at("d").join(&long)).unwrap();
        sys::link(lab.at(&other), lab.at("d").join(&other)).unwrap();
        fails!(sys::put(lab.at("z".repeat(256)), b""), ENAMETOOLONG);
        fails!(sys::lstat(lab.at("z".repeat(256))), ENAMETOOLONG);
        lab.remount();
        assert_eq!(sys::text(lab.at(&long).join(&long)), "deep");
    });
}

#[test]
fn names_of_any_bytes() {
    let odd: [&[u8]; 8] = [
        b"\xff\xfe",
        b"\x80",
        b"\xc3\x28",
        b" ",
        b"\n\t",
        b"a\\b:c,d=e",
        b"*?[]$`\"'",
        b"-",
    ];
    both(
        &[
            "f d/\\xff\\x01 odd\nd \\xe9\nf \\xe9/x in",
            "f d/\\xff\\x02 low",
        ],
        |lab| {
            assert_eq!(sys::text(lab.at(OsStr::from_bytes(b"d/\xff\x01"))), "odd");
            sys::append(lab.at(OsStr::from_bytes(b"\xe9/x")), b"!").unwrap();
            sys::unlink(lab.at(OsStr::from_bytes(b"d/\xff\x02"))).unwrap();
            for name in odd {
                let at = lab.at(OsStr::from_bytes(name));
                sys::put(&at, name).unwrap();
                sys::rename(&at, lab.at("d").join(OsStr::from_bytes(name))).unwrap();
                sys::symlink(OsStr::from_bytes(name), &at).unwrap();
                assert_eq!(sys::readlink(&at).unwrap(), name);
            }
            lab.remount();
            for name in odd {
                assert_eq!(
                    sys::get(lab.at("d").join(OsStr::from_bytes(name))).unwrap(),
                    name
                );
            }
            assert_eq!(sys::list(lab.at("d")).unwrap().len(), 1 + odd.len());
        },
    );
}

#[test]
fn dot_wh_is_a_plain_name_in_an_upper_of_devices() {
    both(&["f x low\nd d"], |lab| {
        sys::put(lab.at(".wh.x"), b"plain").unwrap();
        sys::mkdir(lab.at("d/.wh.dir"), 0o700).unwrap();
        sys::put(lab.at("d/.wh..wh..opq"), b"plain").unwrap();
        sys::rename(lab.at(".wh.x"), lab.at("d/.wh.y")).unwrap();
        sys::symlink("x", lab.at(".wh.x")).unwrap();
        for _ in 0..2 {
            lab.expect_paths(".wh.x d d/.wh..wh..opq d/.wh.dir d/.wh.y x");
            assert_eq!(sys::text(lab.at("x")), "low");
            lab.remount();
        }
        sys::unlink(lab.at(".wh.x")).unwrap();
        lab.expect_paths("d d/.wh..wh..opq d/.wh.dir d/.wh.y x");
    });
}

#[test]
fn deep_paths() {
    let deep = "d/".repeat(200);
    both(&[&format!("f {deep}f text")], |lab| {
        sys::append(lab.at(format!("{deep}f")), b"!").unwrap();
        assert_eq!(sys::text(lab.at(format!("{deep}f"))), "text!");
        sys::remove_tree(lab.at("d")).unwrap();
    });
}
