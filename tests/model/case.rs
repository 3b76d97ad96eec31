//! One case: layers and steps; how it is run beside the model, and how it is told when it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::strategy::ValueTree;

use crate::aim::aim;
use crate::kit::apply::Side;
use crate::kit::operation::Op;
use crate::kit::snapshot::{self, Entry, Look, Snapshot};
use crate::kit::{Lab, Subject, sys};
use crate::merge::merge;
use crate::operate::NO_TIMES;
use crate::shrink::List;
use crate::tree::{Id, Rules, Tree};

/// How the union is mounted, and what that changes.
#[derive(Clone, Copy)]
pub struct Setup {
    /// Arguments of the first mount, of the second, and so on, and again from the start.
    pub ways: &'static [&'static [&'static str]],
    pub rules: Rules,
}

impl Setup {
    /// How the Nth mount is made.
    fn subject(&self, n: usize) -> Subject {
        let mut arguments = self.ways[n % self.ways.len()].to_vec();
        if !self.rules.lower_dirs_move {
            arguments.extend(["--redirect-dir", "off"]);
        }
        Subject::ours(&arguments)
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Do(Op),
    Remount,
    /// The kernel forgets all that nobody has open.
    Forget,
}

#[derive(Clone)]
pub struct Case {
    /// Lines of `kit::plant`, topmost layer first.
    pub layers: Vec<Vec<String>>,
    pub steps: Vec<Step>,
}

struct Run {
    lab: Lab,
    side: Side,
    tree: Tree,
    setup: Setup,
    mounts: usize,
    /// `st_ino` of every object that was seen: it never changes.
    inos: BTreeMap<Id, u64>,
    /// Nothing was changed since the mount.
    fresh: bool,
}

/// Where the union and the model part, and how it came to that.
pub struct Failure {
    pub why: String,
    /// What was really done.
    pub case: Case,
}

/// Runs the case. Counts what was carried out.
pub fn run(setup: &Setup, case: &Case, done: &mut u64) -> Result<(), Failure> {
    let mut taken = Vec::new();
    let result = catch_unwind(AssertUnwindSafe(|| run_steps(setup, case, &mut taken)));
    *done += taken.len() as u64;
    let why = match result {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(_) => "a panic".to_owned(),
        },
    };
    let case = Case {
        layers: case.layers.clone(),
        steps: taken,
    };
    Err(Failure { why, case })
}

/// The same failure with fewer steps: while picks were random, some were needed only so that others
/// met the right thing.
pub fn reduce(setup: &Setup, mut failure: Failure) -> Failure {
    let end = Instant::now() + Duration::from_secs(60);
    let mut steps = List::new(failure.case.steps.iter().cloned().map(Fixed).collect());
    let mut goes_on = steps.simplify();
    while goes_on && Instant::now() < end {
        let case = Case {
            layers: failure.case.layers.clone(),
            steps: steps.current(),
        };
        goes_on = match run(setup, &case, &mut 0) {
            Ok(()) => steps.complicate(),
            Err(less) => {
                failure = less;
                steps.simplify()
            }
        };
    }
    failure
}

/// An item that cannot become simpler.
struct Fixed(Step);

impl ValueTree for Fixed {
    type Value = Step;

    fn current(&self) -> Step {
        self.0.clone()
    }

    fn simplify(&mut self) -> bool {
        false
    }

