//! Filesystems that a test mounts beside its union: images, bind mounts, what FUSE programs serve.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Scratch, sys};

/// A scratch directory and what is mounted in it; unmounted on drop, the last one first.
pub struct Mounts {
    points: Vec<PathBuf>,
    scratch: Scratch,
}

impl Mounts {
    pub fn new() -> Mounts {
        Mounts {
            points: Vec::new(),
            scratch: Scratch::new(),
        }
    }

    /// A path in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A new directory in the scratch directory.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        sys::mkdir(&path, 0o755).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
        path
    }

    /// Runs a program that mounts something on `at` and takes it as the last of `words`.
    #[track_caller]
    pub fn run(&mut self, words: &[&OsStr], at: &Path) {
        self.run_words(&[words, &[at.as_os_str()]].concat(), at);
    }

    /// Runs a program that mounts something on `at`.
    #[track_caller]
    pub fn run_words(&mut self, words: &[&OsStr], at: &Path) {
        must(Command::new(words[0]).args(&words[1..]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !sys::is_mounted(at) {
            assert!(Instant::now() < deadline, "{words:?}: nothing is mounted");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.points.push(at.to_owned());
    }

    /// `mount WORDS SOURCE NAME`, on a new directory.
    #[track_caller]
    pub fn mount(&mut self, words: &[&str], source: impl AsRef<OsStr>, name: &str) -> PathBuf {
        let at = self.dir(name);
        let mut all: Vec<&OsStr> = vec!["mount".as_ref()];
        all.extend(words.iter().map(OsStr::new));
        all.push(source.as_ref());
        self.run(&all, &at);
        at
    }

    /// Shows directory `from` on `at` too.
    #[track_caller]
    pub fn bind(&mut self, from: &Path, at: &Path) {
        self.run(&["mount".as_ref(), "--bind".as_ref(), from.as_ref()], at);
    }

    /// A new filesystem in an image, made by `mkfs` and mounted.
    #[track_caller]
    pub fn format(&mut self, mkfs: &[&str], megabytes: u64, name: &str) -> PathBuf {
        let image = self.path(&format!("{name}.image"));
        sys::put(&image, b"").unwrap();
        sys::truncate(&image, megabytes << 20).unwrap();
        must(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        self.mount(&["-o", "loop"], image, name)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for point in self.points.iter().rev() {
            // A mount namespace that another test is making just now may keep it for a moment.
            let deadline = Instant::now() + Duration::from_secs(5);
            while sys::umount(point, 0).is_err() {
                if Instant::now() > deadline {
                    let detached = sys::umount(point, libc::MNT_DETACH);
                    eprintln!("{}: stayed busy; lazily: {detached:?}", point.display());
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Runs a command that must succeed.
#[track_caller]
pub fn must(command: &mut Command) {
    let what = format!("{command:?}");
    let done = command
        .output()
        .unwrap_or_else(|e| panic!("{what}: {e} (tests/run installs what is missing)"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{what}: {}: {said}", done.status);
}
