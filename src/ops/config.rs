//! What a union is made of, as plain data: the command line fills it in, [`super::Union`] opens it.

use std::path::PathBuf;

use crate::ids::IdMaps;
pub use crate::marker::override_stat::Store;
pub use crate::upper::{Durability, Origins};

/// Layers and behaviour of one union.
#[derive(Debug, Clone)]
pub struct Config {
    /// Lower directories, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Directories that only hold data of metadata-only copies, the first to be asked first.
    pub data: Vec<PathBuf>,
    /// Metadata-only copies.
    pub metacopy: MetacopyConfig,
    /// The writable layer; `None` makes a read-only union.
    pub upper: Option<UpperConfig>,
    /// Refuse every change although there is an upper.
    pub read_only: bool,
    /// Others change the layers meanwhile: as little as possible is remembered.
    pub changing_layers: bool,
    /// What is done with redirects.
    pub redirect_dir: RedirectDir,
    /// How owners are shown and stored.
    pub ids: IdMaps,
    /// Whether owners, modes and types may be kept in attributes.
    pub stat_override: StatOverride,
    /// Whether access control lists are in force.
    pub acl: AclMode,
    /// Bytes that listings kept in memory may take.
    pub cache_size: u64,
}

impl Config {
    /// The usual [`Self::cache_size`].
    pub const CACHE_SIZE: u64 = 64 << 20;
}

impl Default for Config {
    /// No layers yet, and the usual behaviour.
    fn default() -> Config {
        Config {
            lowers: Vec::new(),
            data: Vec::new(),
            metacopy: MetacopyConfig::default(),
            upper: None,
            read_only: false,
            changing_layers: false,
            redirect_dir: RedirectDir::default(),
            ids: IdMaps::default(),
            stat_override: StatOverride::default(),
            acl: AclMode::default(),
            cache_size: Config::CACHE_SIZE,
        }
    }
}

/// What is done with redirects, which let a directory with lower parts be renamed (`--redirect-dir`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectDir {
    /// As is safe: they are written and followed where only a privileged process can make markers,
    /// and deletions are not `.wh.` files.
    #[default]
    Auto,
    /// They are written, and all are followed.
    On,
    /// None is written; those that `Auto` follows are followed.
    Off,
    /// None is written; all are followed.
    Follow,
    /// None is written or followed.
    NoFollow,
}

/// What is done about metadata-only copies (the kernel's metacopy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetacopyConfig {
    /// A change of attributes copies no data; markers that any user can write are followed.
    pub on: bool,
    /// Whether digests of the data are checked.
    pub verity: VerityMode,
}

/// What is done about digests in metadata-only copies (`--verity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerityMode {
    /// They are not looked at.
    #[default]
    Off,
    /// Data that has another one is refused.
    On,
    /// So are copies without.
    Require,
}

/// Whether owners, modes and types may be kept in attributes (`--stat-override`). A layer keeps them so
/// if its root has such an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatOverride {
    /// No: who may write in the root of a layer could make everything in it anybody's.
    #[default]
    Off,
    /// In layers that do.
    Read,
    /// Also in the upper, from now on in this attribute.
    Write(Store),
}

/// Whether access control lists are in force (`--acl`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AclMode {
    /// Where the upper can hold them; in a read-only union, where any layer can.
    #[default]
    Auto,
    /// Never: mode bits alone count, and are shown so that nobody gains a right by that.
    Off,
}

/// The writable layer.
#[derive(Debug, Clone)]
pub struct UpperConfig {
    /// Directory that receives all changes.
    pub upper: PathBuf,
    /// Directory on the same filesystem in which changes are built before they become visible.
    pub work: PathBuf,
    /// How deletions are written.
    pub whiteout: WhiteoutChoice,
    /// What is made safe from a crash of the machine.
    pub durability: Durability,
    /// What the markers of copies say of the filesystem that they came from.
    pub origins: Origins,
}

impl UpperConfig {
    /// With the usual behaviour.
    pub fn new(upper: PathBuf, work: PathBuf) -> UpperConfig {
        UpperConfig {
            upper,
            work,
            whiteout: WhiteoutChoice::default(),
            durability: Durability::default(),
            origins: Origins::default(),
        }
    }
}

/// Which spelling of a deletion to write (`--whiteout`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhiteoutChoice {
    /// Character devices where they work, else xattr whiteouts, else `.wh.` files.
    #[default]
    Auto,
    /// Character device 0/0: the kernel's form.
    CharDev,
    /// Empty file with the xattr `overlay.whiteout`.
    Xattr,
    /// `.wh.NAME` files: the form of AUFS and OCI layers.
    File,
    /// As `Auto`; but an upper that never was one of ours, and that holds `.wh.` files, is one of
    /// fuse-overlayfs, to which they are deletions.
    Found,
    /// `.wh.` files, unless the upper was begun in another form.
    PreferFile,
}
