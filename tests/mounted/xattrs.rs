//! Extended attributes and ACLs: set, listed, removed; the private ones never seen.

use crate::kit::{Lab, Subject, acl, capability, sys};
use crate::{both, for_all_users, ours};

const CAPABILITY: &str = "security.capability";
const LOWER: &str = "f f text user.a=1 user.b=2 trusted.t=3\nd d user.d=1\nl l f\np p";

#[test]
fn flags_and_values() {
    both(&[LOWER], |lab| {
        sys::put(lab.at("new"), b"").unwrap();
        for name in ["f", "d", "new"] {
            let at = lab.at(name);
            sys::setxattr(&at, "user.x", b"one", libc::XATTR_CREATE).unwrap();
            fails!(
                sys::setxattr(&at, "user.x", b"two", libc::XATTR_CREATE),
                EEXIST
            );
            fails!(
                sys::setxattr(&at, "user.y", b"two", libc::XATTR_REPLACE),
                ENODATA
            );
            sys::setxattr(&at, "user.x", b"", libc::XATTR_REPLACE).unwrap();
            assert_eq!(sys::getxattr(&at, "user.x").unwrap(), b"");
            sys::setxattr(&at, "user.x", &sys::pattern(1, 1500), 0).unwrap();
            assert_eq!(sys::getxattr(&at, "user.x").unwrap(), sys::pattern(1, 1500));
            assert!(sys::listxattr(&at).unwrap().contains(&b"user.x".to_vec()));
            sys::removexattr(&at, "user.x").unwrap();
            fails!(sys::removexattr(&at, "user.x"), ENODATA);
            fails!(sys::getxattr(&at, "user.x"), ENODATA);
            fails!(sys::getxattr(&at, "nonsense"), EOPNOTSUPP);
        }
        assert_eq!(
            sys::listxattr(lab.at("f")).unwrap(),
            [&b"trusted.t"[..], b"user.a", b"user.b"]
        );
    });
}

#[test]
fn only_files_and_directories_have_user_xattrs() {
    both(&[LOWER], |lab| {
        for name in ["l", "p"] {
            fails!(sys::setxattr(lab.at(name), "user.x", b"1", 0), EPERM);
            sys::setxattr(lab.at(name), "trusted.x", b"1", 0).unwrap();
            assert_eq!(sys::getxattr(lab.at(name), "trusted.x").unwrap(), b"1");
            assert_eq!(sys::listxattr(lab.at(name)).unwrap(), [b"trusted.x"]);
        }
    });
}

#[test]
fn removal_from_a_lower_file_is_a_copy_up() {
    both(&[LOWER], |lab| {
        sys::removexattr(lab.at("f"), "user.a").unwrap();
        assert_eq!(
            sys::listxattr(lab.at("f")).unwrap(),
            [&b"trusted.t"[..], b"user.b"]
        );
        fails!(sys::removexattr(lab.at("d"), "user.none"), ENODATA);
        assert!(!lab.in_upper("d").exists(), "copied up for nothing");
        lab.remount();
        assert_eq!(sys::getxattr(lab.at("f"), "user.b").unwrap(), b"2");
        fails!(sys::getxattr(lab.at("f"), "user.a"), ENODATA);
    });
}

/// Whatever the union writes for itself, a backup of the mount must not contain it.
#[test]
fn private_xattrs_are_never_visible() {
    let top = "o d\nf d/x x\nd m\nou u\nof fo";
    let low = "f d/hidden h\nf m/low l\nf u/below b\nf fo/below b\nf linked x\nh linked2 linked";
    ours(&[top, low], |lab| {
        sys::chmod(lab.at("m/low"), 0o600).unwrap();
        sys::append(lab.at("linked"), b"y").unwrap();
        sys::unlink(lab.at("d/x")).unwrap();
        sys::remove_tree(lab.at("u")).unwrap();
        sys::mkdir(lab.at("u"), 0o700).unwrap();
        for (path, entry) in lab.tree().entries {
            let path = String::from_utf8_lossy(&path).into_owned();
            assert!(entry.xattrs.is_empty(), "/{path} shows {:?}", entry.xattrs);
        }
        for name in [
            "trusted.overlay.opaque",
            "user.overlay.opaque",
            "user.fuseoverlayfs.opaque",
        ] {
            for path in ["d", "u", "fo", ""] {
                fails!(sys::getxattr(lab.at(path), name), ENODATA);
            }
        }
    });
}

