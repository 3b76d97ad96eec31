//! What `inspect` and `stats` print for people.

use std::fmt::Write;

use super::host::Report;
use crate::ops::{Inspect, Refreshed, Role, Stats};

/// `unionmount refresh`.
pub(crate) fn refreshed(count: Refreshed) -> String {
    let Refreshed {
        directories,
        others,
    } = count;
    format!("forgot directories: {directories}, other objects: {others}\n")
}

/// `unionmount inspect`.
pub(crate) fn inspect(inspect: &Inspect) -> String {
    let head = [
        ("version", inspect.version.clone()),
        ("pid", inspect.pid.to_string()),
        ("mountpoint", inspect.mountpoint.clone()),
        ("source", inspect.source.clone()),
        ("options", inspect.options.join(",")),
        ("namespace", inspect.namespace.clone()),
    ];
    let mut out = table(&head.map(|(key, value)| vec![key.to_owned(), value]), &[]);
    for note in &inspect.notes {
        out.push_str(&format!("note        {note}\n"));
    }
    out.push('\n');
    let mut rows = vec![
        [
            "ROLE",
            "DEVICE",
            "FILESYSTEM",
            "WHITEOUT",
            "MARKERS",
            "CAPABILITIES",
            "PATH",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for layer in &inspect.layers {
        let role = match layer.role {
            Role::Upper => "upper",
            Role::Lower => "lower",
        };
        rows.push(vec![
            role.to_owned(),
            layer.device.clone(),
            layer.filesystem.clone(),
            layer.whiteout.clone().unwrap_or_else(dash),
            layer.markers.clone().unwrap_or_else(dash),
            Some(layer.capabilities.join(","))
                .filter(|c| !c.is_empty())
                .unwrap_or_else(dash),
            layer.path.clone(),
        ]);
    }
    out.push_str(&table(&rows, &[]));
    out
}

/// `unionmount stats`.
pub(crate) fn stats(stats: &Stats) -> String {
    let mut rows = vec![
        ["REQUEST", "COUNT", "ERRORS", "P50 us", "P99 us", "MAX us"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for op in &stats.requests {
        let numbers = [op.count, op.errors, op.p50_us, op.p99_us, op.max_us];
        rows.push(
            std::iter::once(op.op.clone())
                .chain(numbers.map(|n| n.to_string()))
                .collect(),
        );
    }
    let mut out = table(&rows, &[1, 2, 3, 4, 5]);
    out.push('\n');
    let rest = [
        ("inodes known", stats.inodes),
        ("directory indexes", stats.indexes),
        ("index entries", stats.index_entries),
        ("index bytes", stats.index_bytes),
        ("index bytes at most", stats.index_limit),
        ("index hits", stats.index_hits),
        ("index misses", stats.index_misses),
        ("descriptor hits", stats.descriptor_hits),
        ("descriptor misses", stats.descriptor_misses),
        ("descriptors open", stats.descriptors_open),
        ("copy-ups", stats.copy_ups),
        ("bytes copied", stats.copied_bytes),
        ("panics", stats.panics),
    ];
    let rest = rest.map(|(name, value)| vec![name.to_owned(), value.to_string()]);
    out.push_str(&table(&rest, &[1]));
    out
}

/// `unionmount check-host`.
pub(crate) fn host(report: &Report) -> String {
    let mut rows = vec![["WAY", "WORKS", ""].map(str::to_owned).to_vec()];
    for finding in &report.ways {
        let works = if finding.works { "yes" } else { "no" };
        rows.push(vec![
            finding.way.to_owned(),
            works.to_owned(),
            finding.note.clone(),
        ]);
    }
    table(&rows, &[])
}

fn dash() -> String {
    "-".to_owned()
}

/// Columns under each other, two spaces apart; those in `right` end under each other.
fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String cannot fail; the result has nothing to say.
            crate::error::best_effort(
                "format",
                if right.contains(&column) {
                    write!(line, "{cell:>width$}  ")
                } else {
                    write!(line, "{cell:<width$}  ")
                },
            );
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bbb".to_owned(), "22".to_owned()],
        ];
        assert_eq!(table(&rows, &[1]), "a     1\nbbb  22\n");
        assert_eq!(table(&rows, &[]), "a    1\nbbb  22\n");
    }
}
