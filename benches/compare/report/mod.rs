//! The results: what was measured, on what, and the ways to show it.

mod chart;
mod goals;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::daemon::Cost;
use crate::peer::Missing;

pub use chart::draw;
pub use goals::Verdict;
pub use table::{markdown, text};

/// What one peer did in one row, over all rounds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Seconds of one operation, for each round.
    pub values: Vec<f64>,
    pub operations: u64,
    pub costs: Vec<Cost>,
}

/// A peer as the reader sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub version: String,
}

/// All that a run found, as the JSON file has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Machine, kernel, backing, options: one line each.
    pub setting: BTreeMap<String, String>,
    pub quick: bool,
    pub peers: Vec<Column>,
    pub missing: Vec<Missing>,
    pub failures: Vec<Missing>,
    /// By row and peer.
    pub rows: BTreeMap<String, BTreeMap<String, Figures>>,
}

impl Figures {
    pub fn median(&self) -> Option<f64> {
        median(self.values.clone())
    }

    /// Requests of one operation that somebody waited for.
    pub fn requests(&self) -> Option<f64> {
        let counts = self.costs.iter().filter_map(|cost| cost.requests);
        let all = median(counts.map(|count| count as f64).collect())?;
        Some(all / self.operations.max(1) as f64)
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

impl Results {
    pub fn median(&self, row: &str, peer: &str) -> Option<f64> {
        self.rows.get(row)?.get(peer)?.median()
    }

    /// A peer's median divided by that of kernel overlayfs.
    pub fn ratio(&self, row: &str, peer: &str) -> Option<f64> {
        Some(self.median(row, peer)? / self.median(row, "kernel")?)
    }

    /// With medians, minima and maxima beside the raw values.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut value = serde_json::to_value(self)?;
        let mut summary = serde_json::Map::new();
        for (row, peers) in &self.rows {
            let figures = peers.iter().map(|(peer, figures)| {
                let low = figures.values.iter().copied().fold(f64::INFINITY, f64::min);
                let high = figures.values.iter().copied().fold(0.0, f64::max);
                let shown = serde_json::json!({
                    "median": figures.median(),
                    "min": low,
                    "max": high,
                    "rounds": figures.values.len(),
                    "to_kernel": self.ratio(row, peer),
                });
                (peer.clone(), shown)
            });
            summary.insert(row.clone(), figures.collect());
        }
        if let Some(object) = value.as_object_mut() {
            object.insert("summary".into(), summary.into());
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let text = serde_json::to_string_pretty(&value)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    pub fn read(path: &Path) -> Result<Results> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_slice(&text)?)
    }
}
