//! Layers from text: one object per line, so that a test reads as the tree it is about.
//!
//! ```text
//! d dir            mode=0700 uid=1 gid=2 mtime=5.25 user.name=value
//! f dir/file text  the same words; pattern=SIZE fills it, size=N sets its size, at=OFFSET:TEXT writes
//! l link target
//! h name existing  a hard link
//! p fifo           s socket
//! c dev 1:3        b dev 7:0
//! w name           whiteout (chr 0/0)     w. name  whiteout (.wh.name)   wx name  xattr whiteout
//! o dir            opaque (trusted)       ou dir  opaque (user)         of dir  opaque (fuseoverlayfs)
//! o. dir           opaque (.wh..wh..opq)
//! ```
//!
//! `.` is the layer's root; missing parents are made; `\xNN` is a byte, `\s` a space. What has no
//! mtime gets one in 2001 that depends on the path, so that two plantings agree.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::sys;

struct Line {
    kind: String,
    path: Vec<u8>,
    /// Words without `=`.
    plain: Vec<Vec<u8>>,
    attrs: Vec<(String, Vec<u8>)>,
}

/// Makes the objects that `text` describes under `root`.
pub fn plant(root: &Path, text: &str) {
    std::fs::create_dir_all(root).unwrap();
    let lines: Vec<Line> = text.lines().filter_map(parse).collect();
    for line in &lines {
        make(root, line);
    }
    // Attributes last and children before parents: making a name changes its directory's mtime.
    let mut all = Vec::new();
    walk(root, &mut all);
    for path in all.iter().rev() {
        let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let line = lines.iter().rfind(|line| {
            let own = if line.path == b"." {
                &[][..]
            } else {
                &line.path[..]
            };
            own == relative && !line.kind.starts_with('o')
        });
        finish(path, relative, line);
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    let kind = words.next()?.to_owned();
    if kind.starts_with('#') {
        return None;
    }
    let path = unescape(words.next().expect("a path"));
    let (mut plain, mut attrs) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => attrs.push((key.to_owned(), unescape(value))),
            None => plain.push(unescape(word)),
        }
    }
    Some(Line {
        kind,
        path,
        plain,
        attrs,
    })
}

fn unescape(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend(before.bytes());
        if let Some(after) = after.strip_prefix('s') {
            out.push(b' ');
            rest = after;
        } else {
            let hex = after.strip_prefix('x').expect("\\xNN or \\s");
            out.push(u8::from_str_radix(&hex[..2], 16).unwrap());
            rest = &hex[2..];
        }
    }
    out.extend(rest.bytes());
    out
}

fn as_path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

fn make(root: &Path, line: &Line) {
    let path = root.join(as_path(&line.path));
    let parent = path.parent().unwrap();
    std::fs::create_dir_all(parent).unwrap();
    let name = path.file_name().unwrap_or_default().to_owned();
    let dot_wh = || parent.join(OsString::from_vec([b".wh.", name.as_bytes()].concat()));
    let device = || {
        let text = String::from_utf8(line.plain[0].clone()).unwrap();
        let (major, minor) = text.split_once(':').expect("major:minor");
        sys::makedev(major.parse().unwrap(), minor.parse().unwrap())
    };
    let dir = || {
        std::fs::create_dir_all(&path).unwrap();
        Ok(())
    };
    let mark = |name: &str| dir().and_then(|()| sys::setxattr(&path, name, b"y", 0));
    let done = match line.kind.as_str() {
        "d" => dir(),
        "f" => fill(&path, line),
        "l" => sys::symlink(as_path(&line.plain[0]), &path),
        "h" => sys::link(root.join(as_path(&line.plain[0])), &path),
        "p" => sys::mknod(&path, libc::S_IFIFO | 0o644, 0),
        "s" => sys::mknod(&path, libc::S_IFSOCK | 0o644, 0),
        "c" => sys::mknod(&path, libc::S_IFCHR | 0o644, device()),
        "b" => sys::mknod(&path, libc::S_IFBLK | 0o644, device()),
        "w" => sys::mknod(&path, libc::S_IFCHR, 0),
        "w." => sys::put(dot_wh(), b""),
        "wx" => sys::put(&path, b"")
            .and_then(|()| sys::setxattr(&path, "trusted.overlay.whiteout", b"", 0))
            .and_then(|()| sys::setxattr(parent, "trusted.overlay.opaque", b"x", 0)),
        "o" => mark("trusted.overlay.opaque"),
        "ou" => mark("user.overlay.opaque"),
        "of" => mark("user.fuseoverlayfs.opaque"),
        "o." => dir().and_then(|()| sys::put(path.join(".wh..wh..opq"), b"")),
        other => panic!("unknown kind of line {other:?}"),
    };
    done.unwrap_or_else(|e| panic!("planting {} {}: {e:?}", line.kind, path.display()));
}

