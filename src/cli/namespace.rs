//! The mount namespace that holds the mount: left after mounting, found again to unmount.
//!
//! A process keeps its mount namespace alive, the namespace its mounts, and a mount its daemon: a
//! daemon that stays where it mounted never ends when all others there have. So it moves to a
//! namespace of its own, in which there is nothing but /proc. The layers are descriptors and come
//! along.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, mkdir, open};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::failure::reason;
use super::mountinfo::Identity;
use crate::sys::namespace::{copy_mounts, own_root};

/// A mount namespace, by its number: a descriptor would keep it alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Namespace {
    device: u64,
    number: u64,
}

/// `MNT_NS_INIT_INO`: the first mount namespace of the machine, on kernels that number it so.
const FIRST: u64 = 0xEFFF_FFF8;

impl Namespace {
    fn of(link: &Path) -> std::io::Result<Namespace> {
        let meta = fs::metadata(link)?;
        Ok(Namespace {
            device: meta.dev(),
            number: meta.ino(),
        })
    }

    /// Runs `act` in it, in a thread of its own.
    ///
    /// # Errors
    /// No process is in it that can be seen from here, or it may not be entered.
    pub(crate) fn visit<T: Send>(self, act: impl FnOnce() -> T + Send) -> Result<T, String> {
        let namespace = self.find().ok_or("nobody is in its mount namespace")?;
        visit(&namespace, act)
            .map_err(|e| format!("cannot enter its mount namespace: {}", reason(e)))
    }

    /// Through whichever process is in it.
    fn find(self) -> Option<OwnedFd> {
        let processes = fs::read_dir("/proc").ok()?;
        processes.flatten().find_map(|entry| {
            let link = entry.path().join("ns/mnt");
            if Namespace::of(&link).ok()? != self {
                return None;
            }
            open(&link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
        })
    }
}

/// Runs `act` in the mount namespace that `namespace` is open for, at its root.
fn visit<T: Send>(namespace: &OwnedFd, act: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    let there = || {
        own_root()?;
        enter(namespace)?;
        Ok(act())
    };
    thread::scope(|scope| match scope.spawn(there).join() {
        Ok(done) => done,
        Err(_) => Err(Errno::IO),
    })
}

fn enter(namespace: &OwnedFd) -> Result<(), Errno> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
}

/// Where the daemon is, as seen from its mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// In the same namespace, and why.
    AtHome(String),
    /// In one of its own; the mount is in this one.
    Away(Namespace),
}

impl Whereabouts {
    /// For `inspect`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Whereabouts::Away(_) => "left: the daemon ends with it".to_owned(),
            Whereabouts::AtHome(why) => format!("not left: {why}"),
        }
    }

    /// Runs `act` where the mount is.
    pub(crate) fn visit<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, String> {
        match self {
            Whereabouts::AtHome(_) => Ok(act()),
            Whereabouts::Away(home) => home.visit(act),
        }
    }
}

/// Leaves the mount namespace, where that is of use and permitted. For a process of one thread.
pub(crate) fn leave() -> Whereabouts {
    match try_leave() {
        Ok(home) => Whereabouts::Away(home),
        Err(why) => Whereabouts::AtHome(why),
    }
}

fn try_leave() -> Result<Namespace, String> {
    let unknown = |e: std::io::Error| format!("cannot look at it: {}", reason(e));
    let home = Namespace::of(Path::new("/proc/self/ns/mnt")).map_err(unknown)?;
    let of_init = Namespace::of(Path::new("/proc/1/ns/mnt"));
    if home.number == FIRST || of_init.is_ok_and(|first| first == home) {
        return Err("it is that of process 1".to_owned());
    }
    let refused = |e: Errno| format!("may not leave it ({})", reason(e));
    let flags = OFlags::CLOEXEC | OFlags::DIRECTORY;
    let root = open("/", flags | OFlags::PATH, Mode::empty()).map_err(refused)?;
    let back = open("/proc/self/ns/mnt", OFlags::CLOEXEC, Mode::empty()).map_err(refused)?;
    // Who goes back comes to the root of the namespace, from where our paths must be right.
    let root_here = || Identity::of(Path::new("/")).ok();
    if visit(&back, root_here).map_err(refused)? != root_here() {
        return Err("the daemon has another root".to_owned());
    }
    copy_mounts().map_err(refused)?;
    match empty_out() {
        Ok(()) => Ok(home),
        Err(e) => {
            let returned = enter(&back)
                .and_then(|()| fchdir(&root))
                .and_then(|()| chroot("."));
            crate::error::best_effort("return to the mount namespace", returned);
            Err(refused(e))
        }
    }
}

/// Takes everything out of this namespace but /proc, which the daemon reaches its descriptors by.
fn empty_out() -> Result<(), Errno> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let proc = open_tree(CWD, "/proc", flags)?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", "/proc", "tmpfs", quiet, Some(c"mode=755"))?;
    chdir("/proc")?;
    mkdir("proc", Mode::from_raw_mode(0o755))?;
    let from_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&proc, "", CWD, "proc", from_descriptor)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_found() {
        let own = Namespace::of(Path::new("/proc/self/ns/mnt")).unwrap();
        assert!(own.find().is_some());
        let nobodys = Namespace { number: 1, ..own };
        assert!(nobodys.find().is_none());
        assert!(nobodys.visit(|| ()).is_err());
    }
}
