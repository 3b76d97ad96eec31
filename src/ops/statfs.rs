//! statfs: the space of the layer that is written, or of the topmost.

use super::Union;
use crate::error::{Result, WhileDoing};

/// What statvfs(3) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// All blocks, in units of `frsize`.
    pub blocks: u64,
    /// Free ones.
    pub bfree: u64,
    /// Free ones for ordinary users.
    pub bavail: u64,
    /// All inodes.
    pub files: u64,
    /// Free ones.
    pub ffree: u64,
    /// Preferred size of an access.
    pub bsize: u32,
    /// Size of a block.
    pub frsize: u32,
    /// The longest name.
    pub namelen: u32,
}

impl Union {
    /// Space and limits.
    ///
    /// # Errors
    /// Those of fstatvfs(3).
    pub fn statfs(&self) -> Result<StatFs> {
        let st =
            rustix::fs::fstatvfs(&self.layer(0)?.root).while_doing(|| "stat the filesystem")?;
        let namelen = match &self.upper {
            Some(upper) => st.f_namemax.min(upper.name_max() as u64),
            None => st.f_namemax,
        };
        Ok(StatFs {
            blocks: st.f_blocks,
            bfree: st.f_bfree,
            bavail: st.f_bavail,
            files: st.f_files,
            ffree: st.f_ffree,
            bsize: u32::try_from(st.f_bsize).unwrap_or(4096),
            frsize: u32::try_from(st.f_frsize).unwrap_or(4096),
            namelen: u32::try_from(namelen).unwrap_or(255),
        })
    }
}
