//! Compares unionmount with a plain directory, kernel overlayfs and fuse-overlayfs, side by side
//! in one run: `cargo bench --bench compare -- --help`.

#![allow(clippy::indexing_slicing, unreachable_pub)]

mod arguments;
mod daemon;
mod document;
mod fixtures;
mod interrupt;
mod layers;
mod measure;
mod peer;
mod report;
mod row;
mod scratch;
mod session;
mod sizes;
mod workloads;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;

use arguments::Arguments;
use report::{Results, Verdict};
use row::Row;
use scratch::Scratch;
use workloads::Workload;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("compare: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let rows: Vec<Row> = workloads::all()
        .iter()
        .flat_map(|workload| workload.rows)
        .copied()
        .collect();
    if arguments.list {
        return list(arguments);
    }
    let results = match &arguments.from {
        Some(file) => Results::read(file)?,
        None => {
            let results = measure(arguments)?;
            results.write(&arguments.json)?;
            results
        }
    };
    println!("{}", report::text(&results, &rows));
    if let Some(file) = &arguments.svg {
        report::draw(&results, &rows, file)?;
    }
    if let Some(file) = &arguments.markdown {
        std::fs::write(file, report::markdown(&results, &rows))?;
    }
    if arguments.doc && !interrupt::asked() {
        document::rewrite(&results, &rows)?;
    }
    let missed = rows
        .iter()
        .flat_map(|row| Verdict::of(&results, row))
        .filter(|verdict| !verdict.met)
        .count();
    println!("goals missed: {missed}");
    let failed = arguments.check && missed + results.failures.len() > 0 || interrupt::asked();
    Ok(ExitCode::from(u8::from(failed)))
}

/// The workloads that the command line names.
fn chosen(arguments: &Arguments) -> Result<Vec<&'static Workload>> {
    let mut all = workloads::all();
    let words = &arguments.only;
    if !words.is_empty() {
        all.retain(|workload| {
            let slugs = workload.rows.iter().map(|row| row.slug);
            let mut names = slugs.chain([workload.name]);
            names.any(|name| words.iter().any(|word| name.contains(word.as_str())))
        });
    }
    if all.is_empty() {
        bail!("no workload has one of {words:?} in its name; --list shows them");
    }
    Ok(all)
}

fn list(arguments: &Arguments) -> Result<ExitCode> {
    let (peers, missing) = peer::find(arguments)?;
    for peer in peers {
        println!("peer {}: {}", peer.name, peer.version);
    }
    for peer in missing {
        println!("missing {}: {}", peer.name, peer.why);
    }
    for workload in chosen(arguments)? {
        println!("workload {}", workload.name);
        for row in workload.rows {
            println!("    {}", row.title);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments) -> Result<Results> {
    let sizes = if arguments.quick {
        &sizes::QUICK
    } else {
        &sizes::FULL
    };
    let mut workloads = chosen(arguments)?;
    if arguments.quick {
        workloads.retain(|workload| workload.layers != layers::Which::System);
    }
    let (peers, mut missing) = peer::find(arguments)?;
    let scratch = Scratch::new(!arguments.quick, arguments.disk.as_deref())?;
    interrupt::watch(scratch.whole().to_owned())?;
    let peers = measure::able(peers, &scratch, &mut missing)?;
    let fixtures = fixtures::Fixtures::new(&scratch.root().join("f"), sizes)?;
    let run = measure::Run {
        scratch: &scratch,
        sizes,
        fixtures: &fixtures,
        peers: &peers,
        rounds: arguments.rounds.unwrap_or(sizes.rounds),
    };
    let mut results = document::setting(&scratch, &peers, missing, arguments.quick);
    let start = Instant::now();
    match run.measure(&workloads, &mut results) {
        // What was measured before is shown.
        Err(why) if !interrupt::asked() => return Err(why),
        _ => {}
    }
    let took = start.elapsed().as_secs_f64() / 60.0;
    let note = match interrupt::asked() {
        true => "INTERRUPTED, not everything was measured".to_owned(),
        false => format!("up to {} rounds, {took:.1} minutes in all", run.rounds),
    };
    results.setting.insert("run".into(), note);
    Ok(results)
}
