//! Layers that cannot hold attributes, and attributes that are too much for a layer.

use std::path::{Path, PathBuf};

use crate::kit::Mounts;
use crate::kit::{Errno, Lab, Layers, Subject, acl, capability, plant, sys};

const ACCESS: &str = "system.posix_acl_access";

/// A union on an upper that lies on another filesystem than its lower.
struct Beside {
    subject: Subject,
    mounts: Mounts,
    fs: PathBuf,
    mounted: bool,
}

impl Beside {
    /// On `fs`, mounted in `mounts`.
    fn new(mounts: Mounts, fs: PathBuf, lower: &str, subject: &Subject) -> Beside {
        plant(&mounts.path("lower"), lower);
        mounts.dir("mnt");
        for name in ["upper", "work"] {
            sys::mkdir(fs.join(name), 0o755).unwrap();
        }
        let mut beside = Beside {
            subject: subject.clone(),
            mounts,
            fs,
            mounted: false,
        };
        beside.mount();
        beside
    }

    /// On a filesystem without attributes.
    fn bare(lower: &str, subject: &Subject) -> Beside {
        let mut mounts = Mounts::new();
        let fs = mounts.mount(&["-t", "ramfs"], "none", "fs");
        Beside::new(mounts, fs, lower, subject)
    }

    #[track_caller]
    fn mount(&mut self) {
        let (lower, mnt) = (self.mounts.path("lower"), self.mounts.path("mnt"));
        let (upper, work) = (self.fs.join("upper"), self.fs.join("work"));
        let layers = Layers {
            lowers: &[lower],
            upper: Some((&upper, &work)),
            mnt: &mnt,
        };
        self.subject.mount(&layers).unwrap();
        self.mounted = true;
    }

    fn remount(&mut self) {
        self.umount().unwrap();
        self.mount();
    }

    fn umount(&mut self) -> Result<(), String> {
        self.mounted = false;
        self.subject.umount(&self.mounts.path("mnt"), &[])
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mounts.path("mnt").join(name)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.mounted
            && let Err(why) = self.umount()
        {
            eprintln!("{why}");
        }
    }
}

/// A FUSE filesystem that has no attributes answers every call about them with an error.
#[test]
fn a_lower_without_attributes_is_read_and_copied_up() {
    for subject in [Subject::Kernel, Subject::with(&["--allow-other"])] {
        let mut mounts = Mounts::new();
        let tree = mounts.path("tree");
        plant(
            &tree,
            "f f text mode=0644\nf s script mode=0755\nd d\nf d/x x\nl l f\np p",
        );
        let bare = mounts.dir("bare");
        let words = ["bindfs", "--xattr-none", "-o", "dev,suid"].map(std::ffi::OsStr::new);
        let mut words = words.to_vec();
        words.push(tree.as_ref());
        mounts.run(&words, &bare);
        fails!(sys::getxattr(bare.join("f"), "user.x"), EOPNOTSUPP);
        let mut lab = Lab::new().lower_at(&bare).upper("").mount_as(&subject);
        for name in ["f", "d", "l", "p"] {
            let at = lab.at(name);
            if ["f", "d"].contains(&name) {
                fails!(sys::getxattr(&at, "user.x"), EOPNOTSUPP);
            }
            assert!(sys::getxattr(&at, ACCESS).is_err());
            match sys::listxattr(&at) {
                Err(Errno(libc::EOPNOTSUPP)) if subject.is_kernel() => {}
                list => assert_eq!(list, Ok(Vec::new()), "{name}"),
            }
        }
        let f = lab.at("f");
        sys::as_user(1000, 1000, || assert_eq!(sys::text(&f), "text"));
        sys::append(&f, b"!").unwrap();
        sys::setxattr(lab.at("d"), "user.x", b"1", 0).unwrap();
        sys::lchown(lab.at("l"), 5, 5).unwrap();
        sys::chmod(lab.at("p"), 0o600).unwrap();
        sys::setxattr(&f, ACCESS, &acl(6, (1000, 4), 0, 4, 0), 0).unwrap();
        sys::unlink(lab.at("d/x")).unwrap();
        lab.remount();
        assert_eq!(sys::text(lab.at("f")), "text!");
        assert_eq!(sys::getxattr(lab.at("d"), "user.x").unwrap(), b"1");
        assert_eq!(lab.ls("d"), [""; 0]);
    }
}

