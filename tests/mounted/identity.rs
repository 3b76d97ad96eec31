//! What markers and the index say is believed only as far as it can be: objects are never joined, and
//! never share a number, because of what was true of other layers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kit::{Lab, Look, Mounts, Subject, must, plant, sys};
use crate::{both, ours};

const ORIGIN: &str = "trusted.overlay.origin";

#[track_caller]
fn ino(path: impl AsRef<Path>) -> u64 {
    let path = path.as_ref();
    sys::lstat(path)
        .unwrap_or_else(|e| panic!("{}: {e:?}", path.display()))
        .ino
}

/// No two objects share a number, and listings agree with stat.
#[track_caller]
fn expect_distinct(lab: &Lab) {
    lab.tree(); // fails where d_ino and st_ino differ
    let reading = lab.read(Look::default());
    let mut seen: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for (path, ino) in &reading.inos {
        let entry = &reading.snapshot.entries[path];
        let linked = entry.nlink > 1;
        if let Some(other) = seen.insert(*ino, path) {
            let (path, other) = (path.escape_ascii(), other.escape_ascii());
            assert!(linked, "/{path} and /{other} are both {ino}");
        }
    }
}

/// The entry of the index.
#[track_caller]
fn index_entry(lab: &Lab) -> PathBuf {
    let index = lab.work_dir().join("index");
    let entries = sys::list(&index).unwrap();
    let mut names = entries.iter().filter(|e| e.name.starts_with(b"00fb"));
    let name = &names.next().expect("an entry").name;
    index.join(OsStr::from_bytes(name))
}

/// What the kernel writes there for other ends, and what a crash or an accident leaves.
#[test]
fn entries_of_the_index_that_are_no_hard_links() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 3] = [
        ("a whiteout", |at| sys::mknod(at, libc::S_IFCHR, 0).unwrap()),
        ("a directory", |at| sys::mkdir(at, 0o755).unwrap()),
        ("a file without a marker", |at| sys::put(at, b"?").unwrap()),
    ];
    for (what, spoil) in spoils {
        ours(&["f a data\nh b a\nf x x"], |lab| {
            sys::append(lab.at("a"), b"+").unwrap();
            lab.umount();
            let entry = index_entry(lab);
            sys::unlink(&entry).unwrap();
            spoil(&entry);
            lab.remount();
            assert_eq!(sys::text(lab.at("b")), "data", "{what}");
            assert!(sys::lstat(&entry).is_ok(), "{what} is gone");
            sys::append(lab.at("b"), b"+b").unwrap();
            lab.remount();
            assert_eq!(sys::text(lab.at("a")), "data+", "{what}");
            assert_eq!(sys::text(lab.at("b")), "data+b", "{what}");
            assert!(sys::lstat(&entry).is_ok(), "{what} is gone");
        });
    }
}

#[test]
fn an_entry_for_another_inode_than_its_name_says_leads_nowhere() {
    both(&["f a data\nh b a\nf x x\nh y x"], |lab| {
        sys::append(lab.at("a"), b"+").unwrap();
        let first = index_entry(lab);
        lab.umount();
        let marker = sys::getxattr(&first, ORIGIN).unwrap();
        sys::put(lab.in_upper("other"), b"other").unwrap();
        sys::setxattr(lab.in_upper("other"), ORIGIN, &marker, 0).unwrap();
        sys::setxattr(lab.in_upper("a"), ORIGIN, b"", 0).unwrap();
        sys::unlink(&first).unwrap();
        sys::link(lab.in_upper("other"), &first).unwrap();
        sys::setxattr(&first, ORIGIN, &[&marker[..25], b"????"].concat(), 0).unwrap();
        lab.remount();
        assert_eq!(sys::text(lab.at("b")), "data");
        assert!(sys::lstat(&first).is_err(), "it stayed");
        sys::unlink(lab.at("other")).unwrap();
    });
}

