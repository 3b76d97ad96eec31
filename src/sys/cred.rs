//! Credentials: of other processes, as /proc tells them, and of this thread.

use rustix::io::Errno;

/// Bit of `CAP_FSETID` in a capability mask: its holder's writes leave setuid and setgid alone.
const CAP_FSETID: u32 = 4;
/// Bit of `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;

/// What a process may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// It holds CAP_FSETID effectively.
    pub cap_fsetid: bool,
    /// It holds CAP_SYS_ADMIN effectively.
    pub cap_sys_admin: bool,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

impl Privileges {
    /// Those of process `pid`; none if it cannot be asked.
    pub fn of(pid: u32) -> Privileges {
        match std::fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(status) => Privileges::parse(&status),
            Err(_) => Privileges::default(),
        }
    }

    fn parse(status: &str) -> Privileges {
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let caps = field("CapEff:").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        let groups = field("Groups:").unwrap_or_default();
        Privileges {
            cap_fsetid: caps.is_some_and(|caps| caps & (1 << CAP_FSETID) != 0),
            cap_sys_admin: caps.is_some_and(|caps| caps & (1 << CAP_SYS_ADMIN) != 0),
            groups: groups
                .split_whitespace()
                .filter_map(|g| g.parse().ok())
                .collect(),
        }
    }
}

/// Runs `f` with this thread's umask set to `umask`; outside of it, it is 0 (the daemon's).
///
/// A umask belongs to a process; a thread gets its own by leaving the shared filesystem state
/// (unshare(2) with CLONE_FS, which takes no privilege).
///
/// # Errors
/// The thread cannot get its own: nothing was run.
pub fn with_umask<T>(umask: u32, f: impl FnOnce() -> T) -> Result<T, Errno> {
    thread_local! {
        static OWN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if umask == 0 {
        return Ok(f());
    }
    if !OWN.get() {
        // SAFETY: only this thread's view of current directory, root and umask is copied.
        if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        OWN.set(true);
    }
    struct Restore(rustix::fs::Mode);
    impl Drop for Restore {
        fn drop(&mut self) {
            rustix::process::umask(self.0);
        }
    }
    let _restore = Restore(rustix::process::umask(rustix::fs::Mode::from_raw_mode(
        umask,
    )));
    Ok(f())
}

/// Runs `f` with this thread's filesystem user and group set to `uid` and `gid`, so that what it
/// creates belongs to them from the first moment. Needs root (of the user namespace).
pub fn as_owner<T>(uid: u32, gid: u32, f: impl FnOnce() -> T) -> T {
    struct Restore {
        uid: libc::c_int,
        gid: libc::c_int,
    }
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: setfsuid and setfsgid take plain numbers and act on this thread only.
            unsafe {
                libc::setfsuid(self.uid as libc::uid_t);
                libc::setfsgid(self.gid as libc::gid_t);
            }
        }
    }
    // The group first: without fsuid 0 it could not be changed any more.
    // SAFETY: as above; both return the previous value.
    let _restore = unsafe {
        let gid = libc::setfsgid(gid);
        Restore {
            uid: libc::setfsuid(uid),
            gid,
        }
    };
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_a_process() {
        let text = "Name:\tx\nGroups:\t4 24 1000 \nCapEff:\t0000000000000010\n";
        let some = Privileges {
            cap_fsetid: true,
            cap_sys_admin: false,
            groups: vec![4, 24, 1000],
        };
        assert_eq!(Privileges::parse(text), some);
        assert!(Privileges::parse("CapEff:\t0000000000200000\n").cap_sys_admin);
        assert_eq!(Privileges::parse(""), Privileges::default());
    }
}
