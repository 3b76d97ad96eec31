//! Every operation of the filesystem, on real directories, without any mount.
//!
//! Order of locks, outermost first:
//! 0. `Union::completion`, by the completion of metadata-only copies alone,
//! 1. `Inode::copying` of one object (also against the loss of two of its names at once),
//! 2. the rename lock (`Union::renames`), for renames across directories,
//! 3. `Dir::change`: ancestor before descendant, else ascending number,
//! 4. `Inode::times` of one object,
//! 5. leaves, held for no system call: an index, table shards, an inode's state.
//!
//! Lookups and reads hold none of 1 to 4 over I/O, but for the first listing of a directory.

mod acl;
mod attr;
mod check;
mod complete;
mod config;
mod control;
mod copy_up;
mod create;
mod current;
mod dir;
mod file;
mod hard_link;
mod identify;
mod ioctl;
mod link;
mod listing;
mod lookup;
mod memory;
mod metacopy;
mod metadata_copy;
mod open;
mod origin;
mod owners;
mod place;
mod protect;
mod redirect;
mod refresh;
mod relocate;
mod remove;
mod rename;
mod report;
mod statfs;
mod xattr;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

pub use crate::upper::{Leftovers, leftovers};
pub use attr::{SetAttr, TimeChange};
pub use check::{Finding, Mend, Trouble, Weight};
pub use complete::{Completed, Failed};
pub use config::{
    AclMode, Config, Durability, MetacopyConfig, Origins, RedirectDir, StatOverride, Store,
    UpperConfig, VerityMode, WhiteoutChoice,
};
pub use create::{NewObject, Perm};
pub use dir::DirItem;
pub use file::{WriteHow, Written};
pub use ioctl::IoctlReply;
pub use lookup::Entry;
pub use refresh::{Outdated, Refreshed};
pub use rename::RenameMode;
pub use report::{Inspect, LayerReport, OpStats, Role, Stats};
pub use statfs::StatFs;

use crate::attr::Kind;
use crate::error::{Errno, Error, Result};
use crate::ids::IdMaps;
use crate::layer::{Layer, LayerId};
use crate::merge::IndexCache;
use crate::name::Name;
use crate::tree::{DataAt, FdCache, Inode, RealId, Table};
use crate::upper::Upper;
use complete::{Completion, MetacopySwitch};
use file::FileFd;
use place::Moves;
use redirect::Redirects;

/// Who asks: the ids, as in the view, and the process of the system call that a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Filesystem user id.
    pub uid: u32,
    /// Filesystem group id.
    pub gid: u32,
    /// Process id as the daemon sees it; 0 if it cannot.
    pub pid: u32,
}

/// What of an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its attributes, or its name.
    Attributes,
    /// Its data.
    Data,
}

/// An opened union: its layers, its memory, its operations.
#[derive(Debug)]
pub struct Union {
    layers: Vec<Layer>,
    /// Layers that are reached by redirects of metadata-only copies alone, and never shown.
    data_layers: Vec<Layer>,
    /// A change of attributes copies no data.
    metacopy: MetacopySwitch,
    /// The walk that completes metadata-only copies. Held while it goes on, before all other locks.
    completion: Mutex<Option<Completion>>,
    /// Metadata-only copies are followed where anybody may have written their marker.
    follow_user_metacopies: bool,
    /// Whether digests in metadata-only copies are checked.
    verity: VerityMode,
    upper: Option<Upper>,
    /// Changes are accepted; if not, an upper is only read (its index and markers count all the same).
    writable: bool,
    /// Nobody else changes the layers: what they once said holds.
    lasting: bool,
    /// Somebody said once that the layers were changed.
    refreshed: AtomicBool,
    redirects: Redirects,
    table: Table,
    indexes: IndexCache,
    ids: IdMaps,
    /// Attributes that keep owners are nobody's own.
    owners_aside: bool,
    lists: acl::Lists,
    /// Directories of layers, `O_PATH`, by number of the view's directory and layer.
    dir_fds: FdCache<(u64, LayerId), OwnedFd>,
    /// Regular files, by number.
    file_fds: FdCache<u64, FileFd>,
    /// Taken by renames across directories: only one at a time changes who is whose ancestor.
    renames: Mutex<()>,
    /// Tells a path walk that it may have gone astray.
    moves: Moves,
    /// Numbers of copied-up objects that no origin marker leads to (a symlink without trusted.*, a
    /// lower whose file handles are missing or not understood): memory keeps what the disk cannot.
    numbers: Mutex<HashMap<RealId, u64>>,
    counters: Counters,
    peak: memory::Peak,
    /// Descriptors of files that must not be closed (unsynced writes), at most; then some are synced.
    dirty_limit: usize,
    /// Descriptors that pin removed objects, at most.
    pin_limit: u64,
}

