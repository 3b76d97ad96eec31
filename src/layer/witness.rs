//! What a directory of a layer looked like when it was listed, to tell later whether it was changed.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::place::Stat;
use super::root::Layer;
use crate::attr::Time;
use crate::name::NameBuf;

/// One look at a directory. It is equal to a later one if the same directory lies there, and nothing
/// was made, removed or renamed in it meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    object: (u64, u64, u32),
    times: (Time, Time),
}

impl Layer {
    /// Looks at the directory at `path`, which goes from the root of the layer; `None` if there is none.
    pub fn witness(&self, path: &[NameBuf]) -> Option<Witness> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let text = match path {
            [] => b".".to_vec(),
            names => names.join(&b'/'),
        };
        let dir = rustix::fs::openat2(&self.root, &*text, flags, Mode::empty(), resolve).ok()?;
        let stat = Stat::at(dir.as_fd(), b"").ok()?;
        Some(Witness {
            object: (stat.dev, stat.attr.ino, stat.born),
            times: (stat.attr.mtime, stat.attr.ctime),
        })
    }
}
