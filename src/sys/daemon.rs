//! fork(2) for going into the background.

use std::io;

use rustix::process::Pid;

/// Which of the two processes goes on.
#[derive(Debug)]
pub enum Forked {
    /// The one that called; the new process has this id.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Splits the process in two.
///
/// # Errors
/// The kernel refused, or the process has more than one thread (a lock held by another thread
/// would stay locked for ever in the child).
pub fn fork() -> io::Result<Forked> {
    // Where /proc is missing nothing is known; this program starts no thread before it forks.
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::Error::other("fork with more than one thread"));
    }
    // SAFETY: the process has a single thread (checked above), so the child inherits no lock that
    // is held and no data that is half written; all code may run in it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => match Pid::from_raw(pid) {
            Some(pid) => Ok(Forked::Parent(pid)),
            None => Err(io::Error::other("fork returned an impossible process id")),
        },
    }
}
