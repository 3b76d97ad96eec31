//! Owners, modes and types that are kept in attributes: as fuse-overlayfs and containers/storage write
//! them. (That all operations come out as with real owners, the oracle shows.)

use crate::kit::{Lab, Subject, acl, capability, sys};

const CONTAINERS: &str = "user.containers.override_stat";
const SECURITY: &str = "security.fuseoverlayfs.override_stat";
const OLD: &str = "user.fuseoverlayfs.override_stat";
const CAPABILITY: &str = "security.capability";

fn ours(mode: &str) -> Subject {
    Subject::with(&["--stat-override", mode, "--allow-other"])
}

/// Owner, group, type and permissions, device.
fn shown(path: impl AsRef<std::path::Path>) -> (u32, u32, u32, u64) {
    let st = sys::lstat(path).unwrap();
    (st.uid, st.gid, st.mode, st.rdev)
}

fn attribute(path: impl AsRef<std::path::Path>, name: &str) -> String {
    String::from_utf8(sys::getxattr(path, name).unwrap()).unwrap()
}

/// As an engine unpacks an image where it may not chown: everything is its own.
const IMAGE: &str = "d . mode=0700 user.containers.override_stat=0:0:0755:dir\n\
    d d mode=0700 user.containers.override_stat=1:2:1777:dir\n\
    f d/f text mode=0700 user.containers.override_stat=3:4:04751:file\n\
    f plain text mode=0640 uid=9 gid=9\n\
    f old text user.containers.override_stat=5:6:640\n\
    f disk mode=0700 user.containers.override_stat=0:6:0660:block-8-1\n\
    f null mode=0700 user.containers.override_stat=0:0:0666:char-1-3\n\
    f gone mode=0700 user.containers.override_stat=0:0:0600:char-0-0\n\
    f pipe mode=0700 user.containers.override_stat=0:0:0600:pipe\n\
    f sock mode=0700 user.containers.override_stat=0:0:0755:socket\n\
    l link target";

fn expect_image(lab: &Lab) {
    for (name, want) in [
        ("", (0, 0, libc::S_IFDIR | 0o755, 0)),
        ("d", (1, 2, libc::S_IFDIR | 0o1777, 0)),
        ("d/f", (3, 4, libc::S_IFREG | 0o4751, 0)),
        ("plain", (9, 9, libc::S_IFREG | 0o640, 0)),
        ("old", (5, 6, libc::S_IFREG | 0o640, 0)),
        ("disk", (0, 6, libc::S_IFBLK | 0o660, sys::makedev(8, 1))),
        ("null", (0, 0, libc::S_IFCHR | 0o666, sys::makedev(1, 3))),
        // A whiteout to whoever reads the view: shown as what it is.
        ("gone", (0, 0, libc::S_IFREG | 0o600, 0)),
        ("pipe", (0, 0, libc::S_IFIFO | 0o600, 0)),
        ("sock", (0, 0, libc::S_IFSOCK | 0o755, 0)),
        ("link", (0, 0, libc::S_IFLNK | 0o777, 0)),
    ] {
        assert_eq!(shown(lab.at(name)), want, "{name:?}");
    }
    for entry in sys::list(lab.mnt()).unwrap() {
        let name = String::from_utf8(entry.name).unwrap();
        if name != "." && name != ".." {
            let kind = sys::lstat(lab.at(&name)).unwrap().kind() >> 12;
            assert_eq!(u32::from(entry.kind), kind, "{name}: type in the listing");
        }
    }
}

#[test]
fn layers_of_engines_are_read() {
    let mut lab = Lab::new().lower(IMAGE).mount_as(&ours("read"));
    expect_image(&lab);
    assert_eq!(
        sys::listxattr(lab.at("d/f")).unwrap(),
        Vec::<Vec<u8>>::new()
    );
    fails!(sys::getxattr(lab.at("d/f"), CONTAINERS), ENODATA);
    lab.expect_same_after_remount();
}

#[test]
fn fuse_overlayfs_reads_them_always() {
    let mut lab = Lab::new().lower(IMAGE);
    lab.remount_as(&Subject::with(&["-o", "xattr_permissions=0"]));
    expect_image(&lab);
}

