//! fuser on one side, [`crate::ops`] on the other: decode, call, encode; decides nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::ops::{Inspect, Union};

/// How the kernel is to use the filesystem.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServeOptions {
    /// Whether data goes through the kernel's page cache.
    pub io: IoMode,
    /// Let the kernel collect writes (`--writeback`).
    pub writeback: bool,
    /// Threads that read requests; `None`: chosen from the number of CPUs.
    pub threads: Option<usize>,
    /// How long the kernel may believe names and attributes; `None`: for ever.
    pub timeout: Option<Duration>,
}

/// `--io`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoMode {
    /// Through the page cache, with no request for open and close.
    #[default]
    Cached,
    /// Every read and write reaches the layer.
    Direct,
}

/// A mounted union that answers the kernel.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// Agrees with the kernel on the protocol. `device` is an open `/dev/fuse` that mount(2) was
    /// given; `inspect` is what `unionmount inspect` shows (layers are filled in from `union`).
    ///
    /// # Errors
    /// The kernel hung up or is too old.
    pub fn new(
        _union: Arc<Union>,
        _device: OwnedFd,
        _options: ServeOptions,
        _inspect: Inspect,
    ) -> io::Result<Server> {
        Ok(Server {})
    }

    /// Answers requests until the filesystem is unmounted; then everything written is on disk
    /// (unless volatile). Starts its own threads.
    ///
    /// # Errors
    /// The device failed in another way than by an unmount or an abort.
    pub fn run(self) -> io::Result<()> {
        Ok(())
    }
}