#[test]
fn names_of_an_index_that_nobody_knows_stay() {
    ours(&["f a data\nh b a"], |lab| {
        sys::append(lab.at("a"), b"+").unwrap();
        lab.umount();
        let index = lab.work_dir().join("index");
        sys::put(index.join("note"), b"mine").unwrap();
        sys::put(index.join("00fb1d00"), b"short").unwrap();
        sys::put(index.join("#12"), b"left by the kernel").unwrap();
        lab.remount();
        assert_eq!(sys::text(lab.at("b")), "data+");
        let names = sys::names(&index);
        assert!(names.contains(&"note".to_owned()) && names.contains(&"00fb1d00".to_owned()));
        assert!(!names.contains(&"#12".to_owned()), "{names:?}");
    });
}

/// The lower file that a copy came from is replaced by others, one of which gets its inode number.
#[test]
fn a_stale_marker_lends_its_number_to_nobody() {
    let mut lab = Lab::new().lower("f a data\nf d/x x").upper("").mount();
    sys::append(lab.at("a"), b"+").unwrap();
    sys::chmod(lab.at("d"), 0o700).unwrap();
    let was = ino(lab.at("a"));
    lab.change_lower(0, |lower| {
        sys::unlink(lower.join("a")).unwrap();
        for n in 0..200 {
            sys::put(lower.join(format!("n{n}")), b"new").unwrap();
        }
        let again = (0..200).any(|n| ino(lower.join(format!("n{n}"))) == was);
        assert!(again, "the number was not used again: nothing is tested");
    });
    lab.remount();
    expect_distinct(&lab);
    assert_eq!(sys::text(lab.at("a")), "data+");
    assert_eq!(ino(lab.at("a")), ino(lab.in_upper("a")), "its own");
    for n in 0..200 {
        let name = format!("n{n}");
        assert_eq!(
            ino(lab.at(&name)),
            ino(lab.lower_dir(0).join(&name)),
            "{name}"
        );
        assert_eq!(sys::text(lab.at(&name)), "new");
    }
    lab.expect_same_after_remount();
}

/// Hard links of a lower are replaced by others with the same inode number.
#[test]
fn an_entry_of_a_replaced_lower_leads_nowhere() {
    let mut lab = Lab::new().lower("f a data\nh b a\nh c a").upper("").mount();
    sys::append(lab.at("a"), b"+").unwrap();
    let was = ino(lab.at("a"));
    lab.change_lower(0, |lower| {
        for name in ["a", "b", "c"] {
            sys::unlink(lower.join(name)).unwrap();
        }
        for n in 0..200 {
            let (one, two) = (lower.join(format!("n{n}")), lower.join(format!("m{n}")));
            sys::put(&one, b"new").unwrap();
            sys::link(&one, &two).unwrap();
        }
        let again = (0..200).any(|n| ino(lower.join(format!("n{n}"))) == was);
        assert!(again, "the number was not used again: nothing is tested");
    });
    lab.remount();
    assert_eq!(sys::text(lab.at("a")), "data+");
    for n in 0..200 {
        let (one, two) = (lab.at(format!("n{n}")), lab.at(format!("m{n}")));
        assert_eq!(sys::text(&one), "new");
        assert_eq!(ino(&one), ino(&two));
        assert_ne!(ino(&one), ino(lab.at("a")));
    }
    expect_distinct(&lab);
}

/// The upper and its workdir are copied to another filesystem with all markers, as `cp -a` does.
#[test]
fn an_upper_that_was_copied_elsewhere() {
    let lower = "f a data\nh b a\nf one 1\nf d/x x";
    let mut lab = Lab::new().lower(lower).upper("").mount();
    sys::append(lab.at("a"), b"+").unwrap();
    sys::append(lab.at("one"), b"+").unwrap();
    sys::append(lab.at("d/x"), b"+").unwrap();
    lab.umount();
    let mut mounts = Mounts::new();
    let at = mounts.format(&["mkfs.ext4", "-q", "-F"], 32, "fs");
    let mut moved = Lab::within(&at).lower_at(&lab.lower_dir(0)).upper("");
    for (from, to) in [
        (lab.upper_dir(), moved.upper_dir()),
        (lab.work_dir(), moved.work_dir()),
    ] {
        must(Command::new("cp").arg("-aT").arg(from).arg(to));
    }
    // Between them cp does not see that they are links.
    moved = moved.mount();
    assert_eq!(sys::text(moved.at("a")), "data+");
    assert_eq!(sys::text(moved.at("b")), "data+");
    expect_distinct(&moved);
    moved.expect_same_after_remount();
    sys::append(moved.at("a"), b"+a").unwrap();
    moved.expect_same_after_remount();
    assert_eq!(sys::text(moved.at("one")), "1+");
    drop(moved);
}

