//! What layers on disk mean together, straight from their formats. Nothing of the program is used.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::kit::sys::{self, Stat};
use crate::tree::{Body, Id, Inode, ROOT, Rules, Tree};

/// One object of a layer, as it lies there, with all that is below it.
struct Raw {
    layer: usize,
    /// Tells this name from all others.
    path: PathBuf,
    st: Stat,
    xattrs: BTreeMap<String, Vec<u8>>,
    data: Vec<u8>,
    children: BTreeMap<String, Raw>,
    /// Whether `.wh.` files are deletions here; in an upper it depends on how that was written.
    dot_wh: bool,
}

/// The tree that these layers show, topmost first; the first is an upper. None if something lies in it
/// twice, because of redirects that no overlay would write.
pub fn merge(layers: &[&Path], rules: Rules) -> Option<Tree> {
    let raws: Vec<Raw> = layers
        .iter()
        .enumerate()
        .map(|(n, path)| Raw::read(path, n, n > 0 || rules.dot_wh_is_reserved))
        .collect();
    // SEMANTICS 2: an opaque root hides the layers below.
    let mut roots = Vec::new();
    for raw in &raws {
        roots.push(raw);
        if raw.is_opaque() {
            break;
        }
    }
    let mut merge = Merge {
        tree: Tree {
            inodes: Vec::new(),
            open: Default::default(),
            rules,
        },
        links: BTreeMap::new(),
        roots: &roots,
        seen: BTreeSet::new(),
        is_ambiguous: false,
    };
    let root = merge.add(&roots, roots.len());
    assert_eq!(root, ROOT);
    (!merge.is_ambiguous).then_some(merge.tree)
}

impl Raw {
    fn read(path: &Path, layer: usize, dot_wh: bool) -> Raw {
        let st = sys::lstat(path).unwrap();
        let data = match st.kind() {
            libc::S_IFREG => sys::get(path).unwrap(),
            libc::S_IFLNK => sys::readlink(path).unwrap(),
            _ => Vec::new(),
        };
        let text = |name: Vec<u8>| String::from_utf8(name).unwrap();
        let mut children = BTreeMap::new();
        if st.is_dir() {
            for entry in sys::list(path).unwrap() {
                let child = Raw::read(&path.join(OsStr::from_bytes(&entry.name)), layer, dot_wh);
                children.insert(text(entry.name), child);
            }
        }
        let value = |name: &[u8]| sys::getxattr(path, OsStr::from_bytes(name)).unwrap();
        let names = sys::listxattr(path).unwrap();
        Raw {
            layer,
            path: path.to_owned(),
            st,
            xattrs: names
                .into_iter()
                .map(|n| (text(n.clone()), value(&n)))
                .collect(),
            data,
            children,
            dot_wh,
        }
    }

    /// formats 1.1 and 1.3.
    fn is_whiteout(&self) -> bool {
        let marked = ["trusted.overlay.whiteout", "user.overlay.whiteout"]
            .iter()
            .any(|name| self.xattrs.contains_key(*name));
        (self.st.kind() == libc::S_IFCHR && self.st.rdev == 0)
            || (self.st.is_file() && self.st.size == 0 && marked)
    }

    /// formats 1.2: a regular file `.wh.NAME` beside NAME.
    fn has_dot_wh(&self, name: &str) -> bool {
        self.dot_wh
            && self
                .children
                .get(&format!(".wh.{name}"))
                .is_some_and(|child| child.st.is_file())
    }

    /// formats 2.
    fn is_opaque(&self) -> bool {
        let names = [
            "trusted.overlay.opaque",
            "user.overlay.opaque",
            "user.fuseoverlayfs.opaque",
        ];
        names
            .iter()
            .any(|name| self.xattrs.get(*name).is_some_and(|value| value == b"y"))
            || self.has_dot_wh(".wh..opq")
    }

    /// formats 3.1; what is opaque leads nowhere.
    fn redirect(&self) -> Option<Sought> {
        let value = self.xattrs.get("trusted.overlay.redirect")?;
        if !self.st.is_dir() || self.is_opaque() {
            return None;
        }
        let text = std::str::from_utf8(value).unwrap();
        Some(match text.strip_prefix('/') {
            Some(path) => Sought::Path(path.split('/').map(str::to_owned).collect()),
            None => Sought::Name(text.to_owned()),
        })
    }

    /// What has that name here; not the `.wh.` files themselves.
    fn child(&self, name: &str) -> Option<&Raw> {
        let child = self.children.get(name)?;
        let is_mark = self.dot_wh && name.starts_with(".wh.") && child.st.is_file();
        (!is_mark).then_some(child)
    }

    /// formats 5: markers are hidden, and one `overlay.` is taken off those of an inner overlay.
    fn payload(&self) -> BTreeMap<String, Vec<u8>> {
        let mut out = BTreeMap::new();
        for (name, value) in &self.xattrs {
            if name.starts_with("user.fuseoverlayfs.") {
                continue;
            }
            let shown = ["trusted.overlay.", "user.overlay."]
                .iter()
                .find_map(|prefix| Some((prefix, name.strip_prefix(prefix)?)))
                .map_or(Some(name.clone()), |(prefix, rest)| {
                    let rest = rest.strip_prefix("overlay.")?;
                    Some(format!("{prefix}{rest}"))
                });
            if let Some(shown) = shown {
                out.insert(shown, value.clone());
            }
        }
        out
    }
}

