//! Signals: wait for them in one thread instead of being interrupted by them.

use std::io;
use std::mem::MaybeUninit;

use rustix::process::Signal;

/// Signals that are blocked in this thread and in every thread it starts from now on.
#[derive(Clone, Copy)]
pub struct Blocked {
    set: libc::sigset_t,
}

impl std::fmt::Debug for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blocked")
    }
}

impl Blocked {
    /// Blocks `signals`: they stay pending until [`Blocked::wait`] takes them.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn new(signals: &[Signal]) -> io::Result<Blocked> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initializes the set that it is given, which lives here.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        let mut blocked = Blocked { set };
        for signal in signals {
            // SAFETY: the set is initialized and borrowed exclusively for the call.
            unsafe { libc::sigaddset(&raw mut blocked.set, signal.as_raw()) };
        }
        // SAFETY: the set is initialized; a null old set is allowed.
        let rc = unsafe {
            libc::pthread_sigmask(
                libc::SIG_BLOCK,
                &raw const blocked.set,
                std::ptr::null_mut(),
            )
        };
        match rc {
            0 => Ok(blocked),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for the next of them.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn wait(&self) -> io::Result<Signal> {
        let mut signal = 0;
        // SAFETY: both pointers are to live, initialized values of the right type.
        match unsafe { libc::sigwait(&raw const self.set, &raw mut signal) } {
            0 => Signal::from_named_raw(signal)
                .ok_or_else(|| io::Error::other(format!("unexpected signal {signal}"))),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Ignores `signal` from now on, in the whole process.
///
/// # Errors
/// The kernel refused.
pub fn ignore(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler, so no code can run at a bad moment.
    match unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
