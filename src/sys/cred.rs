//! Credentials of other processes, as /proc tells them.

/// Bit of `CAP_FSETID` in a capability mask: its holder's writes leave setuid and setgid alone.
const CAP_FSETID: u32 = 4;

/// Whether process `pid` holds CAP_FSETID effectively. One that cannot be asked does not.
pub fn has_cap_fsetid(pid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|caps| caps & (1 << CAP_FSETID) != 0)
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
