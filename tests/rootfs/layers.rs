//! A Debian root in four layers: mmdebstrap's, and three that apt and a shell left in kernel
//! overlayfs uppers, which are lowers as they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::kit::{Layers, Subject, debian, finished, sys};

const BUILD_TOOLS: &str = "gcc libc6-dev make";
const LANGUAGES: &str = "python3 git sqlite3 rsync acl attr libcap2-bin";
/// Installed by the work itself; what the base has already is installed once more.
const TO_INSTALL: &str = "tree file iputils-ping openssh-client perl-base tzdata coreutils login";

const PATIENCE: Duration = Duration::from_secs(400);

/// Four lowers, bottom first.
pub struct DebianRoot {
    dir: PathBuf,
    /// Removed on drop; none where the caller named a directory to keep.
    _temporary: Option<tempfile::TempDir>,
}

impl DebianRoot {
    /// The one that `UNIONMOUNT_TEST_ROOT` names, made there if it is not yet; else one of its own.
    pub fn new() -> DebianRoot {
        let (dir, temporary) = if let Some(dir) = std::env::var_os("UNIONMOUNT_TEST_ROOT") {
            (PathBuf::from(dir), None)
        } else {
            let parent = std::env::var_os("UNIONMOUNT_TEST_DIR")
                .map_or_else(std::env::temp_dir, PathBuf::from);
            let temporary = tempfile::Builder::new()
                .prefix("unionmount-root-")
                .tempdir_in(parent)
                .expect("a directory for the Debian root");
            (temporary.path().to_owned(), Some(temporary))
        };
        let root = DebianRoot {
            dir,
            _temporary: temporary,
        };
        let complete = root.dir.join("complete");
        if !complete.exists() {
            root.build();
            sys::put(complete, b"").unwrap();
        }
        root
    }

    /// The lowers, topmost first.
    pub fn lowers(&self) -> Vec<PathBuf> {
        ["changes", "languages", "tools", "base"]
            .map(|name| self.dir.join(name))
            .into()
    }

    fn build(&self) {
        for name in ["cache/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(self.dir.join(name)).unwrap();
        }
        sys::chmod(&self.dir, 0o755).unwrap();
        let base = self.dir.join("base");
        debian::bootstrap(&base, &["--variant=minbase"]);
        let apt = "apt-get -q -o APT::Sandbox::User=root \
                   -o Binary::apt-get::APT::Keep-Downloaded-Packages=1";
        let install = format!("{apt} install -y --no-install-recommends");
        let tools = format!("{apt} update && {install} {BUILD_TOOLS}");
        self.layer("tools", &["base"], &tools);
        let languages = format!("{install} {LANGUAGES}");
        self.layer("languages", &["tools", "base"], &languages);
        let script = include_str!("changes.sh");
        let changes = format!(
            "{script}\nrm -f /var/cache/apt/archives/*.deb\n{install} -d --reinstall {TO_INSTALL}\n\
             mkdir /debs && cp /var/cache/apt/archives/*.deb /debs/"
        );
        self.layer("changes", &["languages", "tools", "base"], &changes);
        std::fs::remove_dir_all(self.dir.join("cache")).unwrap();
    }

    /// Runs a script in kernel overlayfs over the layers named; its upper is the new layer.
    fn layer(&self, name: &str, lowers: &[&str], script: &str) {
        let lowers: Vec<PathBuf> = lowers.iter().map(|lower| self.dir.join(lower)).collect();
        let at = |name: &str| {
            let path = self.dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let (upper, work, mnt) = (at(name), at(&format!("{name}.work")), at("mnt"));
        Subject::Kernel
            .mount(&Layers {
                lowers: &lowers,
                upper: Some((&upper, &work)),
                mnt: &mnt,
            })
            .unwrap();
        let mounted = Mounted(mnt.clone());
        let mut command = namespace(&mnt);
        command
            .args(["sh", "-c", include_str!("build.sh"), "build.sh"])
            .arg(&mnt)
            .arg(self.dir.join("cache"))
            .args(["sh", "-e", "-c", script]);
        finished(&mut command, PATIENCE).unwrap_or_else(|why| panic!("layer {name}: {why}"));
        drop(mounted);
        std::fs::remove_dir_all(work).unwrap();
    }
}

/// A command line that lacks only what to run: the processes and mounts it makes end with it.
pub fn namespace(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "slave"])
        .args(["--pid", "--fork", "--kill-child"]);
    let mut proc = std::ffi::OsString::from("--mount-proc=");
    proc.push(root.join("proc"));
    command.arg(proc);
    command
}

/// A kernel overlayfs, unmounted on drop.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(errno) = sys::umount(&self.0, 0) {
            eprintln!("{}: {errno:?}; detaching it", self.0.display());
            if let Err(errno) = sys::umount(&self.0, libc::MNT_DETACH) {
                eprintln!("{}: {errno:?}", self.0.display());
            }
        }
    }
}
