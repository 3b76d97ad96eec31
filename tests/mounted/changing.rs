//! Layers that others change while they are mounted: never a crash, a hang or somebody else's data;
//! with `--timeout 0` or after `unionmount refresh` what is there now.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::kit::{Lab, Map, Mounts, Subject, plant, snapshot, sys};

const UPPER_LOWER: &str = "
    f d/same same
    f d/grows short
    f d/replaced old
    f d/gone gone
    d d/emptied
    f d/emptied/f x
    f d/becomes-dir x
    d d/becomes-file
    f d/becomes-file/below x
    f edited lower
    l d/link old-target";

const LOWEST: &str = "
    f d/low low
    f other/low low";

/// A union that has seen everything, and that some names are missing.
fn seen(subject: &Subject) -> Lab {
    let lab = Lab::new().lower(UPPER_LOWER).lower(LOWEST).upper("");
    let mut lab = lab.mount_as(subject);
    lab.lowers_may_change();
    sys::append(lab.at("edited"), b"+mine").unwrap();
    lab.tree();
    for missing in [
        "d/new",
        "d/newdir",
        "d/newdir/f",
        "new",
        "d/emptied/low",
        "d/emptied/new",
    ] {
        fails!(sys::lstat(lab.at(missing)), ENOENT);
    }
    lab
}

/// Changes of every kind to both lowers.
fn change(lab: &Lab) {
    let (top, low) = (lab.lower_dir(0), lab.lower_dir(1));
    sys::append(top.join("d/grows"), b" and longer").unwrap();
    sys::put(top.join("aside"), b"entirely new").unwrap();
    sys::rename(top.join("aside"), top.join("d/replaced")).unwrap();
    sys::unlink(top.join("d/gone")).unwrap();
    sys::put(top.join("d/new"), b"new").unwrap();
    plant(&top, "f d/newdir/f f\nf new n");
    sys::unlink(top.join("d/emptied/f")).unwrap();
    // A directory of the lowest layer comes below one that was there alone.
    plant(&low, "f d/emptied/low low");
    sys::unlink(top.join("d/becomes-dir")).unwrap();
    plant(&top, "f d/becomes-dir/inside x");
    sys::remove_tree(top.join("d/becomes-file")).unwrap();
    sys::put(top.join("d/becomes-file"), b"file").unwrap();
    sys::unlink(top.join("d/link")).unwrap();
    sys::symlink("new-target", top.join("d/link")).unwrap();
    sys::unlink(low.join("d/low")).unwrap();
    sys::remove_tree(low.join("other")).unwrap();
}

/// The union shows what a new mount of the layers shows.
#[track_caller]
fn expect_as_mounted_anew(what: &str, lab: &mut Lab) {
    assert_eq!(sys::text(lab.at("d/grows")), "short and longer", "{what}");
    assert_eq!(sys::text(lab.at("d/replaced")), "entirely new", "{what}");
    assert_eq!(sys::text(lab.at("d/new")), "new", "{what}");
    assert_eq!(sys::text(lab.at("edited")), "lower+mine", "{what}");
    let now = lab.tree();
    lab.remount();
    snapshot::assert_same(&format!("{what}, and a new mount"), &now, &lab.tree());
}

#[test]
fn a_refresh_shows_all_changes() {
    if !Subject::default().is_ours() {
        return;
    }
    for arguments in [&[][..], &["--cache-size", "1"]] {
        let mut lab = seen(&Subject::with(arguments));
        change(&lab);
        assert_eq!(
            sys::text(lab.at("d/replaced")),
            "old",
            "seen without a refresh"
        );
        let told = lab.control("refresh");
        assert!(told["directories"].as_u64().unwrap() >= 4, "{told}");
        assert!(told["others"].as_u64().unwrap() >= 5, "{told}");
        expect_as_mounted_anew(&format!("refreshed {arguments:?}"), &mut lab);
    }
}

#[test]
fn without_a_timeout_changes_are_seen_at_once() {
    for arguments in [
        &["--timeout", "0"][..],
        &["--timeout", "0", "--io", "direct"],
    ] {
        let subject = Subject::with(arguments);
        if !subject.is_ours() {
            return;
        }
        let mut lab = seen(&subject);
        change(&lab);
        expect_as_mounted_anew(&format!("{arguments:?}"), &mut lab);
    }
}

/// Only what is named, and what lies below it, is read again.
#[test]
fn a_refresh_of_a_path_leaves_the_rest() {
    if !Subject::default().is_ours() {
        return;
    }
    let text = "f a/f old\nf b/f old\nd c";
    let mut lab = Lab::new().lower(text).upper("").mount();
    lab.lowers_may_change();
    lab.tree();
    fails!(sys::lstat(lab.at("c/late")), ENOENT);
    let lower = lab.lower_dir(0);
    for file in ["a/f", "b/f"] {
        sys::put(lower.join(file), b"newer").unwrap();
    }
    sys::put(lower.join("c/late"), b"late").unwrap();
    let told = lab.control_with("refresh", &["a"]);
    assert_eq!(
        (&told["directories"], &told["others"]),
        (&1.into(), &1.into())
    );
    assert_eq!(sys::text(lab.at("a/f")), "newer");
    assert_eq!(sys::text(lab.at("b/f")), "old");
    lab.control_with("refresh", &["b/f"]);
    assert_eq!(sys::text(lab.at("b/f")), "newer");
    // A name that is missing so far, by its whole path.
    lab.control_with("refresh", &[lab.at("c/late").to_str().unwrap()]);
    assert_eq!(sys::text(lab.at("c/late")), "late");
}

