//! `unionmount check-host`: which ways to mount work on this machine, by trying each of them where
//! nobody else sees it: in a child process with namespaces of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Gid, Uid, WaitOptions, getegid, geteuid, getpid, set_dumpable_behavior,
    waitpid,
};
use rustix::thread::{
    CapabilitySet, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use serde::Serialize;

use super::failure::reason;
use super::fusermount::Fusermount;
use super::mount::{may_mount, open_device};
use crate::error::best_effort;
use crate::sys::daemon::{Forked, fork};
use crate::sys::namespace::{become_user_namespace, copy_mounts};

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) ways: Vec<Finding>,
}

/// One way to mount.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// Its name.
    pub(crate) way: &'static str,
    /// It was tried, and works.
    pub(crate) works: bool,
    /// How it is done; or what is missing, and how to get it.
    pub(crate) note: String,
}

impl Report {
    /// Whether there is any way.
    pub(crate) fn any(&self) -> bool {
        self.ways.iter().any(|finding| finding.works)
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{text}\n")
    }
}

/// The user that a plain user is tried as: nobody.
const NOBODY: u32 = 65534;

/// What a container without further privileges has of root's.
const CONTAINER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Tries every way.
pub(crate) fn check() -> Report {
    let root = match is_root_of_the_machine() {
        true => in_child(as_root),
        false => Err("this is not root of the machine (sudo unionmount ...)".to_owned()),
    };
    let user_namespace = in_child(in_user_namespace);
    let fusermount = in_child(by_fusermount);
    let pod = in_child(in_pod);
    let any = [&root, &user_namespace, &fusermount, &pod].map(|tried| tried.is_ok());
    let descriptor = match any.contains(&true) {
        true => Ok(()),
        false => Err(
            "nobody here can mount: a process with more rights has to open \"/dev/fuse\" as \
                      descriptor N, mount with fd=N, and start unionmount ... /dev/fd/N"
                .to_owned(),
        ),
    };
    let finding = |way, tried: Result<(), String>, how: &str| Finding {
        way,
        works: tried.is_ok(),
        note: tried.err().unwrap_or_else(|| how.to_owned()),
    };
    Report {
        ways: vec![
            finding("root", root, "mount(2): unionmount ... MOUNTPOINT as root"),
            finding(
                "user-namespace",
                user_namespace,
                "mount(2) as root of a user namespace: unshare -Urm, or podman unshare",
            ),
            finding(
                "fusermount3",
                fusermount,
                "unionmount ... MOUNTPOINT as a plain user",
            ),
            finding(
                "pod",
                pod,
                "in a container with only /dev/fuse, in a user namespace made there (tried with the \
                 rights of such a container; its seccomp profile must permit unshare and mount)",
            ),
            finding(
                "descriptor",
                descriptor,
                "unionmount ... /dev/fd/N, for an open /dev/fuse that somebody has mounted",
            ),
        ],
    }
}

/// Whether this is user 0 of the first user namespace, with the right to mount.
fn is_root_of_the_machine() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all = map.split_whitespace().eq(["0", "0", "4294967295"]);
    geteuid().is_root() && all && may_mount()
}

/// Runs `act` in a child; what it leaves behind in namespaces of its own goes with it.
fn in_child(act: fn() -> Result<(), String>) -> Result<(), String> {
    let broken = |e: std::io::Error| format!("could not be tried: {}", reason(e));
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| broken(e.into()))?;
    let child = match fork().map_err(broken)? {
        Forked::Child => {
            let said = act().err().unwrap_or_default();
            // Without the first byte the parent knows that we did not get this far.
            let report = format!("\0{said}");
            let written = File::from(write_end).write_all(report.as_bytes());
            best_effort("report", written);
            std::process::exit(0);
        }
        Forked::Parent(child) => child,
    };
    drop(write_end);
    let mut said = String::new();
    let read = File::from(read_end).read_to_string(&mut said);
    best_effort("wait", waitpid(Some(child), WaitOptions::empty()));
    match (read, said.strip_prefix('\0')) {
        (Ok(_), Some("")) => Ok(()),
        (Ok(_), Some(why)) => Err(why.to_owned()),
        _ => Err("could not be tried: the process that tried it was killed".to_owned()),
    }
}

fn as_root() -> Result<(), String> {
    copy_mounts().map_err(|e| format!("no mount namespace: {}", reason(e)))?;
    mount_here()
}

