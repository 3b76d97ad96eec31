//! One big file, and small ones beside it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::text::Text;
use super::{Plan, empty, put};

/// Small files beside the big one.
pub const SMALL_FILES: usize = 4000;

/// `big` has so many bytes, none of them in a hole.
pub fn make(root: &Path, bytes: u64) -> Result<Plan> {
    let plan = empty(root, 1)?;
    let mut text = Text::new(4);
    for lower in &plan.lowers {
        let mut big = File::create(lower.join("big"))?;
        for _ in 0..bytes >> 20 {
            big.write_all(text.bytes(1 << 20))?;
        }
        big.sync_all()?;
        for n in 0..SMALL_FILES {
            put(&lower.join(format!("small/f{n}")), b"small\n")?;
        }
    }
    Ok(plan)
}
