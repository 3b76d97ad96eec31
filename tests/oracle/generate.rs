//! Thinks up the next operation from what is known to exist.

use std::collections::BTreeMap;

use crate::kit::apply::SLOTS;
use crate::kit::operation::{Bytes, Op, Outcome};
use crate::kit::{Snapshot, acl};

static XATTRS: [&str; 7] = [
    "user.a",
    "user.b",
    "user.layer",
    "trusted.t",
    "trusted.overlay.opaque",
    "system.posix_acl_access",
    "system.posix_acl_default",
];

/// A source of operations.
pub struct Generator {
    random: fastrand::Rng,
    /// Paths that should exist, with their type bits.
    known: BTreeMap<String, u32>,
    /// Names of extended attributes.
    names: &'static [&'static str],
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator {
            random: fastrand::Rng::with_seed(seed),
            known: BTreeMap::new(),
            names: &XATTRS,
        }
    }

    /// The same without access control lists.
    pub fn without_lists(self) -> Generator {
        let (names, _lists) = XATTRS.split_at(XATTRS.len() - 2);
        Generator { names, ..self }
    }

    /// Learns what exists from a whole tree.
    pub fn learn(&mut self, tree: &Snapshot) {
        let entry = |(path, entry): (&Vec<u8>, &crate::kit::snapshot::Entry)| {
            (
                String::from_utf8(path.clone()).unwrap(),
                entry.mode & libc::S_IFMT,
            )
        };
        self.known = tree.entries.iter().map(entry).collect();
    }

    /// Learns from what an operation answered.
    pub fn note(&mut self, op: &Op, outcome: &Outcome) {
        if outcome.is_err() {
            return;
        }
        match op {
            Op::Create { at, .. } => drop(self.known.insert(at.clone(), libc::S_IFREG)),
            Op::Mkdir { at, .. } => drop(self.known.insert(at.clone(), libc::S_IFDIR)),
            Op::Mknod { at, mode, .. } => {
                self.known.insert(at.clone(), mode & libc::S_IFMT);
            }
            Op::Symlink { at, .. } => drop(self.known.insert(at.clone(), libc::S_IFLNK)),
            Op::Link { from, to } => {
                let kind = self.known.get(from).copied().unwrap_or(libc::S_IFREG);
                self.known.insert(to.clone(), kind);
            }
            Op::Unlink { at } | Op::Rmdir { at } | Op::RemoveTree { at } => {
                drop(self.take(at));
            }
            Op::Rename { from, to, flags } => {
                let moved = self.take(from);
                let other = self.take(to);
                self.put(to, moved);
                if *flags == libc::RENAME_EXCHANGE {
                    self.put(from, other);
                }
            }
            _ => {}
        }
    }

    /// Takes a subtree out; its paths come back relative to its top.
    fn take(&mut self, top: &str) -> Vec<(String, u32)> {
        let inside = format!("{top}/");
        let belongs = |path: &String| path == top || path.starts_with(&inside);
        let paths: Vec<String> = self
            .known
            .keys()
            .filter(|path| belongs(path))
            .cloned()
            .collect();
        let mut taken = Vec::new();
        for path in paths {
            if let Some(kind) = self.known.remove(&path) {
                taken.push((path[top.len()..].to_owned(), kind));
            }
        }
        taken
    }

    fn put(&mut self, top: &str, subtree: Vec<(String, u32)>) {
        self.known.extend(
            subtree
                .into_iter()
                .map(|(path, kind)| (format!("{top}{path}"), kind)),
        );
    }

    fn pick(&mut self, wanted: impl Fn(&str, u32) -> bool) -> Option<String> {
        let fits: Vec<&String> = self
            .known
            .iter()
            .filter(|(path, kind)| wanted(path, **kind))
            .map(|(p, _)| p)
            .collect();
        (!fits.is_empty()).then(|| fits[self.random.usize(0..fits.len())].clone())
    }

    fn dir(&mut self) -> String {
        self.pick(|path, kind| kind == libc::S_IFDIR && path.matches('/').count() < 4)
            .unwrap_or_default()
    }

    /// A name that may or may not exist, from few: names come back after they were removed.
    fn fresh(&mut self) -> String {
        let dir = self.dir();
        let name = format!("n{}", self.random.u8(0..10));
        if dir.is_empty() {
            name
        } else {
            format!("{dir}/{name}")
        }
    }

    /// Something that exists, but for a few percent.
    fn any(&mut self) -> String {
        if self.random.u8(0..30) == 0 {
            return self.fresh();
        }
        self.pick(|path, _| !path.is_empty())
            .unwrap_or_else(|| "n0".to_owned())
    }

    fn file(&mut self) -> String {
        if self.random.u8(0..12) == 0 {
            return self.any();
        }
        self.pick(|_, kind| kind == libc::S_IFREG)
            .unwrap_or_else(|| "n0".to_owned())
    }

    fn bytes(&mut self) -> Bytes {
        let most = if self.random.u8(0..10) == 0 {
            140_000
        } else {
            6000
        };
        Bytes {
            seed: self.random.u64(..),
            len: self.random.usize(0..most),
        }
    }

    fn offset(&mut self) -> u64 {
        match self.random.u8(0..8) {
            0..4 => self.random.u64(0..5000),
            4..7 => self.random.u64(0..100_000),
            _ => 4096 * self.random.u64(0..64),
        }
    }

    fn mode(&mut self) -> u32 {
        let special = if self.random.u8(0..4) == 0 {
            self.random.u32(0..8) << 9
        } else {
            0
        };
        special | self.random.u32(0..0o1000)
    }

    /// Never -1 twice: such a chown changes nothing but clears suid, and FUSE is not told of it.
    fn owner(&mut self) -> (u32, u32) {
        let ids = [0, 1, 1000, 65_534];
        let id = ids[self.random.usize(0..ids.len())];
        match self.random.u8(0..3) {
            0 => (id, u32::MAX),
            1 => (u32::MAX, id),
            _ => (id, ids[self.random.usize(0..ids.len())]),
        }
    }

    fn mtime(&mut self) -> (i64, i64) {
        (
            self.random.i64(-2_000..1_500_000_000),
            self.random.i64(0..1_000_000_000),
        )
    }

    fn fallocate_mode(&mut self) -> i32 {
        let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        [0, keep, punch | keep, zero, zero | keep][self.random.usize(0..5)]
    }

    fn xattr(&mut self) -> (&'static str, Vec<u8>) {
        let name = self.names[self.random.usize(0..self.names.len())];
        let random = &mut self.random;
        let value = if name.starts_with("system.") {
            let mut perm = || random.u16(0..8);
            acl(perm(), (1000, perm()), perm(), perm(), perm())
        } else if name == "trusted.overlay.opaque" {
            b"y".to_vec()
        } else {
            let len = random.usize(0..120);
            std::iter::repeat_with(|| random.alphanumeric() as u8)
                .take(len)
                .collect()
        };
        (name, value)
    }

    pub fn next(&mut self) -> Op {
        match self.random.u8(0..100) {
            0..35 => self.change_names(),
            35..65 => self.change_objects(),
            65..75 => self.look(),
            _ => self.use_slots(),
        }
    }

    fn change_names(&mut self) -> Op {
        // A tree that has grown large is thinned out.
        if self.known.len() > 350 && self.random.u8(0..6) == 0 {
            return Op::RemoveTree {
                at: self.dir_to_remove(),
            };
        }
        match self.random.u8(0..100) {
            0..18 => Op::Create {
                at: self.fresh(),
                mode: self.mode(),
                exclusive: self.random.bool(),
            },
            18..32 => Op::Mkdir {
                at: self.fresh(),
                mode: self.mode(),
            },
            32..37 => self.mknod(),
            37..42 => {
                let target = if self.random.bool() {
                    self.any()
                } else {
                    "n1".to_owned()
                };
                Op::Symlink {
                    target,
                    at: self.fresh(),
                }
            }
            42..51 => Op::Link {
                from: self.any(),
                to: self.fresh(),
            },
            51..65 => Op::Unlink { at: self.any() },
            65..72 => Op::Rmdir { at: self.dir() },
            72..74 => Op::RemoveTree {
                at: self.dir_to_remove(),
            },
            _ => self.rename(),
        }
    }

    fn dir_to_remove(&mut self) -> String {
        let dir = self.pick(|path, kind| kind == libc::S_IFDIR && !path.is_empty());
        dir.unwrap_or_else(|| "n0".to_owned())
    }

    fn mknod(&mut self) -> Op {
        let kinds = [
            (libc::S_IFIFO, (0, 0)),
            (libc::S_IFSOCK, (0, 0)),
            (libc::S_IFCHR, (1, 3)),
            (libc::S_IFBLK, (240, 3)),
            (libc::S_IFREG, (0, 0)),
            (libc::S_IFCHR, (0, 0)),
        ];
        let (kind, device) = kinds[self.random.usize(0..kinds.len())];
        Op::Mknod {
            at: self.fresh(),
            mode: kind | self.mode(),
            device,
        }
    }

    fn rename(&mut self) -> Op {
        let flags = [
            0,
            0,
            0,
            libc::RENAME_NOREPLACE,
            libc::RENAME_EXCHANGE,
            libc::RENAME_WHITEOUT,
        ];
        let flags = flags[self.random.usize(0..flags.len())];
        let to = if flags == libc::RENAME_EXCHANGE || self.random.u8(0..3) == 0 {
            self.any()
        } else {
            self.fresh()
        };
        // Often a directory: those with lower parts take the longest ways.
        let dir = match self.random.u8(0..3) {
            0 => self.pick(|path, kind| kind == libc::S_IFDIR && !path.is_empty()),
            _ => None,
        };
        Op::Rename {
            from: dir.unwrap_or_else(|| self.any()),
            to,
            flags,
        }
    }

    fn change_objects(&mut self) -> Op {
        match self.random.u8(0..100) {
            0..14 => Op::Write {
                at: self.file(),
                offset: self.offset(),
                bytes: self.bytes(),
            },
            14..22 => Op::Append {
                at: self.file(),
                bytes: self.bytes(),
            },
            22..28 => Op::Rewrite {
                at: self.file(),
                bytes: self.bytes(),
            },
            28..36 => Op::Truncate {
                at: self.file(),
                size: self.offset(),
            },
            36..43 => Op::Fallocate {
                at: self.file(),
                mode: self.fallocate_mode(),
                offset: self.offset(),
                len: 1 + self.offset(),
            },
            43..50 => Op::CopyRange {
                from: self.file(),
                to: self.file(),
                from_offset: self.random.u64(0..9000),
                to_offset: self.offset(),
                len: self.random.usize(1..60_000),
            },
            50..60 => Op::Chmod {
                at: self.any(),
                mode: self.mode(),
            },
            60..70 => {
                let (at, (uid, gid)) = (self.any(), self.owner());
                Op::Chown { at, uid, gid }
            }
            70..80 => Op::Utimens {
                at: self.any(),
                mtime: self.mtime(),
            },
            80..92 => {
                let (name, value) = self.xattr();
                let flags = [0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE];
                let flags = flags[self.random.usize(0..flags.len())];
                Op::SetXattr {
                    at: self.any(),
                    name,
                    value,
                    flags,
                }
            }
            _ => Op::RemoveXattr {
                at: self.any(),
                name: self.xattr().0,
            },
        }
    }

    fn look(&mut self) -> Op {
        match self.random.u8(0..7) {
            0 => Op::Stat { at: self.any() },
            1 => Op::Stat { at: self.fresh() },
            2 => Op::Read { at: self.file() },
            3 => Op::List { at: self.dir() },
            4 => Op::ListXattr { at: self.any() },
            5 => {
                let names = ["user.a", "user.layer", "user.none"];
                Op::GetXattr {
                    at: self.file(),
                    name: names[self.random.usize(0..names.len())],
                }
            }
            _ => Op::Readlink { at: self.any() },
        }
    }

    fn use_slots(&mut self) -> Op {
        let slot = self.random.usize(0..SLOTS);
        match self.random.u8(0..100) {
            0..22 => {
                let ways = [
                    libc::O_RDONLY,
                    libc::O_RDWR,
                    libc::O_RDWR,
                    libc::O_RDWR,
                    libc::O_WRONLY,
                ];
                let mut flags = ways[self.random.usize(0..ways.len())];
                if flags != libc::O_RDONLY && self.random.u8(0..6) == 0 {
                    flags |= [libc::O_TRUNC, libc::O_APPEND][self.random.usize(0..2)];
                }
                Op::Open {
                    slot,
                    at: self.file(),
                    flags,
                }
            }
            22..40 => Op::FdRead {
                slot,
                offset: self.offset(),
                len: self.random.usize(0..70_000),
            },
            40..56 => Op::FdWrite {
                slot,
                offset: self.offset(),
                bytes: self.bytes(),
            },
            56..66 => Op::FdMapWrite {
                slot,
                offset: self.offset() as usize,
                bytes: self.bytes(),
            },
            66..74 => Op::FdStat { slot },
            74..80 => Op::FdTruncate {
                slot,
                size: self.offset(),
            },
            80..84 => Op::FdFallocate {
                slot,
                mode: self.fallocate_mode(),
                offset: self.offset(),
                len: 1 + self.offset(),
            },
            84..88 => Op::FdChmod {
                slot,
                mode: self.mode(),
            },
            88..90 => {
                let (uid, gid) = self.owner();
                Op::FdChown { slot, uid, gid }
            }
            90..93 => Op::FdUtimens {
                slot,
                mtime: self.mtime(),
            },
            93..96 => {
                let (name, value) = self.xattr();
                Op::FdSetXattr { slot, name, value }
            }
            96..98 => Op::FdSync { slot },
            _ => Op::Close { slot },
        }
    }
}
