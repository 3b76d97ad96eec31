//! SIGTERM and SIGINT: unmount, let the server finish, and never hang about. SIGUSR1: say how it goes.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open, syncfs};
use rustix::process::Signal;

use super::mount::{How, Mounted, Refusal};
use crate::error::best_effort;
use crate::ops::Union;
use crate::sys::signal::Blocked;

/// How long processes that still use a detached mount are waited for.
const GRACE: Duration = Duration::from_secs(3);

/// What the signals are about.
pub(crate) struct Watched {
    pub(crate) mounted: Arc<Mounted>,
    pub(crate) union: Arc<Union>,
    /// Writes the statistics where log lines go.
    pub(crate) report: Box<dyn Fn() + Send>,
}

/// Starts the thread that takes `signals`. The process ends when the server returns (the kernel
/// hangs up once the mount is gone), or here.
pub(crate) fn watch(signals: Blocked, watched: Watched) -> io::Result<()> {
    let name = "signals".to_owned();
    thread::Builder::new().name(name).spawn(move || {
        loop {
            match signals.wait() {
                Ok(Signal::USR1) => (watched.report)(),
                Ok(signal) => {
                    tracing::info!("signal {}: unmounting", signal.as_raw());
                    break;
                }
                Err(e) => {
                    tracing::error!("cannot wait for signals: {e}");
                    return;
                }
            }
        }
        if !watched.mounted.is_the_callers() {
            take_down(&watched.mounted);
            thread::sleep(GRACE);
        }
        tracing::warn!(
            "{:?} is still mounted or in use by processes: ending without them",
            watched.mounted.path()
        );
        best_effort("sync", watched.union.sync_all());
        std::process::exit(0);
    })?;
    Ok(())
}

/// Whether the mount is out of the tree, so that the kernel will hang up.
fn take_down(mounted: &Mounted) -> bool {
    match mounted.unmount(How::Gentle) {
        Ok(()) => return true,
        Err(Refusal::Busy) => {}
        Err(Refusal::Other(why)) => tracing::warn!("cannot unmount {:?}: {why}", mounted.path()),
    }
    if !mounted.is_there() {
        return false;
    }
    // What is dirty in the kernel must reach us while processes keep the mount alive: after a lazy
    // unmount nobody would ask for it before we are gone.
    match mounted.visit(|| flush(mounted)) {
        Ok(flushed) => {
            best_effort("flush the kernel's cache", flushed);
        }
        Err(why) => tracing::warn!("cannot flush the kernel's cache: {why}"),
    }
    match mounted.unmount(How::Lazy) {
        Ok(()) => true,
        Err(why) => {
            tracing::error!("cannot detach {:?}: {why}", mounted.path());
            false
        }
    }
}

/// Makes the kernel send all dirty pages (it sends no FUSE_SYNCFS, but it does write).
fn flush(mounted: &Mounted) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    syncfs(open(mounted.path(), flags, Mode::empty())?)
}
