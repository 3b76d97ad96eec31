//! Two at once on the same objects, where the wrong order once gave a wrong answer, and a daemon that
//! has few descriptors.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use crate::kit::{Lab, Subject, sys};

const ORDER: Ordering = Ordering::SeqCst;

/// The path of what a descriptor is open on, so that a name can be used below it.
fn below(dir: &OwnedFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

/// One inode in two lowers is two objects, also when both are met at the same moment.
#[test]
fn one_inode_in_two_lowers_met_at_once() {
    const COUNT: usize = 1000;
    let lab = Lab::new().lower("d d").lower("d e").upper("");
    let names = |n: usize| [format!("d/f{n}"), format!("e/g{n}")];
    for n in 0..COUNT {
        let [f, g] = names(n);
        sys::put(lab.lower_dir(0).join(&f), b"").unwrap();
        sys::link(lab.lower_dir(0).join(f), lab.lower_dir(1).join(g)).unwrap();
    }
    let lab = lab.mount();
    // With both directories known, the two requests below are the first ones of their pairs.
    for name in ["d/none", "e/none"] {
        fails!(sys::lstat(lab.at(name)), ENOENT);
    }
    let turns = [AtomicUsize::new(0), AtomicUsize::new(0)];
    std::thread::scope(|scope| {
        for me in 0..2 {
            let (lab, turns) = (&lab, &turns);
            scope.spawn(move || {
                for n in 0..COUNT {
                    turns[me].store(n + 1, ORDER);
                    while turns[1 - me].load(ORDER) <= n {
                        std::hint::spin_loop();
                    }
                    sys::lstat(lab.at(&names(n)[me])).unwrap();
                }
            });
        }
    });
    let mut seen = std::collections::HashMap::new();
    for name in (0..COUNT).flat_map(names) {
        let ino = sys::lstat(lab.at(&name)).unwrap().ino;
        if let Some(other) = seen.insert(ino, name.clone()) {
            panic!("{name} and {other} are both inode {ino}");
        }
    }
}

/// What is made through a held directory lands in that one, wherever it is just now; also when the
/// daemon must find it again by its path.
#[test]
fn directories_exchanged_while_files_are_made_in_them() {
    const COUNT: usize = 100;
    const ROUNDS: usize = 12;
    let mut upper = String::new();
    for n in 0..COUNT {
        for side in ["a", "b"] {
            upper += &format!("f {side}{n}/me {side}{n}\nf {side}{n}/sub/x x\n");
        }
    }
    for subject in [Subject::default(), Subject::Cramped(256)] {
        let mut lab = Lab::new().lower("d low").upper(&upper).mount_as(&subject);
        exchange_and_make(&lab, COUNT, ROUNDS);
        expect_own_files(&lab, COUNT, ROUNDS);
        lab.remount();
        expect_own_files(&lab, COUNT, ROUNDS);
    }
}

fn exchange_and_make(lab: &Lab, count: usize, rounds: usize) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let name = |k: usize| format!("{}{}", ["a", "b"][k % 2], k / 2);
    let open = |name: String| sys::open(lab.at(name), flags, 0).unwrap();
    let dirs: Vec<OwnedFd> = (0..2 * count).map(|k| open(name(k))).collect();
    let subs: Vec<OwnedFd> = (0..2 * count).map(|k| open(name(k) + "/sub")).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..count).cycle() {
                let (a, b) = (lab.at(name(2 * n)), lab.at(name(2 * n + 1)));
                sys::rename2(a, b, libc::RENAME_EXCHANGE).unwrap();
                if done.load(ORDER) {
                    return;
                }
            }
        });
        let outcome = std::panic::catch_unwind(|| {
            for round in 0..rounds {
                for (k, (dir, sub)) in dirs.iter().zip(&subs).enumerate() {
                    let own = name(k);
                    sys::put(below(dir, &format!("new{round}")), own.as_bytes())
                        .unwrap_or_else(|e| panic!("a file in {own}: {e:?}"));
                    sys::mkdir(below(dir, &format!("{own}-{round}")), 0o700)
                        .unwrap_or_else(|e| panic!("a directory in {own}: {e:?}"));
                    sys::lstat(below(sub, "x")).unwrap_or_else(|e| panic!("{own}/sub/x: {e:?}"));
                    fails!(sys::lstat(below(sub, &format!("none{round}"))), ENOENT);
                }
            }
        });
        done.store(true, ORDER);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn expect_own_files(lab: &Lab, count: usize, rounds: usize) {
    for n in 0..count {
        for side in ["a", "b"] {
            let at = lab.at(format!("{side}{n}"));
            let own = sys::text(at.join("me"));
            for round in 0..rounds {
                let new = at.join(format!("new{round}"));
                assert_eq!(sys::text(&new), own, "{} of {own}", new.display());
                let dir = at.join(format!("{own}-{round}"));
                assert!(sys::exists(&dir), "{} is missing", dir.display());
            }
            assert_eq!(sys::names(&at).len(), 2 * rounds + 2, "{own}");
        }
    }
}

