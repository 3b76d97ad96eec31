//! Listing: merged, huge, interrupted, sought in, and while names come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use crate::kit::sys::{self, Dirent};
use crate::kit::{Lab, Subject, plant};
use crate::{both, ours};

fn open_dir(lab: &Lab, path: &str) -> OwnedFd {
    sys::open(lab.at(path), libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap()
}

fn name_set(entries: &[Dirent]) -> BTreeSet<Vec<u8>> {
    entries.iter().map(|entry| entry.name.clone()).collect()
}

#[test]
fn a_merged_directory_shows_each_name_once() {
    both(
        &[
            "f d/a 1\nf d/both 1\nw d/gone",
            "f d/b 2\nd d/both",
            "f d/c 3\nf d/both 3\nf d/gone x",
        ],
        |lab| {
            assert_eq!(lab.ls("d"), ["a", "b", "both", "c"]);
            let all = sys::list_fd(&open_dir(lab, "d")).unwrap();
            assert_eq!(all.len(), 6, "with . and ..");
            sys::put(lab.at("d/new"), b"n").unwrap();
            sys::unlink(lab.at("d/b")).unwrap();
            assert_eq!(lab.ls("d"), ["a", "both", "c", "new"]);
        },
    );
}

#[test]
fn dots_have_the_right_numbers() {
    ours(&["f d/e/x 1", "f d/e/y 2"], |lab| {
        let ino = |path: &str| sys::lstat(lab.at(path)).unwrap().ino;
        for (dir, parent) in [("d", ""), ("d/e", "d")] {
            let all = sys::list_fd(&open_dir(lab, dir)).unwrap();
            let find = |name: &[u8]| all.iter().find(|entry| entry.name == name).unwrap();
            assert_eq!(find(b".").ino, ino(dir), "{dir}/.");
            assert_eq!(find(b"..").ino, ino(parent), "{dir}/..");
            assert_eq!(
                (find(b".").kind, find(b"..").kind),
                (libc::DT_DIR, libc::DT_DIR)
            );
        }
    });
}

fn hundred_thousand(subject: &Subject) -> Lab {
    let lab = Lab::new().lower("d many").lower("d many");
    for n in 0..100_000 {
        let layer = lab.lower_dir(n % 2);
        sys::mknod(
            layer.join(format!("many/name-of-file-{n}")),
            libc::S_IFREG | 0o644,
            0,
        )
        .unwrap();
    }
    lab.upper("").mount_as(subject)
}

#[test]
fn a_directory_of_100_000_names() {
    for subject in Subject::and_kernel() {
        let lab = hundred_thousand(&subject);
        let fd = open_dir(&lab, "many");
        let all = sys::list_fd(&fd).unwrap();
        assert_eq!(all.len(), 100_002);
        assert_eq!(name_set(&all).len(), 100_002, "a name twice");
        sys::put(lab.at("many/new"), b"").unwrap();
        sys::unlink(lab.at("many/name-of-file-5")).unwrap();
        sys::unlink(lab.at("many/name-of-file-6")).unwrap();
        fails!(sys::lstat(lab.at("many/name-of-file-5")), ENOENT);
        sys::lseek(&fd, 0, libc::SEEK_SET).unwrap();
        assert_eq!(sys::list_fd(&fd).unwrap().len(), 100_001);
        // rm -r lists while it removes.
        sys::remove_tree(lab.at("many")).unwrap();
        fails!(sys::lstat(lab.at("many")), ENOENT);
    }
}

#[test]
fn seeking_to_every_place() {
    let names: String = (0..500).map(|n| format!("f d/n{n}\n")).collect();
    both(&[&names, "f d/low"], |lab| {
        let fd = open_dir(lab, "d");
        let mut all = Vec::new();
        loop {
            // A small buffer: the kernel asks for many parts.
            let part = sys::getdents(&fd, 200).unwrap();
            if part.is_empty() {
                break;
            }
            all.extend(part);
        }
        assert_eq!(name_set(&all).len(), 503);
        assert_eq!(all.len(), 503);
        for n in [0, 1, 2, 77, 250, 499, 501] {
            sys::lseek(&fd, all[n].offset, libc::SEEK_SET).unwrap();
            let rest = sys::list_fd(&fd).unwrap();
            let want: Vec<&Vec<u8>> = all[n + 1..].iter().map(|entry| &entry.name).collect();
            let have: Vec<&Vec<u8>> = rest.iter().map(|entry| &entry.name).collect();
            assert_eq!(have, want, "after entry {n}");
        }
    });
}

/// A place stays valid whatever is created or removed meanwhile, and whatever the daemon forgets.
#[test]
fn a_place_survives_changes() {
    let names: String = (0..300).map(|n| format!("f d/n{n}\n")).collect();
    ours(&[&names, "f d/low"], |lab| {
        let fd = open_dir(lab, "d");
        let first = sys::getdents(&fd, 4000).unwrap();
        let seen = name_set(&first);
        for n in 0..200 {
            sys::put(lab.at(format!("d/new{n}")), b"").unwrap();
        }
        let victim = first
            .iter()
            .find(|entry| entry.name.starts_with(b"n"))
            .unwrap();
        sys::unlink(lab.at("d").join(std::str::from_utf8(&victim.name).unwrap())).unwrap();
        sys::drop_caches();
        let rest = sys::list_fd(&fd).unwrap();
        let mut count: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for entry in first.iter().chain(&rest) {
            *count.entry(entry.name.clone()).or_default() += 1;
        }
        for n in 0..300 {
            assert_eq!(
                count.get(format!("n{n}").as_bytes()),
                Some(&1),
                "n{n} ({})",
                seen.len()
            );
        }
    });
}

/// Readers list all the time while others create and remove: every name that stays is seen exactly
/// once by each scan.
#[test]
fn stable_names_are_seen_once_while_others_change() {
    let stable: String = (0..1000).map(|n| format!("f d/stable{n}\n")).collect();
    for subject in Subject::modes() {
        crate::on(&[subject], &[&stable, "f d/low"], true, |lab| {
            let done = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                let (dir, done) = (lab.at("d"), &done);
                scope.spawn(move || {
                    for n in 0..1500 {
                        let at = dir.join(format!("new{}", n % 100));
                        if sys::exists(&at) {
                            sys::unlink(&at).unwrap();
                        } else {
                            sys::put(&at, b"").unwrap();
                        }
                    }
                    done.store(true, std::sync::atomic::Ordering::Relaxed);
                });
                let lab = &*lab;
                scope.spawn(move || {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        check_scan(lab);
                    }
                });
            });
            check_scan(lab);
        });
    }
}

