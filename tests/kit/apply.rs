//! Carries an operation out on a mounted union.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::operation::{Bytes, Op, Outcome};
use super::snapshot::show;
use super::sys::{self, Errno, Map, Res, Stat};

pub const SLOTS: usize = 8;

/// One union, with the files that are open in it.
pub struct Side {
    pub root: PathBuf,
    pub slots: [Option<OwnedFd>; SLOTS],
    /// Lists names that it does not find, as kernel overlayfs does with some whiteouts.
    pub has_ghosts: bool,
    /// Times from here on read as "now".
    pub since: i64,
}

impl Side {
    pub fn apply(&mut self, op: &Op) -> Outcome {
        if let Some(outcome) = self.change_name(op) {
            return outcome;
        }
        if let Some(outcome) = self.change_object(op) {
            return outcome;
        }
        if let Some(outcome) = self.look(op) {
            return outcome;
        }
        self.use_slot(op)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn change_name(&self, op: &Op) -> Option<Outcome> {
        let done = match op {
            Op::Create {
                at,
                mode,
                exclusive,
            } => {
                let exclusive = if *exclusive { libc::O_EXCL } else { 0 };
                sys::open(self.at(at), WRITE | libc::O_CREAT | exclusive, *mode).map(drop)
            }
            Op::Mkdir { at, mode } => sys::mkdir(self.at(at), *mode),
            Op::Mknod {
                at,
                mode,
                device: (major, minor),
            } => sys::mknod(self.at(at), *mode, sys::makedev(*major, *minor)),
            Op::Symlink { target, at } => sys::symlink(target, self.at(at)),
            Op::Link { from, to } => sys::link(self.at(from), self.at(to)),
            Op::Unlink { at } => sys::unlink(self.at(at)),
            Op::Rmdir { at } => sys::rmdir(self.at(at)),
            Op::RemoveTree { at } => self.remove_tree(&self.at(at)),
            Op::Rename { from, to, flags } => sys::rename2(self.at(from), self.at(to), *flags),
            _ => return None,
        };
        Some(done.map(|()| String::new()))
    }

    fn change_object(&self, op: &Op) -> Option<Outcome> {
        let done = match op {
            Op::Write { at, offset, bytes } => sys::open(self.at(at), WRITE, 0)
                .and_then(|fd| sys::pwrite(&fd, *offset, &data(*bytes))),
            Op::Append { at, bytes } => sys::open(self.at(at), WRITE | libc::O_APPEND, 0)
                .and_then(|fd| sys::write(&fd, &data(*bytes))),
            Op::Rewrite { at, bytes } => sys::open(self.at(at), WRITE | libc::O_TRUNC, 0)
                .and_then(|fd| sys::write(&fd, &data(*bytes))),
            Op::Truncate { at, size } => nothing(sys::truncate(self.at(at), *size)),
            Op::Fallocate {
                at,
                mode,
                offset,
                len,
            } => nothing(
                sys::open(self.at(at), WRITE, 0)
                    .and_then(|fd| sys::fallocate(&fd, *mode, *offset, *len)),
            ),
            Op::CopyRange {
                from,
                to,
                from_offset,
                to_offset,
                len,
            } => self.copy_range((from, *from_offset), (to, *to_offset), *len),
            Op::Chmod { at, mode } => nothing(sys::chmod(self.at(at), *mode)),
            Op::Chown { at, uid, gid } => nothing(sys::lchown(self.at(at), *uid, *gid)),
            Op::Utimens { at, mtime } => nothing(sys::set_mtime(self.at(at), *mtime)),
            Op::SetXattr {
                at,
                name,
                value,
                flags,
            } => nothing(sys::setxattr(self.at(at), name, value, *flags)),
            Op::RemoveXattr { at, name } => nothing(sys::removexattr(self.at(at), name)),
            _ => return None,
        };
        Some(done.map(|n| n.to_string()))
    }

    fn look(&self, op: &Op) -> Option<Outcome> {
        Some(match op {
            Op::GetXattr { at, name } => sys::getxattr(self.at(at), name).map(|v| show(&v)),
            Op::ListXattr { at } => list_xattrs(&self.at(at)),
            Op::Stat { at } => sys::lstat(self.at(at)).map(|st| tell(&st, self.since)),
            Op::Read { at } => sys::open(self.at(at), READ, 0)
                .and_then(|fd| sys::get_fd(&fd))
                .map(|data| checksum(&data)),
            Op::Readlink { at } => sys::readlink(self.at(at)).map(|target| show(&target)),
            Op::List { at } => self.list(&self.at(at)),
            _ => return None,
        })
    }

    fn use_slot(&mut self, op: &Op) -> Outcome {
        if let Op::Open { slot, at, flags } = op {
            self.slots[*slot] = None;
            self.slots[*slot] = Some(sys::open(self.at(at), flags | libc::O_NONBLOCK, 0)?);
            return Ok(String::new());
        }
        let fd = |slot: &usize| self.slots[*slot].as_ref().ok_or(Errno(libc::EBADF));
        let done = match op {
            Op::FdRead { slot, offset, len } => {
                return Ok(checksum(&sys::pread(fd(slot)?, *offset, *len)?));
            }
            Op::FdStat { slot } => return Ok(tell(&sys::fstat(fd(slot)?)?, self.since)),
            Op::FdWrite {
                slot,
                offset,
                bytes,
            } => sys::pwrite(fd(slot)?, *offset, &data(*bytes)).map(drop),
            Op::FdMapWrite {
                slot,
                offset,
                bytes,
            } => map_write(fd(slot)?, *offset, *bytes),
            Op::FdTruncate { slot, size } => sys::ftruncate(fd(slot)?, *size),
            Op::FdFallocate {
                slot,
                mode,
                offset,
                len,
            } => sys::fallocate(fd(slot)?, *mode, *offset, *len),
            Op::FdChmod { slot, mode } => sys::fchmod(fd(slot)?, *mode),
            Op::FdChown { slot, uid, gid } => sys::fchown(fd(slot)?, *uid, *gid),
            Op::FdUtimens { slot, mtime } => {
                sys::futimens(fd(slot)?, (0, libc::UTIME_OMIT), *mtime)
            }
            Op::FdSetXattr { slot, name, value } => sys::fsetxattr(fd(slot)?, name, value, 0),
            Op::FdSync { slot } => sys::fsync(fd(slot)?),
            Op::Close { slot } => {
                self.slots[*slot] = None;
                Ok(())
            }
            other => unreachable!("{other:?} has no branch"),
        };
        done.map(|()| String::new())
    }

    fn list(&self, path: &Path) -> Outcome {
        let mut lines = Vec::new();
        for entry in sys::list(path)? {
            if !self.is_ghost(&path.join(OsStr::from_bytes(&entry.name))) {
                lines.push(format!("{} {}", show(&entry.name), entry.kind));
            }
        }
        lines.sort();
        Ok(lines.join(", "))
    }

    fn is_ghost(&self, path: &Path) -> bool {
        self.has_ghosts && sys::lstat(path) == Err(Errno(libc::ENOENT))
    }

    fn remove_tree(&self, path: &Path) -> Res<()> {
        if !sys::lstat(path)?.is_dir() {
            return sys::unlink(path);
        }
        for entry in sys::list(path)? {
            let child = path.join(OsStr::from_bytes(&entry.name));
            if !self.is_ghost(&child) {
                self.remove_tree(&child)?;
            }
        }
        sys::rmdir(path)
    }

    fn copy_range(&self, from: (&str, u64), to: (&str, u64), len: usize) -> Res<usize> {
        let source = sys::open(self.at(from.0), READ, 0)?;
        let target = sys::open(self.at(to.0), WRITE, 0)?;
        let mut done = 0;
        // A short copy is allowed at any point: what counts is the whole.
        while done < len {
            let (from, to) = (from.1 + done as u64, to.1 + done as u64);
            match sys::copy_file_range(&source, from, &target, to, len - done)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }
}

/// What a stat answers; times from `since` on read as "now".
pub fn tell(st: &Stat, since: i64) -> String {
    let mode = st.mode;
    let mtime = if st.mtime.0 >= since {
        None
    } else {
        Some(st.mtime)
    };
    let owner = (st.uid, st.gid);
    if st.is_dir() {
        format!("{mode:o} {owner:?} {mtime:?}")
    } else {
        format!(
            "{mode:o} {owner:?} {mtime:?} {} {} {}",
            st.nlink, st.size, st.rdev
        )
    }
}

/// Never waits for the other end of a fifo.
const READ: i32 = libc::O_RDONLY | libc::O_NONBLOCK;
const WRITE: i32 = libc::O_WRONLY | libc::O_NONBLOCK;

fn nothing(done: Res<()>) -> Res<usize> {
    done.map(|()| 0)
}

/// The bytes themselves.
pub fn data(bytes: Bytes) -> Vec<u8> {
    sys::pattern(bytes.seed, bytes.len)
}

fn list_xattrs(path: &Path) -> Outcome {
    let mut lines = Vec::new();
    for name in sys::listxattr(path)? {
        let value = sys::getxattr(path, OsStr::from_bytes(&name))?;
        lines.push(format!("{}={}", show(&name), show(&value)));
    }
    lines.sort();
    Ok(lines.join(" "))
}

fn map_write(fd: &OwnedFd, offset: usize, bytes: Bytes) -> Res<()> {
    let st = sys::fstat(fd)?;
    let size = if st.is_file() { st.size as usize } else { 4096 };
    if size == 0 {
        return Ok(());
    }
    let mut map = Map::shared(fd, size)?;
    // Beyond the end of the file lies SIGBUS.
    let start = offset % size;
    let end = size.min(start + bytes.len);
    map.bytes_mut()[start..end].copy_from_slice(&data(bytes)[..end - start]);
    map.sync()
}

/// What a read answers: its length, and a sum of its bytes.
pub fn checksum(data: &[u8]) -> String {
    let sum = data.iter().fold(7_u64, |sum, byte| {
        (sum ^ u64::from(*byte))
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(5)
    });
    format!("{} bytes, {sum:016x}", data.len())
}
