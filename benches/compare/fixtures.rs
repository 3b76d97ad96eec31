//! What workloads bring into the union from outside: made once, when first asked for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::layers::{LayerSet, Which};
use crate::scratch::succeed;
use crate::sizes::Sizes;

#[derive(Debug)]
pub struct Fixtures {
    root: PathBuf,
    sizes: Sizes,
}

impl Fixtures {
    pub fn new(root: &Path, sizes: &Sizes) -> Result<Fixtures> {
        std::fs::create_dir_all(root)?;
        Ok(Fixtures {
            root: root.to_owned(),
            sizes: *sizes,
        })
    }

    /// An archive of small files in directories.
    pub fn archive(&self) -> Result<PathBuf> {
        let archive = self.root.join("small.tar");
        if !archive.exists() {
            let sizes = Sizes {
                bulk_files: self.sizes.archive_files,
                moved_files: 0,
                ..self.sizes
            };
            let set = LayerSet::make(Which::Bulk, &sizes, &self.root.join("archive"))?;
            let plain = set.plain()?;
            succeed(
                Command::new("tar")
                    .arg("cf")
                    .arg(&archive)
                    .arg("-C")
                    .arg(plain)
                    .arg("bulk"),
            )?;
        }
        Ok(archive)
    }

    /// A bare git repository with a commit of many files.
    pub fn repository(&self) -> Result<PathBuf> {
        let bare = self.root.join("repository.git");
        if !bare.exists() {
            let sizes = Sizes {
                bulk_files: self.sizes.archive_files / 2,
                moved_files: 0,
                ..self.sizes
            };
            let set = LayerSet::make(Which::Bulk, &sizes, &self.root.join("sources"))?;
            let tree = set.plain()?;
            succeed(git(&tree).args(["init", "-q"]))?;
            succeed(git(&tree).args(["add", "bulk"]))?;
            succeed(git(&tree).args(["commit", "-q", "-m", "All of it"]))?;
            let mut clone = git(&tree);
            clone.args(["clone", "-q", "--bare", "."]).arg(&bare);
            succeed(&mut clone)?;
            succeed(git(&bare).args(["repack", "-q", "-a", "-d"]))?;
        }
        Ok(bare)
    }
}

/// git in a directory, with nobody's configuration.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"])
        .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"]);
    command
}
