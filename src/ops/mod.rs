//! Every operation of the filesystem, on real directories, without any mount.

mod config;
mod report;

pub use config::{Config, UpperConfig, WhiteoutChoice};
pub use report::{Inspect, LayerReport, OpStats, Role, Stats};

use crate::error::SetupError;

/// An opened union: its layers, its memory, its operations.
#[derive(Debug)]
pub struct Union {}

impl Union {
    /// Opens every layer and takes the upper for this process alone. Nothing is mounted yet.
    ///
    /// # Errors
    /// A sentence that names the layer, the cause and the remedy.
    pub fn open(_config: &Config) -> Result<Union, SetupError> {
        Ok(Union {})
    }
}
