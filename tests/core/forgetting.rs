//! What the kernel forgets comes back the same: numbers, hard links, removed objects.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use unionmount::ops::{SetAttr, TimeChange, WhiteoutChoice};

use crate::lab::{Lab, caller};

fn links(dir: &Path) {
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("a"), "text").unwrap();
    fs::hard_link(dir.join("a"), dir.join("d/b")).unwrap();
    fs::hard_link(dir.join("a"), dir.join("c")).unwrap();
    symlink("a", dir.join("l")).unwrap();
}

#[test]
fn numbers_come_back() {
    let lab = Lab::new(WhiteoutChoice::Auto, &[&links]);
    let paths = ["a", "d", "d/b", "c", "l"];
    let before = paths.map(|p| lab.ino(p));
    for path in paths {
        let change = SetAttr {
            mtime: TimeChange::Now,
            ..SetAttr::NONE
        };
        lab.union.setattr(caller(), lab.ino(path), &change).unwrap();
    }
    assert_eq!(paths.map(|p| lab.ino(p)), before);
    lab.forget_all();
    assert_eq!(lab.union.stats().inodes, 1, "only the root is left");
    assert_eq!(paths.map(|p| lab.ino(p)), before);
}

#[test]
fn hard_links_stay_links() {
    let mut lab = Lab::new(WhiteoutChoice::Auto, &[&links]);
    assert_eq!(lab.find("a").unwrap().nlink, 3);
    lab.write("d/b", "changed");
    for round in 0..3 {
        let all = ["a", "d/b", "c"].map(|p| (lab.ino(p), lab.find(p).unwrap().nlink, lab.read(p)));
        assert_eq!(all[0], (lab.ino("c"), 3, "changed".into()), "round {round}");
        assert!(
            all.iter().all(|one| *one == all[0]),
            "round {round}: {all:?}"
        );
        match round {
            0 => lab.forget_all(),
            _ => lab = lab.reopen(),
        }
    }
    lab.unlink("a").unwrap();
    lab.link("c", "e").unwrap();
    lab.unlink("d/b").unwrap();
    lab.forget_all();
    assert_eq!(lab.find("e").unwrap().nlink, 2);
    lab.unlink("c").unwrap();
    lab.unlink("e").unwrap();
    let lab = lab.reopen();
    assert_eq!(lab.list(""), ["d", "l"]);
    assert!(lab.list("d").is_empty());
}

#[test]
fn a_removed_file_is_read_until_it_is_forgotten() {
    let lab = Lab::new(WhiteoutChoice::Auto, &[&links]);
    lab.write("new", "new text");
    let inos = ["new", "l", "d/b"].map(|p| lab.ino(p));
    for path in ["new", "l", "a", "c", "d/b"] {
        lab.unlink(path).unwrap();
    }
    for ino in inos {
        assert_eq!(lab.union.getattr(ino).unwrap().nlink, 0);
    }
    let mut data = Vec::new();
    lab.union.read(inos[0], 0, 100, &mut data).unwrap();
    assert_eq!(data, b"new text");
    assert_eq!(lab.union.readlink(inos[1]).unwrap(), b"a");
    for ino in inos {
        lab.union.forget(ino, 1 << 40);
        assert!(lab.union.getattr(ino).is_err());
    }
    let open = lab.union.stats().descriptors_open;
    assert!(open < 10, "{open} descriptors are still open");
}
