//! One process' worth of changes in a directory of its own, each noted in the ledger.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::kit::{Errno, Res, sys};
use crate::ledger::{Op, Tree};

/// From when on a writer counts data as safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When write(2) has returned.
    Acknowledged,
    /// When fsync(2) has returned.
    Synced,
}

pub struct Writer {
    root: PathBuf,
    random: fastrand::Rng,
    durability: Durability,
}

/// Makes one change below `root`; `sync` makes written data safe before it counts.
pub fn perform(root: &Path, op: &Op, sync: bool) -> Res<()> {
    match op {
        Op::Create(name) => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
            sys::open(root.join(name), flags, 0o644).map(drop)
        }
        Op::Write { name, at, data } => {
            let fd = sys::open(root.join(name), libc::O_WRONLY, 0)?;
            let written = sys::pwrite(&fd, *at as u64, data)?;
            // The kill may come between two requests of one write.
            if written < data.len() {
                return Err(Errno(libc::EIO));
            }
            if sync { sys::fsync(&fd) } else { Ok(()) }
        }
        Op::Truncate { name, size } => sys::truncate(root.join(name), *size as u64),
        Op::Chmod { name, mode } => sys::chmod(root.join(name), *mode),
        Op::Unlink(name) => sys::unlink(root.join(name)),
        Op::Rename { from, to } => sys::rename(root.join(from), root.join(to)),
        Op::Link { old, new } => sys::link(root.join(old), root.join(new)),
        Op::Mkdir(name) => sys::mkdir(root.join(name), 0o755),
        Op::Rmdir(name) => sys::rmdir(root.join(name)),
    }
}

impl Writer {
    pub fn new(root: PathBuf, random: fastrand::Rng, durability: Durability) -> Writer {
        Writer {
            root,
            random,
            durability,
        }
    }

    /// Works until the daemon is gone; answers how many changes were acknowledged.
    pub fn work(mut self, tree: &mut Tree, killed: &AtomicBool) -> usize {
        let mut done = 0;
        loop {
            for op in self.next(tree) {
                tree.ask(&op);
                match perform(&self.root, &op, self.durability == Durability::Synced) {
                    Ok(()) => {
                        tree.acknowledge(&op);
                        done += 1;
                    }
                    // Directories with lower parts may be refused; programs then copy.
                    Err(Errno(libc::EXDEV)) => tree.refused(),
                    Err(_) if killed.load(Ordering::SeqCst) => return done,
                    Err(errno) => panic!("{op:?}: {errno:?}"),
                }
            }
        }
    }

    /// A few changes that the tree allows; later ones rest on those before.
    fn next(&mut self, tree: &Tree) -> Vec<Op> {
        let file = self.pick(tree.names(false));
        let dir = self.pick(tree.names(true)).unwrap_or_default();
        let new = self.new_name(tree, &dir);
        let many = tree.names(false).len() > 40;
        match (self.random.u32(0..12), file) {
            (0 | 1, Some(name)) => vec![self.write(tree, name)],
            (2, Some(name)) => {
                let at = tree.size(&name);
                vec![Op::Write {
                    at,
                    data: self.data(),
                    name,
                }]
            }
            (3, Some(name)) => vec![Op::Truncate {
                size: self.random.usize(0..9000),
                name,
            }],
            (4, Some(name)) => {
                let mode = if self.random.bool() { 0o600 } else { 0o755 };
                vec![Op::Chmod { name, mode }]
            }
            (5, Some(to)) => self.replace(new, to),
            (6, Some(old)) if !many => vec![Op::Link { old, new }],
            (7, Some(from)) => vec![Op::Rename { from, to: new }],
            (8, Some(name)) => vec![Op::Unlink(name)],
            (9, _) => self.directories(tree, new),
            (_, Some(name)) if many => vec![Op::Unlink(name)],
            _ => {
                let write = Op::Write {
                    name: new.clone(),
                    at: 0,
                    data: self.data(),
                };
                vec![Op::Create(new), write]
            }
        }
    }

    /// As careful programs change a file: a whole new one takes the place of the old.
    fn replace(&mut self, new: String, to: String) -> Vec<Op> {
        vec![
            Op::Create(new.clone()),
            Op::Write {
                name: new.clone(),
                at: 0,
                data: self.data(),
            },
            Op::Rename { from: new, to },
        ]
    }

    fn directories(&mut self, tree: &Tree, new: String) -> Vec<Op> {
        let dirs = tree.names(true).into_iter().filter(|dir| !dir.is_empty());
        let dirs: Vec<String> = dirs.collect();
        let empty = dirs.iter().find(|dir| tree.is_empty_dir(dir)).cloned();
        let moved = self.pick(dirs.clone());
        match (empty, moved) {
            (Some(dir), _) if self.random.bool() => vec![Op::Rmdir(dir)],
            (_, Some(from)) if self.random.bool() && !new.starts_with(&format!("{from}/")) => {
                vec![Op::Rename { from, to: new }]
            }
            _ if dirs.len() < 8 => vec![Op::Mkdir(new)],
            _ => Vec::new(),
        }
    }

    fn write(&mut self, tree: &Tree, name: String) -> Op {
        let at = self.random.usize(0..=tree.size(&name));
        Op::Write {
            name,
            at,
            data: self.data(),
        }
    }

    fn data(&mut self) -> Vec<u8> {
        let size = [1, 100, 4096, 20_000][self.random.usize(0..4)];
        sys::pattern(self.random.u64(..), size)
    }

    /// A name that is free; often one that a lower had.
    fn new_name(&mut self, tree: &Tree, dir: &str) -> String {
        loop {
            let n = self.random.u32(0..200);
            let name = if n < 4 {
                format!("f{n}")
            } else {
                format!("n{n}")
            };
            let path = if dir.is_empty() {
                name
            } else {
                format!("{dir}/{name}")
            };
            if !tree.has(&path) {
                return path;
            }
        }
    }

    fn pick(&mut self, names: Vec<String>) -> Option<String> {
        (!names.is_empty()).then(|| names[self.random.usize(0..names.len())].clone())
    }
}
