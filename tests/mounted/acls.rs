//! Access control lists: where they are in force, and what is shown where they are not.

use crate::kit::{Lab, Mounts, Subject, acl, must, sys};
use crate::snapshot;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const OFF: [&[&str]; 3] = [
    &["--allow-other", "--acl", "off"],
    &["--allow-other", "-o", "noacl"],
    &["--allow-other", "--acl", "off", "--timeout", "0"],
];

/// Without lists in force nobody may do what a list forbids: neither members of the group, whose bits
/// are only a mask, nor who is named.
#[test]
fn without_lists_nobody_gains_a_right() {
    let files = [
        ("mask", acl(7, (1000, 7), 0, 7, 0)),
        ("denied", acl(7, (1000, 0), 7, 7, 7)),
        ("less", acl(7, (1000, 4), 7, 7, 5)),
        ("same", acl(7, (1000, 7), 5, 7, 5)),
    ];
    for arguments in OFF {
        let mut lab = Lab::new()
            .lower("f plain text mode=0664 user.a=1")
            .upper("");
        for (name, list) in &files {
            for at in [
                lab.lower_dir(0).join(name),
                lab.in_upper(format!("up-{name}")),
            ] {
                sys::put(&at, b"text").unwrap();
                sys::chmod(&at, 0o777).unwrap();
                sys::setxattr(&at, ACCESS, list, 0).unwrap();
            }
        }
        lab.remount_as(&Subject::with(arguments));
        let mode = |lab: &Lab, name: &str| sys::lstat(lab.at(name)).unwrap().perm();
        for prefix in ["", "up-"] {
            for (name, want) in [
                ("mask", 0o700),
                ("denied", 0o700),
                ("less", 0o744),
                ("same", 0o755),
            ] {
                let name = format!("{prefix}{name}");
                assert_eq!(mode(&lab, &name), want, "{name} with {arguments:?}");
                fails!(sys::getxattr(lab.at(&name), ACCESS), EOPNOTSUPP);
                assert_eq!(
                    sys::listxattr(lab.at(&name)).unwrap(),
                    Vec::<Vec<u8>>::new()
                );
            }
            let denied = lab.at(format!("{prefix}denied"));
            let mask = lab.at(format!("{prefix}mask"));
            sys::as_user(1000, 1000, || fails!(sys::get(&denied), EACCES));
            sys::as_user(1001, 0, || fails!(sys::get(&mask), EACCES));
        }
        assert_eq!(mode(&lab, "plain"), 0o664);
        let list = &files[0].1;
        fails!(sys::setxattr(lab.at("plain"), ACCESS, list, 0), EOPNOTSUPP);
        fails!(sys::removexattr(lab.at("mask"), ACCESS), EOPNOTSUPP);
        assert!(!lab.in_upper("plain").exists() && !lab.in_upper("mask").exists());
        // The list itself comes along, and is in force again in a mount that has lists.
        sys::append(lab.at("denied"), b"!").unwrap();
        sys::chmod(lab.at("less"), 0o755).unwrap();
        assert_eq!(mode(&lab, "denied"), 0o700);
        assert_eq!(mode(&lab, "less"), 0o744);
        lab.remount_as(&Subject::with(&["--allow-other"]));
        assert_eq!(sys::getxattr(lab.at("denied"), ACCESS).unwrap(), files[1].1);
        assert_eq!(mode(&lab, "denied"), 0o777);
        assert_eq!(mode(&lab, "less"), 0o755);
    }
}

/// A directory's default list is obeyed on disk, and what is made in it shows no more than it gives.
#[test]
fn without_lists_what_is_made_shows_no_more_than_its_list_gives() {
    for arguments in OFF {
        let mut lab = Lab::new().lower("d d mode=0777\nf d/low l").upper("");
        let list = acl(7, (1000, 0), 7, 7, 7);
        sys::setxattr(lab.lower_dir(0).join("d"), DEFAULT, &list, 0).unwrap();
        lab.remount_as(&Subject::with(arguments));
        let (f, dir, over) = (lab.at("d/f"), lab.at("d/dir"), lab.at("d/low"));
        sys::unlink(&over).unwrap();
        sys::with_umask(0, || {
            for at in [&f, &over] {
                drop(sys::open(at, libc::O_CREAT | libc::O_WRONLY, 0o666).unwrap());
            }
            sys::mkdir(&dir, 0o777).unwrap();
        });
        for at in [&f, &over, &dir] {
            let perm = sys::lstat(at).unwrap().perm();
            assert_eq!(perm & 0o077, 0, "{} with {arguments:?}", at.display());
            sys::as_user(1000, 1000, || assert!(sys::access(at, libc::R_OK).is_err()));
        }
        let listed = lab.tree();
        lab.remount();
        snapshot::assert_same("before and after", &listed, &lab.tree());
    }
}

