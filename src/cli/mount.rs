//! Makes the mount, and takes away that mount and no other.

use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, major, minor, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use super::failure::{Failure, reason};
use super::fusermount::{self, Fusermount};
use super::mountinfo::Identity;
use super::namespace::{self, Whereabouts};
use super::options;
use super::plan::MountPlan;
use super::readahead::Readahead;
use crate::error::best_effort;
use crate::sys::descriptor;

/// Who makes the mount; found out before anything is changed.
#[derive(Debug)]
pub(crate) enum Mounter {
    /// We, with mount(2), for the device that is open here.
    Ourselves(OwnedFd),
    /// fusermount3, for a plain user.
    Fusermount(Fusermount),
    /// Whoever started us, who has mounted it already, for this device.
    Caller(OwnedFd),
}

/// The descriptor that `/dev/fd/N` stands for, as mountpoint: an open `/dev/fuse` whose mount the
/// caller has made (as in libfuse).
pub(crate) fn given_descriptor(mountpoint: &Path) -> Option<RawFd> {
    let number = mountpoint.to_str()?.strip_prefix("/dev/fd/")?;
    number.parse().ok().filter(|n| *n >= 0)
}

impl Mounter {
    /// Decides by what this process was given and may do.
    pub(crate) fn find(mountpoint: &Path) -> Result<Mounter, Failure> {
        if let Some(number) = given_descriptor(mountpoint) {
            return take_device(number).map(Mounter::Caller);
        }
        if may_mount() {
            return open_device().map(Mounter::Ourselves);
        }
        Fusermount::find().map(Mounter::Fusermount).ok_or_else(|| {
            Failure::new(
                "cannot mount as a plain user: fusermount3 is missing (install the package fuse3, \
                 or run in a user and mount namespace: unshare -Urm)",
            )
        })
    }

    /// Mounts what `plan` says. The mount is undone unless [`Pending::settle`] is called.
    pub(crate) fn mount(self, plan: &MountPlan) -> Result<(Pending, OwnedFd), Failure> {
        let (device, by) = match self {
            Mounter::Ourselves(device) => {
                mount_ourselves(plan, &device)?;
                (device, By::Ourselves)
            }
            Mounter::Fusermount(program) => {
                let device = program.mount(&plan.mountpoint, &fusermount_options(plan))?;
                (device, By::Fusermount(program))
            }
            Mounter::Caller(device) => {
                let mounted = Mounted::new(plan.mountpoint.clone(), None, By::Caller);
                return Ok((mounted.pending(), device));
            }
        };
        match Identity::of(&plan.mountpoint) {
            Ok(identity) => {
                let mounted = Mounted::new(plan.mountpoint.clone(), Some(identity), by);
                Ok((mounted.pending(), device))
            }
            Err(e) => {
                best_effort("unmount", by.unmount(&plan.mountpoint, How::Lazy));
                Err(Failure::new(format!(
                    "cannot find the new mount at {:?}: {}",
                    plan.mountpoint,
                    reason(e)
                )))
            }
        }
    }
}

/// Whether mount(2) is open to this process: it has CAP_SYS_ADMIN in its user namespace.
pub(crate) fn may_mount() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// The device, to be mounted; or what is missing.
pub(crate) fn open_device() -> Result<OwnedFd, Failure> {
    open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        let remedy = match e {
            Errno::NOENT => "modprobe fuse; in a container: add --device /dev/fuse",
            Errno::NODEV | Errno::NXIO => "the kernel module is missing: modprobe fuse",
            Errno::ACCESS => "chmod 0666 /dev/fuse, as udev has it",
            Errno::PERM => "in a container: add --device /dev/fuse",
            _ => "see dmesg",
        };
        Failure::new(format!(
            "cannot open \"/dev/fuse\": {} ({remedy})",
            reason(e)
        ))
    })
}