    fn complicate(&mut self) -> bool {
        false
    }
}

fn run_steps(setup: &Setup, case: &Case, taken: &mut Vec<Step>) -> Result<(), String> {
    let (lab, Some(tree)) = plant(setup, case) else {
        return Ok(());
    };
    let lab = lab.mount_as(&setup.subject(0));
    let side = Side {
        root: lab.mnt(),
        slots: Default::default(),
        has_ghosts: false,
        since: NO_TIMES,
    };
    let mut run = Run {
        lab,
        side,
        tree,
        setup: *setup,
        mounts: 1,
        inos: BTreeMap::new(),
        fresh: true,
    };
    run.compare("before the first step")?;
    for (n, step) in case.steps.iter().enumerate() {
        let op = match step {
            Step::Do(op) => aim(&run.tree, op),
            other => {
                taken.push(other.clone());
                run.interrupt(other, n)?;
                continue;
            }
        };
        if run.tree.leaves_open(&op) {
            continue;
        }
        taken.push(Step::Do(op.clone()));
        run.fresh = false;
        let (want, have) = (run.tree.apply(&op), run.side.apply(&op));
        if want != have {
            return Err(format!(
                "step {n}, {op:?}:\nthe model answers {want:?}\nthe union answers {have:?}"
            ));
        }
    }
    run.remount("the last remount")?;
    run.lab.umount();
    let Some(on_disk) = meaning(&run.lab, setup, case.layers.len()) else {
        return Err("something lies in the layers twice".to_owned());
    };
    let lines = snapshot::diff(
        &without_links(&run.tree, &on_disk),
        &without_links(&on_disk, &on_disk),
    );
    match lines.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "the model (< or left) and what lies on disk (> or right):\n{}",
            lines.join("\n")
        )),
    }
}

/// A tree as far as its objects have one name on disk: what others hold may lie in the index of links,
/// so of them only the type counts.
fn without_links(tree: &Tree, on_disk: &Tree) -> Snapshot {
    let mut snapshot = tree.snapshot();
    let linked = |(path, id): (String, Id)| (on_disk.inodes[id].nlink > 1).then_some(path);
    let linked: BTreeSet<String> = on_disk.paths().into_iter().filter_map(linked).collect();
    for (path, entry) in &mut snapshot.entries {
        (entry.nlink, entry.same_as) = (0, None);
        if linked.contains(std::str::from_utf8(path).unwrap()) {
            let mode = entry.mode & libc::S_IFMT;
            *entry = Entry {
                mode,
                ..Entry::default()
            };
        }
    }
    snapshot
}

/// Runs a case that is known; panics where `run` fails.
pub fn check(setup: &Setup, layers: &[&[&str]], steps: Vec<Step>) {
    let owned = |lines: &&[&str]| lines.iter().map(|&line| line.to_owned()).collect();
    let layers = layers.iter().map(owned).collect();
    if let Err(failure) = run(setup, &Case { layers, steps }, &mut 0) {
        panic!("{}", failure.why);
    }
}

/// The layers on disk, not mounted, and what they mean.
fn plant(setup: &Setup, case: &Case) -> (Lab, Option<Tree>) {
    let mut lab = Lab::new();
    for lines in &case.layers {
        lab = lab.lower(&lines.join("\n"));
    }
    let lab = lab.upper("");
    let tree = meaning(&lab, setup, case.layers.len());
    (lab, tree)
}

/// What the upper and the lowers mean together, as they lie on disk.
fn meaning(lab: &Lab, setup: &Setup, lowers: usize) -> Option<Tree> {
    let lowers = (0..lowers).map(|n| lab.lower_dir(n));
    let dirs: Vec<PathBuf> = std::iter::once(lab.upper_dir()).chain(lowers).collect();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    merge(&dirs, setup.rules)
}

/// Runs the case on the model alone, and counts how often each kind of operation works and fails.
pub fn rehearse(setup: &Setup, case: &Case, tally: &mut BTreeMap<String, (u64, u64)>) {
    let (_lab, Some(mut tree)) = plant(setup, case) else {
        return;
    };
    for step in &case.steps {
        let Step::Do(op) = step else {
            if matches!(step, Step::Remount) {
                tree.open = Default::default();
            }
            continue;
        };
        let op = aim(&tree, op);
        if tree.leaves_open(&op) {
            continue;
        }
        let kind = format!("{op:?}").split(' ').next().unwrap().to_owned();
        let count = tally.entry(kind).or_default();
        match tree.apply(&op) {
            Ok(_) => count.0 += 1,
            Err(_) => count.1 += 1,
        }
    }
}

