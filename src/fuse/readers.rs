//! Keeps one thread reading requests for as long as one is enough.
//!
//! The kernel wakes waiting readers first in, first out: with several, each request would run on
//! another thread, and mostly on another CPU, which costs more than the request itself. So a thread
//! that has answered sits down (here, at the end of its turn) if another is waiting for the next
//! request, and is called again when requests queue up or the reader is held up.
//!
//! For the same reason that one thread is moved to the CPU of the process it works for, as long as
//! there is only one. It is not kept there: the scheduler may know better.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use super::linger::Linger;
use crate::error::{Errno, best_effort};

/// A request that waits this long because the only reader is busy calls another one.
const PATIENCE: Duration = Duration::from_millis(1);

/// So many changes of the caller within [`PATIENCE`] mean that several call at once.
const SEVERAL: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Readers {
    /// `/dev/fuse`, to see whether requests are queued.
    device: OwnedFd,
    /// Threads that wait for a request in read(2), or are about to.
    reading: AtomicUsize,
    /// Requests read so far.
    turns: AtomicU64,
    /// How many should wait for requests: one, or one for each CPU while several processes call.
    wanted: AtomicUsize,
    cpus: usize,
    /// The connection is gone, or nobody watches: nobody sits down any more.
    all_up: AtomicBool,
    last: Last,
    linger: Linger,
    seated: Mutex<Vec<Arc<Seat>>>,
}

/// Who had the last turn, and for whom. Each value by itself: a mixture leads to a needless move.
#[derive(Debug, Default)]
struct Last {
    /// Thread and CPU of the daemon.
    thread: AtomicI32,
    cpu: AtomicUsize,
    /// The thread that made the system call; 0: not known.
    caller: AtomicU32,
    /// How often that changed.
    changes: AtomicU32,
}

#[derive(Debug)]
struct Seat {
    thread: Thread,
    called: AtomicBool,
}

/// A thread's work on one request; ends when it is dropped, which may take until the thread is
/// needed again.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Readers);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // This thread is lost as a reader: another takes its place.
            return self.0.call_one();
        }
        self.0.end_turn();
    }
}

impl Readers {
    /// For `threads` threads that are about to read from `device`.
    pub(super) fn new(device: OwnedFd, threads: usize) -> Readers {
        Readers {
            device,
            reading: AtomicUsize::new(threads),
            turns: AtomicU64::new(0),
            wanted: AtomicUsize::new(1),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get().min(threads)),
            // Until somebody watches.
            all_up: AtomicBool::new(true),
            last: Last::default(),
            linger: Linger::new(),
            seated: Mutex::new(Vec::new()),
        }
    }

    /// This thread has read a request of `caller` (a thread's number). If it was the last that
    /// read, and more requests are there already, another thread is called.
    pub(super) fn begin_turn(&self, caller: u32) -> Turn<'_> {
        // Relaxed here and below: a wrong guess costs a detour, and the watch corrects it.
        self.turns.fetch_add(1, Ordering::Relaxed);
        let before = self.reading.fetch_sub(1, Ordering::Relaxed);
        let others = self.last.note(caller);
        self.linger.note_request();
        // One caller alone has but one request at a time (and the watch sees to the exceptions).
        if others && before <= 1 && self.is_queued() {
            self.call_one();
        }
        Turn(self)
    }

    fn end_turn(&self) {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let one_more = |reading: usize| (reading < wanted).then_some(reading + 1);
        let needed = self
            .reading
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok();
        if !needed && !self.sit_down() {
            self.reading.fetch_add(1, Ordering::Relaxed);
        }
        let alone = self.cpus > 1 && wanted == 1 && self.reading.load(Ordering::Relaxed) == 1;
        self.linger.look_out(alone, || self.is_queued());
    }

    /// Waits until this thread is needed as a reader; whoever calls it has counted it as one. False
    /// if nobody sits any more.
    fn sit_down(&self) -> bool {
        let seat = Arc::new(Seat {
            thread: std::thread::current(),
            called: AtomicBool::new(false),
        });
        {
            let mut seated = self.seated.lock();
            // Under the lock, so that whoever makes all get up finds this thread seated, or it sees it.
            if self.all_up.load(Ordering::Relaxed) {
                return false;
            }
            seated.push(Arc::clone(&seat));
        }
        while !seat.called.load(Ordering::Acquire) {
            std::thread::park();
        }
        true
    }

    /// Makes one more thread read, the one that sat down last: its caches are the warmest.
    fn call_one(&self) {
        let seat = self.seated.lock().pop();
        if let Some(seat) = seat {
            self.reading.fetch_add(1, Ordering::Relaxed);
            seat.called.store(true, Ordering::Release);
            seat.thread.unpark();
        }
    }

    fn poll(&self, timeout: Option<Timespec>) -> PollFlags {
        let mut fds = [PollFd::from_borrowed_fd(self.device.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => fds.first().map_or(PollFlags::empty(), PollFd::revents),
            Err(_) => PollFlags::empty(),
        }
    }

    /// Suits the readers to who has called since there were `changes` changes of the caller: with
    /// one, the thread that reads moves to its CPU.
    fn suit(&self, changes: u32) {
        let last = &self.last;
        let now = last.changes.load(Ordering::Relaxed);
        if now.wrapping_sub(changes) >= SEVERAL {
            self.wanted.store(self.cpus, Ordering::Relaxed);
            return;
        }
        self.wanted.store(1, Ordering::Relaxed);
        if now != changes {
            return; // somebody starts or ends
        }
        let caller = last.caller.load(Ordering::Relaxed);
        let thread = Pid::from_raw(last.thread.load(Ordering::Relaxed));
        let wanted = cpu_of(caller).filter(|cpu| *cpu != last.cpu.load(Ordering::Relaxed));
        if let (Some(cpu), Some(thread)) = (wanted, thread) {
            best_effort("move a thread to another CPU", move_to(thread, cpu));
        }
    }

    /// Until the connection ends: calls another thread whenever requests wait and none is read.
    /// From now on threads may sit down.
    pub(super) fn watch(&self) {
        self.all_up.store(false, Ordering::Relaxed);
        loop {
            let ready = self.poll(None);
            if ready.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
                break;
            }
            let changes = self.last.changes.load(Ordering::Relaxed);
            let turns = self.turns.load(Ordering::Relaxed);
            std::thread::sleep(PATIENCE);
            // By progress, not by who is thought to read: a thread may be busy without a turn (with
            // thousands of inodes to forget), or be gone.
            if self.turns.load(Ordering::Relaxed) == turns && self.is_queued() {
                self.call_one();
            }
            self.suit(changes);
        }
        self.let_all_go();
    }

    fn is_queued(&self) -> bool {
        self.poll(Some(Timespec::default())).contains(PollFlags::IN)
    }

    /// Nobody sits any more.
    fn let_all_go(&self) {
        self.all_up.store(true, Ordering::Relaxed);
        while !self.seated.lock().is_empty() {
            self.call_one();
        }
    }
}

