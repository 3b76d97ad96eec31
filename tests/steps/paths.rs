//! A union opened in this process, without a mount, by paths.

use unionmount::error::Errno;
use unionmount::marker::whiteout::Dialect;
use unionmount::ops::{
    Caller, Config, NewObject, Perm, RenameMode, SetAttr, Union, UpperConfig, WhiteoutChoice,
    WriteHow,
};

use crate::kit::Lab;
use crate::union_tree::{self, Tree};

pub type Done = Result<(), Errno>;

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
        union_tree::read(&self.0)
    }
}
