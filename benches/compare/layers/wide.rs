//! One directory with very many entries.

use std::fs::File;
use std::path::Path;

use anyhow::Result;

use super::{Plan, empty};
use crate::sizes::Sizes;

pub fn make(root: &Path, sizes: &Sizes) -> Result<Plan> {
    let plan = empty(root, 1)?;
    for lower in &plan.lowers {
        let wide = lower.join("wide");
        std::fs::create_dir(&wide)?;
        for n in 0..sizes.wide_entries {
            File::create(wide.join(format!("entry{n}")))?;
        }
    }
    Ok(plan)
}
