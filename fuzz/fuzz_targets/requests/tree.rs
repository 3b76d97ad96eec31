//! The whole visible tree as text.

use std::collections::BTreeMap;

use unionmount::attr::Kind;
use unionmount::ops::Union;

/// Path to what is there; an error is what is there, too.
pub fn read(union: &Union) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    let mut dirs = vec![(String::new(), 1)];
    while let Some((path, ino)) = dirs.pop() {
        let mut names = Vec::new();
        let listed = union.read_dir(ino, 0, false, &mut |item| {
            if item.name != b"." && item.name != b".." {
                names.push(item.name.to_vec());
            }
            true
        });
        if let Err(e) = listed {
            tree.insert(format!("{path}/"), format!("not listed: {:?}", e.errno()));
        }
        for name in names {
            let path = format!("{path}/{}", name.escape_ascii());
            let what = match union.lookup(ino, &name) {
                Err(e) => format!("{:?}", e.errno()),
                Ok(entry) => {
                    let attr = entry.attr;
                    if attr.kind == Kind::Dir && path.len() < 200 {
                        dirs.push((path.clone(), attr.ino));
                    }
                    describe(union, &attr)
                }
            };
            let twice = tree.insert(path.clone(), what);
            assert_eq!(twice, None, "{path} was listed twice");
        }
    }
    tree
}

fn describe(union: &Union, attr: &unionmount::attr::Attr) -> String {
    let caller = unionmount::ops::Caller {
        uid: 0,
        gid: 0,
        pid: std::process::id(),
    };
    let mut data = Vec::new();
    let content = match attr.kind {
        Kind::File => match union.read(attr.ino, 0, 4096, &mut data) {
            Ok(()) => format!(
                "{} bytes, starting {:?}",
                attr.size,
                data.get(..data.len().min(20))
            ),
            Err(e) => format!("not read: {:?}", e.errno()),
        },
        Kind::Symlink => format!("{:?}", union.readlink(attr.ino).map_err(|e| e.errno())),
        _ => String::new(),
    };
    let links = if attr.kind == Kind::Dir {
        0
    } else {
        attr.nlink
    };
    let mut attributes = union.listxattr(caller, attr.ino).map_err(|e| e.errno());
    if let Ok(names) = &mut attributes {
        names.sort();
    }
    format!(
        "{:?} {:o} {} links {links}: {content} {attributes:?}",
        attr.kind, attr.perm, attr.uid
    )
}
