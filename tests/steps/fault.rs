//! One of the calls fails.

use std::collections::BTreeMap;

use unionmount::error::Errno;
use unionmount::marker::whiteout::Dialect;

use crate::cases::{self, CHANGING, Case, MAKING, MOVING, REMOVING};
use crate::kit::{self, Lab};
use crate::paths::{Done, Paths};
use crate::tracer::{At, Call, run};
use crate::union_tree::Tree;

/// What the child saw.
#[derive(serde::Serialize, serde::Deserialize)]
struct Seen {
    /// errno of the change, 0 if it was done.
    first: i32,
    after: Tree,
    /// The same when it was asked for again.
    second: i32,
    finally: Tree,
}

fn number(done: Done) -> i32 {
    done.map_or_else(Errno::raw_os_error, |()| 0)
}

fn tried(case: &Case, dialect: Dialect, at: At) -> (Lab, Vec<Call>, Seen) {
    let lab = cases::lab(dialect);
    let ran = run(at, Call::can_fail, |marks| {
        let paths = Paths::open(&lab, dialect);
        let first = number(marks.counted(|| (case.act)(&paths)));
        let after = paths.tree();
        let second = if first == 0 {
            0
        } else {
            number((case.act)(&paths))
        };
        let finally = paths.tree();
        serde_json::to_vec(&Seen {
            first,
            after,
            second,
            finally,
        })
        .unwrap()
    });
    let seen = serde_json::from_slice(&ran.said).unwrap();
    (lab, ran.calls, seen)
}

fn opened_again(lab: &Lab, dialect: Dialect) -> Tree {
    Paths::open(lab, dialect).tree()
}

/// The errors that each call is given.
fn errors(call: &Call) -> &'static [i32] {
    match (call.changes(), call.opens()) {
        (true, true) => &[libc::ENOSPC, libc::EMFILE],
        (false, true) => &[libc::EMFILE, libc::EIO],
        (true, false) => &[libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EROFS],
        (false, false) => &[libc::EIO, libc::ENOMEM],
    }
}

fn all_faults_of(cases: &[Case], dialect: Dialect) {
    let old = opened_again(&cases::lab(dialect), dialect);
    let (mut tries, mut faults) = (0, Vec::new());
    for case in cases {
        let (lab, calls, seen) = tried(case, dialect, At::Never);
        assert_eq!(seen.first, 0, "{}", case.name);
        let new = seen.after;
        assert_eq!(opened_again(&lab, dialect), new, "{}", case.name);
        for (n, call) in calls.iter().enumerate() {
            for &error in errors(call) {
                let (lab, _, seen) = tried(case, dialect, At::Fail(n, error));
                tries += 1;
                let disk = opened_again(&lab, dialect);
                if let Some(fault) = wrong(&seen, (call, error), &old, &new, &disk) {
                    let (name, call, error) = (case.name, call.name(), kit::Errno(error));
                    faults.push(format!("{name}, call {n}, {call}, {error:?}: {fault}"));
                }
            }
        }
    }
    eprintln!("{tries} faults");
    assert!(
        faults.is_empty(),
        "{} of {tries}:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

fn wrong(
    seen: &Seen,
    (call, error): (&Call, i32),
    old: &Tree,
    new: &Tree,
    disk: &Tree,
) -> Option<String> {
    if seen.first != 0 && seen.first != error {
        return Some(format!("the caller was told {:?}", kit::Errno(seen.first)));
    }
    // Looking at what was made may fail when it is there already: whole, and for everybody.
    if seen.first != 0 && !call.changes() && seen.after == *new && disk == new {
        return None;
    }
    let after = if seen.first == 0 { new } else { old };
    if seen.after != *after {
        let told = if seen.first == 0 { "done" } else { "an error" };
        return Some(format!(
            "told {told}, but sees: {}",
            difference(after, &seen.after)
        ));
    }
    if seen.second != 0 {
        return Some(format!("asked again: {:?}", kit::Errno(seen.second)));
    }
    if seen.finally != *new {
        return Some(format!(
            "done again, but sees: {}",
            difference(new, &seen.finally)
        ));
    }
    (disk != new).then(|| format!("on disk: {}", difference(new, disk)))
}

fn difference(wanted: &Tree, found: &Tree) -> String {
    let mut paths: BTreeMap<&String, ()> = BTreeMap::new();
    paths.extend(wanted.keys().chain(found.keys()).map(|path| (path, ())));
    let differing = paths
        .into_keys()
        .filter(|path| wanted.get(*path) != found.get(*path));
    let lines = differing.map(|path| {
        let show = |tree: &Tree| {
            tree.get(path)
                .map_or("nothing".to_owned(), |s| s.chars().take(160).collect())
        };
        format!("\n    {path}: {} in place of {}", show(found), show(wanted))
    });
    lines.collect()
}

#[test]
fn making() {
    all_faults_of(MAKING, Dialect::CharDev);
}

#[test]
fn removing() {
    all_faults_of(REMOVING, Dialect::CharDev);
}

#[test]
fn moving() {
    all_faults_of(MOVING, Dialect::CharDev);
}

#[test]
fn changing() {
    all_faults_of(CHANGING, Dialect::CharDev);
}