/// What the union counts about itself.
#[derive(Debug, Default)]
struct Counters {
    index_hits: AtomicU64,
    index_misses: AtomicU64,
    copy_ups: AtomicU64,
    copied_bytes: AtomicU64,
    pins: AtomicU64,
}

impl Union {
    /// The inode with a number the kernel uses.
    fn inode(&self, ino: u64) -> Result<Arc<Inode>> {
        self.table.get(ino).ok_or(Error::from(Errno::STALE))
    }

    /// The inode of a directory.
    fn dir(&self, ino: u64) -> Result<Arc<Inode>> {
        let inode = self.inode(ino)?;
        if inode.dir().is_none() {
            return Err(Errno::NOTDIR.into());
        }
        Ok(inode)
    }

    /// What a number stands for, for a person: the path in the view, and the layer that has it (of a
    /// directory: the topmost).
    pub fn describe(&self, ino: u64) -> String {
        match self.table.get(ino) {
            Some(inode) => {
                let layer = inode.id().layer;
                format!("{} (inode {ino}, layer {layer})", inode.path())
            }
            None => format!("(unknown inode {ino})"),
        }
    }

    /// The writable layer.
    ///
    /// # Errors
    /// `EROFS` in a read-only union.
    fn upper(&self) -> Result<&Upper> {
        let upper = self.upper.as_ref().filter(|_| self.writable);
        upper.ok_or(Error::from(Errno::ROFS))
    }

    /// The id of the writable layer, if there is one.
    fn upper_id(&self) -> Option<LayerId> {
        self.upper.as_ref().map(|u| u.layer)
    }

    /// Whether anything can be changed.
    pub fn is_writable(&self) -> bool {
        self.writable && self.upper.is_some()
    }

    /// How many bytes a change of the object would first have to copy, for it is a file of a lower or
    /// has its data there; `None` if it is not.
    pub fn needs_copy(&self, ino: u64, change: Change) -> Option<u64> {
        if !self.is_writable() {
            return None;
        }
        let concerned = |inode: &Arc<Inode>| {
            let (id, data) = {
                let state = inode.state();
                (state.id, state.data)
            };
            let lower = self.upper_id() != Some(id.layer);
            let below = data == DataAt::Below;
            // A change of attributes waits for data that is being brought.
            let waits = change == Change::Data || inode.copying.is_locked();
            let copies = lower || (below && waits);
            (inode.kind == Kind::File && copies).then(|| (Arc::clone(inode), lower))
        };
        let (inode, lower) = self.table.with(ino, concerned)??;
        if lower && change == Change::Attributes && self.metacopy.is_on() {
            return Some(0);
        }
        // One that cannot be looked at will not be copied either.
        Some(self.stat(&inode).map_or(0, |stat| stat.attr.size))
    }

    /// The same of a change of the name of an object, as far as memory knows.
    pub fn child_needs_copy(&self, parent: u64, name: &Name) -> Option<u64> {
        self.needs_copy(self.child_hint(parent, name)?, Change::Attributes)
    }

    /// The same for removing a name: only a hard link of a lower is copied then.
    pub fn needs_copy_to_remove(&self, parent: u64, name: &Name) -> Option<u64> {
        let ino = self.child_hint(parent, name)?;
        let linked = |i: &Arc<Inode>| i.linked.load(Ordering::Relaxed);
        let is_linked = self.table.with(ino, linked) == Some(true);
        is_linked.then(|| self.needs_copy(ino, Change::Attributes))?
    }

    /// How many bytes a file has from `offset` on.
    pub fn bytes_from(&self, ino: u64, offset: u64) -> u64 {
        let size = self.getattr(ino).map_or(0, |attr| attr.size);
        size.saturating_sub(offset)
    }

    fn child_hint(&self, parent: u64, name: &Name) -> Option<u64> {
        let index = self.indexes.get(parent)?;
        index.read().get(name)?.hint()
    }

    /// A layer by its id.
    fn layer(&self, id: LayerId) -> Result<&Layer, Errno> {
        self.layers.get(usize::from(id)).ok_or(Errno::STALE)
    }
}
