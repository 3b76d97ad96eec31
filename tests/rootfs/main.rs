//! Real work in a Debian root of four layers, by chroot: the result must be what kernel overlayfs
//! gives, also after a remount, with the uppers exchanged, taking turns, and as a lower of others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../kit/mod.rs"]
mod kit;

mod exceptions;
mod layers;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kit::snapshot::{diff, show};
use kit::{Lab, Look, Snapshot, Subject, finished, sys};
use layers::DebianRoot;

/// For the whole of the work in one union; the lab cuts a mount that is kept for much longer.
const PATIENCE: Duration = Duration::from_secs(390);

/// The steps of work.sh.
const STEPS: &[&str] = &[
    "packages", "program", "python", "git", "tar", "rsync", "sqlite", "trees", "users", "look",
];

#[test]
fn real_work_in_a_debian_root() {
    let start = Instant::now();
    let root = DebianRoot::new();
    eprintln!("the Debian root took {:?}", start.elapsed());
    let mut faults = Faults::default();

    let mut kernel = Run::new(&root, &Subject::Kernel);
    kernel.work(STEPS);
    let wanted = kernel.tree(&mut faults);
    kernel.lab.remount_as(&Subject::ours(&[]));
    let seen = kernel.tree(&mut faults);
    faults.compare("the kernel; ours on its upper", &wanted, &seen);
    kernel.as_lower("the kernel's upper as a lower", &root, &mut faults);
    drop(kernel);

    // A root has more users than the one that mounts.
    for arguments in [&["--allow-other"][..], &["--allow-other", "--writeback"]] {
        let mut run = Run::new(&root, &Subject::ours(arguments));
        let name = format!("{:?}", run.lab.subject());
        run.work(STEPS);
        let done = run.tree(&mut faults);
        faults.compare(&format!("the kernel; {name}"), &wanted, &done);
        run.lab.remount();
        let again = run.tree(&mut faults);
        faults.compare(&format!("{name}; remounted"), &done, &again);
        run.lab.remount_as(&Subject::Kernel);
        let seen = run.tree(&mut faults);
        faults.compare(&format!("{name}; the kernel on its upper"), &done, &seen);
        run.as_lower(
            &format!("the upper of {name} as a lower"),
            &root,
            &mut faults,
        );
    }

    let turns = in_turns(&root, &mut faults);
    faults.compare("the kernel; both in turns", &wanted, &turns);
    faults.none();
}

/// Each step of the work by another union than the step before, all on one upper.
fn in_turns(root: &DebianRoot, faults: &mut Faults) -> Snapshot {
    let ours = Subject::ours(&["--allow-other"]);
    let mut run = Run::new(root, &ours);
    for (n, step) in STEPS.iter().enumerate() {
        if n > 0 {
            let next = if n % 2 == 0 { &ours } else { &Subject::Kernel };
            run.lab.remount_as(next);
        }
        run.work(&[step]);
    }
    run.tree(faults)
}

/// One upper over the Debian root.
struct Run {
    lab: Lab,
    since: i64,
}

impl Run {
    fn new(root: &DebianRoot, subject: &Subject) -> Run {
        let lab = lab_over(root.lowers()).upper("").mount_as(subject);
        // The layers are older than that by all that it took to read them.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let since = i64::try_from(now.as_secs()).unwrap();
        Run { lab, since }
    }

    fn work(&self, steps: &[&str]) {
        let subject = self.lab.subject();
        let start = Instant::now();
        let mut command = layers::namespace(&self.lab.mnt());
        command
            .args(["--net", "chroot"])
            .arg(self.lab.mnt())
            .args(["/bin/sh", "-c", include_str!("work.sh"), "work.sh"])
            .args(steps);
        finished(&mut command, PATIENCE).unwrap_or_else(|why| {
            let tail: Vec<&str> = why.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            panic!("the work failed with {subject:?}: {}", tail.join("\n"))
        });
        let took = start.elapsed();
        eprintln!("{subject:?}: {took:.1?}: {}", timings(&self.lab, steps));
    }

    /// The whole tree without what may differ.
    fn tree(&self, faults: &mut Faults) -> Snapshot {
        tree(&self.lab, self.since, faults)
    }

    /// Unmounts, and compares what the kernel and we show where this upper is the topmost lower.
    fn as_lower(&mut self, what: &str, root: &DebianRoot, faults: &mut Faults) {
        self.lab.umount();
        let mut lowers = vec![self.lab.upper_dir()];
        lowers.extend(root.lowers());
        let mut lab = lab_over(lowers).mount_as(&Subject::Kernel);
        let kernel = tree(&lab, self.since, faults);
        lab.remount_as(&Subject::ours(&[]));
        let ours = tree(&lab, self.since, faults);
        faults.compare(&format!("the kernel; ours: {what}"), &kernel, &ours);
    }
}

fn lab_over(lowers: Vec<PathBuf>) -> Lab {
    lowers
        .iter()
        .fold(Lab::new(), |lab, lower| lab.lower_at(lower))
}

fn tree(lab: &Lab, since: i64, faults: &mut Faults) -> Snapshot {
    let subject = lab.subject();
    let mut reading = lab.read(Look {
        since: Some(since),
        dir_mtime: true,
        skip_ghosts: subject.is_kernel(),
    });
    // What the kernel's union says of itself is not ours to judge.
    if !subject.is_kernel() {
        let told = reading.faults.iter();
        faults
            .0
            .extend(told.map(|fault| format!("{subject:?}: {fault}")));
    }
    exceptions::apply(&mut reading.snapshot);
    reading.snapshot
}

/// How long each of the last steps took, in seconds.
fn timings(lab: &Lab, steps: &[&str]) -> String {
    let text = sys::text(lab.at("result/timings"));
    let lines: Vec<(f64, &str)> = text
        .lines()
        .filter_map(|line| {
            let (at, name) = line.split_once(' ')?;
            Some((at.parse().ok()?, name))
        })
        .collect();
    let last = lines.len().saturating_sub(steps.len() + 1);
    lines[last..]
        .windows(2)
        .map(|pair| format!("{} {:.1} ", pair[0].1, pair[1].0 - pair[0].0))
        .collect()
}

/// All that is wrong, told together: one difference seldom comes alone.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn compare(&mut self, what: &str, left: &Snapshot, right: &Snapshot) {
        let lines = diff(left, right);
        let count = left.entries.len();
        eprintln!("{what}: {count} objects, {} differences", lines.len());
        assert!(
            count > 15_000,
            "{what}: {count} objects are no Debian root; they begin with {:?}",
            left.entries.keys().next().map(|path| show(path))
        );
        self.0
            .extend(lines.iter().map(|line| format!("{what}: {line}")));
    }

    #[track_caller]
    fn none(&self) {
        let Faults(all) = self;
        assert!(all.is_empty(), "{} faults\n{}", all.len(), all.join("\n"));
    }
}
