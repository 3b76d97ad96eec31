//! How long engines take over kernel overlayfs, fuse-overlayfs and unionmount, taking turns:
//! `cargo bench --bench engines -- --help`. As root; needs the packages that tests/run names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

#[path = "../../tests/engines/image.rs"]
mod image;
#[path = "../../tests/kit/mod.rs"]
mod kit;
// The tests use more of it.
#[allow(dead_code)]
#[path = "../../tests/engines/machine.rs"]
mod machine;

mod work;

use clap::Parser;

use machine::{Driver, Machine, Who};
use work::{Row, Store};

#[derive(Parser)]
#[command(name = "cargo bench --bench engines --")]
struct Arguments {
    /// How often everything is done.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Files of the big image.
    #[arg(long, default_value_t = 100_000)]
    files: usize,
    /// Of cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The columns; all times are compared with the first.
const DRIVERS: [(Driver, &str); 4] = [
    (Driver::Kernel, "kernel, compared"),
    (Driver::KernelDirect, "kernel, upper read"),
    (Driver::FuseOverlayfs, "fuse-overlayfs 1"),
    (Driver::Ours, "unionmount"),
];

fn main() {
    let arguments = Arguments::parse();
    let many = work::many_files(arguments.files);
    let stores: Vec<Store> = DRIVERS
        .iter()
        .map(|(driver, name)| {
            eprintln!("filling the store of {name}");
            Store::new(Machine::new(Who::Root, *driver), &many)
        })
        .collect();
    drop(many);
    let rows = work::rows(arguments.files);
    let mut times = vec![vec![Vec::new(); stores.len()]; rows.len()];
    for round in 0..arguments.rounds {
        for (row, times) in rows.iter().zip(&mut times) {
            for turn in 0..stores.len() {
                let n = (turn + round) % stores.len();
                let took = row.measure(&stores[n]);
                eprintln!("{}: {}: {took:.2} s", row.name, DRIVERS[n].1);
                times[n].push(took);
            }
        }
    }
    print(&rows, &mut times);
}

/// A table in Markdown: medians, and in brackets in relation to the first column.
fn print(rows: &[Row], times: &mut [Vec<Vec<f64>>]) {
    let head: Vec<&str> = DRIVERS.iter().map(|(_, name)| *name).collect();
    println!(
        "| | {} |\n| --- |{}",
        head.join(" | "),
        " --: |".repeat(head.len())
    );
    for (row, times) in rows.iter().zip(times) {
        let medians: Vec<f64> = times.iter_mut().map(|all| median(all)).collect();
        let cells = medians.iter().enumerate().map(|(n, time)| match n {
            0 => format!("{time:.2} s"),
            _ => format!("{time:.2} s ({:.2})", time / medians[0]),
        });
        let cells: Vec<String> = cells.collect();
        println!("| {} | {} |", row.name, cells.join(" | "));
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
