//! The tree that a union shows which is open in this process, as text. Used by the fuzz target
//! `requests` too.

use std::collections::BTreeMap;

use unionmount::attr::{Attr, Kind};
use unionmount::ops::{Caller, Union};

/// Path to what is there; an error is what is there, too.
pub type Tree = BTreeMap<String, String>;

/// Everything that is visible.
pub fn read(union: &Union) -> Tree {
    let mut tree = Tree::new();
    let mut links = BTreeMap::new();
    let mut dirs = vec![(String::new(), 1)];
    while let Some((dir, ino)) = dirs.pop() {
        let mut names = Vec::new();
        let listed = union.read_dir(ino, 0, false, &mut |item| {
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
            let what = match union.lookup(ino, &name) {
                Err(e) => format!("{:?}", e.errno()),
                Ok(entry) => {
                    if entry.attr.kind == Kind::Dir {
                        dirs.push((path.clone(), entry.attr.ino));
                    }
                    let first = links.entry(entry.attr.ino).or_insert_with(|| path.clone());
                    format!("{} = {first}", describe(union, &entry.attr))
                }
            };
            let twice = tree.insert(path.clone(), what);
            assert_eq!(twice, None, "{path} is listed twice");
        }
    }
    tree
}

fn describe(union: &Union, attr: &Attr) -> String {
    let caller = Caller {
        uid: 0,
        gid: 0,
        pid: std::process::id(),
    };
    let mut data = Vec::new();
    let content = match attr.kind {
        Kind::File => match union.read(attr.ino, 0, 1 << 16, &mut data) {
            Ok(()) => data.escape_ascii().to_string(),
            Err(e) => format!("not read: {:?}", e.errno()),
        },
        Kind::Symlink => format!("{:?}", union.readlink(attr.ino).map_err(|e| e.errno())),
        _ => String::new(),
    };
    let (links, size) = match attr.kind {
        Kind::Dir => (0, 0),
        _ => (attr.nlink, attr.size),
    };
    let names = union.listxattr(caller, attr.ino).map_err(|e| e.errno());
    let mut values = Vec::new();
    for name in names.iter().flatten() {
        let value = union.getxattr(attr.ino, name).map_err(|e| e.errno());
        values.push(format!("{}={value:?}", name.escape_ascii()));
    }
    values.sort();
    let Attr {
        kind,
        perm,
        uid,
        gid,
        ..
    } = attr;
    format!(
        "{kind:?} {perm:o} {uid}:{gid} links {links} size {size} {content:?} {values:?} {:?}",
        names.err()
    )
}
