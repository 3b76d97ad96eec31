//! Threads for slow work, so that the ones that read requests are never held up by it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Threads at most; more work waits. More than the kernel has background requests under way, so
/// that those waiting for one copy-up never keep out the rest.
const THREADS_MAX: usize = 640;
/// An idle thread ends after this.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// See the module. Threads come as they are needed and go when they are not.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    pub(super) fn new() -> Pool {
        let shared = Shared {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
        };
        Pool {
            shared: Arc::new(shared),
        }
    }

    /// Runs `job` soon, on another thread.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() || state.threads >= THREADS_MAX {
            drop(state);
            self.shared.wake.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new()
            .name("slow".into())
            .spawn(move || work(&shared));
        if let Err(e) = spawned {
            tracing::warn!("cannot start a thread for slow work: {e}");
            self.without_thread();
        }
    }

    /// The thread that was counted did not start: if there is none, the caller does the work.
    fn without_thread(&self) {
        let mut state = self.shared.state.lock();
        state.threads -= 1;
        if state.threads == 0
            && let Some(job) = state.jobs.pop_back()
        {
            drop(state);
            job();
        }
    }
}

fn work(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            // A job's panic was counted where requests are; the thread goes on.
            drop(catch_unwind(AssertUnwindSafe(job)));
            state = shared.state.lock();
            continue;
        }
        state.idle += 1;
        let timed_out = shared.wake.wait_for(&mut state, IDLE).timed_out();
        state.idle -= 1;
        if timed_out && state.jobs.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn jobs_that_wait_for_each_other_all_run() {
        let pool = Pool::new();
        let (to_second, from_first) = channel();
        let (to_test, from_jobs) = channel();
        let done = to_test.clone();
        pool.run(move || {
            from_first.recv().unwrap();
            done.send(1).unwrap();
        });
        pool.run(move || {
            to_second.send(()).unwrap();
            to_test.send(2).unwrap();
        });
        let mut got: Vec<i32> = (0..2)
            .map(|_| from_jobs.recv_timeout(Duration::from_secs(10)).unwrap())
            .collect();
        got.sort();
        assert_eq!(got, [1, 2]);
    }
}