fn fill(path: &Path, line: &Line) -> sys::Res<()> {
    sys::put(path, line.plain.first().map_or(&b""[..], |text| text))?;
    for (key, value) in &line.attrs {
        let text = || String::from_utf8(value.clone()).unwrap();
        match key.as_str() {
            "pattern" => sys::put(path, &sys::pattern(1, text().parse().unwrap()))?,
            "size" => sys::truncate(path, text().parse().unwrap())?,
            "at" => {
                let text = text();
                let (offset, data) = text.split_once(':').expect("at=OFFSET:TEXT");
                sys::overwrite(path, offset.parse().unwrap(), data.as_bytes())?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn walk(path: &Path, out: &mut Vec<PathBuf>) {
    out.push(path.to_owned());
    if sys::lstat(path).unwrap().is_dir() {
        for entry in sys::list(path).unwrap() {
            walk(&path.join(as_path(&entry.name)), out);
        }
    }
}

fn finish(path: &Path, relative: &[u8], line: Option<&Line>) {
    let sum: i64 = relative.iter().map(|b| i64::from(*b)).sum();
    let mut mtime = (1_000_000_000 + sum, 123_000_000 + sum * 1001);
    let number = |value: &[u8]| std::str::from_utf8(value).unwrap().parse::<u32>().unwrap();
    for (key, value) in line.map_or(&[][..], |line| &line.attrs) {
        let done = match key.as_str() {
            "uid" => sys::lchown(path, number(value), u32::MAX),
            "gid" => sys::lchown(path, u32::MAX, number(value)),
            "mtime" => {
                mtime = time(std::str::from_utf8(value).unwrap());
                Ok(())
            }
            name if name.contains('.') => sys::setxattr(path, name, value, 0),
            _ => Ok(()),
        };
        done.unwrap_or_else(|e| panic!("{key} of {}: {e:?}", path.display()));
    }
    // After the owner: chown clears suid.
    if let Some((_, mode)) = line.and_then(|l| l.attrs.iter().find(|(key, _)| key == "mode")) {
        let mode = u32::from_str_radix(std::str::from_utf8(mode).unwrap(), 8).unwrap();
        sys::chmod(path, mode).unwrap();
    }
    sys::set_mtime(path, mtime).unwrap();
}

fn time(text: &str) -> (i64, i64) {
    let (sec, nsec) = text.split_once('.').unwrap_or((text, "0"));
    (sec.parse().unwrap(), format!("{nsec:0<9}").parse().unwrap())
}

/// A POSIX ACL with one named user, as `system.posix_acl_access` holds it.
pub fn acl(owner: u16, named: (u32, u16), group: u16, mask: u16, other: u16) -> Vec<u8> {
    let none = u32::MAX;
    let mut out = 2_u32.to_le_bytes().to_vec();
    let entries: [(u16, u16, u32); 5] = [
        (0x01, owner, none),
        (0x02, named.1, named.0),
        (0x04, group, none),
        (0x10, mask, none),
        (0x20, other, none),
    ];
    for (tag, perm, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

/// `security.capability` with one permitted and effective capability.
pub fn capability(number: u32) -> Vec<u8> {
    let (revision_2, effective) = (0x0200_0000_u32, 1);
    let words = [revision_2 | effective, 1 << number, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
