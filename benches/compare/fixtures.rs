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
}
