//! Two unions in lockstep: operations, comparisons, remounts, and each on what the other wrote.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::deviation::{self, DEVIATIONS};
use crate::generate::Generator;
use crate::kit::apply::Side;
use crate::kit::operation::{Op, Outcome};
use crate::kit::snapshot::{self, Look, Reading};
use crate::kit::sys;
use crate::kit::{Lab, Subject};
use crate::layers;

/// Operations between two comparisons of the whole trees.
const COMPARE_EVERY: u64 = 300;
/// Operations shown when something differs.
const REMEMBERED: usize = 20;

/// What to run.
pub struct Plan {
    /// Kernel overlayfs, with the options that the subject's mean.
    pub kernel: Subject,
    pub subject: Subject,
    pub seed: u64,
    pub ops: u64,
    /// Changes the subject's tree behind its back after that many operations: must be noticed.
    pub sabotage: Option<u64>,
    /// The subject keeps owners in attributes: the kernel does not read its layers, and it has no access
    /// control lists.
    pub owners_aside: bool,
}

/// How often each kind of operation worked and failed.
pub type Tally = BTreeMap<String, (u64, u64)>;

struct Pair {
    seed: u64,
    done: u64,
    subject: Subject,
    labs: [Lab; 2],
    sides: [Side; 2],
    generator: Generator,
    history: VecDeque<String>,
    sabotage: Option<u64>,
    /// The data of files is copied up when it is needed.
    copied_late: bool,
    /// How many redirects (or metadata-only copies) the uppers held at each comparison.
    markers: Vec<usize>,
    trace: bool,
    tally: Tally,
}

/// Runs the plan; panics at the first difference.
pub fn run(plan: &Plan) -> Tally {
    let mut pair = Pair::new(plan);
    let quarter = plan.ops.div_ceil(4);
    pair.compare("before the first operation");
    pair.operate(quarter);
    pair.remount(false);
    pair.operate(quarter);
    // From here on each works on what the other has written.
    let crosswise = !plan.owners_aside;
    pair.remount(crosswise);
    pair.operate(quarter);
    pair.remount(crosswise);
    pair.operate(quarter);
    pair.remount(false);
    pair.remount(crosswise);
    println!("markers seen: {:?}", pair.markers);
    let seen: usize = pair.markers.iter().sum();
    if pair.copied_late {
        pair.tally.insert("metacopies".to_owned(), (seen as u64, 0));
    } else {
        assert!(
            plan.ops < 2000 || seen > 0,
            "no directory with lower parts was renamed: the run says nothing of redirects"
        );
    }
    pair.tally
}

/// How many directories below `dir` have a redirect, or how many files are metadata-only copies.
fn count_markers(dir: &Path, copied_late: bool) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let marker = match copied_late {
            true => kind.is_file().then_some("trusted.overlay.metacopy"),
            false => kind.is_dir().then_some("trusted.overlay.redirect"),
        };
        count += usize::from(marker.is_some_and(|name| sys::getxattr(&path, name).is_ok()));
        if kind.is_dir() {
            count += count_markers(&path, copied_late);
        }
    }
    count
}