fn in_user_namespace() -> Result<(), String> {
    if may_mount() && !is_root_of_the_machine() {
        return as_root();
    }
    become_nobody()?;
    enter_user_namespace()
}

fn in_pod() -> Result<(), String> {
    if let Ok(mut sets) = capabilities(None) {
        sets.effective &= CONTAINER;
        sets.permitted &= CONTAINER;
        sets.inheritable &= CONTAINER;
        set_capabilities(None, sets).map_err(|e| format!("cannot drop rights: {}", reason(e)))?;
    }
    enter_user_namespace()
}

fn enter_user_namespace() -> Result<(), String> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    become_user_namespace().map_err(explain_refusal)?;
    // Groups may only be mapped by who cannot use them to get around permissions.
    best_effort("deny setgroups", fs::write("/proc/self/setgroups", "deny"));
    for (file, map) in [
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), map).map_err(|e| {
            let why = reason(e);
            format!("a user namespace cannot be given users: {why} (is there a security module?)")
        })?;
    }
    mount_here()
}

/// Why the kernel refuses a user namespace, by the switches that there are.
fn explain_refusal(e: Errno) -> String {
    let is = |file: &str, value: &str| {
        fs::read_to_string(format!("/proc/sys/{file}")).is_ok_and(|text| text.trim() == value)
    };
    let remedy = if is("kernel/unprivileged_userns_clone", "0") {
        "sysctl kernel.unprivileged_userns_clone=1"
    } else if is("user/max_user_namespaces", "0") {
        "sysctl user.max_user_namespaces=10000"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with userns"
    } else {
        "in a container: a seccomp profile that permits unshare, such as unconfined; in a chroot: \
         outside of it"
    };
    format!("no user namespace: {} ({remedy})", reason(e))
}

/// Mounts in this mount namespace, which is ours alone, and waits for the kernel's first request.
fn mount_here() -> Result<(), String> {
    let refused = |e: Errno| {
        let why = reason(e);
        format!(
            "mount(2): {why} (in a container: CAP_SYS_ADMIN, and a seccomp profile that permits it)"
        )
    };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(refused)?;
    let device = open_device().map_err(|failure| failure.to_string())?;
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let data = std::ffi::CString::new(data).map_err(|e| e.to_string())?;
    let data = Some(data.as_c_str());
    mount(
        "unionmount",
        "/",
        "fuse.unionmount",
        MountFlags::empty(),
        data,
    )
    .map_err(refused)?;
    answers(&device)
}

/// Whether the kernel begins to talk.
fn answers(device: &OwnedFd) -> Result<(), String> {
    let mut fds = [PollFd::new(device, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    match poll(&mut fds, Some(&patience)) {
        Ok(0) => Err("the kernel sends no request to \"/dev/fuse\"".to_owned()),
        Ok(_) => Ok(()),
        Err(e) => Err(format!("\"/dev/fuse\": {}", reason(e))),
    }
}

fn become_nobody() -> Result<(), String> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        // Else our own files in /proc belong to root.
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::Dumpable))
        .map_err(|e| {
            format!(
                "could not be tried: cannot become a plain user: {}",
                reason(e)
            )
        })
}

fn by_fusermount() -> Result<(), String> {
    let program = Fusermount::find().ok_or("fusermount3 is missing (install the package fuse3)")?;
    let dir = scratch()?;
    let mounted = program.mount(&dir, "fsname=unionmount,subtype=unionmount".as_ref());
    let answered = mounted
        .map_err(|failure| failure.to_string())
        .and_then(|device| {
            let answered = answers(&device);
            best_effort("unmount", program.unmount(&dir, true));
            answered
        });
    best_effort("remove the directory", fs::remove_dir(&dir));
    answered
}

/// A directory of a plain user's: root makes it where nobody else sees it.
fn scratch() -> Result<PathBuf, String> {
    let place = std::env::temp_dir();
    if is_root_of_the_machine() {
        let failed = |e: Errno| format!("could not be tried: {}", reason(e));
        copy_mounts().map_err(failed)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(failed)?;
        let mode = Some(c"mode=1777");
        mount("none", &place, "tmpfs", MountFlags::empty(), mode).map_err(failed)?;
    }
    become_nobody()?;
    let dir = place.join(format!("unionmount-check-{}", getpid().as_raw_nonzero()));
    fs::create_dir(&dir).map_err(|e| format!("cannot make {dir:?}: {}", reason(e)))?;
    Ok(dir)
}
