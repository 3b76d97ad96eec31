//! `unionmount umount`: take the mount away, and return when its daemon is gone.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::args::UmountArgs;
use super::complete;
use super::control::Target;
use super::failure::{Failure, reason};
use super::mount::{By, How, Refusal};

/// How long the daemon may take to write out what is dirty.
const PATIENCE: Duration = Duration::from_secs(60);

/// Unmounts what is there, completing its upper before if that is asked for.
pub(crate) fn umount(args: &UmountArgs) -> Result<(), Failure> {
    let target = Target::find(Path::new(&args.target.mountpoint))?;
    if args.complete {
        complete::mounted(&target, args.json)?;
    }
    let path = target.path.as_path();
    let inspect = target.inspect_if_alive()?;
    // Before the unmount: later the number may belong to another process.
    let daemon = inspect.and_then(|inspect| Daemon::find(inspect.pid));
    let by = By::find().ok_or_else(|| {
        Failure::new("cannot unmount as a plain user: fusermount3 is missing (package fuse3)")
    })?;
    by.unmount(path, How::Gentle).map_err(|refusal| match refusal {
        Refusal::Busy => Failure::new(format!(
            "cannot unmount {path:?}: it is busy (fuser -vm {path:?} or lsof {path:?} shows by whom)"
        )),
        Refusal::Other(why) => Failure::new(format!("cannot unmount {path:?}: {why}")),
    })?;
    match daemon {
        Some(daemon) => daemon.wait(path),
        None => Ok(()),
    }
}

/// The process behind a mount, if it can be seen from here.
struct Daemon {
    pid: u32,
    pidfd: OwnedFd,
}

impl Daemon {
    /// `pid` is the number in the daemon's own pid namespace, so it is only believed if such a
    /// process exists here and looks like one of ours.
    fn find(pid: u32) -> Option<Daemon> {
        let pidfd = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        // The kernel keeps 15 bytes of the name that the program was started under.
        let ours = [
            "unionmount",
            "fuse-overlayfs",
            "mount.fuse.unio",
            "mount.unionmoun",
        ];
        let same_program = || {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            exe.is_some() && exe == std::fs::read_link("/proc/self/exe").ok()
        };
        (ours.contains(&comm.trim_end()) || same_program()).then_some(Daemon { pid, pidfd })
    }

    fn wait(&self, path: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => {
                    return Err(Failure::new(format!(
                        "{path:?} is unmounted, but its daemon (process {}) still runs after {} s \
                         (it may be writing, or the mount is still seen in another namespace)",
                        self.pid,
                        PATIENCE.as_secs()
                    )));
                }
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => {
                    return Err(Failure::new(format!(
                        "cannot wait for process {}: {}",
                        self.pid,
                        reason(e)
                    )));
                }
            }
        }
    }
}
