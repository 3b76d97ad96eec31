//! A whole tree as data, and the difference of two of them as a text a person can act on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::sys::{self, Errno};

/// What to look at when a tree is read.
#[derive(Clone, Copy, Default)]
pub struct Look {
    /// Times from here on read as "now": they cannot agree between two runs.
    pub since: Option<i64>,
    /// Modification times of directories too.
    pub dir_mtime: bool,
    /// Names that are listed but not found are left out (kernel overlayfs lists some whiteouts).
    pub skip_ghosts: bool,
}

/// One object of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// 0 for directories, whose count means different things on different filesystems.
    pub nlink: u64,
    pub size: u64,
    pub rdev: u64,
    pub mtime: String,
    /// Start and hash of a file's content, or the target of a symlink.
    pub data: String,
    pub xattrs: BTreeMap<String, String>,
    /// The first path (in byte order) that is the same inode, if that is another one.
    pub same_as: Option<Vec<u8>>,
}

/// A tree, by path relative to its root; the root itself is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

/// A tree as read, with the inode numbers beside it and what was wrong with it.
pub struct Reading {
    pub snapshot: Snapshot,
    pub inos: BTreeMap<Vec<u8>, u64>,
    /// Names whose listing and whose stat disagree.
    pub faults: Vec<String>,
}