/// Users may use the private names; that must not do what the private xattrs do.
#[test]
fn a_user_cannot_set_a_marker() {
    let markers = ["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."];
    ours(
        &["d d\nf d/low l\nf file f\nf empty", "f d/lower ll"],
        |lab| {
            for prefix in markers {
                for (marker, value) in [
                    ("opaque", "y"),
                    ("redirect", "/x"),
                    ("origin", ""),
                    ("whiteout", ""),
                ] {
                    let name = format!("{prefix}{marker}");
                    for path in ["d", "file", "empty"] {
                        let at = lab.at(path);
                        // Refusing is as good as escaping; obeying is not.
                        if sys::setxattr(&at, &name, value.as_bytes(), 0).is_ok() {
                            assert_eq!(
                                sys::getxattr(&at, &name).unwrap(),
                                value.as_bytes(),
                                "{name}"
                            );
                            assert!(
                                sys::listxattr(&at)
                                    .unwrap()
                                    .contains(&name.clone().into_bytes())
                            );
                        }
                    }
                }
            }
            lab.expect_paths("d d/low d/lower empty file");
            lab.remount();
            lab.expect_paths("d d/low d/lower empty file");
            for prefix in markers {
                let name = format!("{prefix}opaque");
                if sys::getxattr(lab.at("d"), &name).is_ok() {
                    sys::removexattr(lab.at("d"), &name).unwrap();
                    fails!(sys::getxattr(lab.at("d"), &name), ENODATA);
                }
            }
        },
    );
}