/// An upper without lists puts them out of force as well: of a lower file that has one, only safe bits
/// count.
#[test]
fn an_upper_without_lists_shows_what_is_safe() {
    let mut mounts = Mounts::new();
    let image = mounts.path("image");
    sys::put(&image, b"").unwrap();
    sys::truncate(&image, 128 << 20).unwrap();
    must(
        std::process::Command::new("mkfs.btrfs")
            .arg("-q")
            .arg(&image),
    );
    let fs = mounts.mount(&["-o", "loop,noacl"], &image, "fs");
    let low = mounts.path("low");
    crate::kit::plant(&low, "f f text mode=0777\nf g text mode=0755");
    sys::setxattr(low.join("f"), ACCESS, &acl(7, (1000, 0), 7, 7, 7), 0).unwrap();
    let lab = Lab::within(&fs).lower_at(&low).upper("");
    let lab = lab.mount_as(&Subject::with(&["--allow-other"]));
    assert_eq!(sys::lstat(lab.at("f")).unwrap().perm(), 0o700);
    assert_eq!(sys::lstat(lab.at("g")).unwrap().perm(), 0o755);
    let (f, g) = (lab.at("f"), lab.at("g"));
    sys::as_user(1000, 1000, || {
        fails!(sys::get(&f), EACCES);
        assert_eq!(sys::text(&g), "text");
    });
    fails!(
        sys::setxattr(&g, ACCESS, &acl(7, (1000, 0), 7, 7, 7), 0),
        EOPNOTSUPP
    );
}

/// A read-only union has lists where any of its layers has them.
#[test]
fn a_read_only_union_obeys_lists() {
    let lower = Lab::new().lower("f f text mode=0600").lower("f other x");
    let list = acl(6, (1000, 4), 0, 4, 0);
    sys::setxattr(lower.lower_dir(0).join("f"), ACCESS, &list, 0).unwrap();
    let lab = lower.mount_as(&Subject::with(&["--allow-other"]));
    let f = lab.at("f");
    sys::as_user(1000, 1000, || assert_eq!(sys::text(&f), "text"));
    sys::as_user(1001, 0, || fails!(sys::get(&f), EACCES));
    assert_eq!(sys::getxattr(&f, ACCESS).unwrap(), list);
}

/// The kernel gives FUSE one page for a list. A longer one of a lower is kept, but nobody whom it
/// concerns gets in; its owner does.
#[test]
fn lists_of_more_than_511_entries() {
    let mut mounts = Mounts::new();
    let at = mounts.format(&["mkfs.xfs", "-q"], 320, "xfs");
    let short = acl(6, (2000, 4), 4, 4, 0);
    let (head, tail) = short.split_at(short.len() - 3 * 8);
    let long = |named: u32| {
        let more = (2001..2000 + named).flat_map(|id: u32| {
            let entry: [&[u8]; 3] = [
                &2_u16.to_le_bytes(),
                &4_u16.to_le_bytes(),
                &id.to_le_bytes(),
            ];
            entry.concat()
        });
        let more: Vec<u8> = more.collect();
        [head, &more, tail].concat()
    };
    let mut lab = Lab::within(&at).lower("f f text\nf g text").upper("");
    sys::setxattr(lab.lower_dir(0).join("g"), ACCESS, &long(600), 0).unwrap();
    lab.remount_as(&Subject::with(&["--allow-other"]));
    let (f, g) = (lab.at("f"), lab.at("g"));
    sys::setxattr(&f, ACCESS, &long(507), 0).unwrap();
    assert_eq!(sys::getxattr(&f, ACCESS).unwrap(), long(507));
    fails!(sys::setxattr(&f, ACCESS, &long(508), 0), E2BIG);
    fails!(sys::getxattr(&g, ACCESS), E2BIG);
    sys::as_user(2003, 2003, || {
        assert_eq!(sys::text(&f), "text");
        fails!(sys::get(&g), E2BIG);
    });
    sys::append(&g, b"!").unwrap();
    assert_eq!(sys::getxattr(lab.in_upper("g"), ACCESS).unwrap(), long(600));
}
