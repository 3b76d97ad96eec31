//! The base image: a small Debian with a C library to compile against and a compiler in a package
//! that is not installed yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::kit::{capability, debian, finished, sys};

/// Kept from run to run, in cargo's directory for what tests leave.
const NAME: &str = "engines-base-1.tar";

static MAKING: Mutex<()> = Mutex::new(());

/// The image as a tar archive.
pub fn base() -> PathBuf {
    let making = MAKING.lock().unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let tar = dir.join(NAME);
    if !tar.exists() {
        let scratch = tempfile::Builder::new()
            .prefix("unionmount-engines-")
            .tempdir_in(dir)
            .unwrap();
        // apt fetches as a user of its own.
        sys::chmod(scratch.path(), 0o755).unwrap();
        make(scratch.path(), &tar);
    }
    drop(making);
    tar
}

fn make(scratch: &Path, tar: &Path) {
    let root = scratch.join("root");
    debian::bootstrap(
        &root,
        &[
            "--variant=minbase",
            "--include=libc6-dev",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--customize-hook=mkdir \"$1/debs\"",
            "--customize-hook=chroot \"$1\" sh -c \
             'cd /debs && apt-get -q -o APT::Sandbox::User=root download tcc'",
        ],
    );
    // What programs have that may do one thing only root may.
    sys::setxattr(
        root.join("usr/bin/chfn"),
        "security.capability",
        &capability(13),
        0,
    )
    .unwrap();
    sys::setxattr(root.join("etc/issue"), "user.note", b"of the base", 0).unwrap();
    let new = scratch.join("tar");
    let mut command = Command::new("tar");
    command.args(["--create", "--sort=name", "--xattrs", "--xattrs-include=*"]);
    command.arg("-f").arg(&new).arg("-C").arg(&root).arg(".");
    finished(&mut command, Duration::from_secs(120)).unwrap();
    std::fs::rename(new, tar).unwrap();
}
