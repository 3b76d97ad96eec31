//! suid, sgid and file capabilities go away as the VFS has it, for root and for others.

use crate::for_all_users;
use crate::kit::{Lab, acl, capability, sys};

const CAPS: &str = "security.capability";
const LOWER: &str =
    "f f text mode=06777 uid=1000 gid=1000\nf g text mode=02767 uid=1000 gid=1000\nd d mode=06777";

fn mode(lab: &Lab, name: &str) -> u32 {
    sys::lstat(lab.at(name)).unwrap().perm()
}

#[test]
fn a_write_by_somebody_else_clears_them() {
    for_all_users(&[LOWER], |lab| {
        let f = lab.at("f");
        sys::as_user(1001, 1001, || sys::append(&f, b"x").unwrap());
        assert_eq!(mode(lab, "f"), 0o777);
        // And the second time, when the file is in the upper.
        sys::chmod(&f, 0o6777).unwrap();
        sys::as_user(1001, 1001, || sys::append(&f, b"x").unwrap());
        assert_eq!(mode(lab, "f"), 0o777);
    });
}

/// Without group execution the bit gives no right; FUSE leaves it, other filesystems drop it.
#[test]
fn sgid_without_group_execution_gives_no_right() {
    for_all_users(&[LOWER], |lab| {
        let g = lab.at("g");
        sys::as_user(1001, 1001, || sys::append(&g, b"x").unwrap());
        assert!([0o767, 0o2767].contains(&mode(lab, "g")));
    });
}

#[test]
fn a_write_by_root_keeps_them() {
    for_all_users(&[LOWER], |lab| {
        sys::append(lab.at("f"), b"x").unwrap();
        assert_eq!(mode(lab, "f"), 0o6777);
        sys::truncate(lab.at("f"), 2).unwrap();
        assert_eq!(mode(lab, "f"), 0o6777);
    });
}

#[test]
fn a_truncation_by_somebody_else_clears_them() {
    let lower = "f f text mode=06777 uid=1000 gid=1000\nf g text mode=06777 uid=1000 gid=1000";
    for_all_users(&[lower], |lab| {
        let (f, g) = (lab.at("f"), lab.at("g"));
        sys::as_user(1001, 1001, || {
            sys::truncate(&f, 2).unwrap();
            drop(sys::open(&g, libc::O_WRONLY | libc::O_TRUNC, 0).unwrap());
        });
        assert_eq!((mode(lab, "f"), mode(lab, "g")), (0o777, 0o777));
    });
}

#[test]
fn a_chown_clears_them_even_for_root() {
    for_all_users(&[LOWER], |lab| {
        sys::lchown(lab.at("f"), 5, 5).unwrap();
        assert_eq!(mode(lab, "f"), 0o777);
        // Without group execution it is not the right to become the group: root keeps it.
        sys::lchown(lab.at("g"), 5, 5).unwrap();
        assert_eq!(mode(lab, "g"), 0o2767);
        sys::lchown(lab.at("d"), 5, 5).unwrap();
        assert_eq!(mode(lab, "d"), 0o6777, "a directory keeps them");
    });
}

#[test]
fn a_chmod_by_a_stranger_to_the_group_drops_sgid() {
    for_all_users(&["f f text mode=0755 uid=1000 gid=7"], |lab| {
        let f = lab.at("f");
        sys::as_user(1000, 1000, || sys::chmod(&f, 0o2755).unwrap());
        assert_eq!(mode(lab, "f"), 0o755);
    });
}

