//! Two lowers with next to nothing in them.

use std::path::Path;

use anyhow::Result;

use super::{Plan, empty, put};

pub fn make(root: &Path) -> Result<Plan> {
    let plan = empty(root, 2)?;
    for lower in &plan.lowers {
        put(&lower.join("readme"), b"nothing here\n")?;
    }
    Ok(plan)
}
