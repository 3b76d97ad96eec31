//! What all threads of a server share, and how every request is run: counted, logged, survived.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fuser::{
    Errno, Generation, INodeNo, Notifier, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr, Request,
};

use super::convert::{errno, file_attr};
use super::counters::{Counters, Op};
use super::failures::Failures;
use super::listings::Listings;
use super::notices::Notices;
use super::pool::Pool;
use super::readers::Readers;
use super::server::ServeOptions;
use super::weight::Gauges;
use crate::error::{Result, best_effort};
use crate::ops::{Caller, Entry, Inspect, Outdated, Perm, Union, Written};

/// For ever, as far as the kernel's clock goes.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// What all threads use.
pub(super) struct Shared {
    pub(super) union: Arc<Union>,
    pub(super) options: ServeOptions,
    pub(super) inspect: Inspect,
    pub(super) counters: Counters,
    failures: Failures,
    listings: Listings,
    pub(super) notifier: OnceLock<Notifier>,
    pub(super) notices: Notices,
    pub(super) readers: Readers,
    pub(super) gauges: Gauges,
    pub(super) pool: Pool,
    /// Work that waits for the kernel, which meanwhile sends requests: never in the pool that
    /// serves those.
    pub(super) flushes: Pool,
    /// FUSE_DONT_MASK was agreed on.
    pub(super) dont_mask: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        union: Arc<Union>,
        options: ServeOptions,
        inspect: Inspect,
        readers: Readers,
        notices: Notices,
    ) -> Shared {
        Shared {
            union,
            options,
            inspect,
            counters: Counters::new(),
            failures: Failures::default(),
            listings: Listings::default(),
            notifier: OnceLock::new(),
            notices,
            readers,
            gauges: Gauges::default(),
            pool: Pool::new(),
            flushes: Pool::new(),
            dont_mask: AtomicBool::new(false),
        }
    }

    pub(super) fn union(&self) -> &Arc<Union> {
        &self.union
    }

    pub(super) fn set_notifier(&self, notifier: Notifier) {
        if self.notifier.set(notifier).is_err() {
            tracing::error!("the notifier was set twice");
        }
    }

    /// The permission bits of a new object; the kernel has taken off the umask, unless it left that
    /// to us (for the sake of default ACLs).
    pub(super) fn perm(&self, mode: u32, umask: u32) -> Perm {
        let ours = self.dont_mask.load(Ordering::Relaxed);
        Perm {
            perm: mode & 0o7777,
            umask: if ours { umask } else { 0 },
        }
    }

    pub(super) fn ttl(&self) -> Duration {
        self.options.timeout.unwrap_or(FOREVER)
    }

    /// Runs a request: counts it, logs its failure, survives its panic.
    pub(super) fn call<T>(
        &self,
        op: Op,
        ino: INodeNo,
        f: impl FnOnce(&Union) -> Result<T>,
    ) -> Result<T, Errno> {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| f(&self.union)));
        let failed = !matches!(result, Ok(Ok(_)));
        self.counters.count(op, start.elapsed(), failed);
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => {
                self.failures.tell(&self.union, op, ino.0, &e);
                Err(errno(&e))
            }
            Err(_) => {
                self.counters.count_panic();
                self.failures.tell_of_panic(&self.union, op, ino.0);
                Err(Errno::EIO)
            }
        }
    }

    /// Refuses an operation that the kernel then does without, for as long as the mount lives.
    pub(super) fn refuse(&self, op: Op) -> Errno {
        self.counters.count(op, Duration::ZERO, true);
        Errno::ENOSYS
    }

    /// Tells the kernel that the attributes it has of an object are out of date.
    pub(super) fn invalidate_attributes(&self, ino: INodeNo) {
        if let Some(notifier) = self.notifier.get() {
            best_effort("invalidate attributes", notifier.inval_inode(ino, -1, 0));
        }
    }

    /// A listing of a directory is about to be read, from its start or going on.
    pub(super) fn begin_listing(&self, dir: INodeNo, offset: u64) {
        if offset == 0 && self.options.handle_free() {
            self.listings.begin(dir.0);
        }
    }

    /// The end of a listing is about to be told: the kernel does not keep what was overtaken.
    pub(super) fn end_listing(&self, dir: INodeNo) {
        if self.listings.end(dir.0) {
            self.drop_pages(dir);
        }
    }

    /// A directory was changed, which the caller is about to be told: the kernel does not keep what it
    /// has listed before.
    pub(super) fn changed(&self, dir: INodeNo) {
        if self.listings.change(dir.0) {
            self.drop_pages(dir);
        }
    }

    /// The kernel has forgotten an object.
    pub(super) fn forgotten(&self, ino: INodeNo) {
        self.listings.forget(ino.0);
    }

    /// Of a directory no request ever waits for a page, so that a thread that serves may do it.
    fn drop_pages(&self, dir: INodeNo) {
        if let Some(notifier) = self.notifier.get() {
            match notifier.inval_inode(dir, 0, 0) {
                // Forgotten meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                dropped => drop(best_effort("drop a listing", dropped)),
            }
        }
    }

    /// Writes out what the kernel has collected of a file. Not on a thread that reads requests:
    /// the writes come as requests.
    pub(super) fn flush_pages(&self, ino: INodeNo) {
        if let Some(notifier) = self.notifier.get() {
            best_effort("flush pages", notifier.inval_inode(ino, 0, 0));
        }
    }

    /// Lets the kernel forget what is out of date. Not on a thread that reads requests: the kernel
    /// waits for those that are under way.
    pub(super) fn forget(&self, outdated: &Outdated) {
        for (parent, name) in &outdated.names {
            best_effort("expire a name", self.notices.expire(*parent, name));
        }
        for ino in &outdated.objects {
            self.flush_pages(INodeNo(*ino));
        }
    }

    pub(super) fn written(&self, ino: INodeNo, result: Result<Written, Errno>, reply: ReplyWrite) {
        match result {
            Ok(written) => {
                if written.cleared_privileges {
                    self.invalidate_attributes(ino);
                }
                reply.written(written.len as u32);
            }
            Err(e) => reply.error(e),
        }
    }

    pub(super) fn entry(&self, result: Result<Entry, Errno>, reply: ReplyEntry) {
        match result {
            Ok(entry) => reply.entry(&self.ttl(), &file_attr(&entry.attr), Generation(0)),
            Err(e) => reply.error(e),
        }
    }
}

