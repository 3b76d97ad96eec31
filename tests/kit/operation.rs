//! Operations on a union, as data that prints well and can be replayed.

/// A path relative to the root of the union.
pub type At = String;

/// What an operation answered: its data as text, or the errno.
pub type Outcome = super::sys::Res<String>;

/// Bytes to write: `len` bytes of the pattern `seed`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    pub seed: u64,
    pub len: usize,
}

/// How many kinds there are.
pub const KINDS: usize = 39;

#[derive(Clone, Debug)]
pub enum Op {
    Create {
        at: At,
        mode: u32,
        exclusive: bool,
    },
    Mkdir {
        at: At,
        mode: u32,
    },
    Mknod {
        at: At,
        mode: u32,
        device: (u32, u32),
    },
    Symlink {
        target: String,
        at: At,
    },
    Link {
        from: At,
        to: At,
    },
    Unlink {
        at: At,
    },
    Rmdir {
        at: At,
    },
    RemoveTree {
        at: At,
    },
    Rename {
        from: At,
        to: At,
        flags: u32,
    },
    Write {
        at: At,
        offset: u64,
        bytes: Bytes,
    },
    Append {
        at: At,
        bytes: Bytes,
    },
    Rewrite {
        at: At,
        bytes: Bytes,
    },
    Truncate {
        at: At,
        size: u64,
    },
    Fallocate {
        at: At,
        mode: i32,
        offset: u64,
        len: u64,
    },
    CopyRange {
        from: At,
        to: At,
        from_offset: u64,
        to_offset: u64,
        len: usize,
    },
    Chmod {
        at: At,
        mode: u32,
    },
    Chown {
        at: At,
        uid: u32,
        gid: u32,
    },
    Utimens {
        at: At,
        mtime: (i64, i64),
    },
    SetXattr {
        at: At,
        name: &'static str,
        value: Vec<u8>,
        flags: i32,
    },
    RemoveXattr {
        at: At,
        name: &'static str,
    },
    GetXattr {
        at: At,
        name: &'static str,
    },
    ListXattr {
        at: At,
    },
    Stat {
        at: At,
    },
    Read {
        at: At,
    },
    Readlink {
        at: At,
    },
    List {
        at: At,
    },
    Open {
        slot: usize,
        at: At,
        flags: i32,
    },
    Close {
        slot: usize,
    },
    FdRead {
        slot: usize,
        offset: u64,
        len: usize,
    },
    FdWrite {
        slot: usize,
        offset: u64,
        bytes: Bytes,
    },
    FdMapWrite {
        slot: usize,
        offset: usize,
        bytes: Bytes,
    },
    FdStat {
        slot: usize,
    },
    FdTruncate {
        slot: usize,
        size: u64,
    },
    FdFallocate {
        slot: usize,
        mode: i32,
        offset: u64,
        len: u64,
    },
    FdChmod {
        slot: usize,
        mode: u32,
    },
    FdChown {
        slot: usize,
        uid: u32,
        gid: u32,
    },
    FdUtimens {
        slot: usize,
        mtime: (i64, i64),
    },
    FdSetXattr {
        slot: usize,
        name: &'static str,
        value: Vec<u8>,
    },
    FdSync {
        slot: usize,
    },
}

impl Op {
    /// The paths that it names in the union; not the target of a symlink.
    pub fn paths_mut(&mut self) -> Vec<&mut At> {
        match self {
            Op::Link { from, to }
            | Op::Rename { from, to, .. }
            | Op::CopyRange { from, to, .. } => {
                vec![from, to]
            }
            Op::Create { at, .. }
            | Op::Mkdir { at, .. }
            | Op::Mknod { at, .. }
            | Op::Symlink { at, .. }
            | Op::Unlink { at }
            | Op::Rmdir { at }
            | Op::RemoveTree { at }
            | Op::Write { at, .. }
            | Op::Append { at, .. }
            | Op::Rewrite { at, .. }
            | Op::Truncate { at, .. }
            | Op::Fallocate { at, .. }
            | Op::Chmod { at, .. }
            | Op::Chown { at, .. }
            | Op::Utimens { at, .. }
            | Op::SetXattr { at, .. }
            | Op::RemoveXattr { at, .. }
            | Op::GetXattr { at, .. }
            | Op::ListXattr { at }
            | Op::Stat { at }
            | Op::Read { at }
            | Op::Readlink { at }
            | Op::List { at }
            | Op::Open { at, .. } => vec![at],
            _ => Vec::new(),
        }
    }

    /// The open file that it uses; not that which it opens.
    pub fn slot_mut(&mut self) -> Option<&mut usize> {
        match self {
            Op::Close { slot }
            | Op::FdRead { slot, .. }
            | Op::FdWrite { slot, .. }
            | Op::FdMapWrite { slot, .. }
            | Op::FdStat { slot }
            | Op::FdTruncate { slot, .. }
            | Op::FdFallocate { slot, .. }
            | Op::FdChmod { slot, .. }
            | Op::FdChown { slot, .. }
            | Op::FdUtimens { slot, .. }
            | Op::FdSetXattr { slot, .. }
            | Op::FdSync { slot } => Some(slot),
            _ => None,
        }
    }
}
