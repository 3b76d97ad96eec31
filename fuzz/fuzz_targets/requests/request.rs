//! One request, by numbers of inodes that were answered before (or of none).

use arbitrary::Arbitrary;
use unionmount::attr::Kind;
use unionmount::ops::{Caller, NewObject, Perm, RenameMode, SetAttr, Union, WriteHow};

/// Names of one component; some no filesystem takes.
const NAMES: [&[u8]; 11] = [
    b"a",
    b"b",
    b"d",
    b"e",
    b".wh.a",
    b".wh.",
    b".wh..wh..opq",
    b"..",
    b"",
    b"x/y",
    b"\xff",
];
const ATTRIBUTES: [&[u8]; 8] = [
    b"user.x",
    b"user.overlay.opaque",
    b"trusted.overlay.redirect",
    b"trusted.overlay.overlay.x",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"security.capability",
    b"none",
];

#[derive(Debug, Arbitrary)]
pub enum Request {
    Lookup(u8, u8),
    Forget(u8, u8),
    GetAttr(u8),
    SetAttr {
        ino: u8,
        perm: Option<u16>,
        size: Option<u32>,
        uid: Option<u32>,
    },
    Create {
        dir: u8,
        name: u8,
        kind: u8,
    },
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename {
        dir: u8,
        name: u8,
        new_dir: u8,
        new_name: u8,
        mode: u8,
    },
    Link {
        ino: u8,
        dir: u8,
        name: u8,
    },
    Read {
        ino: u8,
        offset: u64,
        size: u16,
    },
    Write {
        ino: u8,
        offset: u32,
        data: Vec<u8>,
    },
    Fallocate {
        ino: u8,
        offset: u32,
        size: u32,
    },
    Seek {
        ino: u8,
        offset: u64,
        whence: i8,
    },
    Copy {
        from: u8,
        to: u8,
        at: u16,
        len: u16,
    },
    Fsync(u8),
    ReadDir {
        ino: u8,
        from: u64,
    },
    ReadLink(u8),
    GetXattr(u8, u8),
    ListXattr(u8),
    SetXattr {
        ino: u8,
        name: u8,
        value: Vec<u8>,
        flags: u8,
    },
    RemoveXattr(u8, u8),
    StatFs,
}

fn name(n: u8) -> &'static [u8] {
    NAMES[usize::from(n) % NAMES.len()]
}

fn attribute(n: u8) -> &'static [u8] {
    ATTRIBUTES[usize::from(n) % ATTRIBUTES.len()]
}

impl Request {
    /// Makes it. Any error is an answer.
    pub fn make(&self, union: &Union, inodes: &mut Vec<u64>) {
        let ino = |n: u8| inodes[usize::from(n) % inodes.len()];
        let caller = Caller {
            uid: 0,
            gid: 0,
            pid: std::process::id(),
        };
        let mut found = None;
        match self {
            Request::Lookup(dir, n) => found = union.lookup(ino(*dir), name(*n)).ok(),
            Request::Create { dir, name: n, kind } => {
                let object = match kind % 6 {
                    0 | 1 => NewObject::File,
                    2 | 3 => NewObject::Dir,
                    4 => NewObject::Symlink(b"target"),
                    _ => NewObject::Device(Kind::CharDev, u64::from(kind / 6)),
                };
                let perm = Perm {
                    perm: 0o755,
                    umask: 0o022,
                };
                found = union.create(caller, ino(*dir), name(*n), object, perm).ok();
            }
            Request::Link {
                ino: n,
                dir,
                name: new,
            } => {
                found = union.link(ino(*n), ino(*dir), name(*new)).ok();
            }
            Request::Forget(n, times) => {
                // The kernel forgets no more than it was given; the root never.
                let n = usize::from(*n) % inodes.len();
                if n > 0 && *times > 0 {
                    union.forget(inodes.remove(n), 1);
                }
            }
            _ => self.answer(union, &ino, caller),
        }
        if let Some(entry) = found {
            inodes.push(entry.attr.ino);
        }
    }

    fn answer(&self, union: &Union, ino: &impl Fn(u8) -> u64, caller: Caller) {
        match self {
            Request::GetAttr(n) => drop(union.getattr(ino(*n))),
            Request::SetAttr {
                ino: n,
                perm,
                size,
                uid,
            } => {
                let change = SetAttr {
                    perm: perm.map(|p| u32::from(p) & 0o7777),
                    size: size.map(|s| u64::from(s) & 0xf_ffff),
                    uid: *uid,
                    ..SetAttr::NONE
                };
                drop(union.setattr(caller, ino(*n), &change));
            }
            Request::Unlink(dir, n) => drop(union.unlink(ino(*dir), name(*n))),
            Request::Rmdir(dir, n) => drop(union.rmdir(ino(*dir), name(*n))),
            Request::Rename {
                dir,
                name: n,
                new_dir,
                new_name,
                mode,
            } => {
                let modes = [
                    RenameMode::Replace,
                    RenameMode::NoReplace,
                    RenameMode::Exchange,
                ];
                let mode = modes[usize::from(*mode) % modes.len()];
                drop(union.rename(ino(*dir), name(*n), ino(*new_dir), name(*new_name), mode));
            }
            Request::Read {
                ino: n,
                offset,
                size,
            } => {
                drop(union.read(ino(*n), *offset, usize::from(*size), &mut Vec::new()));
            }
            Request::Write {
                ino: n,
                offset,
                data,
            } => {
                let at = u64::from(*offset) & 0xf_ffff;
                drop(union.write(ino(*n), at, data, &WriteHow::default()));
            }
            Request::Fallocate {
                ino: n,
                offset,
                size,
            } => {
                let (at, len) = (u64::from(*offset) & 0xf_ffff, u64::from(*size) & 0xf_ffff);
                drop(union.fallocate(caller, ino(*n), at, len, 0));
            }
            Request::Seek {
                ino: n,
                offset,
                whence,
            } => {
                drop(union.seek(ino(*n), *offset, i32::from(*whence)));
            }
            Request::Copy { from, to, at, len } => {
                let (from, to) = ((ino(*from), 0), (ino(*to), u64::from(*at)));
                drop(union.copy_file_range(caller, from, to, usize::from(*len)));
            }
            Request::Fsync(n) => drop(union.fsync(ino(*n), false)),
            Request::ReadDir { ino: n, from } => {
                drop(union.read_dir(ino(*n), *from, true, &mut |_| true));
            }
            Request::ReadLink(n) => drop(union.readlink(ino(*n))),
            Request::GetXattr(n, a) => drop(union.getxattr(ino(*n), attribute(*a))),
            Request::ListXattr(n) => drop(union.listxattr(caller, ino(*n))),
            Request::SetXattr {
                ino: n,
                name,
                value,
                flags,
            } => {
                drop(union.setxattr(
                    caller,
                    ino(*n),
                    attribute(*name),
                    value,
                    u32::from(flags % 4),
                ));
            }
            Request::RemoveXattr(n, a) => drop(union.removexattr(caller, ino(*n), attribute(*a))),
            _ => drop(union.statfs()),
        }
    }
}
