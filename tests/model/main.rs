//! Random sequences of operations on random layers, beside a small model in memory that says what
//! must come of them. The oracle (tests/oracle) has kernel overlayfs as its judge; here it is POSIX,
//! the formats of layers, and docs/SEMANTICS.md.
//!
//! UNIONMOUNT_MODEL_CASES multiplies the number of cases (1). Each case has a seed of its own, told
//! when it fails; UNIONMOUNT_MODEL_SEED runs that case alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../kit/mod.rs"]
mod kit;

mod aim;
mod case;
mod files;
mod found;
mod generate;
mod merge;
mod operate;
mod shrink;
mod tree;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use case::{Case, Failure, Setup, reduce, rehearse, run};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tree::Rules;

const PLAIN: Rules = Rules {
    dot_wh_is_reserved: false,
    lower_dirs_move: true,
};

/// Mounted with other arguments each time.
fn with(ways: &'static [&'static [&'static str]]) -> Setup {
    Setup { ways, rules: PLAIN }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
    )
}

/// Runs so many cases; each starts from a seed of its own, so that one can be run alone.
fn explore(setup: &Setup, cases: u64) {
    let started = Instant::now();
    let mut done = 0;
    if let Some(seed) = number("UNIONMOUNT_MODEL_SEED") {
        return explore_one(setup, seed, &mut done);
    }
    // The same each time, so that a change is what fails; others for who looks for more.
    let (cases, base) = match number("UNIONMOUNT_MODEL_CASES") {
        None => (cases, 1_000_000),
        Some(times) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            (cases * times, now.as_nanos() as u64)
        }
    };
    for n in 0..cases {
        explore_one(setup, base.wrapping_add(n), &mut done);
    }
    println!(
        "{:?}: {cases} cases, {done} operations, {:?}",
        setup.ways,
        started.elapsed()
    );
}

fn explore_one(setup: &Setup, seed: u64, done: &mut u64) {
    let (count, last) = (Cell::new(*done), RefCell::new(None));
    let result = runner(seed).run(&generate::Cases, |case: Case| {
        let mut now = count.get();
        let result = run(setup, &case, &mut now);
        count.set(now);
        result.map_err(|failure| {
            last.replace(Some(failure));
            TestCaseError::fail("see the failure itself")
        })
    });
    *done = count.get();
    if let Some(failure) = last.take() {
        let Failure { why, case } = reduce(setup, failure);
        let ways = setup.ways;
        panic!("UNIONMOUNT_MODEL_SEED={seed}, {ways:?}:\n{why}\n{case:?}");
    }
    result.unwrap_or_else(|why| panic!("UNIONMOUNT_MODEL_SEED={seed}: {why}"));
}

/// For one case.
fn runner(seed: u64) -> TestRunner {
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 4000,
        max_shrink_time: 150_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn by_default() {
    explore(&with(&[&[]]), 300);
}

#[test]
fn with_writeback() {
    explore(&with(&[&["--writeback"]]), 120);
}

#[test]
fn with_direct_io() {
    explore(&with(&[&["--io", "direct"]]), 120);
}

#[test]
fn with_no_caching_at_all() {
    explore(&with(&[&["--timeout", "0"]]), 80);
}

#[test]
fn with_deletions_as_attributes() {
    explore(&with(&[&["--whiteout", "xattr"]]), 120);
}

/// What one mount has written is read by another with other options.
#[test]
fn with_other_options_each_time() {
    let ways: &[&[&str]] = &[
        &[],
        &["--whiteout", "xattr"],
        &["--writeback"],
        &["--io", "direct", "--whiteout", "chardev"],
        &["--timeout", "0", "--whiteout", "xattr"],
        &["--cache-size", "1"],
    ];
    explore(&with(ways), 120);
}

#[test]
fn with_deletions_as_files() {
    let rules = Rules {
        dot_wh_is_reserved: true,
        lower_dirs_move: false,
    };
    let ways: &[&[&str]] = &[&["--whiteout", "file"]];
    explore(&Setup { ways, rules }, 120);
}

/// The harness itself: every kind of operation is met, and most of them work often.
#[test]
fn every_operation_is_reached() {
    let mut tally = BTreeMap::new();
    for seed in 0..60 {
        let case = generate::Cases.new_tree(&mut runner(seed)).unwrap();
        rehearse(&with(&[&[]]), &case.current(), &mut tally);
    }
    assert_eq!(tally.len(), kit::operation::KINDS, "{tally:#?}");
    for (kind, (worked, failed)) in &tally {
        println!("{kind}: {worked} worked, {failed} failed");
        assert!(*worked >= 1, "{kind}: {worked} worked, {failed} failed");
    }
}