#[test]
fn open_files_survive_a_refresh() {
    if !Subject::default().is_ours() {
        return;
    }
    let text = "f gone pattern=10000\nf replaced pattern=10000\nf written text";
    let mut lab = Lab::new().lower(text).upper("").mount();
    lab.lowers_may_change();
    let lower = lab.lower_dir(0);
    let open = |name: &str| sys::open(lab.at(name), libc::O_RDONLY, 0).unwrap();
    let files = ["gone", "replaced"].map(open);
    let before = files.each_ref().map(|fd| sys::get_fd(fd).unwrap());
    let map = Map::new(&files[0], 10000, libc::PROT_READ, libc::MAP_PRIVATE).unwrap();
    let writer = sys::open(lab.at("written"), libc::O_RDWR, 0).unwrap();
    sys::pwrite(&writer, 0, b"T").unwrap();
    sys::unlink(lower.join("gone")).unwrap();
    sys::put(lower.join("aside"), b"other").unwrap();
    sys::rename(lower.join("aside"), lower.join("replaced")).unwrap();
    lab.control("refresh");
    for (fd, before) in files.iter().zip(&before) {
        assert!(sys::pread(fd, 0, 20000).unwrap() == *before);
    }
    assert!(map.bytes() == &before[0][..]);
    sys::pwrite(&writer, 1, b"E").unwrap();
    assert_eq!(sys::text(lab.at("written")), "TExt");
    fails!(sys::lstat(lab.at("gone")), ENOENT);
    assert_eq!(sys::text(lab.at("replaced")), "other");
    drop((map, files, writer));
}

/// Other filesystems that are mounted inside the union stay mounted.
#[test]
fn mounts_inside_the_union_survive_a_refresh() {
    if !Subject::default().is_ours() {
        return;
    }
    let lab = Lab::new().lower("d d/e\nf f x").upper("").mount();
    let mut mounts = Mounts::new();
    let other = mounts.path("other");
    plant(&other, "f inner x");
    mounts.bind(&other, &lab.at("d/e"));
    lab.control("refresh");
    assert_eq!(sys::names(lab.at("d/e")), ["inner"]);
    assert!(sys::is_mounted(lab.at("d/e")));
    drop(mounts);
    assert_eq!(sys::names(lab.at("d/e")), [""; 0]);
}

/// ext4 gives the number of a removed file to the next one, of whatever kind.
#[test]
fn a_number_that_is_used_again_is_another_object() {
    let put: fn(&Path) = |at| sys::put(at, b"second").unwrap();
    let mkdir: fn(&Path) = |at| sys::mkdir(at, 0o755).unwrap();
    let link: fn(&Path) = |at| sys::symlink("target", at).unwrap();
    for arguments in [&[][..], &["--timeout", "0"]] {
        for (name, make) in [
            ("b", put),
            ("a", put),
            ("dir", mkdir),
            ("a", mkdir),
            ("a", link),
        ] {
            let subject = Subject::with(arguments);
            if subject.is_ours() {
                use_a_number_again(&subject, name, make);
            }
        }
    }
}

fn use_a_number_again(subject: &Subject, name: &str, make: fn(&Path)) {
    // Nobody else makes anything here.
    let mut mounts = Mounts::new();
    let fs = mounts.format(&["mkfs.ext4", "-q", "-F"], 16, "fs");
    let mut lab = Lab::within(&fs)
        .lower("f a first\nf x x")
        .upper("")
        .mount_as(subject);
    lab.lowers_may_change();
    // Opened, but not read: the daemon would hold the file, and its number with it.
    let open = sys::open(lab.at("a"), libc::O_RDONLY, 0).unwrap();
    let old = sys::fstat(&open).unwrap().ino;
    let (gone, new) = (lab.lower_dir(0).join("a"), lab.lower_dir(0).join(name));
    let number = sys::lstat(&gone).unwrap().ino;
    sys::unlink(&gone).unwrap();
    make(&new);
    assert_eq!(
        sys::lstat(&new).unwrap().ino,
        number,
        "ext4 has changed: of no use"
    );
    let stale = crate::kit::Errno(libc::ESTALE);
    let gone = crate::kit::Errno(libc::ENOENT);
    for _ in 0..2 {
        match sys::pread(&open, 0, 99) {
            Ok(data) => assert_eq!(data, b"first"),
            Err(e) => assert!(e == stale || e == gone, "{e:?}"),
        }
        lab.control("refresh");
        let now = sys::lstat(lab.at(name)).unwrap();
        assert_ne!(now.ino, old, "{name} is taken for what had its number");
        assert_eq!(now.kind(), sys::lstat(&new).unwrap().kind());
        if now.is_file() {
            assert_eq!(sys::text(lab.at(name)), "second");
        }
        lab.tree();
    }
    drop(open);
}