#[test]
fn capabilities_go_at_every_change_of_content_or_owner() {
    for_all_users(&["f low text mode=0777"], |lab| {
        sys::put(lab.at("up"), b"text").unwrap();
        sys::chmod(lab.at("up"), 0o777).unwrap();
        type Change = fn(&std::path::Path);
        let changes: [(&str, Change); 5] = [
            ("write", |f| sys::append(f, b"x").unwrap()),
            ("truncate", |f| sys::truncate(f, 1).unwrap()),
            ("chown", |f| sys::lchown(f, 5, 5).unwrap()),
            ("write as another", |f| {
                sys::as_user(1001, 1001, || sys::append(f, b"x").unwrap())
            }),
            ("truncate as another", |f| {
                sys::as_user(1001, 1001, || sys::truncate(f, 1).unwrap())
            }),
        ];
        for name in ["low", "up"] {
            let at = lab.at(name);
            for (what, change) in changes {
                sys::setxattr(&at, CAPS, &capability(10), 0).unwrap();
                assert_eq!(sys::getxattr(&at, CAPS).unwrap(), capability(10));
                change(&at);
                assert_eq!(
                    sys::getxattr(&at, CAPS),
                    Err(crate::kit::Errno(libc::ENODATA)),
                    "{name}: {what}"
                );
            }
        }
    });
}

#[test]
fn a_mapping_write_by_somebody_else() {
    for_all_users(&["f f text mode=0777"], |lab| {
        let f = lab.at("f");
        sys::as_user(1001, 1001, || {
            let fd = sys::open(&f, libc::O_RDWR, 0).unwrap();
            let mut map = sys::Map::shared(&fd, 4).unwrap();
            map.bytes_mut()[0] = b'T';
            map.sync().unwrap();
        });
        assert_eq!(sys::text(&f), "Text");
    });
}

/// An owner who does not belong to the group may not hand out its rights.
#[test]
fn an_access_list_set_by_a_stranger_to_the_group_drops_sgid() {
    const ACCESS: &str = "system.posix_acl_access";
    let lower = "f f text mode=02755 uid=1000 gid=7\nd d mode=02755 uid=1000 gid=7\n\
                 f g text mode=02755 uid=1000 gid=1000\nf r text mode=02755 uid=1000 gid=7\n\
                 f m text mode=02745 uid=1000 gid=7";
    let list = acl(7, (1001, 5), 5, 5, 5);
    for_all_users(&[lower], |lab| {
        let at = |name: &str| lab.at(name);
        let set = |name: &str| {
            let at = at(name);
            sys::as_user(1000, 1000, || sys::setxattr(&at, ACCESS, &list, 0).unwrap());
        };
        for name in ["f", "d", "m"] {
            set(name);
            assert_eq!(mode(lab, name), 0o755, "{name}");
        }
        set("g");
        assert_eq!(mode(lab, "g"), 0o2755, "a member keeps it");
        sys::setxattr(at("r"), ACCESS, &list, 0).unwrap();
        assert_eq!(mode(lab, "r"), 0o2755, "root keeps it");
        let r = at("r");
        sys::as_user(1000, 1000, || sys::removexattr(&r, ACCESS).unwrap());
        assert_eq!(mode(lab, "r"), 0o755);
        sys::chmod(at("d"), 0o2755).unwrap();
        let d = at("d");
        sys::as_user(1000, 1000, || {
            sys::setxattr(&d, "system.posix_acl_default", &list, 0).unwrap()
        });
        assert_eq!(
            mode(lab, "d"),
            0o2755,
            "a default list gives nobody a right"
        );
    });
}

/// setgid for the group of the directory is only for its members.
#[test]
fn what_a_stranger_makes_in_an_sgid_directory_has_no_sgid() {
    let lower = "d d mode=02777 gid=7\nd in mode=02777 gid=1000";
    for_all_users(&[lower], |lab| {
        for (dir, want) in [("d", 0o755), ("in", 0o2755)] {
            let [file, dir_, odd] = ["f", "d", "o"].map(|name| lab.at(dir).join(name));
            sys::as_user(1000, 1000, || {
                drop(sys::open(&file, libc::O_CREAT | libc::O_WRONLY, 0o2755).unwrap());
                drop(sys::open(&odd, libc::O_CREAT | libc::O_WRONLY, 0o2745).unwrap());
                sys::mkdir(&dir_, 0o755).unwrap();
            });
            let perm = |path| sys::lstat(path).unwrap().perm();
            assert_eq!(perm(&file), want, "{dir}");
            assert_eq!(perm(&odd), 0o2745, "{dir}: without group execution");
            assert_eq!(perm(&dir_), 0o2755, "{dir}: directories pass it on");
        }
    });
}
