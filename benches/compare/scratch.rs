//! Where everything lies: an ext4 image, in memory unless a disk is to be measured.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// The most that the image may grow to.
const IMAGE_BYTES: u64 = 8 << 30;

/// Removed on drop, with every mount below it.
pub struct Scratch {
    /// Short, for kernel overlayfs takes one page of options where `lowerdir+` is not known.
    root: PathBuf,
    /// What the figures were measured on, for the reader.
    pub backing: String,
    dir: TempDir,
    /// The memory of the whole image is in use, and stays so.
    filled: bool,
}

impl Scratch {
    /// On an ext4 image in `disk`, or else in `/dev/shm`, or else in the temporary directory.
    /// With `fill`, all of the image is written once before: memory that a virtual machine uses for the
    /// first time is slow, and whoever happened to get it would be called slow.
    pub fn new(fill: bool, disk: Option<&Path>) -> Result<Scratch> {
        if let Some(disk) = disk {
            return Scratch::on_image(fill, disk, IMAGE_BYTES, "the disk");
        }
        let bytes = IMAGE_BYTES.min(available_memory()? / 10 * 6);
        match Scratch::on_image(fill, Path::new("/dev/shm"), bytes, "tmpfs") {
            Ok(scratch) => Ok(scratch),
            Err(why) => {
                eprintln!("no image can be mounted, a disk will be in the figures: {why:#}");
                let dir = tempfile::Builder::new().prefix("um-compare-").tempdir()?;
                Ok(Scratch {
                    root: dir.path().to_owned(),
                    backing: format!("the temporary directory, as there is no image: {why:#}"),
                    dir,
                    filled: false,
                })
            }
        }
    }

    fn on_image(fill: bool, place: &Path, bytes: u64, over: &str) -> Result<Scratch> {
        let dir = tempfile::Builder::new()
            .prefix("um-compare-")
            .tempdir_in(place)
            .with_context(|| place.display().to_string())?;
        let image = dir.path().join("ext4");
        let mut file = std::fs::File::create(&image)?;
        if fill {
            std::io::copy(&mut std::io::repeat(0xFF).take(bytes), &mut file)?;
        }
        file.set_len(bytes)?;
        let root = dir.path().join("m");
        std::fs::create_dir(&root)?;
        let scratch = Scratch {
            root: root.clone(),
            backing: format!(
                "ext4 (defaults, no lazy initialisation) of {} GiB on a loop device over {over}{}",
                bytes >> 30,
                if fill {
                    ", all of it written before"
                } else {
                    ""
                }
            ),
            dir,
            filled: fill,
        };
        succeed(
            Command::new("mkfs.ext4")
                // Discarding would give the memory back.
                .args([
                    "-q",
                    "-E",
                    "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
                ])
                .arg(&image),
        )?;
        succeed(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&root),
        )?;
        Ok(scratch)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Gives the memory behind freed blocks back, unless it is to stay.
    pub fn trim(&self) {
        if !self.filled {
            drop(Command::new("fstrim").arg(&self.root).output());
        }
    }

    /// Where [`sweep`] must look.
    pub fn whole(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        sweep(self.dir.path());
    }
}

/// Unmounts all that is mounted below a directory, the last mounted first.
pub fn sweep(below: &Path) {
    let Ok(table) = std::fs::read("/proc/self/mountinfo") else {
        return;
    };
    let points = table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|point| Path::new(std::ffi::OsStr::from_bytes(point)).to_owned())
        .filter(|point| point.starts_with(below));
    let points: Vec<PathBuf> = points.collect();
    for point in points.iter().rev() {
        if let Err(why) = patient_unmount(point) {
            eprintln!("{why:#}");
        }
    }
}

/// Unmounts; a mount that stays busy is detached.
pub fn patient_unmount(point: &Path) -> Result<()> {
    for _ in 0..100 {
        match unmount(point, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(20)),
            Err(rustix::io::Errno::PERM) => {
                return succeed(Command::new("fusermount3").arg("-u").arg(point));
            }
            Err(why) => {
                return Err(why).with_context(|| format!("cannot unmount {}", point.display()));
            }
        }
    }
    unmount(point, UnmountFlags::DETACH)
        .with_context(|| format!("cannot detach {}", point.display()))
}

/// Runs a command to its end; what it said is part of the error.
pub fn succeed(command: &mut Command) -> Result<()> {
    let done = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said: Vec<&str> = said.split_whitespace().collect();
    let said: String = said.join(" ").chars().take(400).collect();
    let program = command.get_program().display();
    bail!("{program}: {}: {said}", done.status);
}

fn available_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("no MemAvailable")?.parse::<u64>()? << 10)
}
