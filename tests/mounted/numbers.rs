//! st_ino: one number per object for its whole life, the same in listings, unique among the living.

use std::collections::BTreeMap;

use crate::both;
use crate::kit::{Lab, Look, sys};

const TOP: &str = "f a a\nd d\nf d/f f\nl l x\np p\nf links/x x\nh links/y links/x";
const LOW: &str = "f d/low l\nf low l\nd lowdir\nf lowdir/z z";

fn numbers(lab: &Lab) -> BTreeMap<Vec<u8>, u64> {
    lab.read(Look::default()).inos
}

#[test]
fn they_survive_copy_up() {
    both(&[TOP, LOW], |lab| {
        let before = numbers(lab);
        for path in [
            "a", "d/f", "d/low", "l", "p", "low", "lowdir", "lowdir/z", "links/x",
        ] {
            sys::lchown(lab.at(path), 1, 1).unwrap();
        }
        sys::append(lab.at("a"), b"+").unwrap();
        assert_eq!(before, numbers(lab), "after copy-up");
        sys::drop_caches();
        assert_eq!(before, numbers(lab), "after the kernel forgot");
        lab.remount();
        assert_eq!(before, numbers(lab), "after a remount");
    });
}

#[test]
fn they_survive_renames() {
    both(&[TOP, LOW], |lab| {
        let ino = |path: &str| sys::lstat(lab.at(path)).unwrap().ino;
        let before = ino("low");
        sys::rename(lab.at("low"), lab.at("d/moved")).unwrap();
        assert_eq!(ino("d/moved"), before);
        sys::mkdir(lab.at("new"), 0o700).unwrap();
        let dir = ino("new");
        sys::rename(lab.at("new"), lab.at("d/new")).unwrap();
        assert_eq!(ino("d/new"), dir);
    });
}

#[test]
fn listings_and_stat_agree_and_no_two_objects_share_one() {
    crate::ours(&[TOP, LOW], |lab| {
        for name in ["n1", "d/n2", "lowdir/n3"] {
            sys::put(lab.at(name), b"").unwrap();
        }
        sys::append(lab.at("low"), b"+").unwrap();
        // `tree` fails where d_ino and st_ino differ.
        let tree = lab.tree();
        let mut seen: BTreeMap<u64, String> = BTreeMap::new();
        for (path, ino) in numbers(lab) {
            let path = String::from_utf8(path).unwrap();
            if tree.entries[path.as_bytes()].same_as.is_none() {
                assert!(ino >= 1, "{path}: {ino}");
                if let Some(other) = seen.insert(ino, path.clone()) {
                    panic!("/{path} and /{other} are both {ino}");
                }
            }
        }
        assert_eq!(sys::lstat(lab.mnt()).unwrap().ino, 1);
    });
}

#[test]
fn all_objects_are_on_one_device() {
    both(&[TOP, LOW], |lab| {
        let dev = sys::lstat(lab.mnt()).unwrap().dev;
        sys::put(lab.at("new"), b"").unwrap();
        for path in ["a", "d", "d/f", "low", "new", "lowdir/z"] {
            assert_eq!(sys::lstat(lab.at(path)).unwrap().dev, dev, "{path}");
        }
    });
}

/// Layers on two filesystems have inodes with equal numbers.
#[test]
fn layers_on_several_devices() {
    let scratch = crate::kit::Scratch::new();
    let tmpfs = scratch.path().join("tmpfs");
    sys::mkdir(&tmpfs, 0o755).unwrap();
    sys::mount("tmpfs", &tmpfs, "tmpfs", 0, std::ffi::OsStr::new("")).unwrap();
    let _undo = Unmount(tmpfs.clone());
    for n in 0..200 {
        sys::put(tmpfs.join(format!("t{n}")), format!("{n}").as_bytes()).unwrap();
    }
    let lab = Lab::new().lower("f disk d\nf disk2 d").lower_at(&tmpfs);
    let mut lab = lab.upper("").mount();
    let mut inos: Vec<u64> = numbers(&lab).values().copied().collect();
    inos.sort_unstable();
    inos.dedup();
    assert_eq!(inos.len(), 203, "two objects with one number");
    sys::append(lab.at("t5"), b"+").unwrap();
    assert_eq!(sys::text(lab.at("t5")), "5+");
    lab.expect_same_after_remount();
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        if let Err(errno) = sys::umount(&self.0, libc::MNT_DETACH) {
            eprintln!("{}: {errno:?}", self.0.display());
        }
    }
}
