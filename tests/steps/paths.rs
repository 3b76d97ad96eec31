//! A union opened in this process, without a mount, by paths.

use std::collections::BTreeMap;

use unionmount::attr::Kind;
use unionmount::error::Errno;
use unionmount::marker::whiteout::Dialect;
use unionmount::ops::{
    Caller, Config, NewObject, Perm, RenameMode, SetAttr, Union, UpperConfig, WhiteoutChoice,
    WriteHow,
};

use crate::kit::Lab;

pub type Done = Result<(), Errno>;

/// The tree that is seen: path to what is there.
pub type Tree = BTreeMap<String, String>;

pub struct Paths(Union);

fn caller() -> Caller {
    Caller {
        uid: 0,
        gid: 0,
        pid: std::process::id(),
    }
}

fn text(result: unionmount::error::Result<impl Sized>) -> Done {
    result.map(drop).map_err(|e| e.errno())
}

impl Paths {
    pub fn open(lab: &Lab, dialect: Dialect) -> Paths {
        let config = Config {
            lowers: (0..lab.lower_count()).map(|n| lab.lower_dir(n)).collect(),
            upper: Some(UpperConfig {
                whiteout: match dialect {
                    Dialect::CharDev => WhiteoutChoice::CharDev,
                    Dialect::Xattr => WhiteoutChoice::Xattr,
                    Dialect::File => WhiteoutChoice::File,
                },
                ..UpperConfig::new(lab.upper_dir(), lab.work_dir())
            }),
            ..Config::default()
        };
        Paths(Union::open(&config).unwrap_or_else(|e| panic!("the layers cannot be opened: {e}")))
    }

    fn ino(&self, path: &str) -> Result<u64, Errno> {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.into_iter().try_fold(1, |ino, name| {
            let entry = self.0.lookup(ino, name.as_bytes()).map_err(|e| e.errno())?;
            Ok(entry.attr.ino)
        })
    }

    fn parent<'a>(&self, path: &'a str) -> Result<(u64, &'a [u8]), Errno> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.ino(dir)?, name.as_bytes()))
    }

    pub fn make(&self, path: &str, object: NewObject<'_>) -> Done {
        let (dir, name) = self.parent(path)?;
        let perm = Perm {
            perm: 0o755,
            umask: 0o022,
        };
        text(self.0.create(caller(), dir, name, object, perm))
    }

    pub fn unlink(&self, path: &str) -> Done {
        let (dir, name) = self.parent(path)?;
        text(self.0.unlink(dir, name))
    }

    pub fn rmdir(&self, path: &str) -> Done {
        let (dir, name) = self.parent(path)?;
        text(self.0.rmdir(dir, name))
    }

    pub fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Done {
        let ((dir, name), (new_dir, new_name)) = (self.parent(from)?, self.parent(to)?);
        text(self.0.rename(dir, name, new_dir, new_name, mode))
    }

    pub fn link(&self, old: &str, new: &str) -> Done {
        let ino = self.ino(old)?;
        let (dir, name) = self.parent(new)?;
        text(self.0.link(ino, dir, name))
    }

    pub fn set(&self, path: &str, change: &SetAttr) -> Done {
        text(self.0.setattr(caller(), self.ino(path)?, change))
    }

    pub fn write(&self, path: &str, at: u64, data: &[u8]) -> Done {
        text(
            self.0
                .write(self.ino(path)?, at, data, &WriteHow::default()),
        )
    }

    pub fn allocate(&self, path: &str, size: u64) -> Done {
        text(self.0.fallocate(caller(), self.ino(path)?, 0, size, 0))
    }

    pub fn copy_range(&self, from: &str, to: &str, size: usize) -> Done {
        let (from, to) = (self.ino(from)?, self.ino(to)?);
        text(self.0.copy_file_range(caller(), (from, 0), (to, 0), size))
    }

    pub fn setxattr(&self, path: &str, name: &str, value: &[u8]) -> Done {
        text(
            self.0
                .setxattr(caller(), self.ino(path)?, name.as_bytes(), value, 0),
        )
    }

    pub fn removexattr(&self, path: &str, name: &str) -> Done {
        text(
            self.0
                .removexattr(caller(), self.ino(path)?, name.as_bytes()),
        )
    }

    pub fn fsync(&self, path: &str) -> Done {
        text(self.0.fsync(self.ino(path)?, false))
    }

    /// Everything that is visible.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut links = BTreeMap::new();
        let mut dirs = vec![(String::new(), 1)];
        while let Some((dir, ino)) = dirs.pop() {
            let mut names = Vec::new();
            let listed = self.0.read_dir(ino, 0, false, &mut |item| {
                if item.name != b"." && item.name != b".." {
                    names.push(item.name.to_vec());
                }
                true
            });
            if let Err(e) = listed {
                tree.insert(format!("{dir}/"), format!("not listed: {:?}", e.errno()));
            }
            names.sort();
            for name in names {
                let path = format!("{dir}/{}", name.escape_ascii());
                let what = match self.0.lookup(ino, &name) {
                    Err(e) => format!("{:?}", e.errno()),
                    Ok(entry) => {
                        if entry.attr.kind == Kind::Dir {
                            dirs.push((path.clone(), entry.attr.ino));
                        }
                        let first = links.entry(entry.attr.ino).or_insert_with(|| path.clone());
                        format!("{} = {first}", self.describe(&entry.attr))
                    }
                };
                let twice = tree.insert(path.clone(), what);
                assert_eq!(twice, None, "{path} is listed twice");
            }
        }
        tree
    }

    fn describe(&self, attr: &unionmount::attr::Attr) -> String {
        let mut data = Vec::new();
        let content = match attr.kind {
            Kind::File => match self.0.read(attr.ino, 0, 1 << 16, &mut data) {
                Ok(()) => data.escape_ascii().to_string(),
                Err(e) => format!("not read: {:?}", e.errno()),
            },
            Kind::Symlink => format!("{:?}", self.0.readlink(attr.ino).map_err(|e| e.errno())),
            _ => String::new(),
        };
        let links = if attr.kind == Kind::Dir {
            0
        } else {
            attr.nlink
        };
        let names = self.0.listxattr(caller(), attr.ino).map_err(|e| e.errno());
        let mut values = Vec::new();
        for name in names.iter().flatten() {
            let value = self.0.getxattr(attr.ino, name).map_err(|e| e.errno());
            values.push(format!("{}={value:?}", name.escape_ascii()));
        }
        values.sort();
        format!(
            "{:?} {:o} {}:{} links {links} size {} {content:?} {values:?} {:?}",
            attr.kind,
            attr.perm,
            attr.uid,
            attr.gid,
            if attr.kind == Kind::Dir { 0 } else { attr.size },
            names.err()
        )
    }
}