fn squash(mounts: &mut Mounts, name: &str, text: &str) -> PathBuf {
    let (tree, image) = (
        mounts.path(&format!("{name}.tree")),
        mounts.path(&format!("{name}.img")),
    );
    plant(&tree, text);
    must(
        Command::new("mksquashfs")
            .args([&tree, &image])
            .args(["-quiet", "-no-progress"]),
    );
    mounts.mount(&["-o", "loop,ro"], image, name)
}

/// squashfs has no UUID and its handles no generation: the inodes of two images may be named alike.
#[test]
fn two_images_whose_handles_are_equal() {
    for (case, top) in [
        ("twins", "f x top\nh x2 x"),
        ("others", "f x top\nh x2 x\nf z z"),
    ] {
        let mut mounts = Mounts::new();
        let one = squash(&mut mounts, "one", top);
        let two = squash(&mut mounts, "two", "f y low\nh y2 y");
        assert_eq!(ino(one.join("x")), ino(two.join("y")), "nothing is tested");
        let lab = Lab::new().lower_at(&one).lower_at(&two).upper("");
        let mut lab = lab.mount();
        for name in ["x", "y"] {
            sys::append(lab.at(name), b"+").unwrap();
        }
        for (name, text) in [("x", "top+"), ("x2", "top+"), ("y", "low+"), ("y2", "low+")] {
            assert_eq!(sys::text(lab.at(name)), text, "{case}: {name}");
        }
        lab.remount();
        for (name, start) in [("x", "top"), ("x2", "top"), ("y", "low"), ("y2", "low")] {
            let text = sys::text(lab.at(name));
            assert!(text.starts_with(start), "{case}: {name}: {text}");
        }
        if case == "others" {
            assert_eq!(sys::text(lab.at("x2")), "top+");
        }
        expect_distinct(&lab);
        drop(lab);
    }
}

/// The image below an upper is made anew; its inodes get the numbers, and handles, of others.
#[test]
fn an_image_that_was_made_anew() {
    let mut mounts = Mounts::new();
    let old = squash(&mut mounts, "old", "f a data\nh b a\nf c c");
    let new = squash(&mut mounts, "new", "f e else\nh f e\nf g g\nf h h");
    assert_eq!(ino(old.join("a")), ino(new.join("e")), "nothing is tested");
    let lab = Lab::new().lower_at(&old).upper("");
    let mut lab = lab.mount();
    sys::append(lab.at("a"), b"+").unwrap();
    lab.remount();
    assert_eq!(sys::text(lab.at("b")), "data+", "the same image");
    lab.umount();
    let (upper, work, mnt) = (lab.upper_dir(), lab.work_dir(), lab.mnt());
    let layers = crate::kit::Layers {
        lowers: &[new],
        upper: Some((&upper, &work)),
        mnt: &mnt,
    };
    let subject = Subject::default();
    subject.mount(&layers).unwrap();
    let seen: Vec<String> = ["a", "e", "f", "g"]
        .iter()
        .map(|n| sys::text(mnt.join(n)))
        .collect();
    subject.umount(&mnt, &[]).unwrap();
    assert_eq!(seen, ["data+", "else", "else", "g"]);
    drop(lab);
}

