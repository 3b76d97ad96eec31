//! The daemon is killed (SIGKILL) at random moments while others write: what they were told is done
//! is there after the next mount, what they had asked for is there whole or not at all, and nothing else.
//!
//! `UNIONMOUNT_KILLS` sets how often the daemon of each test is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../kit/mod.rs"]
mod kit;

mod ledger;
mod programs;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kit::{Lab, Subject, sys};
use ledger::Tree;
use writer::{Durability, Writer};

const WRITERS: usize = 4;

/// How often the daemon of a test is killed.
fn kills(default: usize) -> usize {
    let asked = std::env::var("UNIONMOUNT_KILLS").ok();
    asked.map_or(default, |n| {
        n.parse().expect("UNIONMOUNT_KILLS is a number")
    })
}

/// Kills the processes that serve the lab's mount, and takes the dead mount away.
fn kill_daemon(lab: &mut Lab) {
    for &pid in lab.daemons() {
        sys::kill(pid, libc::SIGKILL).unwrap();
    }
    lab.umount();
    lab.expect_nothing_wrong();
}

#[test]
fn writers_find_what_they_were_told_is_done() {
    kill_under_writers(&[], Durability::Acknowledged, kills(80));
}

#[test]
fn with_writeback_they_find_what_they_synced() {
    kill_under_writers(&["--writeback"], Durability::Synced, kills(40));
}

#[test]
fn deletions_as_attributes_are_as_safe() {
    kill_under_writers(
        &["--whiteout", "xattr"],
        Durability::Acknowledged,
        kills(30),
    );
}

#[test]
fn metadata_only_copies_are_as_safe() {
    kill_under_writers(&["--metacopy", "on"], Durability::Acknowledged, kills(30));
}

/// In the middle of copying the data of a file whose attributes alone were copied up before.
#[test]
fn killed_while_data_follows_a_metadata_only_copy() {
    let size = 24 << 20;
    let mut random = fastrand::Rng::new();
    let mut lab = Lab::new().lower(&format!("f f pattern={size}")).upper("");
    let want = sys::get(lab.lower_dir(0).join("f")).unwrap();
    let marker = "trusted.overlay.metacopy";
    let mut interrupted = 0;
    for round in 0..kills(12) {
        lab = lab.mount_as(&Subject::ours(&["--metacopy", "on"]));
        sys::chmod(lab.at("f"), 0o600).unwrap();
        assert!(sys::getxattr(lab.in_upper("f"), marker).is_ok());
        let killed = AtomicBool::new(false);
        let patience = Duration::from_micros(random.u64(0..25_000));
        let appended = std::thread::scope(|scope| {
            let (path, killed) = (lab.at("f"), &killed);
            let writer = scope.spawn(move || match sys::append(path, b"!") {
                Err(errno) if !killed.load(Ordering::SeqCst) => panic!("{errno:?}"),
                done => done.is_ok(),
            });
            std::thread::sleep(patience);
            killed.store(true, Ordering::SeqCst);
            kill_daemon(&mut lab);
            writer.join().unwrap()
        });
        interrupted += usize::from(!appended);
        lab.remount_as(&Subject::KernelWith(
            "metacopy=on,redirect_dir=on,index=on,xino=on".to_owned(),
        ));
        let found = sys::get(lab.at("f")).unwrap();
        let (data, more) = found.split_at(size);
        assert!(data == want, "round {round}: {appended}");
        assert!(
            more == b"!" || (more.is_empty() && !appended),
            "round {round}"
        );
        lab.umount();
        // And from the start.
        for dir in [lab.upper_dir(), lab.work_dir()] {
            sys::remove_tree(&dir).unwrap();
            sys::mkdir(&dir, 0o755).unwrap();
        }
    }
    assert!(interrupted > 0, "no copy was interrupted");
}

fn kill_under_writers(arguments: &[&str], durability: Durability, rounds: usize) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lab = Lab::new().lower("").upper("");
    let mut trees: Vec<Tree> = (0..WRITERS)
        .map(|n| Tree::plant(&lab.lower_dir(0).join(format!("w{n}"))))
        .collect();
    let subject = Subject::ours(arguments);
    let halfway = arguments.contains(&"xattr");
    lab = lab.mount_as(&subject);
    let mut done = 0;
    for round in 0..rounds {
        done += one_round(&mut lab, &mut trees, &mut random, durability);
        // Once in a while the kernel has a say on what is left.
        let judge = if round % 10 == 9 && lab.subject().is_ours() && arguments.is_empty() {
            Subject::Kernel
        } else {
            subject.clone()
        };
        lab.try_mount_as(&judge)
            .unwrap_or_else(|why| panic!("round {round}: {why}"));
        for (n, tree) in trees.iter_mut().enumerate() {
            tree.settle(&lab.at(format!("w{n}")), halfway)
                .unwrap_or_else(|why| panic!("seed {seed}, round {round}, writer {n}: {why}"));
        }
        let left = sys::names(lab.work_dir().join("work"));
        assert!(
            left.len() <= 1,
            "round {round}: left in the workdir: {left:?}"
        );
        lab.remount_as(&subject);
    }
    // A test in which nothing happens between the kills would show nothing.
    assert!(
        done > rounds * WRITERS,
        "only {done} changes in {rounds} rounds"
    );
    eprintln!("{done} changes, {rounds} kills");
}

/// Lets the writers work until the daemon is killed; answers how many changes were acknowledged.
fn one_round(
    lab: &mut Lab,
    trees: &mut [Tree],
    random: &mut fastrand::Rng,
    durability: Durability,
) -> usize {
    let killed = AtomicBool::new(false);
    let root = lab.mnt();
    let patience = Duration::from_micros(random.u64(3_000..90_000));
    std::thread::scope(|scope| {
        let writers: Vec<_> = trees
            .iter_mut()
            .enumerate()
            .map(|(n, tree)| {
                let writer = Writer::new(root.join(format!("w{n}")), random.fork(), durability);
                let killed = &killed;
                scope.spawn(move || writer.work(tree, killed))
            })
            .collect();
        std::thread::sleep(patience);
        // Said before it is done: from here on any error may be that of the kill.
        killed.store(true, Ordering::SeqCst);
        kill_daemon(lab);
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    })
}
