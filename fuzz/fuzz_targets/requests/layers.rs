//! Layers with what the input says: objects, markers true and false, values of any kind.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use arbitrary::Arbitrary;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use tempfile::TempDir;
use unionmount::ops::{Config, Union, UpperConfig, WhiteoutChoice};

/// Few, so that the layers meet.
const NAMES: [&[u8]; 10] = [
    b"a",
    b"b",
    b"d",
    b"d/a",
    b"d/e",
    b"d/e/a",
    b".wh.a",
    b".wh.d",
    b"d/.wh..wh..opq",
    b"\xff",
];

const MARKERS: [&str; 10] = [
    "overlay.opaque",
    "overlay.whiteout",
    "overlay.origin",
    "overlay.impure",
    "overlay.nlink",
    "overlay.redirect",
    "overlay.metacopy",
    "overlay.layer",
    "overlay.protattr",
    "overlay.overlay.opaque",
];

#[derive(Debug, Arbitrary)]
pub struct Layer {
    objects: Vec<Object>,
}

#[derive(Debug, Arbitrary)]
struct Object {
    name: u8,
    kind: Kind,
    markers: Vec<(u8, bool, Value)>,
}

#[derive(Debug, Arbitrary)]
enum Kind {
    File(u16),
    Dir,
    Symlink(Vec<u8>),
    Whiteout,
    Device,
    Fifo,
    /// Another name of that one.
    Link(u8),
}

#[derive(Debug, Arbitrary)]
enum Value {
    Yes,
    Mark,
    Bytes(Vec<u8>),
    Path(u8),
    /// The file handle header with anything behind it.
    Handle(Vec<u8>),
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Yes => b"y".to_vec(),
            Value::Mark => b"x".to_vec(),
            Value::Bytes(bytes) => bytes.clone(),
            Value::Path(n) => [b"/", name(*n)].concat(),
            Value::Handle(rest) => {
                let length = u8::try_from(21 + rest.len()).unwrap_or(u8::MAX);
                [&[0, 0xfb, length, 0, 1][..], &[0; 16], rest].concat()
            }
        }
    }
}

pub fn name(n: u8) -> &'static [u8] {
    NAMES[usize::from(n) % NAMES.len()]
}

impl Layer {
    /// Whatever the filesystem refuses is left out.
    fn plant(&self, root: &Path) {
        std::fs::create_dir(root).unwrap();
        for dir in ["d", "d/e"] {
            // Often there, unless the input has something else under that name.
            let taken = self.objects.iter().any(|o| name(o.name) == dir.as_bytes());
            if !taken && self.objects.len() % 4 != 3 {
                std::fs::create_dir(root.join(dir)).ok();
            }
        }
        for object in self.objects.iter().take(12) {
            object.plant(root);
        }
    }
}

impl Object {
    fn plant(&self, root: &Path) {
        let path = at(root, name(self.name));
        let node = |kind, device| {
            rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o644), device).ok()
        };
        match &self.kind {
            Kind::File(size) => {
                // Never a fifo that is there already.
                if let Ok(mut file) = std::fs::File::create_new(&path) {
                    file.write_all(&vec![b'x'; usize::from(*size)]).unwrap();
                }
            }
            Kind::Dir => drop(std::fs::create_dir(&path)),
            Kind::Symlink(target) => {
                let target = std::ffi::OsStr::from_bytes(target);
                drop(std::os::unix::fs::symlink(target, &path));
            }
            Kind::Whiteout => drop(node(FileType::CharacterDevice, 0)),
            Kind::Device => drop(node(FileType::CharacterDevice, rustix::fs::makedev(1, 3))),
            Kind::Fifo => drop(node(FileType::Fifo, 0)),
            Kind::Link(other) => drop(std::fs::hard_link(at(root, name(*other)), &path)),
        }
        for (marker, trusted, value) in self.markers.iter().take(4) {
            let namespace = if *trusted { "trusted" } else { "user" };
            let marker = format!(
                "{namespace}.{}",
                MARKERS[usize::from(*marker) % MARKERS.len()]
            );
            rustix::fs::lsetxattr(&path, &*marker, &value.bytes(), XattrFlags::empty()).ok();
        }
    }
}

fn at(root: &Path, name: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(name))
}

pub struct Layers {
    dir: TempDir,
    lowers: usize,
}

impl Layers {
    pub fn plant(lowers: &[Layer], upper: &Layer) -> Layers {
        // Only memory is fast enough.
        let parent = if Path::new("/dev/shm").is_dir() {
            PathBuf::from("/dev/shm")
        } else {
            std::env::temp_dir()
        };
        let dir = tempfile::Builder::new()
            .prefix("unionmount-fuzz-")
            .tempdir_in(parent)
            .unwrap();
        let empty = [Layer {
            objects: Vec::new(),
        }];
        let lowers = if lowers.is_empty() {
            &empty[..]
        } else {
            &lowers[..lowers.len().min(3)]
        };
        for (n, layer) in lowers.iter().enumerate() {
            layer.plant(&dir.path().join(format!("l{n}")));
        }
        upper.plant(&dir.path().join("u"));
        std::fs::create_dir(dir.path().join("w")).unwrap();
        Layers {
            dir,
            lowers: lowers.len(),
        }
    }

    pub fn open(&self, whiteout: u8) -> Result<Union, String> {
        let choices = [
            WhiteoutChoice::Auto,
            WhiteoutChoice::Xattr,
            WhiteoutChoice::File,
        ];
        let config = Config {
            lowers: (0..self.lowers)
                .map(|n| self.dir.path().join(format!("l{n}")))
                .collect(),
            upper: Some(UpperConfig {
                whiteout: choices[usize::from(whiteout) % choices.len()],
                ..UpperConfig::new(self.dir.path().join("u"), self.dir.path().join("w"))
            }),
            redirect_dir: unionmount::ops::RedirectDir::On,
            ..Config::default()
        };
        Union::open(&config).map_err(|e| e.to_string())
    }

    /// Everything in the lowers, as text.
    pub fn lowers(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for n in 0..self.lowers {
            list(&self.dir.path().join(format!("l{n}")), &mut lines);
        }
        lines
    }
}

fn list(path: &Path, lines: &mut Vec<String>) {
    let stat = rustix::fs::lstat(path).unwrap();
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let (links, size, mtime) = (stat.st_nlink, stat.st_size, stat.st_mtime);
    lines.push(format!(
        "{path:?} {:o} {links} {size} {mtime} {:?}",
        stat.st_mode,
        names[..len].escape_ascii().to_string()
    ));
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let mut children: Vec<PathBuf> = std::fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        children.sort();
        for child in children {
            list(&child, lines);
        }
    }
}
