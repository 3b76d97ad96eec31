//! Runs one random sequence of operations on kernel overlayfs and on the subject, in lockstep, and
//! compares every answer and, time and again, the whole trees.
//!
//! UNIONMOUNT_ORACLE_OPS is the number of operations of all seeds together (20000), and
//! UNIONMOUNT_ORACLE_SEED replays one seed alone;
//! UNIONMOUNT_ORACLE_TRACE prints every operation and the kernel's answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../kit/mod.rs"]
mod kit;

mod deviation;
mod generate;
mod layers;
mod run;

use kit::{Look, Subject, snapshot, sys};
use run::{Plan, run};

const SEEDS: u64 = 5;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
    )
}

/// One of the seeds, so that the seeds run beside each other.
fn seed(n: u64) {
    let ops = number("UNIONMOUNT_ORACLE_OPS").unwrap_or(20_000);
    let seed = match number("UNIONMOUNT_ORACLE_SEED") {
        None => n,
        Some(seed) if n == 1 => seed,
        Some(_) => return,
    };
    run(&plan(Subject::default(), seed, ops.div_ceil(SEEDS)));
}

fn plan(subject: Subject, seed: u64, ops: u64) -> Plan {
    Plan {
        kernel: Subject::Kernel,
        subject,
        seed,
        ops,
        sabotage: None,
        owners_aside: false,
    }
}

/// Owners, modes and types in attributes look as they do on the objects themselves.
fn with_owners_in_attributes(store: &str, seed: u64) {
    if Subject::default().is_ours() {
        let subject = Subject::ours(&["--stat-override", store]);
        run(&Plan {
            owners_aside: true,
            ..plan(subject, seed, 3000)
        });
    }
}

#[test]
fn with_owners_in_attributes_of_users() {
    with_owners_in_attributes("containers", 203);
}

#[test]
fn with_owners_in_attributes_of_root() {
    with_owners_in_attributes("security", 105);
}

#[test]
fn seed_1() {
    seed(1);
}

#[test]
fn seed_2() {
    seed(2);
}

#[test]
fn seed_3() {
    seed(3);
}

#[test]
fn seed_4() {
    seed(4);
}

#[test]
fn seed_5() {
    seed(5);
}

/// With the writeback cache the kernel keeps size and times to itself: other code on our side.
#[test]
fn with_writeback() {
    if Subject::default().is_ours() {
        run(&plan(Subject::ours(&["--writeback"]), 101, 3000));
    }
}

#[test]
fn with_direct_io() {
    if Subject::default().is_ours() {
        run(&plan(Subject::ours(&["--io", "direct"]), 102, 3000));
    }
}

#[test]
fn with_no_caching_at_all() {
    if Subject::default().is_ours() {
        run(&plan(Subject::ours(&["--timeout", "0"]), 103, 3000));
    }
}

/// Changes of attributes, renames and links copy no data on either side, and each goes on with the
/// metadata-only copies of the other. Many short runs, for the data follows soon.
/// UNIONMOUNT_ORACLE_OPS are those of all four tests.
fn with_metacopies(test: u64) {
    const EACH: u64 = 500;
    let ops = number("UNIONMOUNT_ORACLE_OPS").unwrap_or(8000);
    let seeds = match number("UNIONMOUNT_ORACLE_SEED") {
        None => test * 1000..test * 1000 + ops.div_ceil(4 * EACH),
        Some(seed) if test == 1 => seed..seed + 1,
        Some(_) => return,
    };
    if !Subject::default().is_ours() {
        return;
    }
    let options = "metacopy=on,redirect_dir=on,index=on,xino=on";
    let mut seen = 0;
    for seed in seeds {
        let tally = run(&Plan {
            kernel: Subject::KernelWith(options.to_owned()),
            ..plan(Subject::ours(&["--metacopy", "on"]), seed, EACH)
        });
        seen += tally["metacopies"].0;
    }
    assert!(seen > 0, "no such copy was ever seen");
}

#[test]
fn with_metacopies_1() {
    with_metacopies(1);
}

#[test]
fn with_metacopies_2() {
    with_metacopies(2);
}

#[test]
fn with_metacopies_3() {
    with_metacopies(3);
}

#[test]
fn with_metacopies_4() {
    with_metacopies(4);
}

/// The harness itself: kernel overlayfs must not differ from kernel overlayfs.
#[test]
fn kernel_against_kernel() {
    let tally = run(&plan(Subject::Kernel, 7, 4000));
    assert_eq!(
        tally.len(),
        kit::operation::KINDS,
        "kinds of operations that were tried: {tally:#?}"
    );
    for (kind, (worked, failed)) in tally {
        assert!(
            worked >= 1,
            "{kind} worked {worked} times and failed {failed} times"
        );
    }
}

/// The harness itself: one name that only one side has, and the run must fail.
#[test]
fn a_wrong_subject_is_noticed() {
    let wrong = Plan {
        sabotage: Some(450),
        ..plan(Subject::Kernel, 9, 2400)
    };
    let panic = std::panic::catch_unwind(|| run(&wrong)).expect_err("the run did not fail");
    let said = panic.downcast_ref::<String>().unwrap();
    assert!(said.contains("> /sabotage"), "{said}");
}

/// The harness itself: every kind of difference must be noticed.
#[test]
fn differences_are_noticed() {
    let scratch = kit::Scratch::new();
    let text = "d d mode=0700 user.a=1\nf d/f text mtime=5.000000001\nh d/g d/f\nl d/l f\nf d/z x";
    let (left, right) = (scratch.path().join("left"), scratch.path().join("right"));
    kit::plant(&left, text);
    let read = |root| {
        snapshot::read(
            root,
            Look {
                dir_mtime: true,
                ..Look::default()
            },
        )
    };
    let changes: [(&str, &dyn Fn()); 9] = [
        ("data", &|| {
            sys::overwrite(right.join("d/z"), 0, b"y").unwrap()
        }),
        ("size", &|| sys::append(right.join("d/z"), b"y").unwrap()),
        ("mode", &|| sys::chmod(right.join("d"), 0o701).unwrap()),
        ("owner", &|| sys::lchown(right.join("d/l"), 1, 0).unwrap()),
        ("xattrs", &|| {
            sys::setxattr(right.join("d"), "user.a", b"2", 0).unwrap()
        }),
        ("mtime", &|| {
            sys::set_mtime(right.join("d/f"), (5, 2)).unwrap()
        }),
        ("links", &|| sys::unlink(right.join("d/g")).unwrap()),
        ("< /d/l", &|| sys::unlink(right.join("d/l")).unwrap()),
        ("same inode", &|| {
            sys::unlink(right.join("d/g")).unwrap();
            sys::put(right.join("d/g"), b"text").unwrap();
        }),
    ];
    for (what, change) in changes {
        if right.exists() {
            sys::remove_tree(&right).unwrap();
        }
        kit::plant(&right, text);
        let same = snapshot::diff(&read(&left).snapshot, &read(&right).snapshot);
        assert!(same.is_empty(), "equal trees differ: {same:?}");
        change();
        let lines = snapshot::diff(&read(&left).snapshot, &read(&right).snapshot);
        assert!(
            lines.iter().any(|line| line.contains(what)),
            "{what} not in {lines:?}"
        );
    }
}
