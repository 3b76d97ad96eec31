//! The results as tables: on the terminal, and as Markdown for the documentation.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::{Figures, Results, Verdict, median};
use crate::row::{Goal, Row, Unit, three_digits};
use crate::workloads::A_REQUEST;

/// A table before it has a form.
#[derive(Default)]
struct Cells {
    head: Vec<String>,
    lines: Vec<Vec<String>>,
}

fn tables(results: &Results, rows: &[Row]) -> [(&'static str, Cells); 3] {
    [
        ("Times", times(results, rows)),
        ("What the daemons used", costs(results, rows)),
        (
            "What is missed, and what requests have to do with it",
            missed(results, rows),
        ),
    ]
}

/// Everything, for the terminal.
pub fn text(results: &Results, rows: &[Row]) -> String {
    let mut all = notes(results, "");
    for (title, cells) in tables(results, rows) {
        let mut table = Table::new();
        table
            .load_style(NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(&cells.head);
        for line in &cells.lines {
            table.add_row(line);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        all.push_str(&format!("\n{title}\n"));
        all.push_str(&table.to_string());
        all.push('\n');
    }
    all
}

/// Everything, for a document.
pub fn markdown(results: &Results, rows: &[Row]) -> String {
    let mut all = notes(results, "- ");
    for (title, cells) in tables(results, rows) {
        all.push_str(&format!("\n### {title}\n\n"));
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        all.push_str(&line(&cells.head));
        let rule = |n: usize| if n == 0 { "---" } else { "--:" };
        let rules: Vec<String> = (0..cells.head.len()).map(|n| rule(n).into()).collect();
        all.push_str(&line(&rules));
        for cells in &cells.lines {
            all.push_str(&line(cells));
        }
    }
    all
}

/// What was measured on what, and what is not there.
fn notes(results: &Results, bullet: &str) -> String {
    let mut all = String::new();
    let mut note = |name: &str, what: &str| {
        let what = what.lines().next().unwrap_or_default();
        all.push_str(&format!("{bullet}{name}: {what}\n"));
    };
    for (name, what) in &results.setting {
        note(name, what);
    }
    for peer in &results.peers {
        note(&peer.name, &peer.version);
    }
    for missing in &results.missing {
        note(&format!("missing: {}", missing.name), &missing.why);
    }
    for failure in &results.failures {
        note(&format!("not measured: {}", failure.name), &failure.why);
    }
    all
}

fn times(results: &Results, rows: &[Row]) -> Cells {
    let mut head = vec!["workload".to_owned()];
    head.extend(results.peers.iter().map(|peer| peer.name.clone()));
    head.push("goal".into());
    let measured = rows
        .iter()
        .filter(|row| results.rows.contains_key(row.slug));
    let lines = measured.map(|row| {
        let mut line = vec![row.title.to_owned()];
        line.extend(
            results
                .peers
                .iter()
                .map(|peer| time(results, row, &peer.name)),
        );
        line.push(Verdict::show(&Verdict::of(results, row)));
        line
    });
    Cells {
        head,
        lines: lines.collect(),
    }
}

/// The median, and in brackets its ratio to kernel overlayfs.
fn time(results: &Results, row: &Row, peer: &str) -> String {
    let Some(median) = results.median(row.slug, peer) else {
        return "-".into();
    };
    let shown = row.unit.show(median);
    match results.ratio(row.slug, peer) {
        Some(ratio) if peer != "kernel" && row.unit != Unit::Times => {
            format!("{shown} ({})", three_digits(ratio))
        }
        _ => shown,
    }
}

/// Processor seconds and peak memory of each daemon, and requests where they are counted.
fn costs(results: &Results, rows: &[Row]) -> Cells {
    let daemons: Vec<&str> = results
        .peers
        .iter()
        .map(|peer| peer.name.as_str())
        .filter(|name| *name != "native" && *name != "kernel")
        .collect();
    let mut head = vec!["workload: CPU, peak RSS, requests per operation".to_owned()];
    head.extend(daemons.iter().map(|&name| name.to_owned()));
    let measured = rows
        .iter()
        .filter_map(|row| Some((row, results.rows.get(row.slug)?)))
        .filter(|(_, peers)| peers.values().any(|figures| !figures.costs.is_empty()));
    let lines = measured.map(|(row, peers)| {
        let mut line = vec![row.title.to_owned()];
        line.extend(daemons.iter().map(|name| match peers.get(*name) {
            Some(figures) => cost(figures),
            None => "-".into(),
        }));
        line
    });
    Cells {
        lines: lines.collect(),
        head,
    }
}

/// Rows in which unionmount takes longer than it may next to the kernel: how much longer it takes,
/// and how much of that its requests would take if each were answered from memory.
fn missed(results: &Results, rows: &[Row]) -> Cells {
    let a_request = [
        results.median(A_REQUEST, "unionmount"),
        results.median(A_REQUEST, "kernel"),
    ];
    let [Some(ours), Some(kernels)] = a_request else {
        return Cells::default();
    };
    let a_request = (ours - kernels).max(0.0);
    let lines = rows.iter().filter_map(|row| {
        let Goal::Kernel(most) = row.goal else {
            return None;
        };
        let ratio = results.ratio(row.slug, "unionmount")?;
        if ratio <= most {
            return None;
        }
        let figures = results.rows.get(row.slug)?.get("unionmount")?;
        let longer = figures.median()? - results.median(row.slug, "kernel")?;
        let requests = figures.requests()?;
        let waiting = requests * a_request;
        let mut line = vec![
            row.title.to_owned(),
            format!("{} (<={most})", three_digits(ratio)),
            "-".to_owned(),
            three_digits(requests),
            row.unit.show(waiting),
        ];
        if longer > 0.0 {
            line[2] = row.unit.show(longer);
            line[4].push_str(&format!(" ({:.0} %)", 100.0 * waiting / longer));
        }
        Some(line)
    });
    let requests = format!("these at {} each", Unit::PerOperation.show(a_request));
    let head = [
        "workload",
        "to the kernel",
        "longer by",
        "requests",
        &requests,
    ];
    Cells {
        lines: lines.collect(),
        head: head.map(str::to_owned).to_vec(),
    }
}

fn cost(figures: &Figures) -> String {
    let costs = &figures.costs;
    let Some(cpu) = median(costs.iter().map(|cost| cost.cpu_seconds).collect()) else {
        return "-".into();
    };
    let peak = costs.iter().map(|cost| cost.peak_rss_kib).max();
    let mib = peak.unwrap_or_default() as f64 / 1024.0;
    let mut shown = format!("{cpu:.2} s, {} MiB", three_digits(mib));
    if let Some(requests) = figures.requests() {
        shown.push_str(&format!(", {}", three_digits(requests)));
    }
    shown
}