fn check_scan(lab: &Lab) {
    let fd = open_dir(lab, "d");
    let mut count: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    loop {
        let part = sys::getdents(&fd, 2000).unwrap();
        if part.is_empty() {
            break;
        }
        for entry in part
            .into_iter()
            .filter(|entry| entry.name.starts_with(b"stable"))
        {
            *count.entry(entry.name).or_default() += 1;
        }
    }
    let wrong: Vec<String> = (0..1000)
        .map(|n| format!("stable{n}"))
        .filter(|name| count.get(name.as_bytes()) != Some(&1))
        .collect();
    assert!(wrong.is_empty(), "not seen exactly once: {wrong:?}");
}

#[test]
fn removing_while_listing() {
    let names: String = (0..2000).map(|n| format!("f d/n{n}\n")).collect();
    both(&[&names, "f d/low\nf d/sub/x"], |lab| {
        let fd = open_dir(lab, "d");
        let mut removed = 0;
        loop {
            let part = sys::getdents(&fd, 1000).unwrap();
            if part.is_empty() {
                break;
            }
            for entry in part.iter().filter(|entry| entry.kind == libc::DT_REG) {
                let name = std::str::from_utf8(&entry.name).unwrap();
                sys::unlink(lab.at("d").join(name)).unwrap();
                removed += 1;
            }
        }
        assert_eq!(removed, 2001);
        assert_eq!(lab.ls("d"), ["sub"]);
        let status = std::process::Command::new("rm")
            .arg("-rf")
            .arg(lab.at("d"))
            .status()
            .unwrap();
        assert!(status.success());
        lab.expect_paths("");
    });
}

/// A name that is created after the listing was read, or was missed before, is found.
#[test]
fn a_missed_name_appears_when_it_is_made() {
    both(&["d d"], |lab| {
        for n in 0..50 {
            let at = lab.at(format!("d/{n}"));
            fails!(sys::lstat(&at), ENOENT);
            match n % 5 {
                0 => sys::put(&at, b"x").unwrap(),
                1 => sys::mkdir(&at, 0o700).unwrap(),
                2 => sys::symlink("x", &at).unwrap(),
                3 => sys::link(lab.at("d/0"), &at).unwrap(),
                _ => sys::rename(lab.at(format!("d/{}", n - 1)), &at).unwrap(),
            }
            assert!(sys::exists(&at), "{n}");
        }
    });
}

#[test]
fn a_layer_is_listed_as_it_was_given() {
    let lab = Lab::new().lower("d d");
    for n in 0..3000 {
        plant(&lab.lower_dir(0), &format!("l d/{n} x"));
    }
    let lab = lab.upper("").mount();
    let entries = sys::list(lab.at("d")).unwrap();
    assert_eq!(entries.len(), 3000);
    assert!(entries.iter().all(|entry| entry.kind == libc::DT_LNK));
}

/// A name that is there before a listing begins, and stays, is in it, however many others read and change
/// the directory meanwhile. (The kernel goes on in the pages of a listing that another process has read.)
#[test]
fn who_makes_a_name_finds_it_in_the_next_listing() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 120;
    for subject in Subject::modes() {
        let mut lab = Lab::new().lower("").upper("");
        // Enough for several replies.
        for n in 0..600 {
            let name = format!("{}{n}", "a".repeat(60));
            sys::put(lab.lower_dir(0).join(name), b"").unwrap();
        }
        lab.lowers_may_change();
        lab.remount_as(&subject);
        let missing: usize = std::thread::scope(|scope| {
            let work = |thread: usize| {
                let at = |n: usize| lab.at(format!("own{thread}-{n}"));
                let mut missing = 0;
                for n in 0..ROUNDS {
                    sys::put(at(n), b"").unwrap();
                    let name = format!("own{thread}-{n}");
                    missing += usize::from(!sys::names(lab.mnt()).contains(&name));
                    if n > 2 {
                        sys::unlink(at(n - 3)).unwrap();
                    }
                }
                missing
            };
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || work(n))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(missing, 0, "{subject:?}: of {} listings", THREADS * ROUNDS);
    }
}