#[test]
fn copies_of_their_objects_are_the_objects() {
    // To an upper where they are again in attributes, and to one where they are real.
    for mode in ["containers", "security", "read"] {
        let mut lab = Lab::new().lower(IMAGE).upper("").mount_as(&ours(mode));
        for name in [
            "d", "d/f", "plain", "old", "disk", "null", "gone", "pipe", "sock", "link",
        ] {
            sys::utimens(lab.at(name), (1, 2), (3, 4)).unwrap();
            assert!(sys::exists(lab.in_upper(name)), "{name} is in the upper");
        }
        let store = match mode {
            "containers" => Some(CONTAINERS),
            "security" => Some(SECURITY),
            _ => None,
        };
        if let Some(store) = store {
            let kept = |name| attribute(lab.in_upper(name), store);
            assert_eq!(kept("disk"), "0:6:0660:block-8-1", "{mode}");
            assert_eq!(kept("d/f"), "3:4:4751:file", "{mode}");
            assert_eq!(kept("plain"), "9:9:0640:file", "{mode}");
            assert!(sys::lstat(lab.in_upper("disk")).unwrap().is_file());
            assert_eq!(shown(lab.in_upper("d/f")).2, libc::S_IFREG | 0o600);
        } else {
            assert_eq!(shown(lab.in_upper("disk")), shown(lab.at("disk")));
            assert_eq!(
                shown(lab.in_upper("d/f")),
                (3, 4, libc::S_IFREG | 0o4751, 0)
            );
            fails!(sys::getxattr(lab.in_upper("d/f"), CONTAINERS), ENODATA);
        }
        if mode != "read" {
            expect_image(&lab);
            lab.expect_same_after_remount();
        }
    }
}

#[test]
fn what_is_changed_is_written_down_with_its_type() {
    let mut lab = Lab::new().lower("").upper("").mount_as(&ours("containers"));
    let made = |name: &str| attribute(lab.in_upper(name), CONTAINERS);
    sys::mknod(lab.at("disk"), libc::S_IFBLK | 0o600, sys::makedev(8, 1)).unwrap();
    sys::lchown(lab.at("disk"), 0, 6).unwrap();
    sys::chmod(lab.at("disk"), 0o660).unwrap();
    assert_eq!(made("disk"), "0:6:0660:block-8-1");
    fails!(sys::mknod(lab.at("gone"), libc::S_IFCHR | 0o600, 0), EPERM);
    sys::put(lab.at("f"), b"text").unwrap();
    sys::chmod(lab.at("f"), 0o6755).unwrap();
    assert_eq!(made("f"), "0:0:6755:file");
    // What the kernel does to an object of its own that gets another owner.
    sys::lchown(lab.at("f"), 7, 8).unwrap();
    assert_eq!(made("f"), "7:8:0755:file");
    sys::mkdir(lab.at("d"), 0o2775).unwrap();
    sys::chmod(lab.at("d"), 0o2775).unwrap();
    sys::lchown(lab.at("d"), 1, 2).unwrap();
    sys::put(lab.at("d/f"), b"").unwrap();
    sys::mkdir(lab.at("d/d"), 0o755).unwrap();
    assert_eq!(made("d/f"), "0:2:0644:file", "its group is the directory's");
    assert_eq!(made("d/d"), "0:2:2755:dir");
    // Nobody may say so otherwise.
    fails!(
        sys::setxattr(lab.at("f"), CONTAINERS, b"0:0:4755:file", 0),
        EPERM
    );
    fails!(sys::setxattr(lab.mnt(), OLD, b"0:0:4755:file", 0), EPERM);
    fails!(sys::removexattr(lab.at("f"), CONTAINERS), EPERM);
    lab.expect_same_after_remount();
    // The upper goes on in its way where it is not named.
    lab.remount_as(&ours("read"));
    sys::lchown(lab.at("f"), 9, 9).unwrap();
    assert_eq!(attribute(lab.in_upper("f"), CONTAINERS), "9:9:0755:file");
    assert_eq!(shown(lab.at("f")).0, 9);
    lab.umount();
    let why = lab.try_mount_as(&ours("security")).unwrap_err();
    assert!(
        why.contains("keeps owners and modes in user.containers"),
        "{why}"
    );
}

