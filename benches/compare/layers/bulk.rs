//! Small files in many directories, most in the bottom layer, some of them again in the top one.

use std::path::Path;

use anyhow::Result;

use super::text::Text;
use super::{Plan, empty, put};
use crate::sizes::Sizes;

/// Files in one directory.
const PER_DIRECTORY: usize = 11;

/// `half0` and `half1` have one half of the files each, `moved` those of the directory to move.
pub fn make(root: &Path, sizes: &Sizes) -> Result<Plan> {
    let plan = empty(root, 2)?;
    let mut text = Text::new(2);
    for n in 0..sizes.bulk_files {
        let dir = n / PER_DIRECTORY;
        let name = format!("bulk/half{}/d{:02}/d{dir}/f{n}", dir % 2, dir / 2 % 40);
        let size = text.size().min(16 << 10);
        let content = text.bytes(size).to_vec();
        for (layer, lower) in plan.lowers.iter().enumerate() {
            if layer == 1 || n % 10 == 0 {
                put(&lower.join(&name), &content)?;
            }
        }
    }
    if let Some(bottom) = plan.lowers.last() {
        for n in 0..sizes.moved_files {
            put(&bottom.join(format!("moved/f{n}")), text.bytes(1000))?;
        }
    }
    Ok(plan)
}
