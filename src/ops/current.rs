//! Whether a listing in memory still holds, for layers that change while they are mounted
//! (`--timeout 0`, `--io direct`).
//!
//! The parts of a directory in lowers are looked at whenever its listing is used: a lower may be
//! changed by others. Nobody but this daemon may change the upper.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Union;
use crate::layer::LayerId;
use crate::merge::{DirIndex, Stack, Witnesses};
use crate::tree::Inode;

impl Union {
    /// Whether anything that was read from a lower may be out of date.
    pub(super) fn may_change(&self) -> bool {
        // Relaxed: whoever asked for a refresh waits for its end.
        !self.lasting || self.refreshed.load(Ordering::Relaxed)
    }

    /// Looks at the parts that `dir` has in lowers, if they are watched.
    pub(super) fn watch(&self, dir: &Arc<Inode>, layers: &[LayerId]) -> Witnesses {
        if self.lasting {
            return Witnesses::default();
        }
        let lowers = layers.iter().filter(|l| Some(**l) != self.upper_id());
        lowers
            .map(|layer| {
                let path = self.real_path(dir, *layer).ok();
                let seen = path.and_then(|path| self.layer(*layer).ok()?.witness(&path));
                (*layer, seen)
            })
            .collect()
    }

    /// Whether `index`, that of `dir`, still tells what the layers hold.
    pub(super) fn is_current(&self, dir: &Arc<Inode>, index: &DirIndex) -> bool {
        if self.lasting {
            return true;
        }
        let then = Arc::clone(&index.read().witnesses);
        let layers: Vec<LayerId> = then.iter().map(|(layer, _)| *layer).collect();
        self.watch(dir, &layers) == then
    }

    /// Forgets the listing of `dir`, and the way to its parts in lowers. The caller holds the
    /// directory's change lock.
    pub(super) fn drop_listing(&self, dir: &Arc<Inode>) {
        self.indexes.remove(dir.ino);
        let mut at = Arc::clone(dir);
        loop {
            let layers = at.dir().map(|d| d.stack());
            for layer in layers.iter().flat_map(|s| s.layers()) {
                if Some(*layer) != self.upper_id() {
                    self.dir_fds.remove((at.ino, *layer));
                }
            }
            match at.parent() {
                Some((parent, _)) => at = parent,
                None => return,
            }
        }
    }

    /// The layers that have the name of `dir`, a directory that is known already, were read again.
    pub(super) fn restack(&self, dir: &Arc<Inode>, candidates: &[LayerId]) {
        let Some(own) = dir.dir().filter(|_| self.may_change()) else {
            return;
        };
        // If somebody is at work in it, its parts are as that one believes.
        let Some(_change) = own.change.try_lock() else {
            return;
        };
        let stack = own.stack();
        if stack.layers() == candidates || stack.is_redirected() {
            return;
        }
        own.set_stack(Stack::candidates(candidates.into()));
        self.drop_listing(dir);
    }
}