/// Deletions and directories made anew need files then.
#[test]
fn an_upper_without_attributes_works_and_says_so() {
    let lower = "f f text\nf u text user.a=1 trusted.b=2\nd d\nf d/x x\nf d/y y\nd e\nf e/z z\n\
                 f acl text\nf cap text\nf h1 link\nh h2 h1";
    let mut on = Beside::bare(lower, &Subject::with(&[]));
    sys::setxattr(
        on.mounts.path("lower/acl"),
        ACCESS,
        &acl(6, (1000, 4), 0, 4, 0),
        0,
    )
    .unwrap();
    let capability = capability(10);
    sys::setxattr(
        on.mounts.path("lower/cap"),
        "security.capability",
        &capability,
        0,
    )
    .unwrap();
    on.remount();
    for _ in 0..2 {
        sys::append(on.at("f"), b"!").unwrap();
        sys::append(on.at("u"), b"!").unwrap();
        sys::put(on.at("new"), b"new").unwrap();
        sys::remove_tree(on.at("d")).unwrap();
        sys::mkdir(on.at("d"), 0o755).unwrap();
        sys::put(on.at("d/own"), b"own").unwrap();
        sys::rename(on.at("d"), on.at("d2")).unwrap();
        sys::mkdir(on.at("d"), 0o755).unwrap();
        on.remount();
        assert_eq!(sys::names(on.at("d")), [""; 0]);
        assert_eq!(sys::names(on.at("d2")), ["own"]);
        sys::remove_tree(on.at("d2")).unwrap();
    }
    assert_eq!(sys::text(on.at("f")), "text!!");
    assert_eq!(sys::text(on.at("u")), "text!!");
    sys::append(on.at("h1"), b"!").unwrap();
    assert_eq!(sys::text(on.at("h2")), "link!");
    fails!(sys::setxattr(on.at("new"), "user.x", b"1", 0), EOPNOTSUPP);
    fails!(sys::setxattr(on.at("e"), "trusted.x", b"1", 0), EOPNOTSUPP);
    fails!(sys::getxattr(on.at("new"), "user.x"), EOPNOTSUPP);
    // What says who may do what is never lost: rather nothing is changed.
    fails!(sys::append(on.at("acl"), b"!"), EOPNOTSUPP);
    fails!(sys::append(on.at("cap"), b"!"), EOPNOTSUPP);
    fails!(sys::chmod(on.at("acl"), 0o777), EOPNOTSUPP);
    assert_eq!(sys::text(on.at("acl")), "text");
    assert_eq!(
        sys::getxattr(on.at("cap"), "security.capability").unwrap(),
        capability
    );
    assert_eq!(
        sys::names(on.fs.join("work/work")),
        [""; 0],
        "something half made is left"
    );
    let done = std::process::Command::new(crate::kit::program())
        .arg("inspect")
        .arg(on.at(""))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("takes no extended attributes"), "{said}");
    assert!(said.contains("takes no access control lists"), "{said}");
}

