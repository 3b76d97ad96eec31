//! Many processes at once, each with random work in a part of the tree and all in a shared one; then the
//! whole tree is what the same work comes to on kernel overlayfs, and the daemon has kept nothing.
//!
//! UNIONMOUNT_LOAD_SECONDS is how long they work (60), UNIONMOUNT_LOAD_PROCESSES how many they are (64).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[macro_use]
#[path = "../kit/mod.rs"]
mod kit;

#[path = "../oracle/generate.rs"]
#[allow(dead_code)]
mod generate;
#[path = "../oracle/layers.rs"]
mod layers;

mod pressure;
mod worker;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kit::{Lab, Subject, plant, snapshot};
use worker::{Until, Worker};

/// How many of the processes build and commit.
const PROGRAMS: u64 = 4;

fn number(name: &str, default: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}"))
    })
}

/// What the daemon has of the machine.
#[derive(Debug, Clone, Copy)]
struct Use {
    kib: u64,
    descriptors: usize,
}

impl Use {
    fn of(pid: u32) -> Use {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        Use {
            kib: line.split_whitespace().nth(1).unwrap().parse().unwrap(),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .count(),
        }
    }
}

/// A union in which each process has a part of several layers.
fn lab(processes: u64) -> Lab {
    let mut lab = Lab::new();
    for text in layers::lowers(1) {
        lab = lab.lower("");
        let root = lab.lower_dir(lab.lower_count() - 1);
        for n in 0..processes {
            plant(&root.join(format!("w{n}")), &text);
        }
    }
    lab.upper("d shared")
}

/// All objects, without times, which differ.
fn tree(lab: &Lab) -> snapshot::Snapshot {
    snapshot::read(&lab.mnt(), worker::look(lab.subject().is_kernel())).snapshot
}

fn work(subject: &Subject, seconds: u64) {
    let processes = number("UNIONMOUNT_LOAD_PROCESSES", 64) - PROGRAMS;
    // Once with the clock, and once more to compare.
    let long = Duration::from_secs(2 * seconds);
    let mut lab = lab(processes).patient(long).mount_as(subject);
    // Where the same work is done once more.
    let mut other = Lab::new();
    for n in 0..lab.lower_count() {
        other = other.lower_at(&lab.lower_dir(n));
    }
    let mut other = other
        .upper("d shared")
        .patient(long)
        .mount_as(&Subject::Kernel);

    let daemon = lab.daemons()[0];
    let end = Instant::now() + Duration::from_secs(seconds);
    let workers: Vec<Worker> = (0..processes)
        .map(|n| Worker::start(&lab, n, Until::Seconds(seconds)))
        .collect();
    let programs: Vec<Child> = (0..PROGRAMS).map(|n| programs(&lab, n, seconds)).collect();
    let mut uses = Vec::new();
    while Instant::now() < end {
        std::thread::sleep(Duration::from_secs(1));
        uses.push(Use::of(daemon));
    }
    let steps: Vec<u64> = workers.into_iter().map(Worker::wait).collect();
    for program in programs {
        let done = program.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "programs: {said}");
    }
    std::fs::remove_dir_all(lab.at("programs")).unwrap();
    let stats = lab.control("stats");
    println!(
        "{} steps in {seconds} s: {stats}",
        steps.iter().sum::<u64>()
    );
    expect_flat(&uses);
    assert_eq!(stats["panics"], 0);
    for op in stats["requests"].as_array().unwrap() {
        // Nothing here moves more than a few hundred KiB.
        assert!(op["max_us"].as_u64().unwrap() < 1_000_000, "{op}");
    }

    let numbers: Vec<u64> = (0..processes).collect();
    for group in numbers.chunks(8) {
        let replay = |n: &u64| {
            let count = steps[usize::try_from(*n).unwrap()];
            Worker::start(&other, *n, Until::Steps(count))
        };
        let again: Vec<Worker> = group.iter().map(replay).collect();
        for (n, worker) in group.iter().zip(again) {
            let count = steps[usize::try_from(*n).unwrap()];
            assert_eq!(worker.wait(), count, "worker {n}");
        }
    }
    let wanted = tree(&other);
    snapshot::assert_same("kernel overlayfs, and ours", &wanted, &tree(&lab));
    other.umount();
    lab.umount();
    lab.expect_nothing_wrong();
    lab.remount();
    snapshot::assert_same("after a remount", &wanted, &tree(&lab));
}

/// git and a compiler, again and again, in a directory of their own.
fn programs(lab: &Lab, n: u64, seconds: u64) -> Child {
    let script = r#"
        mkdir -p "$1"; cd "$1"; end=$(($(date +%s) + $2)); i=0
        git init -q .; git config user.email a@b; git config user.name a; git config gc.auto 0
        while [ $(date +%s) -lt $end ]; do
            i=$((i + 1)); mkdir -p d$((i % 7))
            echo "int f$i(void) { return $i; }" >d$((i % 7))/f$i.c
            cc -c -o f.o d$((i % 7))/f$i.c; cc -shared -o f.so f.o
            git add .; git commit -qm $i; [ $((i % 20)) != 0 ] || git gc -q
            [ $((i % 9)) != 0 ] || git rm -qr d$((i % 7))
        done
        git reset -q --hard; git fsck --strict; test -z "$(git status --porcelain)" "#;
    let mut command = Command::new("sh");
    command
        .args(["-euc", script, "sh"])
        .arg(lab.at(format!("programs/{n}")));
    command
        .arg(seconds.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// In the second half of the time it needed no more than in the first, but for noise.
fn expect_flat(uses: &[Use]) {
    let (first, second) = uses.split_at(uses.len() / 2);
    let most = |uses: &[Use]| {
        let kib = uses.iter().map(|u| u.kib).max().unwrap_or_default();
        let descriptors = uses.iter().map(|u| u.descriptors).max().unwrap_or_default();
        (kib, descriptors)
    };
    let (before, after) = (most(first), most(second));
    println!("most memory in KiB and descriptors: {before:?}, then {after:?}");
    assert!(
        after.0 < before.0 * 3 / 2 + 32 * 1024,
        "memory grows: {before:?} {after:?}"
    );
    assert!(
        after.1 < before.1 * 3 / 2 + 64,
        "descriptors grow: {before:?} {after:?}"
    );
}

#[test]
fn many_processes_do_what_they_do_on_kernel_overlayfs() {
    work(&Subject::default(), number("UNIONMOUNT_LOAD_SECONDS", 60));
}

#[test]
fn the_same_with_writeback() {
    let seconds = number("UNIONMOUNT_LOAD_SECONDS", 60) / 4;
    work(&Subject::with(&["--writeback"]), seconds.clamp(10, 60));
}
