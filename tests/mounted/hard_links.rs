//! Hard links stay links: across copy-up, after the kernel forgot a name, after a remount.

use crate::kit::sys;
use crate::{both, ours};

const LOWER: &str =
    "f a data\nh d/b a\nh d/e/c a\nf lone l\nl sym x\nh sym2 sym\np fifo\nh fifo2 fifo";
const NAMES: [&str; 3] = ["a", "d/b", "d/e/c"];

#[track_caller]
fn expect_one(lab: &crate::Lab, names: &[&str], nlink: u64, data: &str) {
    let first = sys::lstat(lab.at(names[0])).unwrap();
    for name in names {
        let st = sys::lstat(lab.at(name)).unwrap();
        assert_eq!((st.ino, st.nlink), (first.ino, nlink), "{name}");
        assert_eq!(sys::text(lab.at(name)), data, "{name}");
    }
    assert_eq!(first.nlink, nlink);
}

#[test]
fn lower_links_are_one_object() {
    both(&[LOWER], |lab| {
        // Before any name but one was looked up.
        assert_eq!(sys::lstat(lab.at("d/e/c")).unwrap().nlink, 3);
        expect_one(lab, &NAMES, 3, "data");
    });
}

#[test]
fn a_change_through_one_name_is_seen_through_all() {
    both(&[LOWER], |lab| {
        sys::append(lab.at("d/b"), b"+b").unwrap();
        expect_one(lab, &NAMES, 3, "data+b");
        sys::drop_caches();
        expect_one(lab, &NAMES, 3, "data+b");
        sys::append(lab.at("a"), b"+a").unwrap();
        sys::chmod(lab.at("d/e/c"), 0o600).unwrap();
        lab.remount();
        expect_one(lab, &NAMES, 3, "data+b+a");
        assert_eq!(sys::lstat(lab.at("a")).unwrap().perm(), 0o600);
    });
}

/// The other name is met for the first time after the copy-up, when nothing is remembered.
#[test]
fn a_name_never_seen_before_follows_the_copy() {
    for forget in ["caches", "remount"] {
        both(&[LOWER], |lab| {
            sys::append(lab.at("d/e/c"), b"+c").unwrap();
            if forget == "caches" {
                sys::drop_caches()
            } else {
                lab.remount()
            }
            assert_eq!(sys::text(lab.at("a")), "data+c", "after {forget}");
            sys::append(lab.at("d/b"), b"+b").unwrap();
            expect_one(lab, &NAMES, 3, "data+c+b");
        });
    }
}

#[test]
fn the_link_count_follows_every_change() {
    both(&[LOWER], |lab| {
        sys::link(lab.at("a"), lab.at("new")).unwrap();
        expect_one(lab, &["a", "d/b", "d/e/c", "new"], 4, "data");
        sys::unlink(lab.at("d/b")).unwrap();
        expect_one(lab, &["a", "d/e/c", "new"], 3, "data");
        lab.remount();
        expect_one(lab, &["a", "d/e/c", "new"], 3, "data");
        sys::rename(lab.at("a"), lab.at("d/moved")).unwrap();
        sys::put(lab.at("other"), b"o").unwrap();
        sys::rename(lab.at("other"), lab.at("d/e/c")).unwrap();
        expect_one(lab, &["d/moved", "new"], 2, "data");
        lab.remount();
        expect_one(lab, &["new", "d/moved"], 2, "data");
        sys::unlink(lab.at("new")).unwrap();
        sys::unlink(lab.at("d/moved")).unwrap();
        lab.expect_paths("d d/e d/e/c fifo fifo2 lone sym sym2");
    });
}

/// Without any copy-up of the data: only names come and go.
#[test]
fn removing_one_name_of_a_lower_file() {
    both(&[LOWER], |lab| {
        sys::unlink(lab.at("a")).unwrap();
        expect_one(lab, &["d/b", "d/e/c"], 2, "data");
        lab.remount();
        expect_one(lab, &["d/e/c", "d/b"], 2, "data");
        sys::append(lab.at("d/b"), b"+").unwrap();
        expect_one(lab, &["d/e/c", "d/b"], 2, "data+");
    });
}

#[test]
fn links_of_every_type_stay_links() {
    both(&[LOWER], |lab| {
        for (one, two) in [("sym", "sym2"), ("fifo", "fifo2")] {
            sys::lchown(lab.at(one), 7, 7).unwrap();
            lab.remount();
            let (a, b) = (
                sys::lstat(lab.at(one)).unwrap(),
                sys::lstat(lab.at(two)).unwrap(),
            );
            assert_eq!((a.ino, a.nlink, a.uid), (b.ino, 2, b.uid), "{one}");
            assert_eq!(b.uid, 7);
        }
    });
}

#[test]
fn an_open_descriptor_of_one_name_sees_the_other() {
    both(&[LOWER], |lab| {
        let old = sys::open(lab.at("a"), libc::O_RDONLY, 0).unwrap();
        sys::overwrite(lab.at("d/b"), 0, b"DATA").unwrap();
        assert_eq!(sys::get_fd(&old).unwrap(), b"DATA");
    });
}

/// `cp -a` copies markers and hard links of one layer may look like those of another.
#[test]
fn equal_numbers_in_two_layers_are_two_objects() {
    let top = "f x top\nh x2 x";
    ours(&[top, "f y low\nh y2 y"], |lab| {
        for name in ["x", "y"] {
            sys::append(lab.at(name), b"+").unwrap();
        }
        expect_one(lab, &["x", "x2"], 2, "top+");
        expect_one(lab, &["y", "y2"], 2, "low+");
    });
}

/// One inode, linked into two lowers: two layers, two objects; a change of one is not one of the other.
#[test]
fn one_inode_in_two_lowers() {
    let mut lab = crate::Lab::new().lower("f x text").lower("d d");
    sys::link(lab.lower_dir(0).join("x"), lab.lower_dir(1).join("y")).unwrap();
    lab = lab.upper("").mount();
    sys::append(lab.at("x"), b"+x").unwrap();
    assert_eq!(sys::text(lab.at("x")), "text+x");
    assert_eq!(sys::text(lab.at("y")), "text");
    lab.remount();
    assert_eq!(sys::text(lab.at("y")), "text");
    sys::append(lab.at("y"), b"+y").unwrap();
    assert_eq!(sys::text(lab.at("x")), "text+x");
    assert_eq!(sys::text(lab.at("y")), "text+y");
}

#[test]
fn the_index_is_on_disk_in_the_kernels_place() {
    both(&[LOWER], |lab| {
        sys::append(lab.at("a"), b"+").unwrap();
        let copy = sys::lstat(lab.in_upper("a")).unwrap().ino;
        let index = lab.work_dir().join("index");
        let entries = sys::list(&index).unwrap();
        assert!(
            entries.iter().any(|entry| entry.ino == copy),
            "{entries:?} lacks inode {copy}"
        );
    });
}

#[test]
fn many_links() {
    both(&["f f x"], |lab| {
        for n in 0..300 {
            sys::link(lab.at("f"), lab.at(format!("l{n}"))).unwrap();
        }
        assert_eq!(sys::lstat(lab.at("l299")).unwrap().nlink, 301);
        for n in 0..300 {
            sys::unlink(lab.at(format!("l{n}"))).unwrap();
        }
        assert_eq!(sys::lstat(lab.at("f")).unwrap().nlink, 1);
    });
}
