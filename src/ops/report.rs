//! What a running union tells about itself; crosses the mount as JSON (docs: `unionmount inspect --help`).

use serde::{Deserialize, Serialize};

use super::Union;
use crate::layer::supports_acl;

/// Answer to `unionmount inspect`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
pub struct Inspect {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon, in the daemon's own pid namespace.
    pub pid: u32,
    /// Where the daemon was asked to mount.
    pub mountpoint: String,
    /// What mountinfo shows as the source.
    pub source: String,
    /// The options in force, as `key` or `key=value`.
    pub options: Vec<String>,
    /// Whether the daemon left the mount namespace in which it mounted, or why not.
    #[serde(default)]
    pub namespace: String,
    /// What was asked for and has no effect, and what the upper's filesystem cannot do.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Layers, top to bottom.
    pub layers: Vec<LayerReport>,
}

impl Union {
    /// What does not work because the upper's filesystem cannot do it, in words for people.
    pub fn missing(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        let Some(upper) = self.upper.as_ref().filter(|_| self.writable) else {
            return lacks;
        };
        if upper.namespace.is_none() {
            lacks.push(
                "the upper's filesystem takes no extended attributes: copies are without those of \
                 users; hard links and inode numbers are kept until the next mount only"
                    .to_owned(),
            );
        }
        let has_lists = |layer: &crate::layer::Layer| supports_acl(&layer.root_place());
        let aside = upper.owners.store.is_some();
        if !upper.acl && !aside && self.layers.iter().skip(1).any(has_lists) {
            lacks.push(
                "the upper's filesystem takes no access control lists: what has one in a lower \
                 cannot be changed"
                    .to_owned(),
            );
        }
        lacks
    }
}

/// One layer of a union.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct LayerReport {
    /// What it is used for.
    pub role: Role,
    /// The path it was given as (not looked at again after the mount).
    pub path: String,
    /// Device number, `major:minor`.
    pub device: String,
    /// Name of the filesystem it lies on, or its magic number in hex.
    pub filesystem: String,
    /// The form in which deletions are written here; `None` in a lower.
    pub whiteout: Option<String>,
    /// Xattr prefix of the markers written here; `None` in a lower.
    pub markers: Option<String>,
    /// What was found to work here (`private-mount`, `xattr`, `reflink`, ...).
    pub capabilities: Vec<String>,
}

/// What a layer is used for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receives all changes.
    Upper,
    /// Is only read.
    Lower,
}

/// Answer to `unionmount stats`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
pub struct Stats {
    /// Requests by operation, only those that came at least once.
    pub requests: Vec<OpStats>,
    /// Objects the kernel knows or that are needed to reach such.
    pub inodes: u64,
    /// Directories whose merged listing is in memory.
    pub indexes: u64,
    /// Names in those listings.
    pub index_entries: u64,
    /// Bytes of memory that those listings take.
    pub index_bytes: u64,
    /// Bytes they may take (`--cache-size`).
    pub index_limit: u64,
    /// Lookups answered from a listing in memory.
    pub index_hits: u64,
    /// Listings that had to be read from the layers.
    pub index_misses: u64,
    /// Uses of an open descriptor that was in the cache.
    pub descriptor_hits: u64,
    /// Descriptors that had to be opened.
    pub descriptor_misses: u64,
    /// Descriptors that are open for layers, directories and files.
    pub descriptors_open: u64,
    /// Objects copied from a lower to the upper.
    pub copy_ups: u64,
    /// Bytes of data those copies moved (shared by reflink ones included).
    pub copied_bytes: u64,
    /// Requests that ended in a panic (each a bug: please report it).
    pub panics: u64,
}

/// Requests of one kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
pub struct OpStats {
    /// The operation, as the FUSE protocol names it, in lower case.
    pub op: String,
    /// How many came.
    pub count: u64,
    /// How many were answered with an error.
    pub errors: u64,
    /// Half of them took at most this many microseconds.
    pub p50_us: u64,
    /// 99 of 100 took at most this many microseconds.
    pub p99_us: u64,
    /// The slowest one, in microseconds.
    pub max_us: u64,
}
