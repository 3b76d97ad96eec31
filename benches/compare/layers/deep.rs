//! Many layers that all have the same directories, each with files of its own.

use std::path::Path;

use anyhow::Result;

use super::{Plan, empty, put};

/// As many layers as a container image may have, with a tree to walk.
pub const DEEP: usize = 60;

/// More layers than anybody has.
pub const MANY: usize = 500;

/// Directories that all layers of the deep set share.
pub const DIRECTORIES: usize = 20;

/// Files in the shared directory of the bottom layer of many.
pub const BOTTOM_FILES: usize = 500;

pub fn deep(root: &Path) -> Result<Plan> {
    let plan = empty(root, DEEP)?;
    for (n, lower) in plan.lowers.iter().enumerate() {
        for dir in 0..DIRECTORIES {
            for file in 0..5 {
                put(&lower.join(format!("d{dir}/layer{n}-{file}")), b"deep\n")?;
            }
        }
    }
    Ok(plan)
}

pub fn many(root: &Path) -> Result<Plan> {
    let plan = empty(root, MANY)?;
    for (n, lower) in plan.lowers.iter().enumerate() {
        put(&lower.join(format!("common/layer{n}")), b"many\n")?;
    }
    if let Some(bottom) = plan.lowers.last() {
        for n in 0..BOTTOM_FILES {
            put(&bottom.join(format!("common/bottom{n}")), b"bottom\n")?;
        }
    }
    Ok(plan)
}
