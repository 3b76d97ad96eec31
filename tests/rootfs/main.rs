//! Real work in a Debian root of four layers, by chroot: the result must be what kernel overlayfs
//! gives, also after a remount and with the uppers exchanged.

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

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kit::snapshot::{diff, show};
use kit::{Lab, Look, Subject, finished, sys};
use layers::DebianRoot;

/// For the whole of the work in one union.
const PATIENCE: Duration = Duration::from_secs(390);

#[test]
fn real_work_in_a_debian_root() {
    let start = Instant::now();
    let root = DebianRoot::new();
    eprintln!("the Debian root took {:?}", start.elapsed());
    let mut faults = Vec::new();
    let mut kernel = Run::new(&root, &Subject::Kernel);
    let wanted = kernel.tree("kernel", &mut faults);
    kernel.lab.remount_as(&Subject::ours(&[]));
    let seen = kernel.tree("ours on the kernel's upper", &mut faults);
    compare(
        "the kernel and ours on the kernel's upper",
        &wanted,
        &seen,
        &mut faults,
    );
    drop(kernel);
    for arguments in [&["--allow-other"][..], &["--allow-other", "--writeback"]] {
        let subject = Subject::ours(arguments);
        let mut run = Run::new(&root, &subject);
        let name = format!("{subject:?}");
        let done = run.tree(&name, &mut faults);
        compare(
            &format!("the kernel and {name}"),
            &wanted,
            &done,
            &mut faults,
        );
        run.lab.remount();
        let again = run.tree(&format!("{name} remounted"), &mut faults);
        compare(
            &format!("{name} before and after a remount"),
            &done,
            &again,
            &mut faults,
        );
        run.lab.remount_as(&Subject::Kernel);
        let kernels = run.tree(&format!("the kernel on the upper of {name}"), &mut faults);
        compare(
            &format!("{name} and the kernel on its upper"),
            &done,
            &kernels,
            &mut faults,
        );
    }
    assert!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// The work done in one union.
struct Run {
    lab: Lab,
    since: i64,
}

impl Run {
    /// Mounts the layers below an empty upper and does the work.
    fn new(root: &DebianRoot, subject: &Subject) -> Run {
        let lab = root
            .lowers()
            .iter()
            .fold(Lab::new(), |lab, lower| lab.lower_at(lower))
            .upper("")
            .mount_as(subject);
        // The layers are older than that by all that it took to read them.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let since = i64::try_from(now.as_secs()).unwrap();
        let start = Instant::now();
        let mut command = layers::namespace(&lab.mnt());
        command.arg("--net").arg("chroot").arg(lab.mnt()).args([
            "/bin/sh",
            "-c",
            include_str!("work.sh"),
        ]);
        finished(&mut command, PATIENCE).unwrap_or_else(|why| {
            let tail: Vec<&str> = why.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            panic!("the work failed with {subject:?}: {}", tail.join("\n"))
        });
        eprintln!("{subject:?}: {:?}: {}", start.elapsed(), timings(&lab));
        Run { lab, since }
    }

    /// The whole tree without what may differ; what disagrees with itself goes to `faults`.
    fn tree(&self, who: &str, faults: &mut Vec<String>) -> kit::Snapshot {
        let mut reading = self.lab.read(Look {
            since: Some(self.since),
            dir_mtime: true,
            skip_ghosts: self.lab.subject().is_kernel(),
        });
        // Kernel overlayfs with xino=on has no fault of ours to tell.
        if !self.lab.subject().is_kernel() {
            faults.extend(reading.faults.iter().map(|fault| format!("{who}: {fault}")));
        }
        exceptions::apply(&mut reading.snapshot);
        reading.snapshot
    }
}

/// How long each step took, in seconds.
fn timings(lab: &Lab) -> String {
    let text = sys::text(lab.at("result/timings"));
    let steps: Vec<(f64, &str)> = text
        .lines()
        .filter_map(|line| {
            let (at, name) = line.split_once(' ')?;
            Some((at.parse().ok()?, name))
        })
        .collect();
    steps
        .windows(2)
        .map(|pair| format!("{} {:.1} ", pair[0].1, pair[1].0 - pair[0].0))
        .collect()
}

fn compare(what: &str, left: &kit::Snapshot, right: &kit::Snapshot, faults: &mut Vec<String>) {
    let lines = diff(left, right);
    eprintln!(
        "{what}: {} objects, {} differences",
        left.entries.len(),
        lines.len()
    );
    faults.extend(lines.iter().map(|line| format!("{what}: {line}")));
    assert!(
        left.entries.len() > 10_000,
        "{what}: {} objects are no Debian root; the root is {:?}",
        left.entries.len(),
        left.entries.keys().next().map(|path| show(path))
    );
}