/// A filesystem that has attributes but no access control lists.
#[test]
fn lists_that_the_upper_cannot_hold_are_refused_as_the_kernel_does() {
    let lower = "f user text user.a=1\nf plain text trusted.t=1\nf acl text trusted.t=1\n\
                 d dir\nf dir/x x\nf cap text";
    type Change = fn(&Path) -> Result<(), Errno>;
    let changes: [(&str, Change); 6] = [
        ("user", |at| sys::append(at, b"!")),
        ("plain", |at| sys::append(at, b"!")),
        ("acl", |at| sys::append(at, b"!")),
        ("acl", |at| sys::chmod(at, 0o600)),
        ("dir/x", |at| sys::append(at, b"!")),
        ("cap", |at| sys::append(at, b"!")),
    ];
    let mut answers = Vec::new();
    for subject in [Subject::Kernel, Subject::with(&[])] {
        let mut mounts = Mounts::new();
        let image = mounts.path("image");
        sys::put(&image, b"").unwrap();
        sys::truncate(&image, 128 << 20).unwrap();
        crate::kit::must(
            std::process::Command::new("mkfs.btrfs")
                .arg("-q")
                .arg(&image),
        );
        let fs = mounts.mount(&["-o", "loop,noacl"], &image, "fs");
        let mut on = Beside::new(mounts, fs, lower, &subject);
        on.umount().unwrap();
        let in_lower = |name: &str| on.mounts.path("lower").join(name);
        let list = acl(6, (1000, 4), 0, 4, 0);
        sys::setxattr(in_lower("acl"), ACCESS, &list, 0).unwrap();
        sys::setxattr(in_lower("dir"), "system.posix_acl_default", &list, 0).unwrap();
        sys::setxattr(in_lower("cap"), "security.capability", &capability(10), 0).unwrap();
        on.mount();
        let all = changes.map(|(name, change)| {
            let answer = change(&on.at(name));
            let left = sys::listxattr(on.at(name)).unwrap();
            // What is shown of a list that is in force nowhere is another matter.
            let left: Vec<_> = left
                .into_iter()
                .filter(|n| !n.starts_with(b"system."))
                .collect();
            (name, answer, left)
        });
        answers.push(all);
    }
    let [kernel, ours] = &answers[..] else {
        panic!()
    };
    assert_eq!(kernel, ours, "kernel, ours");
    assert_eq!(ours[0].1, Ok(()));
    assert_eq!(ours[2].1, Err(Errno(libc::EOPNOTSUPP)));
}

/// A value as large as the filesystem takes comes along, and is set and read through the union.
#[test]
fn values_of_64_kib() {
    let mut mounts = Mounts::new();
    let at = mounts.format(&["mkfs.xfs", "-q"], 320, "xfs");
    for subject in [Subject::Kernel, Subject::with(&[])] {
        let mut lab = Lab::within(&at).lower("f f text\nd d").upper("");
        let value = sys::pattern(7, 65536);
        sys::setxattr(lab.lower_dir(0).join("f"), "user.large", &value, 0).unwrap();
        lab.remount_as(&subject);
        assert!(sys::getxattr(lab.at("f"), "user.large").unwrap() == value);
        sys::append(lab.at("f"), b"!").unwrap();
        sys::setxattr(lab.at("d"), "trusted.large", &value, 0).unwrap();
        lab.remount();
        assert!(sys::getxattr(lab.in_upper("f"), "user.large").unwrap() == value);
        assert!(sys::getxattr(lab.at("d"), "trusted.large").unwrap() == value);
    }
}

/// listxattr(2) has no answer for more names than fit into 64 KiB, on any filesystem. So there is no
/// copy, rather than one that lacks some; the kernel, which is not held to that, makes one.
#[test]
fn more_than_64_kib_of_names() {
    let mut mounts = Mounts::new();
    let at = mounts.format(&["mkfs.xfs", "-q"], 320, "xfs");
    for subject in [Subject::Kernel, Subject::with(&[])] {
        let mut lab = Lab::within(&at).lower("f f text\nd d\nf d/x x").upper("");
        for name in ["f", "d"] {
            for n in 0..280 {
                let attribute = format!("user.{n:0240}");
                sys::setxattr(lab.lower_dir(0).join(name), &attribute, b"v", 0).unwrap();
            }
        }
        lab.remount_as(&subject);
        let one = format!("user.{:0240}", 17);
        for name in ["f", "d"] {
            fails!(sys::listxattr(lab.at(name)), E2BIG);
            assert_eq!(sys::getxattr(lab.at(name), &one).unwrap(), b"v");
        }
        assert_eq!(sys::text(lab.at("f")), "text");
        let changes = [
            sys::append(lab.at("f"), b"!"),
            sys::put(lab.at("d/new"), b""),
        ];
        if subject.is_kernel() {
            assert_eq!(changes, [Ok(()), Ok(())]);
            assert_eq!(sys::getxattr(lab.in_upper("f"), &one).unwrap(), b"v");
        } else {
            assert_eq!(changes, [Err(Errno(libc::E2BIG)); 2]);
            assert_eq!(sys::names(lab.upper_dir()), [""; 0]);
            assert_eq!(sys::text(lab.at("f")), "text");
        }
    }
}