#[test]
fn access_control_lists_are_not_in_force() {
    let access = "system.posix_acl_access";
    let mut lab = Lab::new().lower("f f text mode=0640").upper("");
    let root = lab.lower_dir(0);
    // Group and others have less than the named user: nobody gains by that.
    sys::setxattr(root.join("f"), access, &acl(6, (1000, 0), 4, 4, 0), 0).unwrap();
    lab.remount_as(&ours("containers"));
    fails!(sys::getxattr(lab.at("f"), access), EOPNOTSUPP);
    fails!(
        sys::setxattr(lab.at("f"), access, &acl(6, (1000, 6), 6, 6, 0), 0),
        EOPNOTSUPP
    );
    assert_eq!(shown(lab.at("f")).2, libc::S_IFREG | 0o600);
    sys::append(lab.at("f"), b"more").unwrap();
    assert_eq!(shown(lab.at("f")).2, libc::S_IFREG | 0o600);
}

#[test]
fn without_the_option_they_are_attributes_like_others() {
    let lab = Lab::new().lower(IMAGE).upper("").mount();
    assert_eq!(shown(lab.at("d/f")), (0, 0, libc::S_IFREG | 0o700, 0));
    assert_eq!(attribute(lab.at("d/f"), CONTAINERS), "3:4:04751:file");
    sys::setxattr(lab.at("plain"), CONTAINERS, b"0:0:4755:file", 0).unwrap();
    assert_eq!(shown(lab.at("plain")), (9, 9, libc::S_IFREG | 0o640, 0));
}

#[test]
fn capabilities_are_kept_where_a_user_can_keep_them() {
    let lower = "d . mode=0755\nf mine text\nf bin text";
    let lab = Lab::new()
        .lower(lower)
        .upper("")
        .mount_as(&ours("containers"));
    let wrapped = format!("user.containers.override_{CAPABILITY}");
    let value = capability(13);
    for name in ["mine", "bin"] {
        sys::setxattr(lab.at(name), CAPABILITY, &value, 0).unwrap();
        assert_eq!(sys::getxattr(lab.in_upper(name), &wrapped).unwrap(), value);
        fails!(sys::getxattr(lab.in_upper(name), CAPABILITY), ENODATA);
        assert_eq!(sys::getxattr(lab.at(name), CAPABILITY).unwrap(), value);
        let names = sys::listxattr(lab.at(name)).unwrap();
        assert_eq!(names, [CAPABILITY.as_bytes().to_vec()], "{name}");
    }
    // They go as on any filesystem.
    sys::append(lab.at("mine"), b"more").unwrap();
    sys::lchown(lab.at("bin"), 1, 1).unwrap();
    for name in ["mine", "bin"] {
        fails!(sys::getxattr(lab.at(name), CAPABILITY), ENODATA);
        fails!(sys::getxattr(lab.in_upper(name), &wrapped), ENODATA);
    }
}

#[test]
fn capabilities_of_lowers_are_copied_into_either_form() {
    let text = "d . user.containers.override_stat=0:0:0755:dir\nf wrapped text";
    for (mode, wraps) in [("containers", true), ("read", false)] {
        let mut lab = Lab::new().lower("f real text").lower(text).upper("");
        let value = capability(13);
        let wrapped = format!("user.containers.override_{CAPABILITY}");
        let find = |name: &str| {
            let all = (0..lab.lower_count()).map(|n| lab.lower_dir(n).join(name));
            all.into_iter().find(|path| sys::exists(path)).unwrap()
        };
        sys::setxattr(find("real"), CAPABILITY, &value, 0).unwrap();
        sys::setxattr(find("wrapped"), &wrapped, &value, 0).unwrap();
        lab.remount_as(&ours(mode));
        for name in ["real", "wrapped"] {
            assert_eq!(sys::getxattr(lab.at(name), CAPABILITY).unwrap(), value);
            sys::chmod(lab.at(name), 0o750).unwrap();
            assert_eq!(sys::getxattr(lab.at(name), CAPABILITY).unwrap(), value);
            let kept = if wraps { &*wrapped } else { CAPABILITY };
            assert_eq!(sys::getxattr(lab.in_upper(name), kept).unwrap(), value);
        }
    }
}