/// The kernel gives a merged directory without an origin the lower's number, and writes that origin.
/// (Until it has, it lists the directory under another.)
#[test]
fn a_merged_directory_without_a_marker() {
    for subject in Subject::and_kernel() {
        let lab = Lab::new().lower("f d/low x\nf e/f/low x");
        let mut lab = lab
            .upper("f d/up x\nf e/f/up x\nf own/x x")
            .mount_as(&subject);
        let expect = |lab: &Lab| {
            for name in ["d", "e", "e/f"] {
                let lower = ino(lab.lower_dir(0).join(name));
                assert_eq!(ino(lab.at(name)), lower, "{subject:?}: {name}");
            }
            assert_eq!(ino(lab.at("own")), ino(lab.in_upper("own")), "{subject:?}");
        };
        expect(&lab);
        sys::put(lab.at("d/new"), b"x").unwrap();
        for next in [Subject::default(), Subject::Kernel, Subject::default()] {
            lab.remount_as(&next);
            expect(&lab);
            expect_distinct(&lab);
        }
    }
}

/// A copy of an image has its UUID, its inode numbers and their generations.
#[test]
fn two_filesystems_with_one_uuid() {
    let mut mounts = Mounts::new();
    let one = mounts.format(&["mkfs.ext4", "-q", "-F"], 16, "one");
    plant(&one.join("t"), "f x top\nh x2 x");
    must(Command::new("sync").arg("-f").arg(&one));
    let copy = mounts.path("copy");
    must(Command::new("cp").arg(mounts.path("one.image")).arg(&copy));
    let two = mounts.mount(&["-o", "loop"], copy, "two");
    for (from, to) in [("t/x", "t/y"), ("t/x2", "t/y2")] {
        sys::rename(two.join(from), two.join(to)).unwrap();
    }
    sys::overwrite(two.join("t/y"), 0, b"low").unwrap();
    assert_eq!(
        ino(one.join("t/x")),
        ino(two.join("t/y")),
        "nothing is tested"
    );
    let lab = Lab::new().lower_at(&one.join("t")).lower_at(&two.join("t"));
    let mut lab = lab.upper("").mount();
    sys::append(lab.at("x"), b"+").unwrap();
    assert_eq!(sys::text(lab.at("x2")), "top+");
    for _ in 0..2 {
        assert_eq!(sys::text(lab.at("x")), "top+");
        assert_eq!(sys::text(lab.at("y")), "low");
        assert_eq!(sys::text(lab.at("y2")), "low");
        expect_distinct(&lab);
        lab.remount();
    }
    drop(lab);
}

/// Subvolumes are devices of their own with inode numbers of their own, on one filesystem.
#[test]
fn subvolumes_of_btrfs() {
    let mut mounts = Mounts::new();
    let fs = mounts.format(&["mkfs.btrfs", "-q", "-f"], 128, "fs");
    let tops = [
        ("a", "f x top\nh x2 x\nf s/f f"),
        ("b", "f y low\nh y2 y\nf t/f f"),
    ];
    for (name, text) in tops {
        must(
            Command::new("btrfs")
                .args(["-q", "subvolume", "create"])
                .arg(fs.join(name)),
        );
        plant(&fs.join(name), text);
    }
    assert_eq!(
        ino(fs.join("a/x")),
        ino(fs.join("b/y")),
        "nothing is tested"
    );
    let lab = Lab::new().lower_at(&fs.join("a")).lower_at(&fs.join("b"));
    let mut lab = lab.upper("").mount();
    let before = lab.read(Look::default()).inos;
    for path in ["x", "y2", "s/f", "t/f"] {
        sys::append(lab.at(path), b"+").unwrap();
    }
    for _ in 0..2 {
        assert_eq!(lab.read(Look::default()).inos, before);
        for (name, text) in [("x", "top+"), ("x2", "top+"), ("y", "low+"), ("y2", "low+")] {
            assert_eq!(sys::text(lab.at(name)), text, "{name}");
        }
        expect_distinct(&lab);
        lab.remount();
    }
    drop(lab);
}