/// Printable form of a path or value.
pub fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Start and hash of a content.
pub fn digest(data: &[u8]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in data {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let head = &data[..data.len().min(24)];
    format!("\"{}\" #{hash:016x}", show(head))
}

/// Reads the tree under `root`.
pub fn read(root: &Path, look: Look) -> Reading {
    let mut reading = Reading {
        snapshot: Snapshot::default(),
        inos: BTreeMap::new(),
        faults: Vec::new(),
    };
    read_object(root, b"", look, &mut reading);
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (path, entry) in &mut reading.snapshot.entries {
        let ino = reading.inos[path];
        match first.get(&ino) {
            Some(other) => entry.same_as = Some(other.clone()),
            None => drop(first.insert(ino, path.clone())),
        }
    }
    reading
}

fn read_object(root: &Path, path: &[u8], look: Look, reading: &mut Reading) {
    let full = if path.is_empty() {
        root.to_owned()
    } else {
        root.join(OsStr::from_bytes(path))
    };
    let st = match sys::lstat(&full) {
        Ok(st) => st,
        Err(Errno(libc::ENOENT)) if look.skip_ghosts => return,
        Err(errno) => {
            return reading
                .faults
                .push(format!("{}: lstat: {errno:?}", show(path)));
        }
    };
    let data = match st.kind() {
        libc::S_IFREG => sys::get(&full).map(|data| digest(&data)),
        libc::S_IFLNK => sys::readlink(&full).map(|target| show(&target)),
        _ => Ok(String::new()),
    };
    let data = data.unwrap_or_else(|errno| format!("{errno:?}"));
    let dated = look.dir_mtime || !st.is_dir();
    let mtime = match (dated, look.since) {
        (false, _) => String::new(),
        (true, Some(since)) if st.mtime.0 >= since => "now".to_owned(),
        (true, _) => format!("{}.{:09}", st.mtime.0, st.mtime.1),
    };
    let entry = Entry {
        mode: st.mode,
        uid: st.uid,
        gid: st.gid,
        nlink: if st.is_dir() { 0 } else { st.nlink },
        size: if st.is_dir() { 0 } else { st.size },
        rdev: st.rdev,
        mtime,
        data,
        xattrs: read_xattrs(&full, path, reading),
        same_as: None,
    };
    reading.inos.insert(path.to_vec(), st.ino);
    reading.snapshot.entries.insert(path.to_vec(), entry);
    if st.is_dir() {
        read_children(root, &full, path, look, reading);
    }
}

fn read_children(root: &Path, full: &Path, path: &[u8], look: Look, reading: &mut Reading) {
    let children = match sys::list(full) {
        Ok(children) => children,
        Err(errno) => {
            return reading
                .faults
                .push(format!("{}: list: {errno:?}", show(path)));
        }
    };
    for child in children {
        let mut child_path = path.to_vec();
        if !child_path.is_empty() {
            child_path.push(b'/');
        }
        child_path.extend(&child.name);
        let before = reading.snapshot.entries.len();
        if reading.inos.contains_key(&child_path) {
            reading
                .faults
                .push(format!("{}: listed twice", show(&child_path)));
            continue;
        }
        read_object(root, &child_path, look, reading);
        if reading.snapshot.entries.len() == before {
            continue;
        }
        let (ino, mode) = (
            reading.inos[&child_path],
            reading.snapshot.entries[&child_path].mode,
        );
        if child.ino != ino {
            let (path, d_ino) = (show(&child_path), child.ino);
            reading
                .faults
                .push(format!("{path}: d_ino {d_ino}, st_ino {ino}"));
        }
        if u32::from(child.kind) != (mode & libc::S_IFMT) >> 12 {
            let (path, kind) = (show(&child_path), child.kind);
            reading
                .faults
                .push(format!("{path}: d_type {kind}, st_mode {mode:o}"));
        }
    }
}

fn read_xattrs(full: &Path, path: &[u8], reading: &mut Reading) -> BTreeMap<String, String> {
    let names = match sys::listxattr(full) {
        Ok(names) => names,
        Err(Errno(libc::EOPNOTSUPP)) => Vec::new(),
        Err(errno) => {
            reading
                .faults
                .push(format!("{}: listxattr: {errno:?}", show(path)));
            Vec::new()
        }
    };
    let value = |name: &[u8]| match sys::getxattr(full, OsStr::from_bytes(name)) {
        Ok(value) => show(&value),
        Err(errno) => format!("{errno:?}"),
    };
    names.iter().map(|name| (show(name), value(name))).collect()
}

impl Entry {
    fn describe(&self) -> String {
        let mut out = format!("{} {:04o}", letter(self.mode), self.mode & 0o7777);
        write!(out, " {}:{} links={}", self.uid, self.gid, self.nlink).unwrap();
        write!(out, " size={} {}", self.size, self.data).unwrap();
        if self.rdev != 0 {
            write!(out, " rdev={:#x}", self.rdev).unwrap();
        }
        for (name, value) in &self.xattrs {
            write!(out, " {name}={value}").unwrap();
        }
        if let Some(other) = &self.same_as {
            write!(out, " same inode as {}", show(other)).unwrap();
        }
        out
    }

    fn differences(&self, other: &Entry) -> Vec<String> {
        let mut out = Vec::new();
        let mut field = |name: &str, a: String, b: String| {
            if a != b {
                out.push(format!("{name} {a} | {b}"));
            }
        };
        let type_and_mode = |e: &Entry| format!("{} {:04o}", letter(e.mode), e.mode & 0o7777);
        field("mode", type_and_mode(self), type_and_mode(other));
        field(
            "owner",
            format!("{}:{}", self.uid, self.gid),
            format!("{}:{}", other.uid, other.gid),
        );
        field("links", self.nlink.to_string(), other.nlink.to_string());
        field("size", self.size.to_string(), other.size.to_string());
        field(
            "rdev",
            format!("{:#x}", self.rdev),
            format!("{:#x}", other.rdev),
        );
        field("mtime", self.mtime.clone(), other.mtime.clone());
        field("data", self.data.clone(), other.data.clone());
        field(
            "xattrs",
            format!("{:?}", self.xattrs),
            format!("{:?}", other.xattrs),
        );
        let same = |e: &Entry| e.same_as.as_deref().map_or("none".to_owned(), show);
        field("same inode", same(self), same(other));
        out
    }
}

fn letter(mode: u32) -> char {
    match mode & libc::S_IFMT {
        libc::S_IFREG => 'f',
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        _ => '?',
    }
}

/// What differs, one line each: `<` only left, `>` only right, `!` both, with left | right.
pub fn diff(left: &Snapshot, right: &Snapshot) -> Vec<String> {
    let mut out = Vec::new();
    for (path, entry) in &left.entries {
        match right.entries.get(path) {
            None => out.push(format!("< /{}: {}", show(path), entry.describe())),
            Some(other) => out.extend(
                entry
                    .differences(other)
                    .iter()
                    .map(|line| format!("! /{}: {line}", show(path))),
            ),
        }
    }
    for (path, entry) in &right.entries {
        if !left.entries.contains_key(path) {
            out.push(format!("> /{}: {}", show(path), entry.describe()));
        }
    }
    out
}

/// Panics with the difference, if there is one.
#[track_caller]
pub fn assert_same(what: &str, left: &Snapshot, right: &Snapshot) {
    let lines = diff(left, right);
    assert!(
        lines.is_empty(),
        "{what}: {} differences\n{}",
        lines.len(),
        lines.join("\n")
    );
}
