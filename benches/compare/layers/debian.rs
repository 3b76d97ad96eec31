//! A root as Debian's: packages with their files all over the usual directories, in four layers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::text::Text;
use super::{Plan, empty, put};
use crate::sizes::Sizes;

const LAYERS: usize = 4;

const LANGUAGES: &[&str] = &["cs", "da", "de", "es", "fr", "it", "ja", "nl", "pl", "sv"];

/// One package's files are being written to its layer.
struct Package<'a> {
    name: String,
    layer: &'a Path,
    text: &'a mut Text,
    rng: &'a mut fastrand::Rng,
    written: usize,
    small: Vec<PathBuf>,
}

pub fn make(root: &Path, sizes: &Sizes) -> Result<Plan> {
    let mut plan = empty(root, LAYERS)?;
    let mut text = Text::new(1);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut written = 0;
    let mut number = 0;
    while written < sizes.tree_files {
        // Most of a system is in its base; every layer above brings less.
        let layer = match rng.u8(..20) {
            0 => 0,
            1..3 => 1,
            3..6 => 2,
            _ => 3,
        };
        let mut package = Package {
            name: format!("{}{number}", package_word(&mut rng)),
            layer: &plan.lowers[layer],
            text: &mut text,
            rng: &mut rng,
            written: 0,
            small: Vec::new(),
        };
        package.write()?;
        written += package.written;
        let small = std::mem::take(&mut package.small);
        if layer == LAYERS - 1 && number % 20 == 0 {
            update(&small, &plan.lowers[number / 20 % (LAYERS - 1)], &mut text)?;
        }
        plan.files.extend(small);
        number += 1;
    }
    Ok(plan)
}

/// An upper layer that has some of a package's files in another version.
fn update(files: &[PathBuf], layer: &Path, text: &mut Text) -> Result<()> {
    for file in files {
        put(&layer.join(file), text.bytes(1500))?;
    }
    Ok(())
}

fn package_word(rng: &mut fastrand::Rng) -> String {
    let length = rng.usize(4..10);
    (0..length).map(|_| rng.lowercase()).collect()
}

impl Package<'_> {
    fn write(&mut self) -> Result<()> {
        let name = self.name.clone();
        for file in ["copyright", "changelog.Debian.gz"] {
            self.file(format!("usr/share/doc/{name}/{file}"))?;
        }
        for end in ["list", "md5sums"] {
            self.file(format!("var/lib/dpkg/info/{name}.{end}"))?;
        }
        if self.rng.u8(..10) < 6 {
            self.file(format!("usr/bin/{name}"))?;
            self.file(format!("usr/share/man/man1/{name}.1.gz"))?;
            self.link(format!("usr/bin/{name}"), format!("usr/bin/{name}-alias"))?;
        }
        if self.rng.u8(..10) < 4 {
            let library = format!("usr/lib/x86_64-linux-gnu/lib{name}.so.1");
            self.file(format!("{library}.2.3"))?;
            let target = format!("lib{name}.so.1.2.3");
            std::os::unix::fs::symlink(target, self.layer.join(library))?;
        }
        if self.rng.u8(..10) < 3 {
            self.file(format!("etc/{name}.conf"))?;
        }
        if self.rng.u8(..10) < 2 {
            for language in LANGUAGES {
                self.file(format!("usr/share/locale/{language}/LC_MESSAGES/{name}.mo"))?;
            }
        }
        let home = match self.rng.u8(..20) {
            0 => format!("opt/{name}"),
            1..4 => format!("usr/lib/python3/dist-packages/{name}"),
            4..7 => format!("usr/include/{name}"),
            _ => format!("usr/share/{name}"),
        };
        for n in 0..self.rng.usize(2..30) {
            self.file(format!("{home}/part{}/file{n}", n / 9))?;
        }
        Ok(())
    }

    fn file(&mut self, path: String) -> Result<()> {
        let size = self.text.size();
        put(&self.layer.join(&path), self.text.bytes(size))?;
        self.written += 1;
        if size <= 4096 {
            self.small.push(path.into());
        }
        Ok(())
    }

    /// A hard link, for one file in a few.
    fn link(&mut self, from: String, to: String) -> Result<()> {
        if self.rng.u8(..3) == 0 {
            fs::hard_link(self.layer.join(from), self.layer.join(to))?;
        }
        Ok(())
    }
}
