//! What one writer's directory holds by what it was told, and what it had asked for last.

use std::collections::BTreeMap;
use std::path::Path;

use crate::kit::sys;

/// One change, made by few enough system calls that it is done or not done.
#[derive(Clone, Debug)]
pub enum Op {
    Create(String),
    /// Of at most one request's size; may be done in part.
    Write {
        name: String,
        at: usize,
        data: Vec<u8>,
    },
    Truncate {
        name: String,
        size: usize,
    },
    Chmod {
        name: String,
        mode: u32,
    },
    Unlink(String),
    Rename {
        from: String,
        to: String,
    },
    Link {
        old: String,
        new: String,
    },
    Mkdir(String),
    Rmdir(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    data: Vec<u8>,
    mode: u32,
}

/// A small tree with hard links.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    names: BTreeMap<String, Node>,
    files: Vec<File>,
    pending: Option<Op>,
}

/// A tree as anybody sees it: numbers of inodes are the first name that has them.
#[derive(Debug, PartialEq, Eq)]
struct Shown(BTreeMap<String, Option<(File, String)>>);

impl Tree {
    /// Makes the tree that a lower has, with hard links, at `root`.
    pub fn plant(root: &Path) -> Tree {
        let mut tree = Tree::default();
        sys::mkdir(root, 0o755).unwrap();
        for dir in ["a", "b", "a/deep"] {
            tree.make(root, Op::Mkdir(dir.to_owned()));
        }
        for (n, dir) in ["", "a/", "b/", "a/deep/"].iter().enumerate() {
            for k in 0..4 {
                let name = format!("{dir}f{k}");
                let data = sys::pattern((n * 4 + k) as u64, 100 + 1900 * k);
                tree.make(root, Op::Create(name.clone()));
                tree.make(
                    root,
                    Op::Write {
                        name: name.clone(),
                        at: 0,
                        data,
                    },
                );
                if k == 3 {
                    let new = format!("{dir}link");
                    tree.make(root, Op::Link { old: name, new });
                }
            }
        }
        tree
    }

    fn make(&mut self, root: &Path, op: Op) {
        crate::writer::perform(root, &op, false).unwrap();
        self.acknowledge(&op);
    }

    /// Takes note of what is about to be asked for.
    pub fn ask(&mut self, op: &Op) {
        self.pending = Some(op.clone());
    }

    /// It cannot be done (by an error that is not that of the kill).
    pub fn refused(&mut self) {
        self.pending = None;
    }