/// Markers are then `user.overlay.*`, and no handle can be opened: numbers are those in the handles.
#[test]
fn in_a_user_namespace() {
    if !Subject::default().is_ours() {
        return;
    }
    let mounts = Mounts::new();
    plant(
        &mounts.path("lower"),
        "f a data\nh b a\nh d/c a\nf one 1\nf e/f f\nd e/g",
    );
    for name in ["u", "w", "m"] {
        mounts.dir(name);
    }
    let script = "
        numbers() { find m -mindepth 1 -printf '%P %i\\n' | sort; }
        all() { numbers; find m -type f -printf '%P %n\\n' | sort; }
        $U --lower lower --upper u --work w m
        first=$(numbers)
        printf + >>m/a; chmod 700 m/one; chmod 700 m/e; printf + >>m/e/f
        test \"$(numbers)\" = \"$first\"
        before=$(all)
        $U umount m
        $U --lower lower --upper u --work w m
        test \"$(cat m/d/c)\" = data+
        test \"$(all)\" = \"$before\"
        rm m/a
        printf ++ >>m/d/c
        $U umount m
        $U --lower lower --upper u --work w m
        test \"$(cat m/b)\" = data+++
        test \"$(stat -c %h m/b)\" = 2
        $U umount m";
    let mut command = Command::new("unshare");
    command
        .args(["-Urm", "sh", "-euc", script])
        .env("U", crate::kit::program())
        .current_dir(mounts.path("."));
    must(&mut command);
    for name in ["one", "e", "e/f"] {
        let path = mounts.path("u").join(name);
        let marker = sys::getxattr(&path, "user.overlay.origin").unwrap();
        assert_eq!(marker[..2], [0, 0xfb], "{name}");
        assert!(sys::getxattr(&path, ORIGIN).is_err(), "{name}");
    }
}

fn fs_id(at: &Path) -> u64 {
    sys::statvfs(at).unwrap().f_fsid
}

/// The kernel's word for its own identity stays on the upper; a FUSE filesystem cannot tell one.
#[test]
fn the_kernels_uuid_is_kept() {
    let kernel = Subject::KernelWith("redirect_dir=off,metacopy=off,index=on,uuid=on".to_owned());
    let mut lab = Lab::new().lower("f a a").upper("").mount_as(&kernel);
    let own = fs_id(&lab.mnt());
    let uuid = sys::getxattr(lab.upper_dir(), "trusted.overlay.uuid").unwrap();
    for word in ["off", "null", "auto", "on"] {
        lab.remount_as(&Subject::with(&["-o", &format!("uuid={word}")]));
        sys::append(lab.at("a"), b"+").unwrap();
        assert!(sys::listxattr(lab.mnt()).unwrap().is_empty());
        if lab.subject().is_ours() {
            assert_eq!(fs_id(&lab.mnt()), 0, "{word}");
        }
        lab.umount();
        assert_eq!(
            sys::getxattr(lab.upper_dir(), "trusted.overlay.uuid").unwrap(),
            uuid
        );
    }
    lab.remount_as(&kernel);
    assert_eq!(fs_id(&lab.mnt()), own);
    assert_eq!(sys::text(lab.at("a")), "a++++");
}

/// Whatever is said of them, numbers are distinct across devices, and the same.
#[test]
fn numbers_do_not_depend_on_xino() {
    let mut mounts = Mounts::new();
    let tmpfs = mounts.mount(&["-t", "tmpfs"], "none", "tmpfs");
    plant(&tmpfs, "f t/a a\nf t/b b");
    let lab = Lab::new().lower("f d/a a\nf d/b b").lower_at(&tmpfs);
    let mut lab = lab.upper("").mount();
    sys::append(lab.at("t/a"), b"+").unwrap();
    let numbers = lab.read(Look::default()).inos;
    for word in ["off", "auto", "on"] {
        lab.remount_as(&Subject::with(&["-o", &format!("xino={word}")]));
        assert_eq!(lab.read(Look::default()).inos, numbers, "xino={word}");
        expect_distinct(&lab);
    }
    drop(lab);
}
