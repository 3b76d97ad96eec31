//! `-o remount,...`: other flags for a mount that exists, as mount(8) asks its helper for.

use rustix::mount::{MountFlags, mount_remount};

use super::control::Target;
use super::failure::{Failure, reason};
use super::options::{self, Treatment};
use super::plan::RemountPlan;

/// Changes the flags that `plan` names and keeps the others.
pub(crate) fn remount(plan: &RemountPlan) -> Result<(), Failure> {
    let target = Target::find(&plan.mountpoint)?;
    let path = &target.path;
    if plan.flags.clear.contains(MountFlags::RDONLY) && was_mounted_read_only(&target)? {
        return Err(Failure::new(format!(
            "cannot make {path:?} writable: it was mounted read-only (unmount it, and mount it \
             with an upper directory and without ro)"
        )));
    }
    let flags = plan.flags.apply(current_flags(&target.entry.options));
    // The kernel ignores the FUSE options of a remount, so none need to be repeated.
    mount_remount(path, flags, "").map_err(|e| {
        let remedy = match e {
            rustix::io::Errno::PERM => " (only root may remount)",
            rustix::io::Errno::BUSY => " (files are open for writing)",
            _ => "",
        };
        Failure::new(format!("cannot remount {path:?}: {}{remedy}", reason(e)))
    })
}

fn was_mounted_read_only(target: &Target) -> Result<bool, Failure> {
    Ok(target
        .inspect()?
        .options
        .iter()
        .any(|option| option == "ro"))
}

fn current_flags(words: &[String]) -> MountFlags {
    let mut flags = MountFlags::empty();
    for word in words {
        if let Some(Treatment::Set(flag)) = options::treatment(word) {
            flags |= flag;
        }
    }
    // mountinfo has no word for strictatime: it is what is left.
    if !flags.intersects(MountFlags::NOATIME | MountFlags::RELATIME) {
        flags |= MountFlags::STRICTATIME;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_kept() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let strict = MountFlags::STRICTATIME;
        for (text, want) in [
            ("rw,relatime,rw,user_id=0", MountFlags::RELATIME),
            (
                "ro,nosuid,relatime,ro",
                MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::RELATIME,
            ),
            (
                "rw,noatime,nodiratime",
                MountFlags::NOATIME | MountFlags::NODIRATIME,
            ),
            ("rw", strict),
        ] {
            assert_eq!(current_flags(&words(text)), want, "{text}");
        }
    }
}