    /// It was done.
    pub fn acknowledge(&mut self, op: &Op) {
        self.pending = None;
        match op {
            Op::Create(name) => {
                let file = File {
                    data: Vec::new(),
                    mode: 0o644,
                };
                self.files.push(file);
                self.names
                    .insert(name.clone(), Node::File(self.files.len() - 1));
            }
            Op::Write { name, at, data } => {
                let old = &mut self.file(name).data;
                let end = at + data.len();
                if old.len() < end {
                    old.resize(end, 0);
                }
                old[*at..end].copy_from_slice(data);
            }
            Op::Truncate { name, size } => self.file(name).data.resize(*size, 0),
            Op::Chmod { name, mode } => self.file(name).mode = *mode,
            Op::Unlink(name) | Op::Rmdir(name) => drop(self.names.remove(name)),
            Op::Rename { from, to } => self.rename(from, to),
            Op::Link { old, new } => {
                let node = self.names[old].clone();
                self.names.insert(new.clone(), node);
            }
            Op::Mkdir(name) => drop(self.names.insert(name.clone(), Node::Dir)),
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        // Two names of one file: rename(2) does nothing.
        if self.names.get(from) == self.names.get(to) && self.names[from] != Node::Dir {
            return;
        }
        let inside = format!("{from}/");
        let moved: Vec<String> = self
            .names
            .keys()
            .filter(|name| *name == from || name.starts_with(&inside))
            .cloned()
            .collect();
        for name in moved {
            let node = self.names.remove(&name).unwrap();
            self.names
                .insert(format!("{to}{}", &name[from.len()..]), node);
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        match self.names[name] {
            Node::File(n) => &mut self.files[n],
            Node::Dir => panic!("{name} is a directory"),
        }
    }

    /// Names of files, or of directories with the root as the empty one.
    pub fn names(&self, dirs: bool) -> Vec<String> {
        let wanted = self
            .names
            .iter()
            .filter(|(_, node)| (**node == Node::Dir) == dirs);
        let root = dirs.then(String::new);
        root.into_iter()
            .chain(wanted.map(|(name, _)| name.clone()))
            .collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub fn is_empty_dir(&self, name: &str) -> bool {
        let inside = format!("{name}/");
        !self.names.keys().any(|other| other.starts_with(&inside))
    }

    pub fn size(&self, name: &str) -> usize {
        match self.names[name] {
            Node::File(n) => self.files[n].data.len(),
            Node::Dir => 0,
        }
    }

    fn shown(&self) -> Shown {
        let mut first: BTreeMap<usize, String> = BTreeMap::new();
        let entry = |(name, node): (&String, &Node)| {
            let file = match node {
                Node::Dir => None,
                Node::File(n) => {
                    let same_as = first.entry(*n).or_insert_with(|| name.clone()).clone();
                    Some((self.files[*n].clone(), same_as))
                }
            };
            (name.clone(), file)
        };
        Shown(self.names.iter().map(entry).collect())
    }

    /// Compares with what is there after a kill, and goes on from what was found: the state that was
    /// acknowledged, or that with the pending change. Where a rename has a `halfway` (docs/SEMANTICS.md,
    /// names and links), a file may also be found under both of its names.
    pub fn settle(&mut self, root: &Path, halfway: bool) -> Result<(), String> {
        let found = look(root);
        let mut candidates = vec![Tree {
            pending: None,
            ..self.clone()
        }];
        if let Some(op) = &self.pending {
            let mut after = self.clone();
            after.acknowledge(op);
            candidates.push(after);
            candidates.extend(self.partly(op, &found));
            if halfway {
                candidates.extend(self.halfway(op));
            }
        }
        match candidates.iter().position(|tree| tree.shown() == found) {
            Some(n) => {
                *self = candidates.swap_remove(n);
                Ok(())
            }
            None => Err(format!(
                "pending was {:?}\n{}",
                self.pending.as_ref().map(brief),
                difference(&candidates[0].shown(), &found)
            )),
        }
    }

    /// A rename of a file of which only the first of two steps was made.
    fn halfway(&self, op: &Op) -> Option<Tree> {
        let Op::Rename { from, to } = op else {
            return None;
        };
        let mut after = self.clone();
        let node = after.names.get(from)?.clone();
        after.pending = None;
        after.names.insert(to.clone(), node);
        Some(after)
    }

    /// A write that was done in part: each byte is the old or the new one.
    fn partly(&self, op: &Op, found: &Shown) -> Option<Tree> {
        let Op::Write { name, at, data } = op else {
            return None;
        };
        let (seen, _) = found.0.get(name)?.as_ref()?;
        let mut after = self.clone();
        after.acknowledge(op);
        let old = self.clone().file(name).data.clone();
        let new = after.file(name).data.clone();
        let fits = seen.data.len() >= old.len() && seen.data.len() <= new.len();
        let known = |(n, byte): (usize, &u8)| {
            let inside = n >= *at && n < at + data.len();
            old.get(n) == Some(byte) || inside && new[n] == *byte
        };
        (fits && seen.data.iter().enumerate().all(known)).then(|| {
            after.file(name).data.clone_from(&seen.data);
            after
        })
    }
}

fn brief(op: &Op) -> String {
    match op {
        Op::Write { name, at, data } => format!("write {} bytes at {at} of {name}", data.len()),
        other => format!("{other:?}"),
    }
}

/// The tree as it lies at `root`.
fn look(root: &Path) -> Shown {
    let mut found = BTreeMap::new();
    walk(root, "", &mut found);
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let shown = found.into_iter().map(|(name, object)| {
        let file = object.map(|(file, ino)| {
            let same_as = first.entry(ino).or_insert_with(|| name.clone()).clone();
            (file, same_as)
        });
        (name, file)
    });
    Shown(shown.collect())
}

fn walk(root: &Path, dir: &str, found: &mut BTreeMap<String, Option<(File, u64)>>) {
    for child in sys::names(root.join(dir)) {
        let name = if dir.is_empty() {
            child
        } else {
            format!("{dir}/{child}")
        };
        let stat = sys::lstat(root.join(&name)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        if stat.is_dir() {
            found.insert(name.clone(), None);
            walk(root, &name, found);
        } else {
            let data = sys::get(root.join(&name)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let file = File {
                data,
                mode: stat.perm(),
            };
            found.insert(name, Some((file, stat.ino)));
        }
    }
}

fn difference(wanted: &Shown, found: &Shown) -> String {
    let names = wanted.0.keys().chain(found.0.keys());
    let mut names: Vec<&String> = names.collect();
    names.sort();
    names.dedup();
    let lines = names.into_iter().filter_map(|name| {
        let (old, new) = (wanted.0.get(name), found.0.get(name));
        (old != new).then(|| format!("  {name}: acknowledged {}, found {}", one(old), one(new)))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn one(entry: Option<&Option<(File, String)>>) -> String {
    match entry {
        None => "nothing".to_owned(),
        Some(None) => "a directory".to_owned(),
        Some(Some((file, same_as))) => {
            let start = &file.data[..file.data.len().min(8)];
            let (size, mode) = (file.data.len(), file.mode);
            format!("{size} bytes {start:?}... mode {mode:o}, the inode of {same_as}")
        }
    }
}
