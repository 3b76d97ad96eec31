//! Layers in a temp dir, a `Union` opened on them, and paths in place of inode numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use unionmount::attr::{Attr, Kind};
use unionmount::error::Errno;
use unionmount::ops::{
    Caller, Config, Durability, NewObject, Perm, RenameMode, SetAttr, Union, UpperConfig,
    WhiteoutChoice, WriteHow,
};

/// The root of every union.
pub(crate) const ROOT: u64 = 1;

/// root, this process.
pub(crate) fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: std::process::id(),
    }
}

pub(crate) struct Lab {
    pub(crate) union: Union,
    dir: TempDir,
    config: Config,
}

fn scratch() -> TempDir {
    match std::env::var_os("UNIONMOUNT_TEST_DIR") {
        Some(dir) => TempDir::new_in(dir).unwrap(),
        None => TempDir::new().unwrap(),
    }
}

fn config(dir: &Path, lowers: usize, whiteout: WhiteoutChoice) -> Config {
    Config {
        lowers: (0..lowers).map(|n| dir.join(format!("l{n}"))).collect(),
        upper: Some(UpperConfig {
            whiteout,
            durability: Durability::Volatile,
            ..UpperConfig::new(dir.join("u"), dir.join("w"))
        }),
        redirect_dir: unionmount::ops::RedirectDir::On,
        ..Config::default()
    }
}

impl Lab {
    /// `lowers`, topmost first, each made by its function in its directory.
    pub(crate) fn new(whiteout: WhiteoutChoice, lowers: &[&dyn Fn(&Path)]) -> Lab {
        let dir = scratch();
        for (n, fill) in lowers.iter().enumerate() {
            let lower = dir.path().join(format!("l{n}"));
            std::fs::create_dir(&lower).unwrap();
            fill(&lower);
        }
        for name in ["u", "w"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let config = config(dir.path(), lowers.len(), whiteout);
        let union = Union::open(&config).unwrap();
        Lab { union, dir, config }
    }

    /// Closes the union and opens it again; listings may take so many bytes of memory.
    pub(crate) fn reopen_with_cache(mut self, bytes: u64) -> Lab {
        self.config.cache_size = bytes;
        self.reopen()
    }

    /// Closes the union and opens it again.
    pub(crate) fn reopen(self) -> Lab {
        let Lab { union, dir, config } = self;
        drop(union);
        // The lab is always volatile, for speed; the mark would refuse it now.
        std::fs::remove_dir_all(dir.path().join("w/work/incompat")).unwrap();
        let union = Union::open(&config).unwrap();
        Lab { union, dir, config }
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.path().join("u")
    }

    /// Looks a path up; each component stays counted, as in the kernel.
    pub(crate) fn find(&self, path: &str) -> Result<Attr, Errno> {
        let mut attr = self.union.getattr(ROOT).map_err(|e| e.errno())?;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            let entry = self
                .union
                .lookup(attr.ino, name.as_bytes())
                .map_err(|e| e.errno())?;
            attr = entry.attr;
        }
        Ok(attr)
    }

    pub(crate) fn ino(&self, path: &str) -> u64 {
        self.find(path)
            .unwrap_or_else(|e| panic!("{path}: {e}"))
            .ino
    }

    fn split<'a>(&self, path: &'a str) -> (u64, &'a [u8]) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.ino(dir), name.as_bytes())
    }

    pub(crate) fn create(&self, path: &str, object: NewObject<'_>) -> Result<u64, Errno> {
        let (dir, name) = self.split(path);
        let perm = Perm {
            perm: 0o755,
            umask: 0,
        };
        let made = self.union.create(caller(), dir, name, object, perm);
        made.map(|e| e.attr.ino).map_err(|e| e.errno())
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        if self.find(path) == Err(Errno::NOENT) {
            self.create(path, NewObject::File).unwrap();
        }
        let ino = self.ino(path);
        let change = SetAttr {
            size: Some(0),
            ..SetAttr::NONE
        };
        self.union.setattr(caller(), ino, &change).unwrap();
        let how = WriteHow::default();
        assert_eq!(
            self.union.write(ino, 0, text.as_bytes(), &how).unwrap().len,
            text.len()
        );
    }

    pub(crate) fn read(&self, path: &str) -> String {
        let mut data = Vec::new();
        self.union
            .read(self.ino(path), 0, 1 << 20, &mut data)
            .unwrap();
        String::from_utf8(data).unwrap()
    }

    pub(crate) fn unlink(&self, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.split(path);
        self.union.unlink(dir, name).map_err(|e| e.errno())
    }

    pub(crate) fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.split(path);
        self.union.rmdir(dir, name).map_err(|e| e.errno())
    }

    pub(crate) fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), Errno> {
        let ((dir, name), (new_dir, new_name)) = (self.split(from), self.split(to));
        self.union
            .rename(dir, name, new_dir, new_name, mode)
            .map_err(|e| e.errno())
    }

    pub(crate) fn link(&self, from: &str, to: &str) -> Result<(), Errno> {
        let (dir, name) = self.split(to);
        self.union
            .link(self.ino(from), dir, name)
            .map(drop)
            .map_err(|e| e.errno())
    }

    /// The names in a directory, sorted.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let mut names = Vec::new();
        let ino = self.ino(path);
        self.union
            .read_dir(ino, 0, false, &mut |item| {
                let name = String::from_utf8_lossy(item.name).into_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
                true
            })
            .unwrap();
        names.sort();
        names
    }

    /// The whole tree as text: path -> kind, link count of what is no directory, contents.
    pub(crate) fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            for name in self.list(&dir) {
                let path = format!("{dir}/{name}");
                let attr = self.find(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
                let what = match attr.kind {
                    Kind::Dir => {
                        dirs.push(path.clone());
                        "dir".to_owned()
                    }
                    Kind::File => format!("file {} {:?}", attr.nlink, self.read(&path)),
                    kind => format!("{kind:?} {}", attr.nlink),
                };
                tree.insert(path, what);
            }
        }
        tree
    }

    /// Forgets everything that `tree` and `find` have counted, as under memory pressure.
    pub(crate) fn forget_all(&self) {
        for ino in self.tree_inos() {
            self.union.forget(ino, 1 << 40);
        }
    }

    fn tree_inos(&self) -> Vec<u64> {
        let paths: Vec<String> = self.tree().into_keys().collect();
        // Children first: the kernel forgets a directory after what is in it.
        paths.iter().rev().map(|path| self.ino(path)).collect()
    }
}
