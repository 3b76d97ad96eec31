//! What a reader needs to know about a run, and the document that tells it.

use std::path::Path;

use anyhow::{Context, Result};

use crate::peer::{KERNEL_OPTIONS, Missing, Peer};
use crate::report::{self, Column, Results};
use crate::row::Row;
use crate::scratch::Scratch;
use crate::workloads;

const BEGIN: &str = "<!-- figures: written by cargo bench --bench compare -- --doc -->\n";
const END: &str = "<!-- end of figures -->\n";

/// Empty results of a run in this setting.
pub fn setting(scratch: &Scratch, peers: &[Peer], missing: Vec<Missing>, quick: bool) -> Results {
    let mut results = Results {
        missing,
        quick,
        ..Results::default()
    };
    let columns = peers.iter().map(|peer| Column {
        name: peer.name.clone(),
        version: peer.version.clone(),
    });
    results.peers = columns.collect();
    let options: Vec<String> = KERNEL_OPTIONS
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut note = |name: &str, what: String| {
        results.setting.insert(name.to_owned(), what);
    };
    note("backing", scratch.backing.clone());
    note("kernel overlayfs options", options.join(","));
    note("machine", machine());
    if quick {
        note(
            "quick",
            "sizes and numbers are smaller than the names say; no dpkg".into(),
        );
    }
    results
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = read("/proc/meminfo");
    let kib = memory.split_whitespace().nth(1).unwrap_or("0").to_owned();
    let gib = kib.parse::<u64>().unwrap_or_default() >> 20;
    format!(
        "{} x {}, {gib} GiB of memory, Linux {}",
        workloads::cpus(),
        model.map_or("CPU", |(_, model)| model),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// Rewrites the figures in docs/PERFORMANCE.md, and the chart beside it.
pub fn rewrite(results: &Results, rows: &[Row]) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let path = docs.join("PERFORMANCE.md");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).context("no mark before figures")?;
    let (_, after) = rest.split_once(END).context("no mark after figures")?;
    let figures = report::markdown(results, rows);
    std::fs::write(&path, format!("{before}{BEGIN}\n{figures}\n{END}{after}"))?;
    report::draw(results, rows, &docs.join("performance.svg"))
}