impl Run {
    fn interrupt(&mut self, step: &Step, n: usize) -> Result<(), String> {
        match step {
            Step::Forget => {
                // A remount of the superblock drops its names, and sends nothing to the daemon itself.
                sys::mount("", self.lab.mnt(), "", libc::MS_REMOUNT, OsStr::new(""))
                    .map_err(|errno| format!("step {n}: forgetting: {errno:?}"))?;
                self.compare(&format!("after forgetting in step {n}"))
            }
            _ => self.remount(&format!("the remount of step {n}")),
        }
    }

    fn remount(&mut self, when: &str) -> Result<(), String> {
        self.compare(&format!("before {when}"))?;
        self.side.slots = Default::default();
        self.tree.open = Default::default();
        self.lab.remount_as(&self.setup.subject(self.mounts));
        self.mounts += 1;
        self.fresh = true;
        self.compare(&format!("after {when}"))
    }

    fn compare(&mut self, when: &str) -> Result<(), String> {
        let reading = self.lab.read(Look {
            since: Some(NO_TIMES),
            dir_mtime: true,
            ..Look::default()
        });
        let mut lines = snapshot::diff(&self.tree.snapshot(), &reading.snapshot);
        lines.extend(self.changed_numbers(&reading.inos));
        lines.extend(reading.faults);
        lines.extend(self.wrong_directory_counts());
        if lines.is_empty() {
            return Ok(());
        }
        let lines = lines.join("\n");
        Err(format!(
            "{when}, the model (< or left) and the union (> or right):\n{lines}"
        ))
    }

    /// Objects whose `st_ino` is not what it was.
    fn changed_numbers(&mut self, now: &BTreeMap<Vec<u8>, u64>) -> Vec<String> {
        let mut changed = Vec::new();
        for (path, id) in self.tree.paths() {
            let Some(&ino) = now.get(path.as_bytes()) else {
                continue;
            };
            let before = *self.inos.entry(id).or_insert(ino);
            if before != ino {
                changed.push(format!("! /{path}: st_ino {before} | {ino}"));
            }
        }
        changed
    }

    /// Directories whose `st_nlink` is not as it should be.
    fn wrong_directory_counts(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let in_upper = |path: &str| sys::lstat(self.lab.in_upper(path)).is_ok_and(|st| st.is_dir());
        for (path, id) in self.tree.paths() {
            let Ok(names) = self.tree.names(id) else {
                continue;
            };
            let parts = self.tree.inodes[id].lowers + usize::from(in_upper(&path));
            let below = names.values().filter(|&&id| self.tree.is_dir(id)).count();
            // SEMANTICS 6: a directory that has parts in several layers has 1.
            let (one, all) = (Ok(1), Ok(2 + below as u64));
            let have = sys::lstat(self.lab.at(&path)).map(|st| st.nlink);
            // SEMANTICS 6: a directory that has parts in several layers has 1. The kernel may still
            // know the count from before a copy-up, the daemon not yet that a layer is opaque.
            let before_copy_up = parts == 2 && in_upper(&path) && !self.fresh;
            let before_listing = parts == 1 && self.tree.inodes[id].candidates > 1;
            let want = if parts > 1 { one } else { all };
            if have != want && !(before_copy_up && have == all || before_listing && have == one) {
                wrong.push(format!("! /{path}: st_nlink {want:?} | {have:?}"));
            }
        }
        wrong
    }
}

/// As the body of a test that can be pasted into `found.rs`.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    let layers: &[&[&str]] = &[")?;
        for lines in &self.layers {
            writeln!(f, "        &{lines:?},")?;
        }
        writeln!(f, "    ];\n    let steps = vec![")?;
        for step in &self.steps {
            // Paths and values are owned: as literals they would not compile.
            let text = format!("{step:?}")
                .replace("\", ", "\".into(), ")
                .replace("\" }", "\".into() }")
                .replace("value: [", "value: vec![");
            writeln!(f, "        {text},")?;
        }
        write!(f, "    ];")
    }
}