/// As who writes a file and then gives it its name: what was seen under the old name is found under the new
/// one, also when the old one is another file's by then.
#[test]
fn what_is_renamed_in_a_lower_is_found_at_its_new_name() {
    for arguments in [&["--timeout", "0"][..], &["--io", "direct"], &[]] {
        let subject = Subject::with(arguments);
        if !subject.is_ours() {
            return;
        }
        let mut lab = Lab::new()
            .lower("f a.tmp text user.own=1")
            .upper("")
            .mount_as(&subject);
        lab.lowers_may_change();
        sys::lstat(lab.at("a.tmp")).unwrap();
        let lower = lab.lower_dir(0);
        for again in [false, true] {
            if again {
                sys::put(lower.join("a.tmp"), b"other").unwrap();
                sys::setxattr(lower.join("a.tmp"), "user.other", b"1", 0).unwrap();
            } else {
                sys::rename(lower.join("a.tmp"), lower.join("a")).unwrap();
            }
            lab.control("refresh");
            sys::lstat(lab.at("a")).unwrap();
            assert_eq!(
                sys::listxattr(lab.at("a")).unwrap(),
                [b"user.own"],
                "{arguments:?}"
            );
            assert_eq!(sys::text(lab.at("a")), "text", "{arguments:?}");
        }
        assert_eq!(sys::text(lab.at("a.tmp")), "other", "{arguments:?}");
        assert_eq!(
            sys::listxattr(lab.at("a.tmp")).unwrap(),
            [b"user.other"],
            "{arguments:?}"
        );
    }
}

/// Somebody keeps changing the lowers, others work in the union, and now and then it is refreshed.
/// What a file holds always begins with its own name, and everything ends.
#[test]
fn a_lower_in_motion_never_shows_one_file_under_another_name() {
    for (arguments, refresh) in [
        (&[][..], false),
        (&[], true),
        (&["--timeout", "0"], false),
        (&["--io", "direct"], true),
    ] {
        let subject = Subject::with(arguments);
        if !subject.is_ours() {
            return;
        }
        let mut lab = Lab::new().lower("d d").lower("d d\nf d/low low").upper("");
        lab = lab.mount_as(&subject);
        lab.lowers_may_change();
        let (stop, end) = (
            AtomicBool::new(false),
            Instant::now() + Duration::from_secs(3),
        );
        let (lab_ref, stop_ref) = (&lab, &stop);
        std::thread::scope(|threads| {
            for seed in 0..2 {
                let lower = lab_ref.lower_dir(seed % 2).join("d");
                threads.spawn(move || move_about(&lower, seed, stop_ref));
            }
            let readers: Vec<_> = (0..3)
                .map(|seed| {
                    let dir = lab_ref.at("d");
                    threads.spawn(move || read_all(&dir, seed, stop_ref))
                })
                .collect();
            while Instant::now() < end && !readers.iter().any(|r| r.is_finished()) {
                if refresh {
                    lab_ref.control("refresh");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(lab.control("stats")["panics"], 0, "{arguments:?}");
        lab.control("refresh");
        let now = lab.tree();
        lab.remount();
        snapshot::assert_same(&format!("{arguments:?}: at rest"), &now, &lab.tree());
    }
}

/// Makes, replaces, truncates, renames and removes files and directories.
fn move_about(dir: &Path, seed: usize, stop: &AtomicBool) {
    let mut n = seed;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("n{}", n * 7 % 20);
        let at = dir.join(&name);
        // Most of these fail now and then, for the name is of another kind.
        let done = match n % 6 {
            0 => sys::put(&at, format!("{name} {}", "x".repeat(n % 9000)).as_bytes()),
            1 => sys::unlink(&at),
            2 => sys::put(at.with_extension("tmp"), format!("{name} again").as_bytes())
                .and_then(|()| sys::rename(at.with_extension("tmp"), &at)),
            3 => sys::mkdir(&at, 0o755),
            4 => sys::rmdir(&at),
            _ => sys::truncate(&at, 3),
        };
        done.ok();
    }
}

/// Reads whatever there is. Errors are no wonder; other data than the file's own would be.
fn read_all(dir: &Path, seed: usize, stop: &AtomicBool) {
    let mut n = seed;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("n{}", n % 20);
        if let Ok(data) = sys::get(dir.join(&name)) {
            let own = format!("{name} ");
            // Truncated to less, or in the middle of being written.
            let head = &data[..data.len().min(own.len()).min(3)];
            let zeros = head.iter().all(|b| *b == 0);
            assert!(
                zeros || own.as_bytes().starts_with(head),
                "{name} holds {:?}",
                String::from_utf8_lossy(&data[..data.len().min(20)])
            );
        }
        if n.is_multiple_of(50) {
            sys::list(dir).ok();
        }
    }
}
