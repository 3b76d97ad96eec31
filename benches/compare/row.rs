//! What a line of the table is: its name, its unit, and what is asked of it.

use serde::{Deserialize, Serialize};

/// How a value is shown; all are measured in seconds except `Times`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// The time of the whole thing.
    Whole,
    /// The time of one operation.
    PerOperation,
    /// One latency divided by another.
    Times,
}

/// What unionmount is to reach in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    None,
    /// At most so many times kernel overlayfs.
    Kernel(f64),
    /// With `--writeback` at most so many times kernel overlayfs, and without it faster than every
    /// fuse-overlayfs.
    Writeback(f64),
    /// At most so many seconds (for [`Unit::Times`]: so much).
    Value(f64),
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub slug: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    pub goal: Goal,
    /// How many times faster than fuse-overlayfs 2 it is to be; 0 if nothing is asked.
    pub beats: f64,
}

/// A row that takes the time of the whole thing.
pub const fn whole(slug: &'static str, title: &'static str, goal: Goal, beats: f64) -> Row {
    Row {
        slug,
        title,
        unit: Unit::Whole,
        goal,
        beats,
    }
}

/// A row that takes the time of one operation.
pub const fn each(slug: &'static str, title: &'static str, goal: Goal, beats: f64) -> Row {
    Row {
        slug,
        title,
        unit: Unit::PerOperation,
        goal,
        beats,
    }
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        let (value, unit) = match self {
            Unit::Times => (value, "x"),
            _ if value < 1e-3 => (value * 1e6, " us"),
            _ if value < 1.0 => (value * 1e3, " ms"),
            _ => (value, " s"),
        };
        format!("{}{unit}", three_digits(value))
    }
}

/// A number as people read it: three digits that count.
pub fn three_digits(value: f64) -> String {
    let places = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}