pub(super) fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

/// An attribute's value, or its size if that was asked.
pub(super) fn xattr(result: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(e) => reply.error(e),
    }
}

pub(super) fn caller(req: &Request) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        pid: req.pid(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::ops::Config;

    /// What is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shared(lower: &std::path::Path) -> Shared {
        let config = Config {
            lowers: vec![lower.to_owned()],
            ..Config::default()
        };
        let union = Arc::new(Union::open(&config).unwrap());
        let device = || std::fs::File::open("/dev/null").unwrap().into();
        let inspect = Inspect::default();
        Shared::new(
            union,
            ServeOptions::default(),
            inspect,
            Readers::new(device(), 1),
            Notices::new(device()),
        )
    }

    #[test]
    fn a_panic_is_eio_a_count_and_a_line() {
        let lower = tempfile::tempdir().unwrap();
        std::fs::write(lower.path().join("f"), "").unwrap();
        let shared = shared(lower.path());
        let entry = shared.union.lookup(crate::tree::ROOT, b"f").unwrap();
        let ino = INodeNo(entry.attr.ino);
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let result = shared.call(Op::Read, ino, |_| -> Result<()> { panic!("of a test") });
            assert_eq!(result.map_err(i32::from), Err(Errno::EIO.into()));
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let line = format!("read of /f (inode {}, layer 0) panicked", ino.0);
        assert!(text.contains(&line), "{text}");
        let stats = shared.counters.complete(shared.union.stats());
        assert_eq!(stats.panics, 1);
        // And it goes on.
        let again = shared.call(Op::Getattr, ino, |union| union.getattr(ino.0));
        assert_eq!(again.map(|attr| attr.ino).ok(), Some(ino.0));
    }
}