#[test]
fn the_kernels_markers_are_escaped_as_the_kernel_does() {
    both(&["d d\nf d/low l"], |lab| {
        sys::setxattr(lab.at("d"), "trusted.overlay.opaque", b"y", 0).unwrap();
        assert_eq!(
            sys::getxattr(lab.at("d"), "trusted.overlay.opaque").unwrap(),
            b"y"
        );
        let name = "trusted.overlay.overlay.opaque";
        assert_eq!(sys::getxattr(lab.in_upper("d"), name).unwrap(), b"y");
        assert_eq!(lab.ls("d"), ["low"]);
    });
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

#[test]
fn acls_are_kept_and_obeyed() {
    for_all_users(&["f f text mode=0600\nd d mode=0700"], |lab| {
        let value = acl(6, (1000, 4), 0, 4, 0);
        sys::setxattr(lab.at("f"), ACCESS, &value, 0).unwrap();
        assert_eq!(sys::getxattr(lab.at("f"), ACCESS).unwrap(), value);
        assert_eq!(sys::lstat(lab.at("f")).unwrap().perm(), 0o640);
        let f = lab.at("f");
        sys::as_user(1000, 1000, || assert_eq!(sys::text(&f), "text"));
        sys::as_user(1001, 1001, || fails!(sys::get(&f), EACCES));
        sys::chmod(&f, 0o600).unwrap();
        sys::as_user(1000, 1000, || fails!(sys::get(&f), EACCES));
        sys::removexattr(&f, ACCESS).unwrap();
        fails!(sys::getxattr(&f, ACCESS), ENODATA);
    });
}

#[test]
fn default_acls_are_inherited_instead_of_the_umask() {
    for_all_users(&["d d mode=0755\nf d/low l"], |lab| {
        let value = acl(7, (1000, 7), 5, 7, 0);
        sys::setxattr(lab.at("d"), DEFAULT, &value, 0).unwrap();
        let at = |name: &str| lab.at(name);
        let (f, dir) = (at("d/f"), at("d/dir"));
        sys::with_umask(0o077, || {
            drop(sys::open(&f, libc::O_CREAT | libc::O_WRONLY, 0o666).unwrap());
            sys::mkdir(&dir, 0o777).unwrap();
        });
        assert_eq!(sys::lstat(&f).unwrap().perm(), 0o660);
        assert_eq!(
            sys::getxattr(&f, ACCESS).unwrap(),
            acl(6, (1000, 7), 5, 6, 0)
        );
        assert_eq!(sys::lstat(&dir).unwrap().perm(), 0o770);
        assert_eq!(sys::getxattr(&dir, DEFAULT).unwrap(), value);
        fails!(sys::getxattr(at("d/low"), ACCESS), ENODATA);
    });
}

/// As on any filesystem: who may not read them does not see that they are there.
#[test]
fn names_of_trusted_attributes_are_for_the_privileged() {
    for_all_users(
        &["f low text mode=0666 trusted.a=1 user.b=2\nd d mode=0777 trusted.c=1"],
        |lab| {
            sys::put(lab.at("new"), b"").unwrap();
            sys::setxattr(lab.at("new"), "trusted.a", b"1", 0).unwrap();
            sys::setxattr(lab.at("new"), "user.b", b"2", 0).unwrap();
            for (name, all, some) in [
                ("low", &["trusted.a", "user.b"][..], &["user.b"][..]),
                ("new", &["trusted.a", "user.b"], &["user.b"]),
                ("d", &["trusted.c"], &[]),
            ] {
                let at = lab.at(name);
                let list = || sys::listxattr(&at).unwrap();
                let names = |names: &[&str]| -> Vec<Vec<u8>> {
                    names.iter().map(|name| name.as_bytes().to_vec()).collect()
                };
                assert_eq!(list(), names(all), "{name}");
                assert_eq!(sys::as_user(1000, 1000, list), names(some), "{name}");
                assert_eq!(list(), names(all), "{name}");
                sys::as_user(1000, 1000, || {
                    assert!(sys::getxattr(&at, all[0]).is_err(), "{name}");
                });
            }
        },
    );
}

/// Engines find out what changed in an image by asking two mounts for the attributes of every file.
/// That the daemon does not look again shows where it would see something else.
#[test]
fn what_an_object_of_a_lower_has_not_is_asked_of_it_once() {
    let all = "f listed x\nf asked x\nf other x user.a=1\nf capable x\nd dir\nl link x";
    let mut lab = Lab::new().lower(all).upper("");
    let (capable, low) = (lab.lower_dir(0).join("capable"), lab.lower_dir(0));
    sys::setxattr(&capable, CAPABILITY, &capability(1), 0).unwrap();
    lab = lab.mount_as(&Subject::ours(&[]));
    for path in ["listed", "dir", "link", "listed"] {
        assert_eq!(sys::listxattr(lab.at(path)).unwrap(), [b""; 0], "{path}");
    }
    fails!(sys::getxattr(lab.at("asked"), CAPABILITY), ENODATA);
    fails!(sys::getxattr(lab.at("other"), CAPABILITY), ENODATA);
    assert_eq!(
        sys::getxattr(lab.at("capable"), CAPABILITY).unwrap(),
        capability(1)
    );
    for path in ["listed", "asked"] {
        sys::setxattr(low.join(path), "user.late", b"1", 0).unwrap();
        assert_eq!(sys::listxattr(lab.at(path)).unwrap(), [b""; 0], "{path}");
        sys::removexattr(low.join(path), "user.late").unwrap();
    }
    assert_eq!(sys::listxattr(lab.at("other")).unwrap(), [b"user.a"]);
    assert_eq!(
        sys::listxattr(lab.at("capable")).unwrap(),
        [CAPABILITY.as_bytes()]
    );
    // What is written through the mount is seen.
    for path in ["listed", "asked", "dir"] {
        sys::setxattr(lab.at(path), "user.new", b"1", 0).unwrap();
        assert_eq!(
            sys::listxattr(lab.at(path)).unwrap(),
            [b"user.new"],
            "{path}"
        );
    }
    sys::setxattr(lab.at("other"), CAPABILITY, &capability(2), 0).unwrap();
    assert_eq!(
        sys::getxattr(lab.at("other"), CAPABILITY).unwrap(),
        capability(2)
    );
    lab.expect_same_after_remount();
}
