//! What the daemon gives up once it is mounted, before it serves anybody.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_no_new_privs};

use crate::error::best_effort;

/// What serving takes: everything about files, whosever they are; to become their owners; markers of
/// `trusted.*`, and the mount namespace that is entered to unmount; labels.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_CHROOT)
    // To look at the namespaces of processes that have more rights than are kept here.
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::MAC_ADMIN)
    .union(CapabilitySet::MAC_OVERRIDE);

/// Gives up what is not needed, in this thread and all that it starts from now on: networks, modules,
/// clocks, raw devices and the like. `runs_programs`: a program with more rights is needed to unmount.
pub(crate) fn lower(runs_programs: bool) {
    let lowered = capabilities(None).and_then(|mut sets| {
        sets.effective &= KEPT;
        sets.permitted &= KEPT;
        sets.inheritable = CapabilitySet::empty();
        set_capabilities(None, sets)
    });
    best_effort("give capabilities up", lowered);
    if !runs_programs {
        best_effort("rule out new privileges", set_no_new_privs(true));
    }
}
