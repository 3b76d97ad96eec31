//! A POSIX tree in memory: inodes, names, and how a path leads to one. It knows nothing of layers.

use std::collections::{BTreeMap, VecDeque};

use crate::kit::apply::SLOTS;
use crate::kit::snapshot::{Entry, Snapshot, digest, show};
use crate::kit::sys::Stat;
use crate::kit::{Errno, Res};

pub type Id = usize;
pub const ROOT: Id = 0;
/// What the test process has; see `kit::Scratch`.
const UMASK: u32 = 0o022;

/// An object. Nothing is ever taken out of `Tree::inodes`, so an open file outlives its names.
pub struct Inode {
    /// With the bits of the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    /// Names of what is not a directory; a directory's follow from what it holds.
    pub nlink: u64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub body: Body,
    /// How many lower layers have a part in this directory.
    pub lowers: usize,
    /// The same, and more if it has a redirect, before it is looked at whether one of them is opaque.
    pub candidates: usize,
}

pub enum Body {
    File(Vec<u8>),
    Dir(BTreeMap<String, Id>),
    Symlink(String),
    /// A fifo, socket or device.
    Special,
}

/// A file that somebody has open.
#[derive(Clone, Copy)]
pub struct Open {
    pub id: Id,
    pub read: bool,
    pub write: bool,
    pub append: bool,
}

/// Where a path leads: a directory, a name in it, and what has that name.
pub struct Place {
    pub dir: Id,
    pub name: String,
    pub found: Option<Id>,
}

/// What a symlink at the very end of a path means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Last {
    Follow,
    Keep,
}

/// The deviations from POSIX that depend on the options of the mount.
#[derive(Clone, Copy, Default)]
pub struct Rules {
    /// SEMANTICS 2: in an upper whose deletions are `.wh.` files, such names cannot be made.
    pub dot_wh_is_reserved: bool,
    /// SEMANTICS 6: a directory that has a part in a lower can be renamed. Mounts without ask for
    /// `--redirect-dir off`.
    pub lower_dirs_move: bool,
}

pub struct Tree {
    pub inodes: Vec<Inode>,
    pub open: [Option<Open>; SLOTS],
    pub rules: Rules,
}

impl Tree {
    pub fn inode(&mut self, id: Id) -> &mut Inode {
        &mut self.inodes[id]
    }

    /// The names in a directory.
    pub fn names(&self, id: Id) -> Res<&BTreeMap<String, Id>> {
        match &self.inodes[id].body {
            Body::Dir(names) => Ok(names),
            _ => Err(Errno(libc::ENOTDIR)),
        }
    }

    pub fn names_mut(&mut self, id: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.inodes[id].body {
            Body::Dir(names) => names,
            _ => panic!("not a directory"),
        }
    }

    pub fn is_dir(&self, id: Id) -> bool {
        matches!(self.inodes[id].body, Body::Dir(_))
    }

    pub fn walk(&self, path: &str, last: Last) -> Res<Place> {
        let mut rest: VecDeque<String> = parts(path);
        let (mut dir, mut links) = (ROOT, 0);
        while let Some(name) = rest.pop_front() {
            let found = self.names(dir)?.get(&name).copied();
            let is_last = rest.is_empty();
            if let Some(Body::Symlink(target)) = found.map(|id| &self.inodes[id].body)
                && (!is_last || last == Last::Follow)
            {
                links += 1;
                if links > 40 {
                    return Err(Errno(libc::ELOOP));
                }
                let mut next = parts(target);
                next.append(&mut rest);
                rest = next;
            } else if is_last {
                return Ok(Place { dir, name, found });
            } else {
                dir = found.ok_or(Errno(libc::ENOENT))?;
            }
        }
        Ok(Place {
            dir: ROOT,
            name: String::new(),
            found: Some(ROOT),
        })
    }

    pub fn find(&self, path: &str, last: Last) -> Res<Id> {
        self.walk(path, last)?.found.ok_or(Errno(libc::ENOENT))
    }

    /// Gives a new object a name; `mode` has the bits of its type.
    pub fn make(&mut self, place: &Place, mode: u32, body: Body) -> Id {
        let parent = &self.inodes[place.dir];
        let inherits = parent.mode & libc::S_ISGID != 0;
        let gid = if inherits { parent.gid } else { 0 };
        let mode = match &body {
            Body::Symlink(_) => mode,
            Body::Dir(_) if inherits => mode & !UMASK | libc::S_ISGID,
            _ => mode & !UMASK,
        };
        let id = self.inodes.len();
        self.inodes.push(Inode {
            mode,
            uid: 0,
            gid,
            rdev: 0,
            nlink: 1,
            xattrs: BTreeMap::new(),
            body,
            lowers: 0,
            candidates: 0,
        });
        self.names_mut(place.dir).insert(place.name.clone(), id);
        id
    }

    /// Takes a name away.
    pub fn drop_name(&mut self, dir: Id, name: &str) {
        let id = self.names_mut(dir).remove(name).expect("a name");
        self.inodes[id].nlink -= 1;
    }

    /// Whether `inner` is `outer`, or lies below it.
    pub fn is_within(&self, inner: Id, outer: Id) -> bool {
        inner == outer
            || self
                .names(outer)
                .is_ok_and(|names| names.values().any(|&id| self.is_within(inner, id)))
    }

    /// What stat tells, as far as it is compared.
    pub fn stat(&self, id: Id) -> Stat {
        let inode = &self.inodes[id];
        let size = match &inode.body {
            Body::File(data) => data.len(),
            Body::Symlink(target) => target.len(),
            Body::Dir(_) | Body::Special => 0,
        };
        Stat {
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            nlink: inode.nlink,
            rdev: inode.rdev,
            size: size as u64,
            ..Stat::default()
        }
    }

    /// The whole tree, as `kit::snapshot` reads one.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (path, id) in self.paths() {
            let st = self.stat(id);
            let data = match &self.inodes[id].body {
                Body::File(data) => digest(data),
                Body::Symlink(target) => show(target.as_bytes()),
                Body::Dir(_) | Body::Special => String::new(),
            };
            let xattr = |(name, value): (&String, &Vec<u8>)| (name.clone(), show(value));
            let entry = Entry {
                mode: st.mode,
                uid: st.uid,
                gid: st.gid,
                nlink: if st.is_dir() { 0 } else { st.nlink },
                size: st.size,
                rdev: st.rdev,
                mtime: "now".to_owned(),
                data,
                xattrs: self.inodes[id].xattrs.iter().map(xattr).collect(),
                same_as: None,
            };
            snapshot.entries.insert(path.into_bytes(), entry);
        }
        let mut first: BTreeMap<Id, Vec<u8>> = BTreeMap::new();
        for (path, id) in self.paths() {
            let first = first.entry(id).or_insert_with(|| path.clone().into_bytes());
            if first.as_slice() != path.as_bytes() {
                snapshot.entries.get_mut(path.as_bytes()).unwrap().same_as = Some(first.clone());
            }
        }
        snapshot
    }

    /// Every path, in the order of bytes; the root is the empty one.
    pub fn paths(&self) -> BTreeMap<String, Id> {
        let mut paths = BTreeMap::new();
        let mut left = vec![(String::new(), ROOT)];
        while let Some((path, id)) = left.pop() {
            for (name, &child) in self.names(id).into_iter().flatten() {
                left.push((join(&path, name), child));
            }
            paths.insert(path, id);
        }
        paths
    }
}

fn parts(path: &str) -> VecDeque<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}
