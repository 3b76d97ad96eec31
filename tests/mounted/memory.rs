//! Memory of the daemon: little for each object that the kernel knows, and none for what it forgot.
//!
//! `UNIONMOUNT_MEMORY_FILES=1000000` takes a million files instead of a hundred thousand. The figures
//! are printed: `cargo test --release --test mounted memory -- --nocapture`.

use std::time::{Duration, Instant};

use crate::kit::{Lab, Subject, sys};

const FILES_IN_A_DIRECTORY: usize = 1000;
/// What may stay of a walk through any number of files.
const STAYS: u64 = 32 << 20;
/// For each object that the kernel knows, its entry in a listing included.
const BYTES_EACH: u64 = 300;

fn files() -> usize {
    let given = std::env::var("UNIONMOUNT_MEMORY_FILES").ok();
    given.map_or(100_000, |count| count.parse().unwrap())
}

/// Resident memory of the daemon, in bytes.
fn resident(lab: &Lab) -> u64 {
    let [daemon] = lab.daemons() else {
        panic!("one daemon expected: {:?}", lab.daemons());
    };
    let status = std::fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

fn stat(lab: &Lab, what: &str) -> u64 {
    lab.control("stats")[what].as_u64().unwrap()
}

/// A directory for each thousand files; empty ones, for only their number matters.
fn plant(lab: &Lab, files: usize) {
    for d in 0..files / FILES_IN_A_DIRECTORY {
        let dir = lab.upper_dir().join(format!("directory-{d}"));
        sys::mkdir(&dir, 0o755).unwrap();
        for n in 0..FILES_IN_A_DIRECTORY {
            sys::mknod(
                dir.join(format!("file-number-{n}")),
                libc::S_IFREG | 0o644,
                0,
            )
            .unwrap();
        }
    }
}

/// As find(1) with attributes does.
fn walk(lab: &Lab) -> usize {
    let mut count = 0;
    for dir in sys::names(lab.mnt()) {
        for name in sys::names(lab.at(&dir)) {
            sys::lstat(lab.at(&dir).join(name)).unwrap();
            count += 1;
        }
    }
    count
}

#[test]
fn what_the_kernel_forgets_is_given_back() {
    let subject = Subject::with(&["--cache-size", "1G"]);
    if !subject.is_ours() {
        return;
    }
    let lab = Lab::new().lower("").upper("");
    let files = files();
    plant(&lab, files);
    let lab = lab.mount_as(&subject);
    let start = resident(&lab);
    // Other tests drop the kernel's caches too, perhaps in the middle of a walk.
    let mut tries = 0;
    let known = loop {
        assert_eq!(walk(&lab), files);
        let known = stat(&lab, "inodes");
        if known as usize > files {
            break known;
        }
        tries += 1;
        assert!(tries < 10, "the kernel knows only {known} of {files}");
    };
    let used = resident(&lab) - start;
    let each = used / known;
    println!("{known} inodes: {} KiB, {each} bytes each", used >> 10);
    assert!(
        each <= BYTES_EACH,
        "{each} bytes for each of {known} inodes"
    );

    let end = Instant::now() + Duration::from_secs(60);
    let limit = STAYS.min(used / 2);
    let (known, stays) = loop {
        sys::drop_caches();
        std::thread::sleep(Duration::from_millis(1500));
        let (known, stays) = (stat(&lab, "inodes"), resident(&lab).saturating_sub(start));
        if known < 100 && stays <= limit || Instant::now() > end {
            break (known, stays);
        }
    };
    println!("forgotten: {known} inodes, {} KiB stay", stays >> 10);
    assert!(stays <= limit, "{stays} bytes stay for {known} inodes");
    assert!(known < 100, "{known} inodes are still known");
}

/// A life of an object that leaves nothing behind.
fn come_and_go(lab: &Lab, n: usize) {
    let at = |name: &str| lab.at("d").join(format!("{name}{n}"));
    sys::put(at("file"), b"text").unwrap();
    let open = sys::open(at("file"), libc::O_RDWR, 0).unwrap();
    sys::link(at("file"), at("link")).unwrap();
    sys::rename(at("file"), at("renamed")).unwrap();
    sys::mkdir(at("dir"), 0o755).unwrap();
    sys::symlink("x", at("dir").join("symlink")).unwrap();
    assert_eq!(sys::names(at("dir")), ["symlink"]);
    fails!(sys::lstat(at("missing")), ENOENT);
    sys::unlink(at("dir").join("symlink")).unwrap();
    sys::rename(at("dir"), lab.at("e").join("dir")).unwrap();
    sys::rmdir(lab.at("e").join("dir")).unwrap();
    sys::unlink(at("renamed")).unwrap();
    sys::unlink(at("link")).unwrap();
    assert_eq!(sys::pread(&open, 0, 10).unwrap(), b"text");
}

#[test]
fn nothing_grows_with_uptime() {
    let subject = Subject::default();
    if !subject.is_ours() {
        return;
    }
    let lab = Lab::new().lower("f d/low l").upper("d d\nd e");
    let lab = lab.mount_as(&subject);
    let rounds = files() / 20;
    let counts = || {
        let stats = lab.control("stats");
        ["inodes", "index_entries", "indexes"].map(|what| stats[what].as_u64().unwrap())
    };
    (0..rounds / 4).for_each(|n| come_and_go(&lab, n));
    let (before, start) = (counts(), resident(&lab));
    (rounds..2 * rounds).for_each(|n| come_and_go(&lab, n));
    let (after, end) = (counts(), resident(&lab));
    println!("{rounds} rounds: {before:?} to {after:?}, {start} to {end} bytes");
    for (before, after) in before.into_iter().zip(after) {
        assert!(after <= before + 16, "{before} became {after}");
    }
    assert!(end <= start + (4 << 20), "{start} became {end} bytes");
    assert!(stat(&lab, "descriptors_open") < 1000);
    assert_eq!(sys::names(lab.at("d")), ["low"]);
}
