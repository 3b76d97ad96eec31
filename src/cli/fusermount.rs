//! Mounting as a plain user: the setuid program fusermount3 of the package fuse3.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::{FdFlags, IoSliceMut, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

use super::failure::{Failure, reason};

/// The program, found.
#[derive(Debug, Clone)]
pub(crate) struct Fusermount {
    program: PathBuf,
}

impl Fusermount {
    /// Looks for it where programs are.
    pub(crate) fn find() -> Option<Fusermount> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = std::env::split_paths(&path)
            .chain(["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from))
            .collect();
        ["fusermount3", "fusermount"].iter().find_map(|name| {
            let program = dirs
                .iter()
                .map(|dir| dir.join(name))
                .find(|file| file.is_file())?;
            Some(Fusermount { program })
        })
    }

    /// Mounts on `mountpoint` and returns the open `/dev/fuse` that belongs to the mount. Must be
    /// called while the process has one thread: a descriptor is inheritable for a moment.
    pub(crate) fn mount(&self, mountpoint: &Path, options: &OsStr) -> Result<OwnedFd, Failure> {
        let run = || -> io::Result<(Option<OwnedFd>, Child)> {
            let (ours, theirs) = socketpair(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            fcntl_setfd(&theirs, FdFlags::empty())?;
            let child = Command::new(&self.program)
                .arg("-o")
                .arg(options)
                .arg("--")
                .arg(mountpoint)
                .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            drop(theirs);
            Ok((receive(&ours)?, child))
        };
        let fail = |why: String| {
            Failure::new(format!(
                "cannot mount on {mountpoint:?}: {}: {why}",
                self.name()
            ))
        };
        let (device, child) = run().map_err(|e| fail(reason(e)))?;
        let (succeeded, complaint) = finish(child).map_err(|e| fail(reason(e)))?;
        match device {
            Some(device) if succeeded => Ok(device),
            _ => Err(fail(self.explain(&complaint))),
        }
    }

    /// Unmounts, at once (`lazy` false: fails if busy) or as soon as nobody uses it any more.
    pub(crate) fn unmount(&self, mountpoint: &Path, lazy: bool) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.arg("-u");
        if lazy {
            command.arg("-z");
        }
        command.arg("--").arg(mountpoint);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (succeeded, complaint) = command
            .spawn()
            .and_then(finish)
            .map_err(|e| format!("{}: {}", self.name(), reason(e)))?;
        if succeeded {
            Ok(())
        } else {
            Err(self.explain(&complaint))
        }
    }

    fn name(&self) -> std::path::Display<'_> {
        Path::new(self.program.file_name().unwrap_or_default()).display()
    }

    fn explain(&self, complaint: &str) -> String {
        let line = complaint
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no reason given");
        let line = line
            .strip_prefix(&format!("{}: ", self.name()))
            .unwrap_or(line);
        let remedy = if line.contains("user_allow_other") {
            " (root must put the line user_allow_other into /etc/fuse.conf, or drop --allow-other)"
        } else if line.contains("/dev/fuse") && line.contains("Permission denied") {
            " (as udev makes it, it is open to all users: chmod 0666 /dev/fuse)"
        } else if line.contains("/dev/fuse") || line.contains("fuse device") {
            " (load the fuse module; in a container: add --device /dev/fuse)"
        } else if line.contains("no write access") || line.contains("not owner") {
            " (mount on a directory of your own)"
        } else if line.contains("Operation not permitted") {
            " (fusermount3 must be setuid root, and in a container needs CAP_SYS_ADMIN: \
             there, use a user and mount namespace)"
        } else {
            ""
        };
        format!("{line}{remedy}")
    }
}

/// The descriptor that fusermount3 sends over `_FUSE_COMMFD`; `None` if it ends without.
fn receive(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    Ok(ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

fn finish(mut child: Child) -> io::Result<(bool, String)> {
    let mut complaint = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut complaint)?;
    }
    let status = child.wait()?;
    Ok((
        status.success(),
        String::from_utf8_lossy(&complaint).into_owned(),
    ))
}

/// `value` for an option of fusermount3, which splits at commas that no backslash precedes.
pub(crate) fn escape(value: &OsStr) -> OsString {
    let mut out = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    OsString::from_vec(out)
}
