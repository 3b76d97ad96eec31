//! One peer's mount for one workload in one round: fresh upper, warm lowers, timed steps.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, syncfs};

use crate::daemon::{Cost, Daemon};
use crate::fixtures::Fixtures;
use crate::layers::LayerSet;
use crate::peer::{Layers, Peer};
use crate::scratch::{patient_unmount, sweep};
use crate::sizes::Sizes;
use crate::{interrupt, layers};

/// What one timed step took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub slug: &'static str,
    pub value: f64,
    pub operations: u64,
    pub cost: Option<Cost>,
}

/// What a workload does with the directory that a peer shows.
pub struct Session<'a> {
    /// The root of the union, or of its plain copy.
    pub mnt: PathBuf,
    pub peer: &'a Peer,
    pub sizes: &'a Sizes,
    pub fixtures: &'a Fixtures,
    pub set: &'a LayerSet,
    place: Place<'a>,
    mounted: bool,
    daemon: Daemon,
    samples: Vec<Sample>,
}

/// Where a session has its directories.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub root: &'a Path,
}

impl Place<'_> {
    fn upper(&self) -> PathBuf {
        self.root.join("u")
    }

    fn work(&self) -> PathBuf {
        self.root.join("w")
    }

    fn mnt(&self) -> PathBuf {
        self.root.join("mnt")
    }
}

/// How a plain directory takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    /// All rounds share it: nothing that lies in it is changed, new things go to [`MADE`].
    Shared,
    /// Each round changes a copy of its own.
    Copied,
    /// It means nothing here.
    Absent,
}

/// Where workloads make new things, so that a shared plain directory can be cleared of them.
pub const MADE: &str = "made";

impl<'a> Session<'a> {
    /// With nothing left of the session before; the workload mounts.
    pub fn start(
        peer: &'a Peer,
        place: Place<'a>,
        set: &'a LayerSet,
        with: (&'a Sizes, &'a Fixtures),
        native: Native,
    ) -> Result<Session<'a>> {
        let (sizes, fixtures) = with;
        let mut session = Session {
            mnt: place.mnt(),
            peer,
            sizes,
            fixtures,
            set,
            place,
            mounted: false,
            daemon: Daemon::default(),
            samples: Vec::new(),
        };
        session.clear()?;
        if peer.is_native() {
            session.mnt = match native {
                Native::Copied => {
                    let copy = place.root.join("n");
                    layers::copy_tree(&set.plain()?, &copy)?;
                    copy
                }
                _ => set.plain()?,
            };
        }
        Ok(session)
    }

    /// Mounts all lowers of the set.
    pub fn mount(&mut self) -> Result<()> {
        let lowers = &self.set.lowers;
        self.mount_lowers(lowers)
    }

    /// Mounts some lowers.
    pub fn mount_lowers(&mut self, lowers: &[PathBuf]) -> Result<()> {
        if self.peer.is_native() {
            return Ok(());
        }
        self.prepare()?;
        self.mount_prepared(lowers)
    }

    /// Makes what a mount needs besides the lowers.
    pub fn prepare(&self) -> Result<()> {
        for dir in [self.place.upper(), self.place.work(), self.place.mnt()] {
            std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        }
        sync_filesystem(self.place.root)
    }

    /// Mounts, and does nothing else: for those who time it.
    pub fn mount_prepared(&mut self, lowers: &[PathBuf]) -> Result<()> {
        self.daemon = Daemon::default();
        let mounted = self.peer.mount(&Layers {
            lowers,
            upper: &self.place.upper(),
            work: &self.place.work(),
            mnt: &self.mnt,
        });
        match mounted {
            Ok(()) => self.mounted = true,
            Err(_) => sweep(&self.mnt),
        }
        mounted
    }

    /// Takes note of the process that serves the mount.
    pub fn meet_daemon(&mut self) -> Result<()> {
        if self.peer.has_daemon() {
            self.daemon = Daemon::of(&self.mnt, self.peer.control());
            if !self.daemon.exists() {
                bail!("no process serves {}", self.mnt.display());
            }
        }
        Ok(())
    }

    /// A path in the union.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.mnt.join(path)
    }

    /// Where new things may be made.
    pub fn made(&self, path: impl AsRef<Path>) -> PathBuf {
        self.mnt.join(MADE).join(path)
    }

    /// Times a step of so many operations; the row shows the time of one.
    pub fn time(
        &mut self,
        slug: &'static str,
        operations: usize,
        step: impl FnOnce(&Session<'_>) -> Result<()>,
    ) -> Result<()> {
        interrupt::check()?;
        self.settle()?;
        let before = self.daemon.exists().then(|| self.daemon.read());
        let start = Instant::now();
        step(self).with_context(|| slug.to_owned())?;
        let took = start.elapsed().as_secs_f64();
        let cost = before.map(|before| self.daemon.cost_since(&before));
        self.samples.push(Sample {
            slug,
            value: took / operations as f64,
            operations: operations as u64,
            cost,
        });
        Ok(())
    }

    /// Takes a value that a workload measured by itself.
    pub fn record(&mut self, slug: &'static str, value: f64) {
        self.samples.push(Sample {
            slug,
            value,
            operations: 1,
            cost: None,
        });
    }

    /// Lets everything written before reach the image, so that it is not in the next figure.
    pub fn settle(&self) -> Result<()> {
        if self.mounted && !self.samples.is_empty() {
            sync_filesystem(&self.mnt)?;
        }
        sync_filesystem(self.place.root)
    }

    /// Unmounts and clears; what was measured.
    pub fn finish(mut self) -> Result<Vec<Sample>> {
        self.unmount()?;
        let made = self.mnt.join(MADE);
        if self.peer.is_native() && made.exists() {
            clear_dir(&made)?;
        }
        self.clear()?;
        Ok(std::mem::take(&mut self.samples))
    }

    /// Unmounts, and waits for the daemon to be gone.
    pub fn unmount(&mut self) -> Result<()> {
        if self.mounted {
            self.mounted = false;
            patient_unmount(&self.mnt)?;
            self.daemon.wait();
        }
        Ok(())
    }

    /// Removes the upper and all that belongs to a mount.
    pub fn clear(&self) -> Result<()> {
        let copy = self.place.root.join("n");
        for dir in [
            self.place.upper(),
            self.place.work(),
            self.place.mnt(),
            copy,
        ] {
            if dir.exists() {
                std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
            }
        }
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Err(why) = self.unmount() {
            eprintln!("{why:#}");
        }
    }
}

fn clear_dir(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn sync_filesystem(path: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())?;
    syncfs(dir).with_context(|| format!("syncfs {}", path.display()))
}
