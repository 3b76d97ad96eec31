//! The workloads: each mounts once per round and peer, and times one or more rows.

mod big;
mod calls;
mod changing;
mod data;
mod deep;
mod programs;
mod reading;
mod tools;
mod wide;

use anyhow::Result;

use crate::layers::Which;
use crate::row::Row;
use crate::session::{Native, Session};

pub use calls::A_REQUEST;
pub use tools::cpus;

/// Rows that are measured in one mount.
pub struct Workload {
    pub name: &'static str,
    pub layers: Which,
    pub native: Native,
    pub rows: &'static [Row],
    pub run: fn(&mut Session<'_>) -> Result<()>,
}

/// All of them, those of one set of layers side by side: only one set is on disk at a time.
pub fn all() -> Vec<&'static Workload> {
    let all = [
        reading::ALL,
        calls::ALL,
        wide::ALL,
        changing::ALL,
        data::ALL,
        programs::ALL,
        deep::ALL,
        big::ALL,
    ];
    let mut all: Vec<&Workload> = all.into_iter().flatten().collect();
    all.sort_by_key(|workload| workload.layers as usize);
    all
}