fn take_device(number: RawFd) -> Result<OwnedFd, Failure> {
    let fail = |why: String| {
        Failure::new(format!(
            "cannot serve \"/dev/fd/{number}\": {why} (open \"/dev/fuse\", mount with fd={number}, and \
             let the descriptor be inherited)"
        ))
    };
    let device = descriptor::take(number).map_err(|e| fail(reason(e)))?;
    let stat = rustix::fs::fstat(&device).map_err(|e| fail(reason(e)))?;
    let is_fuse = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == FUSE_DEVICE;
    if !is_fuse {
        return Err(fail("it is not the FUSE device".to_owned()));
    }
    Ok(device)
}

/// Number of /dev/fuse (Documentation/admin-guide/devices.txt).
const FUSE_DEVICE: (u32, u32) = (10, 229);

fn mount_ourselves(plan: &MountPlan, device: &OwnedFd) -> Result<(), Failure> {
    // Root lets everybody in, as every other filesystem does; the kernel checks permissions.
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other",
        device.as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw()
    );
    data.push_str(&labels(plan, has_selinux()));
    let fail = |why: String| Failure::new(format!("cannot mount on {:?}: {why}", plan.mountpoint));
    let data = CString::new(data).map_err(|e| fail(e.to_string()))?;
    let flags = plan.flags.apply(MountFlags::empty());
    let done = rustix::mount::mount(
        plan.source.as_os_str(),
        &plan.mountpoint,
        plan.fs_type.as_str(),
        flags,
        Some(data.as_c_str()),
    );
    done.map_err(|e| {
        let remedy = match e {
            Errno::PERM => {
                " (a container needs CAP_SYS_ADMIN, or a user and mount namespace of its own: \
                 unshare -Urm)"
            }
            Errno::NODEV => " (the kernel has no FUSE: modprobe fuse)",
            _ => "",
        };
        fail(format!("{}{remedy}", reason(e)))
    })
}

/// Whether the kernel labels files for SELinux; without it mount(2) does not know these options.
fn has_selinux() -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.ends_with("\tselinuxfs"))
}

/// The SELinux labels of the plan, each behind a comma.
fn labels(plan: &MountPlan, selinux: bool) -> String {
    let labels = plan.labels.iter().filter(|_| selinux);
    labels.map(|label| format!(",{label}")).collect()
}

fn fusermount_options(plan: &MountPlan) -> OsString {
    let mut options = OsString::from("default_permissions,subtype=");
    options.push(plan.fs_type.strip_prefix("fuse.").unwrap_or(&plan.fs_type));
    options.push(",fsname=");
    options.push(fusermount::escape(&plan.source));
    if plan.allow_other {
        options.push(",allow_other");
    }
    options.push(labels(plan, has_selinux()));
    let flags = plan.flags.apply(MountFlags::NOSUID | MountFlags::NODEV);
    for word in options::flag_words(flags) {
        options.push(",");
        options.push(word);
    }
    options
}

/// How insistent an unmount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Only if nobody uses it.
    Gentle,
    /// Out of the tree now; gone when nobody uses it any more.
    Lazy,
}

/// Who made the mount, and can therefore take it away.
#[derive(Debug, Clone)]
pub(crate) enum By {
    Ourselves,
    Fusermount(Fusermount),
    /// Nobody here.
    Caller,
}

impl By {
    /// Whoever can unmount for this process.
    pub(crate) fn find() -> Option<By> {
        if may_mount() {
            return Some(By::Ourselves);
        }
        Fusermount::find().map(By::Fusermount)
    }

    /// Unmounts what is on top at `path`.
    pub(crate) fn unmount(&self, path: &Path, how: How) -> Result<(), Refusal> {
        match self {
            By::Ourselves => {
                let flags = match how {
                    How::Gentle => UnmountFlags::NOFOLLOW,
                    How::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
                };
                rustix::mount::unmount(path, flags).map_err(|e| match e {
                    Errno::BUSY => Refusal::Busy,
                    Errno::PERM => {
                        Refusal::Other("only its owner and root may unmount it".to_owned())
                    }
                    _ => Refusal::Other(reason(e)),
                })
            }
            By::Fusermount(program) => {
                program
                    .unmount(path, how == How::Lazy)
                    .map_err(|complaint| {
                        if complaint.contains("busy") {
                            Refusal::Busy
                        } else {
                            Refusal::Other(complaint)
                        }
                    })
            }
            By::Caller => Err(Refusal::Other("whoever mounted it has to".to_owned())),
        }
    }
}

