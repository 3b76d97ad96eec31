//! Owners that are shown by other numbers than they have on disk: as fuse-overlayfs does it.

use crate::kit::sys::as_user;
use crate::kit::{Lab, Subject, acl, sys};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// As an engine writes it.
const MAPS: [&str; 2] = [
    "uidmapping=:0:100000:1000:5000:7:3",
    "gidmapping=:0:200000:1000",
];

const LOWER: &str = "d d mode=0777\nf f text mode=0644\nf user text uid=5 gid=6\n\
                     f last text uid=5002 gid=999\nf out text uid=70000 gid=70000";

fn mapped(options: &[&str]) -> Lab {
    let mut words = vec!["--allow-other"];
    for option in options {
        words.extend(["-o", option]);
    }
    let subject = Subject::with(&words);
    Lab::new().lower(LOWER).upper("").mount_as(&subject)
}

fn owner(path: impl AsRef<std::path::Path>) -> (u32, u32) {
    let st = sys::lstat(path).unwrap();
    (st.uid, st.gid)
}

#[test]
fn owners_are_shown_by_their_ranges() {
    let mut lab = mapped(&MAPS);
    for (name, want) in [
        ("f", (100_000, 200_000)),
        ("user", (100_005, 200_006)),
        ("last", (9, 200_999)),
        ("out", (65534, 65534)),
        ("", (100_000, 200_000)),
    ] {
        assert_eq!(owner(lab.at(name)), want, "{name:?}");
    }
    // A copy keeps what is on disk, also of owners that cannot be shown.
    for name in ["user", "out"] {
        sys::append(lab.at(name), b"more").unwrap();
        sys::chmod(lab.at(name), 0o600).unwrap();
    }
    assert_eq!(owner(lab.in_upper("user")), (5, 6));
    assert_eq!(owner(lab.in_upper("out")), (70_000, 70_000));
    lab.expect_same_after_remount();
}

#[test]
fn what_is_made_and_given_away_is_stored_by_its_range() {
    let mut lab = mapped(&MAPS);
    as_user(100_005, 200_006, || {
        sys::put(lab.at("d/file"), b"").unwrap();
        sys::mkdir(lab.at("d/dir"), 0o755).unwrap();
        sys::symlink("x", lab.at("d/link")).unwrap();
        sys::mknod(lab.at("d/pipe"), libc::S_IFIFO | 0o644, 0).unwrap();
        // Its own, by the numbers of the view.
        sys::append(lab.at("user"), b"more").unwrap();
        fails!(sys::append(lab.at("f"), b"more"), EACCES);
    });
    for name in ["d/file", "d/dir", "d/link", "d/pipe", "user"] {
        assert_eq!(owner(lab.in_upper(name)), (5, 6), "{name}");
        assert_eq!(owner(lab.at(name)), (100_005, 200_006), "{name}");
    }
    // Over a whiteout, too.
    sys::unlink(lab.at("last")).unwrap();
    sys::put(lab.at("last"), b"").unwrap();
    assert_eq!(owner(lab.at("last")), (65534, 65534), "root is in no range");
    assert_eq!(owner(lab.in_upper("last")), (65534, 65534));
    sys::lchown(lab.at("last"), 8, 200_999).unwrap();
    assert_eq!(owner(lab.in_upper("last")), (5001, 999));
    sys::lchown(lab.at("last"), u32::MAX, 200_000).unwrap();
    assert_eq!(owner(lab.in_upper("last")), (5001, 0));
    lab.expect_same_after_remount();
}

#[test]
fn lists_name_users_by_their_ranges() {
    let mut lab = mapped(&["uidmapping=:0:100000:1000", "gidmapping=:0:200000:1000"]);
    sys::setxattr(lab.at("f"), ACCESS, &acl(6, (100_005, 4), 0, 4, 0), 0).unwrap();
    sys::setxattr(lab.at("d"), DEFAULT, &acl(7, (100_005, 7), 5, 7, 0), 0).unwrap();
    assert_eq!(
        sys::getxattr(lab.in_upper("f"), ACCESS).unwrap(),
        acl(6, (5, 4), 0, 4, 0)
    );
    assert_eq!(
        sys::getxattr(lab.at("f"), ACCESS).unwrap(),
        acl(6, (100_005, 4), 0, 4, 0)
    );
    as_user(100_005, 200_005, || {
        assert_eq!(sys::text(lab.at("f")), "text");
        sys::put(lab.at("d/new"), b"").unwrap();
    });
    assert_eq!(
        sys::getxattr(lab.at("d/new"), ACCESS).unwrap(),
        acl(6, (100_005, 7), 5, 4, 0)
    );
    as_user(100_007, 200_007, || fails!(sys::get(lab.at("f")), EACCES));
    lab.expect_same_after_remount();
}

#[test]
fn all_may_be_shown_as_one() {
    let mut lab = mapped(&["squash_to_root"]);
    for name in ["f", "user", "out", ""] {
        assert_eq!(owner(lab.at(name)), (0, 0), "{name:?}");
    }
    sys::lchown(lab.at("f"), 12, 13).unwrap();
    assert_eq!(owner(lab.at("f")), (0, 0));
    assert_eq!(owner(lab.in_upper("f")), (12, 13));
    lab.expect_same_after_remount();
    let options = [
        "squash_to_root,squash_to_uid=1000",
        "uidmapping=0:10:100000",
    ];
    let lab = mapped(&options);
    assert_eq!(owner(lab.at("user")), (1000, 0));
    as_user(1000, 1000, || sys::append(lab.at("user"), b"more").unwrap());
    assert_eq!(owner(lab.in_upper("user")), (5, 6));
    // A list names who has the right, not who is shown as the owner.
    let list = acl(6, (15, 4), 0, 4, 0);
    sys::setxattr(lab.at("out"), ACCESS, &list, 0).unwrap();
    assert_eq!(sys::getxattr(lab.at("out"), ACCESS).unwrap(), list);
    let on_disk = sys::getxattr(lab.in_upper("out"), ACCESS).unwrap();
    assert_eq!(on_disk, acl(6, (5, 4), 0, 4, 0));
    as_user(15, 15, || assert_eq!(sys::text(lab.at("out")), "text"));
    as_user(12, 12, || sys::put(lab.at("d/new"), b"").unwrap());
    assert_eq!(owner(lab.in_upper("d/new")), (2, 12), "made by its range");
    assert_eq!(owner(lab.at("d/new")), (1000, 0));
}

#[test]
fn a_setgid_bit_stays_for_members_by_the_numbers_of_the_view() {
    let lab = mapped(&MAPS);
    sys::put(lab.at("s"), b"").unwrap();
    for (gid, kept) in [(200_006, 0o2000), (200_007, 0)] {
        sys::lchown(lab.at("s"), 100_005, 200_006).unwrap();
        // Without group execution.
        sys::chmod(lab.at("s"), 0o2747).unwrap();
        as_user(100_005, gid, || sys::append(lab.at("s"), b"more").unwrap());
        assert_eq!(sys::lstat(lab.at("s")).unwrap().perm() & 0o2000, kept);
    }
}