struct Merge<'a> {
    tree: Tree,
    roots: &'a [&'a Raw],
    seen: BTreeSet<&'a Path>,
    is_ambiguous: bool,
    /// Inodes with several names within one layer.
    links: BTreeMap<(usize, u64), Id>,
}

impl<'a> Merge<'a> {
    /// Adds the object that these parts make up: several only of a directory.
    fn add(&mut self, parts: &[&'a Raw], candidates: usize) -> Id {
        let top = parts[0];
        for part in parts {
            self.is_ambiguous |= !self.seen.insert(&part.path);
        }
        let key = (top.layer, top.st.ino);
        if let Some(&id) = self.links.get(&key) {
            return id;
        }
        let text = || String::from_utf8(top.data.clone()).unwrap();
        let body = match top.st.kind() {
            libc::S_IFREG => Body::File(top.data.clone()),
            libc::S_IFDIR => Body::Dir(BTreeMap::new()),
            libc::S_IFLNK => Body::Symlink(text()),
            _ => Body::Special,
        };
        let id = self.tree.inodes.len();
        self.tree.inodes.push(Inode {
            mode: top.st.mode,
            uid: top.st.uid,
            gid: top.st.gid,
            rdev: top.st.rdev,
            // SEMANTICS 6: names that another layer hides count too.
            nlink: if top.st.is_dir() { 1 } else { top.st.nlink },
            xattrs: top.payload(),
            body,
            lowers: parts.iter().filter(|part| part.layer > 0).count(),
            candidates: candidates + parts.iter().filter(|p| p.redirect().is_some()).count(),
        });
        if top.st.is_dir() {
            self.add_names(id, parts);
        } else {
            self.links.insert(key, id);
        }
        id
    }

    fn add_names(&mut self, dir: Id, parts: &[&'a Raw]) {
        if self.is_ambiguous {
            return;
        }
        let names: BTreeSet<&String> = parts.iter().flat_map(|part| part.children.keys()).collect();
        for name in names {
            let found = contributions(name, parts, self.roots, Opaque::Ends);
            let candidates = contributions(name, parts, self.roots, Opaque::Ignored).len();
            if !found.is_empty() {
                let child = self.add(&found, candidates);
                self.tree.names_mut(dir).insert(name.clone(), child);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opaque {
    Ends,
    Ignored,
}

/// What is looked for in the layers below; formats 3.1.
enum Sought {
    /// A name in the parts of the directory that holds it.
    Name(String),
    /// A path from the root of the layer.
    Path(Vec<String>),
}

/// The parts of what a name shows, topmost first.
fn contributions<'a>(
    name: &str,
    parts: &[&'a Raw],
    roots: &[&'a Raw],
    opaque: Opaque,
) -> Vec<&'a Raw> {
    let mut sought = Sought::Name(name.to_owned());
    let mut found: Vec<&Raw> = Vec::new();
    for root in roots {
        let (child, ends) = match &mut sought {
            Sought::Path(path) => follow(root, path, opaque),
            Sought::Name(name) => match parts.iter().find(|part| part.layer == root.layer) {
                Some(part) => look(part, name, opaque),
                None => (None, false),
            },
        };
        if let Some(child) = child {
            // What is no directory shows alone, and hides what is below.
            if child.st.is_dir() || found.is_empty() {
                found.push(child);
            }
            match (child.redirect(), &sought) {
                (Some(Sought::Name(name)), Sought::Name(_)) => sought = Sought::Name(name),
                // `follow` has rewritten the path already.
                (Some(_), Sought::Path(_)) | (None, _) => {}
                (Some(path), Sought::Name(_)) => sought = path,
            }
        }
        if ends {
            break;
        }
    }
    found
}

/// What has that name in a part of a directory, and whether the layers below count no more: formats
/// 1.5. (An object beats the `.wh.` file beside it.)
fn look<'a>(part: &'a Raw, name: &str, opaque: Opaque) -> (Option<&'a Raw>, bool) {
    let beside = part.has_dot_wh(name);
    match part.child(name) {
        None => (None, beside),
        Some(child) if child.is_whiteout() => (None, true),
        Some(child) if !child.st.is_dir() => (Some(child), true),
        Some(child) => {
            let ends = opaque == Opaque::Ends && child.is_opaque();
            (Some(child), beside || ends)
        }
    }
}

/// Follows a path of a redirect in one layer, and rewrites it for those below by the redirects met.
fn follow<'a>(root: &'a Raw, path: &mut Vec<String>, opaque: Opaque) -> (Option<&'a Raw>, bool) {
    let (mut at, mut ended) = (root, false);
    let mut rewritten = Vec::new();
    let names = path.clone();
    for (n, name) in names.iter().enumerate() {
        rewritten.push(name.clone());
        let (child, ends) = look(at, name, opaque);
        ended |= ends;
        let is_last = n + 1 == names.len();
        match child {
            Some(child) if is_last || child.st.is_dir() => at = child,
            _ => {
                rewritten.extend_from_slice(&names[n + 1..]);
                *path = rewritten;
                return (None, ended);
            }
        }
        match at.redirect() {
            None => {}
            Some(Sought::Name(name)) => {
                rewritten.pop();
                rewritten.push(name);
            }
            // A path from the root leads on, whatever was opaque on the way.
            Some(Sought::Path(path)) => (rewritten, ended) = (path, false),
        }
    }
    *path = rewritten;
    (Some(at), ended)
}