/// stat, a forced statx on an old descriptor, and reading, while the file is copied up.
#[test]
fn files_looked_at_while_they_are_copied_up() {
    const COUNT: usize = 600;
    for linked in [false, true] {
        let lab = Lab::new().lower("d d\nd e").upper("");
        let changed = |n: usize| format!("d/f{n}");
        let other = |n: usize| match linked {
            true => format!("e/g{n}"),
            false => changed(n),
        };
        for n in 0..COUNT {
            sys::put(lab.lower_dir(0).join(changed(n)), b"lower").unwrap();
            if linked {
                let at = lab.lower_dir(0);
                sys::link(at.join(changed(n)), at.join(other(n))).unwrap();
            }
        }
        let lab = lab.mount();
        let turn = AtomicUsize::new(0);
        let watch = |look: &(dyn Fn(usize) + Sync)| {
            loop {
                match turn.load(ORDER) {
                    COUNT => break,
                    n => look(n),
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                watch(&|n| {
                    let st = sys::stat(lab.at(other(n)));
                    st.unwrap_or_else(|e| panic!("stat {}: {e:?}", other(n)));
                });
            });
            scope.spawn(|| watch(&|n| assert_eq!(sys::text(lab.at(other(n))), "lower")));
            scope.spawn(|| watch(&|n| force_statx(&lab, &other(n))));
            for n in 0..COUNT {
                turn.store(n, ORDER);
                std::thread::yield_now();
                let done = sys::chmod(lab.at(changed(n)), 0o600);
                // Set before anything can panic: the others wait for it.
                if done.is_err() || n + 1 == COUNT {
                    turn.store(COUNT, ORDER);
                }
                done.unwrap_or_else(|e| panic!("chmod {}: {e:?}", changed(n)));
            }
        });
        for n in 0..COUNT {
            expect_one_object(&lab, &changed(n), &other(n));
        }
    }
}

fn force_statx(lab: &Lab, name: &str) {
    let fd = sys::open(lab.at(name), libc::O_PATH, 0).unwrap();
    let flags = rustix::fs::AtFlags::EMPTY_PATH | rustix::fs::AtFlags::STATX_FORCE_SYNC;
    for _ in 0..20 {
        let stat = rustix::fs::statx(&fd, "", flags, rustix::fs::StatxFlags::ALL);
        stat.unwrap_or_else(|e| panic!("statx {name}: {e:?}"));
    }
}

fn expect_one_object(lab: &Lab, changed: &str, other: &str) {
    let [one, two] = [changed, other].map(|name| sys::lstat(lab.at(name)).unwrap());
    assert_eq!((one.ino, one.perm()), (two.ino, 0o600), "{other}");
    assert_eq!(one, two, "{other}");
    sys::append(lab.at(changed), b"+more").unwrap();
    assert_eq!(sys::text(lab.at(other)), "lower+more", "{other}");
}

/// More seeks at once than the daemon has threads, each of which makes the kernel write out first.
#[test]
fn seeking_for_data_in_many_dirty_files_at_once() {
    const COUNT: usize = 200;
    let mut lower = String::new();
    for n in 0..COUNT {
        lower += &format!("f f{n} size=8192 at=4096:x\n");
    }
    let lab = Lab::new()
        .lower(&lower)
        .upper("")
        .mount_as(&Subject::with(&["--writeback"]));
    // Half of them are in the upper already.
    for n in (0..COUNT).step_by(2) {
        sys::chmod(lab.at(format!("f{n}")), 0o600).unwrap();
    }
    let barrier = Arc::new(Barrier::new(COUNT));
    let (tell, told) = mpsc::channel();
    for n in 0..COUNT {
        let fd = sys::open(lab.at(format!("f{n}")), libc::O_RDWR, 0).unwrap();
        let (barrier, tell) = (Arc::clone(&barrier), tell.clone());
        // Not scoped: a call that hangs must not keep the test from failing.
        std::thread::spawn(move || {
            let written = sys::pwrite(&fd, 100, b"y");
            barrier.wait();
            tell.send((written, sys::lseek(&fd, 0, libc::SEEK_DATA)))
        });
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    for n in 0..COUNT {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let (written, found) = told
            .recv_timeout(left)
            .unwrap_or_else(|_| panic!("{n} of {COUNT} seeks returned within 30 s"));
        assert_eq!(written, Ok(1));
        assert!(matches!(found, Ok(0..=4096)), "data at {found:?}");
    }
}

/// Files that were written are kept open for a while; never so many that nothing else can be.
#[test]
fn three_thousand_written_files_and_a_thousand_descriptors() {
    let limit = 1024;
    let lab = Lab::new().lower("d d").upper("");
    for n in 0..1000 {
        sys::put(lab.lower_dir(0).join(format!("d/low{n}")), b"low").unwrap();
    }
    let lab = lab.mount_as(&Subject::Cramped(limit));
    let check = |n: usize| {
        let open = lab.control("stats")["descriptors_open"].as_u64().unwrap();
        assert!(open < u64::from(limit), "{open} open after {n} files");
        let daemon = lab.daemons()[0];
        let real = std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap();
        assert!(real.count() < limit as usize);
    };
    for n in 0..3000 {
        let at = lab.at(format!("d/new{n}"));
        sys::put(&at, b"text").unwrap_or_else(|e| panic!("file {n}: {e:?}"));
        if n < 1000 {
            let low = lab.at(format!("d/low{n}"));
            sys::append(low, b"+").unwrap_or_else(|e| panic!("lower file {n}: {e:?}"));
        }
        if n % 250 == 0 {
            check(n);
        }
    }
    check(3000);
    for n in 0..3000 {
        assert_eq!(sys::text(lab.at(format!("d/new{n}"))), "text");
    }
}
