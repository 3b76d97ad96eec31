//! A mounted union from the handshake with the kernel to the unmount.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use parking_lot::{Condvar, Mutex};

use super::adapter::Adapter;
use super::notices::Notices;
use super::readers::Readers;
use super::shared::Shared;
use crate::ops::{Inspect, Stats, Union};

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

impl ServeOptions {
    /// Whether layers may change behind the kernel's back: nothing is to be cached for long.
    pub fn expects_changes(&self) -> bool {
        self.io == IoMode::Direct || self.timeout == Some(Duration::ZERO)
    }

    /// Whether the kernel need not tell of open and close: a refusal of `open` would fix for ever
    /// that data stays cached.
    pub(super) fn handle_free(&self) -> bool {
        !self.expects_changes()
    }
}

/// A mounted union that answers the kernel.
#[derive(Debug)]
pub struct Server {
    session: Session<Adapter>,
    shared: Arc<Shared>,
}

impl Server {
    /// Agrees with the kernel on the protocol. `device` is an open `/dev/fuse` that mount(2) was
    /// given; `inspect` is what `unionmount inspect` shows (layers are filled in from `union`).
    ///
    /// # Errors
    /// The kernel hung up or is too old.
    pub fn new(
        union: Arc<Union>,
        device: OwnedFd,
        options: ServeOptions,
        inspect: Inspect,
    ) -> io::Result<Server> {
        let threads = options.threads.unwrap_or_else(default_threads);
        let readers = Readers::new(device.try_clone()?, threads);
        let notices = Notices::new(device.try_clone()?);
        let shared = Arc::new(Shared::new(union, options, inspect, readers, notices));
        let mut config = Config::default();
        config.n_threads = Some(threads);
        // Who may do what is the kernel's business (allow_other, default_permissions).
        let session = Session::from_fd(
            Adapter::new(Arc::clone(&shared)),
            device,
            SessionACL::All,
            config,
        )?;
        shared.set_notifier(session.notifier());
        Ok(Server { session, shared })
    }

    /// A way to learn what [`Stats`] are while it runs.
    pub fn statistics(&self) -> impl Fn() -> Stats + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.counters.complete(shared.union().stats())
    }

    /// Answers requests until the filesystem is unmounted; then everything written is on disk
    /// (unless volatile). Starts its own threads.
    ///
    /// # Errors
    /// The device failed in another way than by an unmount or an abort.
    pub fn run(self) -> io::Result<()> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let housekeeper = {
            let (stop, union) = (Arc::clone(&stop), Arc::clone(self.shared.union()));
            std::thread::Builder::new()
                .name("housekeeper".into())
                .spawn(move || keep_house(&union, &stop))?
        };
        let watch = {
            let shared = Arc::clone(&self.shared);
            let watch = move || shared.readers.watch();
            std::thread::Builder::new()
                .name("watch".into())
                .spawn(watch)?
        };
        let result = self.session.run();
        self.shared.union().retire();
        *stop.0.lock() = true;
        stop.1.notify_all();
        if housekeeper.join().is_err() {
            tracing::error!("the housekeeper panicked");
        }
        // After a failure the connection may live on, and the watch with it.
        if result.is_ok() && watch.join().is_err() {
            tracing::error!("the watch panicked");
        }
        let synced = self.shared.union().sync_all().map_err(|e| {
            tracing::error!("the last sync failed: {e}");
            io::Error::from(e.errno())
        });
        match result {
            Err(e) if e.raw_os_error() == Some(aborted()) => synced,
            Err(e) => Err(e),
            Ok(()) => synced,
        }
    }
}

/// The connection was aborted through fusectl: a clean end.
fn aborted() -> i32 {
    crate::error::Errno::CONNABORTED.raw_os_error()
}

fn keep_house(union: &Union, (stop, wake): &(Mutex<bool>, Condvar)) {
    let mut stopped = stop.lock();
    while !*stopped {
        let timed_out = wake
            .wait_for(&mut stopped, Duration::from_secs(1))
            .timed_out();
        if timed_out {
            // What went wrong once is tried again: without it descriptors and memory would pile up.
            let work = AssertUnwindSafe(|| union.housekeep());
            let done = parking_lot::MutexGuard::unlocked(&mut stopped, || catch_unwind(work));
            if done.is_err() {
                tracing::error!("the housekeeper panicked: this is a bug");
            }
        }
    }
}

/// How many threads read requests unless told otherwise, by what this process may use of the CPUs.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(4, |n| (2 * n.get()).clamp(4, 32))
}
