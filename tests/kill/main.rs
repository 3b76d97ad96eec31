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
