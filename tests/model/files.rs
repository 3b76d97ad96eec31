//! What is done with the data of files, by name and through descriptors.

use crate::kit::apply::{checksum, data, tell};
use crate::kit::operation::{Bytes, Op, Outcome};
use crate::kit::{Errno, Res};
use crate::operate::{NO_TIMES, fails, has};
use crate::tree::{Body, Id, Last, Open, Tree};

impl Tree {
    pub fn open_file(&mut self, path: &str, flags: i32) -> Res<Open> {
        let id = self.find(path, Last::Follow)?;
        let way = flags & libc::O_ACCMODE;
        let open = Open {
            id,
            read: way != libc::O_WRONLY,
            write: way != libc::O_RDONLY,
            append: has(flags, libc::O_APPEND),
        };
        match &mut self.inode(id).body {
            Body::Dir(_) if open.write => return fails(libc::EISDIR),
            Body::File(data) if has(flags, libc::O_TRUNC) => data.clear(),
            _ => {}
        }
        Ok(open)
    }

    pub fn open_and_use(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Write { at, offset, bytes } => {
                let open = self.open_file(at, libc::O_WRONLY)?;
                self.write(open, *offset, *bytes)
            }
            Op::Append { at, bytes } => {
                let open = self.open_file(at, libc::O_WRONLY | libc::O_APPEND)?;
                self.write(open, 0, *bytes)
            }
            Op::Rewrite { at, bytes } => {
                let open = self.open_file(at, libc::O_WRONLY | libc::O_TRUNC)?;
                self.write(open, 0, *bytes)
            }
            Op::Fallocate {
                at,
                mode,
                offset,
                len,
            } => {
                let open = self.open_file(at, libc::O_WRONLY)?;
                self.fallocate(open, *mode, *offset, *len)?;
                Ok("0".to_owned())
            }
            Op::Read { at } => {
                let open = self.open_file(at, libc::O_RDONLY)?;
                self.read(open, 0, usize::MAX)
            }
            Op::CopyRange {
                from,
                to,
                from_offset,
                to_offset,
                len,
            } => {
                let source = self.open_file(from, libc::O_RDONLY)?;
                let target = self.open_file(to, libc::O_WRONLY)?;
                let data = self.data(source.id)?;
                let start = data.len().min(*from_offset as usize);
                let end = data.len().min(start + *len);
                let copied = data[start..end].to_vec();
                self.put(target.id, *to_offset as usize, &copied)?;
                Ok(copied.len().to_string())
            }
            _ => unreachable!("{op:?}"),
        }
    }

    pub fn use_slot(&mut self, op: &Op) -> Outcome {
        let open = |slot: &usize| self.open[*slot].ok_or(Errno(libc::EBADF));
        match op {
            Op::Open { slot, at, flags } => {
                self.open[*slot] = None;
                self.open[*slot] = Some(self.open_file(at, *flags)?);
            }
            Op::Close { slot } => self.open[*slot] = None,
            Op::FdRead { slot, offset, len } => return self.read(open(slot)?, *offset, *len),
            Op::FdStat { slot } => return Ok(tell(&self.stat(open(slot)?.id), NO_TIMES)),
            Op::FdWrite {
                slot,
                offset,
                bytes,
            } => drop(self.write(open(slot)?, *offset, *bytes)?),
            Op::FdMapWrite {
                slot,
                offset,
                bytes,
            } => self.map_write(open(slot)?, *offset, *bytes)?,
            Op::FdTruncate { slot, size } => {
                let open = open(slot)?;
                match &mut self.inode(open.id).body {
                    Body::File(data) if open.write => data.resize(*size as usize, 0),
                    _ => return fails(libc::EINVAL),
                }
            }
            Op::FdFallocate {
                slot,
                mode,
                offset,
                len,
            } => self.fallocate(open(slot)?, *mode, *offset, *len)?,
            Op::FdChmod { slot, mode } => self.chmod(open(slot)?.id, *mode),
            Op::FdChown { slot, uid, gid } => self.chown(open(slot)?.id, *uid, *gid),
            Op::FdUtimens { slot, .. } | Op::FdSync { slot } => drop(open(slot)?),
            Op::FdSetXattr { slot, name, value } => {
                self.set_xattr(open(slot)?.id, name, value, 0)?;
            }
            _ => unreachable!("{op:?} has no branch"),
        }
        Ok(String::new())
    }

    fn data(&self, id: Id) -> Res<&Vec<u8>> {
        match &self.inodes[id].body {
            Body::File(data) => Ok(data),
            _ => fails(libc::EISDIR),
        }
    }

    fn read(&self, open: Open, offset: u64, len: usize) -> Outcome {
        if !open.read {
            return fails(libc::EBADF);
        }
        let data = self.data(open.id)?;
        let start = data.len().min(offset as usize);
        let end = data.len().min(start.saturating_add(len));
        Ok(checksum(&data[start..end]))
    }

    fn write(&mut self, open: Open, offset: u64, bytes: Bytes) -> Outcome {
        if !open.write {
            return fails(libc::EBADF);
        }
        let offset = match open.append {
            true => self.data(open.id)?.len(),
            false => offset as usize,
        };
        self.put(open.id, offset, &data(bytes))?;
        Ok(bytes.len.to_string())
    }

    fn put(&mut self, id: Id, offset: usize, bytes: &[u8]) -> Res<()> {
        let Body::File(data) = &mut self.inode(id).body else {
            return fails(libc::EISDIR);
        };
        if !bytes.is_empty() {
            let end = offset + bytes.len();
            if data.len() < end {
                data.resize(end, 0);
            }
            data[offset..end].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn map_write(&mut self, open: Open, offset: usize, bytes: Bytes) -> Res<()> {
        let size = self.data(open.id).map_or(4096, Vec::len);
        if size == 0 {
            return Ok(());
        }
        if !open.read || !open.write {
            return fails(libc::EACCES);
        }
        let start = offset % size;
        let end = size.min(start + bytes.len);
        self.put(open.id, start, &data(bytes)[..end - start])
    }

    fn fallocate(&mut self, open: Open, mode: i32, offset: u64, len: u64) -> Res<()> {
        if !open.write {
            return fails(libc::EBADF);
        }
        let Body::File(data) = &mut self.inode(open.id).body else {
            return fails(libc::ENODEV);
        };
        let (start, end) = (offset as usize, (offset + len) as usize);
        if !has(mode, libc::FALLOC_FL_KEEP_SIZE) && data.len() < end {
            data.resize(end, 0);
        }
        if has(
            mode,
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE,
        ) {
            let end = data.len().min(end);
            data[start.min(end)..end].fill(0);
        }
        Ok(())
    }
}