impl Last {
    /// Notes who has the turn; whether it is not for the same caller as the last.
    fn note(&self, caller: u32) -> bool {
        thread_local! {
            static THREAD: i32 = rustix::thread::gettid().as_raw_nonzero().get();
        }
        self.thread.store(THREAD.with(|t| *t), Ordering::Relaxed);
        self.cpu
            .store(rustix::thread::sched_getcpu(), Ordering::Relaxed);
        let others = self.caller.swap(caller, Ordering::Relaxed) != caller || caller == 0;
        if others {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        others
    }
}

/// The CPU on which a thread of any process ran last.
fn cpu_of(thread: u32) -> Option<usize> {
    if thread == 0 {
        return None;
    }
    // One read, for this is done often: the line is shorter than this.
    let mut line = [0; 1024];
    let mut file = std::fs::File::open(format!("/proc/{thread}/stat")).ok()?;
    let len = file.read(&mut line).ok()?;
    parse_cpu(&String::from_utf8_lossy(line.get(..len)?))
}

/// `processor` in /proc/PID/stat, its 39th field; the second is a name in parentheses, with anything
/// in it.
fn parse_cpu(stat: &str) -> Option<usize> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(39 - 3)?.parse().ok()
}

/// Moves a thread of ours to `cpu`; it may go elsewhere from there.
fn move_to(thread: Pid, cpu: usize) -> Result<(), Errno> {
    let allowed = sched_getaffinity(Some(thread))?;
    if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
        return Ok(());
    }
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(Some(thread), &only)?;
    sched_setaffinity(Some(thread), &allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of two threads sits down; `then` gets the writing end of what stands for the device. The
    /// one that sits must get up by that.
    fn expect_called(then: impl FnOnce(&Readers, OwnedFd) -> Option<OwnedFd>) {
        let (device, requests) = rustix::pipe::pipe().unwrap();
        let readers = Readers::new(device, 2);
        let (up, ups) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| readers.watch());
            while readers.all_up.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            scope.spawn(|| {
                drop(readers.begin_turn(1));
                up.send(()).unwrap();
            });
            while readers.seated.lock().is_empty() {
                std::thread::yield_now();
            }
            assert_eq!(readers.reading.load(Ordering::Relaxed), 1);
            assert!(ups.try_recv().is_err(), "one reader is enough");
            let requests = then(&readers, requests);
            let called = ups.recv_timeout(Duration::from_secs(10));
            drop(requests); // the watch ends, and whoever still sits gets up
            called.expect("nobody was called");
        });
    }

    #[test]
    fn a_reader_that_is_held_up_is_replaced() {
        expect_called(|readers, requests| {
            std::mem::forget(readers.begin_turn(2)); // does not end
            rustix::io::write(&requests, b"the next request").unwrap();
            Some(requests)
        });
    }

    #[test]
    fn a_reader_that_is_busy_without_a_turn_is_replaced() {
        expect_called(|_, requests| {
            rustix::io::write(&requests, b"the next request").unwrap();
            Some(requests)
        });
    }

    #[test]
    fn nobody_sits_when_the_connection_is_gone() {
        expect_called(|_, _| None);
    }

    #[test]
    fn the_cpu_is_found_behind_any_name() {
        let own = cpu_of(std::process::id()).unwrap();
        assert!(own < CpuSet::MAX_CPU);
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b) S {}", fields.join(" "));
        assert_eq!(parse_cpu(&stat), Some(39));
        assert_eq!(parse_cpu("7 (cut"), None);
    }
}
