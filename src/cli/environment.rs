//! What the environment says: the variables of fuse-overlayfs, obeyed under that name only.

use std::env;
use std::path::PathBuf;

/// The variables that are obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Environment {
    /// `FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT`: deletions are to be `.wh.` files.
    pub(crate) wh_files: bool,
    /// `FUSE_OVERLAYFS_DEBUG_LOG`: a file for everything there is to log.
    pub(crate) debug_log: Option<PathBuf>,
}

impl Environment {
    /// Reads it. (`FUSE_OVERLAYFS_NO_PASSTHROUGH` asks for what is so here: data never bypasses the
    /// daemon.)
    pub(crate) fn read() -> Environment {
        Environment {
            wh_files: env::var_os("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT").is_some(),
            debug_log: env::var_os("FUSE_OVERLAYFS_DEBUG_LOG")
                .filter(|file| !file.is_empty())
                .map(PathBuf::from),
        }
    }
}
