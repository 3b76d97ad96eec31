//! The lowers: made once, of the same bytes in every run, and only read by all peers.

pub mod big;
mod blank;
mod bulk;
mod debian;
pub mod deep;
mod project;
pub mod python;
pub mod system;
mod text;
mod wide;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::scratch::succeed;
use crate::session::MADE;
use crate::sizes::Sizes;

/// Which lowers a workload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// A root as Debian's, in four layers.
    Debian,
    /// Many small files that are removed, chowned, copied.
    Bulk,
    /// Nothing but a directory for new things.
    Blank,
    /// A directory of very many entries.
    Wide,
    /// Sixty layers of the same directories.
    Deep,
    /// Hundreds of layers.
    Many,
    /// A C project.
    Project,
    /// Python's library.
    Python,
    /// A Debian system, which needs the network.
    System,
    /// A big file.
    Big,
    /// A file that takes seconds to copy.
    Huge,
}

/// Lowers on disk.
#[derive(Debug)]
pub struct LayerSet {
    pub which: Which,
    /// The topmost first.
    pub lowers: Vec<PathBuf>,
    /// Small files in it, for loops over single calls.
    pub files: Vec<PathBuf>,
    root: PathBuf,
}

/// A set in the making: the directory of each layer, the topmost first.
#[derive(Debug)]
pub struct Plan {
    lowers: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl LayerSet {
    /// Makes the lowers in `root`, which is removed with the set.
    pub fn make(which: Which, sizes: &Sizes, root: &Path) -> Result<LayerSet> {
        let mut set = LayerSet {
            which,
            lowers: Vec::new(),
            files: Vec::new(),
            root: root.to_owned(),
        };
        let plan = match which {
            Which::Debian => debian::make(root, sizes),
            Which::Bulk => bulk::make(root, sizes),
            Which::Blank => blank::make(root),
            Which::Wide => wide::make(root, sizes),
            Which::Deep => deep::deep(root),
            Which::Many => deep::many(root),
            Which::Project => project::make(root, sizes),
            Which::Python => python::make(root),
            Which::System => system::make(root),
            Which::Big => big::make(root, sizes.big_bytes),
            Which::Huge => big::make(root, sizes.huge_bytes),
        };
        let plan = plan.with_context(|| format!("making the layers {which:?}"))?;
        if let Some(bottom) = plan.lowers.last() {
            fs::create_dir_all(bottom.join(MADE))?;
        }
        set.lowers = plan.lowers;
        set.files = plan.files;
        Ok(set)
    }

    /// What the union of the lowers shows, as a plain directory; made when first asked for.
    pub fn plain(&self) -> Result<PathBuf> {
        let plain = self.root.join("plain");
        if !plain.exists() {
            for lower in self.lowers.iter().rev() {
                copy_tree(lower, &plain)?;
            }
        }
        Ok(plain)
    }

    /// Reads all of it once, so that the page cache and the dentries below the unions are warm.
    pub fn warm(&self, with_plain: bool) -> Result<()> {
        self.lowers.iter().try_for_each(|lower| warm(lower))?;
        if with_plain {
            warm(&self.plain()?)?;
        }
        Ok(())
    }
}

impl Drop for LayerSet {
    fn drop(&mut self) {
        if let Err(why) = fs::remove_dir_all(&self.root) {
            eprintln!("{}: {why}", self.root.display());
        }
    }
}

/// Empty layers, the topmost first.
fn empty(root: &Path, count: usize) -> Result<Plan> {
    let lowers: Vec<PathBuf> = (0..count).map(|n| root.join(n.to_string())).collect();
    for lower in &lowers {
        fs::create_dir_all(lower)?;
    }
    Ok(Plan {
        lowers,
        files: Vec::new(),
    })
}

/// Writes a file, and the directories that lead to it.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content).with_context(|| path.display().to_string())
}

/// Copies a tree over another one.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    succeed(Command::new("cp").arg("-aT").arg(from).arg(to))
}

fn warm(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            warm(&path)?;
        } else if metadata.is_file() && metadata.size() > 0 {
            let mut file = fs::File::open(&path)?;
            std::io::copy(&mut file, &mut std::io::sink())?;
        }
    }
    Ok(())
}