/// Why a mount is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Somebody uses it.
    Busy,
    /// Something else.
    Other(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Busy => f.write_str("the mount is busy"),
            Refusal::Other(why) => f.write_str(why),
        }
    }
}

/// A mount that we made.
#[derive(Debug)]
pub(crate) struct Mounted {
    path: PathBuf,
    /// `None` if somebody else made it, and the path does not lead there.
    identity: Option<Identity>,
    by: By,
    daemon: Whereabouts,
}

impl Mounted {
    fn new(path: PathBuf, identity: Option<Identity>, by: By) -> Mounted {
        let daemon = Whereabouts::AtHome("it was not tried".to_owned());
        Mounted {
            path,
            identity,
            by,
            daemon,
        }
    }

    fn pending(self) -> Pending {
        Pending {
            mounted: Some(self),
        }
    }

    /// Whether somebody else made it and has to take it away.
    pub(crate) fn is_the_callers(&self) -> bool {
        matches!(self.by, By::Caller)
    }

    /// Where it was made.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still what one finds at its path.
    pub(crate) fn is_there(&self) -> bool {
        self.visit(|| self.is_here()).unwrap_or(false)
    }

    fn is_here(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|found| Some(found) == self.identity)
    }

    /// Runs `act` in the mount namespace in which the mount was made.
    pub(crate) fn visit<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, String> {
        self.daemon.visit(act)
    }

    /// Unmounts it, unless something else is at its path by now.
    pub(crate) fn unmount(&self, how: How) -> Result<(), Refusal> {
        let unmount = || {
            if self.is_here() {
                self.by.unmount(&self.path, how)
            } else {
                Err(Refusal::Other("it is no longer at its path".to_owned()))
            }
        };
        self.visit(unmount)
            .unwrap_or_else(|why| Err(Refusal::Other(why)))
    }
}

/// A mount that is undone when dropped, as long as it is not settled.
#[derive(Debug)]
pub(crate) struct Pending {
    mounted: Option<Mounted>,
}

impl Pending {
    /// How far the kernel reads ahead, to be raised.
    pub(crate) fn readahead(&self) -> Option<Readahead> {
        let mounted = self.mounted.as_ref()?;
        mounted.identity.and_then(|_| Readahead::of(&mounted.path))
    }

    /// Leaves the mount namespace, so that the mount does not live for our sake; where to, for
    /// `inspect`. Only while the process has one thread.
    pub(crate) fn leave(&mut self) -> String {
        let Some(mounted) = &mut self.mounted else {
            return String::new();
        };
        mounted.daemon = match may_mount() {
            true => namespace::leave(),
            false => Whereabouts::AtHome("without CAP_SYS_ADMIN it cannot be".to_owned()),
        };
        mounted.daemon.describe()
    }

    /// Keeps the mount for good.
    pub(crate) fn settle(mut self) -> Option<Mounted> {
        self.mounted.take()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            best_effort("take back the mount", mounted.unmount(How::Lazy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::MountArgs;
    use crate::cli::environment::Environment;
    use crate::cli::plan::{Personality, Plan, plan};

    #[test]
    fn labels_are_for_kernels_with_selinux() {
        let args = MountArgs {
            operands: vec!["/m".into()],
            options: vec!["lowerdir=/l,context=\"a:b,c\",rootcontext=d".into()],
            ..MountArgs::default()
        };
        let planned = plan(args, Personality::Plain, Environment::default());
        let Ok(Plan::Mount(plan)) = planned else {
            panic!("{planned:?}")
        };
        let want = ",context=\"a:b,c\",rootcontext=\"d\"";
        assert_eq!(labels(&plan, true), want);
        assert_eq!(labels(&plan, false), "");
    }
}