#[test]
fn what_cannot_be_understood_is_not_guessed() {
    let text = "d . user.containers.override_stat=0:0:0755:dir\n\
                f bad text user.containers.override_stat=0:0:rwx\nf good text";
    let mut lab = Lab::new()
        .lower(text)
        .upper("")
        .mount_as(&ours("containers"));
    fails!(sys::lstat(lab.at("bad")), EIO);
    assert_eq!(sys::text(lab.at("good")), "text");
    assert_eq!(lab.ls(""), ["bad", "good"]);
    lab.umount();
    let root = lab.lower_dir(0);
    lab.lowers_may_change();
    sys::setxattr(root, CONTAINERS, b"nobody", 0).unwrap();
    let why = lab.try_mount_as(&ours("read")).unwrap_err();
    assert!(why.contains(CONTAINERS), "{why}");
}

/// As on NFS: who serves the union may neither chown nor make devices.
#[test]
fn nothing_of_it_takes_a_right() {
    let before =
        "setpriv --bounding-set=-chown,-fowner,-fsetid,-mknod,-setuid,-setgid --inh-caps=-all";
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let weak = |more: &str| Subject::OursUnder(words(before), words(more));
    let mut lab = Lab::new().lower("f f text uid=0").upper("");
    lab.remount_as(&weak("--allow-other"));
    fails!(sys::lchown(lab.at("f"), 5, 5), EPERM);
    lab.remount_as(&weak("--allow-other --stat-override containers"));
    sys::lchown(lab.at("f"), 5, 5).unwrap();
    sys::mknod(lab.at("null"), libc::S_IFCHR | 0o666, sys::makedev(1, 3)).unwrap();
    sys::symlink("x", lab.at("link")).unwrap();
    sys::lchown(lab.at("link"), 5, 5).unwrap();
    sys::as_user(5, 5, || {
        sys::append(lab.at("f"), b"more").unwrap();
        fails!(sys::put(lab.at("new"), b""), EACCES);
    });
    sys::mkdir(lab.at("d"), 0o777).unwrap();
    sys::chmod(lab.at("d"), 0o777).unwrap();
    sys::as_user(5, 5, || sys::put(lab.at("d/theirs"), b"").unwrap());
    assert_eq!(shown(lab.at("d/theirs")), (5, 5, libc::S_IFREG | 0o644, 0));
    sys::unlink(lab.at("f")).unwrap();
    lab.expect_same_after_remount();
}

/// Debian's fuse-overlayfs 1.10 has a name of its own and keeps real devices; what it has begun is gone
/// on with, and read by it again.
#[test]
fn uppers_go_to_fuse_overlayfs_and_back() {
    let theirs = Subject::FuseOverlayfsWith("xattr_permissions=2".into());
    let mine = Subject::with(&["-o", "xattr_permissions=2,allow_other"]);
    let mut lab = Lab::new()
        .lower("d d\nf f text\nf d/g text")
        .upper("")
        .mount_as(&theirs);
    let change = |lab: &Lab, n: u32| {
        let at = |name: &str| lab.at(format!("{name}{n}"));
        sys::put(at("file"), b"text").unwrap();
        sys::chmod(at("file"), 0o4711).unwrap();
        sys::mkdir(at("dir"), 0o700).unwrap();
        sys::chmod(at("dir"), 0o1777).unwrap();
        sys::lchown(at("dir"), 3, n).unwrap();
        sys::symlink("x", at("link")).unwrap();
        sys::lchown(lab.at("f"), 10 + n, 20 + n).unwrap();
        sys::append(lab.at("d/g"), b"more").unwrap();
    };
    // Without times, and without what fuse-overlayfs 2 shows of its own attributes.
    let tree = |lab: &Lab| {
        let mut tree = lab.timeless_tree();
        tree.entries
            .values_mut()
            .for_each(|entry| entry.xattrs.clear());
        tree
    };
    let mut before = tree(&lab);
    for (n, subject) in [&theirs, &mine, &theirs, &mine].into_iter().enumerate() {
        lab.remount_as(subject);
        if n > 0 {
            crate::snapshot::assert_same(&format!("{n}"), &before, &tree(&lab));
        }
        change(&lab, n as u32);
        before = tree(&lab);
        assert_eq!(shown(lab.at("f")).0, 10 + n as u32);
    }
}