impl Pair {
    fn new(plan: &Plan) -> Pair {
        let lab = |subject: &Subject| {
            let mut lab = Lab::new();
            for text in layers::lowers(plan.seed) {
                lab = lab.lower(&text);
            }
            lab.upper("").mount_as(subject)
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs() as i64;
        let labs = [lab(&plan.kernel), lab(&plan.subject)];
        let side = |lab: &Lab| Side {
            root: lab.mnt(),
            slots: Default::default(),
            has_ghosts: lab.subject().is_kernel(),
            since: now - 5,
        };
        Pair {
            seed: plan.seed,
            done: 0,
            subject: plan.subject.clone(),
            sides: [side(&labs[0]), side(&labs[1])],
            labs,
            generator: match plan.owners_aside {
                true => Generator::new(plan.seed).without_lists(),
                false => Generator::new(plan.seed),
            },
            history: VecDeque::new(),
            sabotage: plan.sabotage,
            copied_late: plan.kernel != Subject::Kernel,
            markers: Vec::new(),
            trace: std::env::var_os("UNIONMOUNT_ORACLE_TRACE").is_some(),
            tally: Tally::new(),
        }
    }

    fn operate(&mut self, count: u64) {
        for n in 1..=count {
            let op = self.generator.next();
            self.done += 1;
            if self.sabotage == Some(self.done) {
                sys::put(self.sides[1].root.join("sabotage"), b"!").unwrap();
            }
            let [left, right] = &mut self.sides;
            let outcomes = (left.apply(&op), right.apply(&op));
            let (reference, subject) = match left.has_ghosts {
                true => (&outcomes.0, &outcomes.1),
                false => (&outcomes.1, &outcomes.0),
            };
            self.remember(&op, reference);
            let meant = self.copied_late && deviation::differs_by_time(&op, reference, subject);
            if reference != subject && !meant && !is_meant(&op, reference, subject) {
                self.fail(&format!(
                    "kernel answered {reference:?}\nsubject answered {subject:?}"
                ));
            }
            self.generator.note(&op, reference);
            if n % COMPARE_EVERY == 0 || n == count {
                self.compare("the whole trees");
            }
        }
    }

    /// Mounts both again, on the same layers or on each other's.
    fn remount(&mut self, crosswise: bool) {
        let before = self.compare("before a remount");
        for side in &mut self.sides {
            side.slots = Default::default();
        }
        let mut subjects = [
            self.labs[0].subject().clone(),
            self.labs[1].subject().clone(),
        ];
        if crosswise {
            subjects.reverse();
        }
        for ((lab, side), subject) in self.labs.iter_mut().zip(&mut self.sides).zip(&subjects) {
            lab.umount();
            // Of the kernel's uppers too, where they become ours.
            lab.expect_nothing_wrong();
            lab.remount_as(subject);
            side.has_ghosts = subject.is_kernel();
        }
        let what = if crosswise {
            "each on the other's layers"
        } else {
            "after a remount"
        };
        let after = self.compare(what);
        for (n, (old, new)) in before.iter().zip(&after).enumerate() {
            let lines = snapshot::diff(&old.snapshot, &new.snapshot);
            if !lines.is_empty() {
                self.fail(&format!(
                    "{what}: side {n} before and after:\n{}",
                    lines.join("\n")
                ));
            }
            if !crosswise && old.inos != new.inos {
                let changed = old
                    .inos
                    .iter()
                    .filter(|(path, ino)| new.inos[*path] != **ino);
                let changed: Vec<String> = changed.map(|(path, _)| snapshot::show(path)).collect();
                self.fail(&format!("{what}: side {n}: st_ino changed: {changed:?}"));
            }
        }
    }

    fn compare(&mut self, what: &str) -> [Reading; 2] {
        let mut readings = [self.read(0), self.read(1)];
        if self.copied_late {
            let [left, right] = &mut readings;
            deviation::forgive_times(&mut left.snapshot, &mut right.snapshot);
        }
        for (n, reading) in readings.iter().enumerate() {
            // The kernel's own listings give other numbers than stat for some names (xino=on too).
            if !reading.faults.is_empty() && !self.sides[n].has_ghosts {
                let faults = reading.faults.join("\n");
                self.fail(&format!("{what}: {:?}:\n{faults}", self.labs[n].subject()));
            }
        }
        let lines = snapshot::diff(&readings[0].snapshot, &readings[1].snapshot);
        if !lines.is_empty() {
            let subjects = (self.labs[0].subject(), self.labs[1].subject());
            let lines = lines.join("\n");
            self.fail(&format!(
                "{what}: {:?} (<) and {:?} (>):\n{lines}",
                subjects.0, subjects.1
            ));
        }
        let count = |lab: &Lab| count_markers(&lab.upper_dir(), self.copied_late);
        let counts = self.labs.iter().map(count).sum();
        self.markers.push(counts);
        self.generator.learn(&readings[0].snapshot);
        readings
    }

    fn read(&self, n: usize) -> Reading {
        self.labs[n].read(Look {
            since: Some(self.sides[n].since),
            dir_mtime: true,
            skip_ghosts: self.sides[n].has_ghosts,
        })
    }

    fn remember(&mut self, op: &Op, outcome: &Outcome) {
        let text = format!("{op:?}");
        if self.trace {
            println!("{:6}  {text} -> {outcome:?}", self.done);
        }
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        let kind = text.split(' ').next().unwrap().to_owned();
        let count = self.tally.entry(kind).or_default();
        match outcome {
            Ok(_) => count.0 += 1,
            Err(_) => count.1 += 1,
        }
        self.history
            .push_back(format!("{:6}  {text} -> {outcome:?}", self.done));
    }

    fn fail(&self, why: &str) -> ! {
        let history: Vec<&str> = self.history.iter().map(String::as_str).collect();
        panic!(
            "seed {}, operation {}, {:?}:\n{why}\nthe last operations (with the kernel's answers):\n{}\n\
             replay: UNIONMOUNT_ORACLE_SEED={} (same UNIONMOUNT_ORACLE_OPS)",
            self.seed,
            self.done,
            self.subject,
            history.join("\n"),
            self.seed
        );
    }
}

fn is_meant(op: &Op, reference: &Outcome, subject: &Outcome) -> bool {
    let meant = DEVIATIONS
        .iter()
        .find(|deviation| (deviation.applies)(op, reference, subject));
    if let Some(deviation) = meant {
        println!("{op:?}: {}", deviation.why);
    }
    meant.is_some()
}
