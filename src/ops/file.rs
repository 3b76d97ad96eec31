//! Data of regular files: read, write, allocate, seek, copy, sync.
//!
//! No descriptor belongs to an open file of the view: the kernel does not tell of open and close.
//! One descriptor an inode is kept in a bounded cache and found by the inode.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{OFlags, SeekFrom};

use super::attr::Cause;
use super::copy_up::{ALL, Want};
use super::protect::{Act, permit};
use super::{Caller, Union};
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::{Stat, metacopy_of};
use crate::tree::{DataAt, Inode, RealId};

/// A writable descriptor that was not used for so long is given up: it would forbid others to
/// execute the file in the upper.
const IDLE_MS: u64 = 1000;

/// The descriptor of a regular file.
#[derive(Debug)]
pub(super) struct FileFd {
    fd: Arc<OwnedFd>,
    id: RealId,
    writable: bool,
    /// Where the data ends, if that never changes: it belongs to a lower.
    end: Option<u64>,
    /// It belongs to another real object than `id`, a metadata-only copy, of which it is the data;
    /// so much of it counts.
    lent: Option<u64>,
    /// The file's mode forbids to open it again.
    keep: bool,
    dirty: AtomicBool,
    used_ms: AtomicU64,
}

fn now_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

impl FileFd {
    /// Takes a descriptor of the real object `id`.
    pub(super) fn new(fd: impl Into<Arc<OwnedFd>>, id: RealId, writable: bool) -> FileFd {
        let used_ms = AtomicU64::new(now_ms());
        FileFd {
            fd: fd.into(),
            id,
            writable,
            end: None,
            lent: None,
            keep: false,
            dirty: AtomicBool::new(false),
            used_ms,
        }
    }

    /// The descriptor.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Whether it is the data of a metadata-only copy, not the copy itself.
    pub(super) fn is_lent(&self) -> bool {
        self.lent.is_some()
    }

    /// How many of `len` bytes at `offset` belong to the file.
    fn within(&self, offset: u64, len: usize) -> usize {
        match self.lent {
            Some(size) => len.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(len)),
            None => len,
        }
    }

    /// The descriptor, to be kept beyond the cache.
    pub(super) fn share(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Notes that a write is coming which a later sync has to wait for.
    pub(super) fn mark_dirty(&self) {
        self.dirty.store(true, Ordering::Relaxed);
        self.used_ms.store(now_ms(), Ordering::Relaxed);
    }

    fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Relaxed)
    }

    /// Whether closing it would lose something: an error not told yet, or the only way to the data.
    fn must_stay(&self) -> bool {
        self.keep || self.is_dirty()
    }
}

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteHow {
    /// The caller, if it may not keep the file's setuid and setgid.
    pub clear_privileges: Option<Caller>,
    /// The kernel keeps the modification time (writeback cache) and will set it when it sees fit.
    pub keep_mtime: bool,
}

/// Writes as much as fits.
fn write_all(fd: &FileFd, offset: u64, data: &[u8]) -> Result<usize> {
    let mut len = 0;
    while let Some(rest) = data.get(len..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(fd.fd(), rest, offset.saturating_add(len as u64)) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(Errno::INTR) => {}
            Err(_) if len > 0 => break, // the next write will say it
            Err(e) => return Err(e).while_doing(|| "write"),
        }
    }
    Ok(len)
}

/// Runs a change of a file's data and gives it back the modification time of before.
fn keeping_mtime<T>(fd: &FileFd, change: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = rustix::fs::fstat(fd.fd()).while_doing(|| "stat a file")?;
    let result = change()?;
    let omit = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_OMIT,
    };
    let mtime = rustix::fs::Timespec {
        tv_sec: before.st_mtime as _,
        tv_nsec: before.st_mtime_nsec as _,
    };
    let times = rustix::fs::Timestamps {
        last_access: omit,
        last_modification: mtime,
    };
    rustix::fs::futimens(fd.fd(), &times).while_doing(|| "keep the time of a file")?;
    Ok(result)
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes written.
    pub len: usize,
    /// Setuid or setgid was cleared: the kernel's attributes are out of date.
    pub cleared_privileges: bool,
}

impl Union {
    /// Remembers a descriptor as that of `inode`, in place of any other.
    pub(super) fn remember_fd(&self, inode: &Inode, fd: FileFd) -> Arc<FileFd> {
        let fd = Arc::new(fd);
        let most = self.dirty_limit;
        let evicted = self
            .file_fds
            .insert(inode.ino, Arc::clone(&fd), FileFd::must_stay, most);
        for (ino, old) in evicted {
            if ino == inode.ino && old.id == fd.id {
                fd.dirty.fetch_or(old.is_dirty(), Ordering::Relaxed);
            } else if old.is_dirty() {
                self.sync_for_good(ino, &old);
            }
        }
        fd
    }

    pub(super) fn cached_fd(&self, inode: &Inode) -> Option<Arc<FileFd>> {
        // One of before a copy-up is of no use any more.
        // Nor is one of the data below, once that was brought up.
        self.file_fds.get(inode.ino).filter(|fd| {
            let state = inode.state();
            fd.id == state.id && !(fd.is_lent() && state.data == DataAt::Here)
        })
    }

    /// A descriptor to read the data of `inode`.
    pub(super) fn read_fd(&self, inode: &Arc<Inode>) -> Result<Arc<FileFd>> {
        match self.cached_fd(inode) {
            Some(fd) => Ok(fd),
            None => self
                .open_fd(inode, OFlags::RDONLY)
                .while_doing(|| "open for reading"),
        }
    }

    /// A descriptor to write the data of `inode`, which is copied up if need be.
    pub(super) fn write_fd(&self, inode: &Arc<Inode>) -> Result<Arc<FileFd>> {
        self.copy_up(inode, Want::Data(ALL))?;
        match self.cached_fd(inode).filter(|fd| fd.writable) {
            Some(fd) => Ok(fd),
            None => self
                .open_fd(inode, OFlags::RDWR)
                .while_doing(|| "open for writing"),
        }
    }

    /// Opens the real object of `inode`, a regular file.
    pub(super) fn open_own(
        &self,
        inode: &Arc<Inode>,
        mode: OFlags,
    ) -> Result<(Arc<OwnedFd>, RealId, u64), Errno> {
        self.with_place(inode, |place| {
            let id = inode.id();
            let fd = match place.open_quiet(mode) {
                // An object of another kind has the name now.
                Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(Errno::STALE),
                result => result?,
            };
            let stat = Stat::at(fd.as_fd(), b"")?;
            if self.real_id(id.layer, &stat) != id {
                return Err(Errno::STALE); // another object has the name now
            }
            Ok((Arc::new(fd), id, stat.attr.size))
        })
    }

    /// Opens the data of `inode`, whatever is in the cache.
    fn open_fd(&self, inode: &Arc<Inode>, mode: OFlags) -> Result<Arc<FileFd>> {
        if inode.kind != Kind::File {
            return Err(Errno::INVAL.into());
        }
        let (mut fd, id, size) = self.open_own(inode, mode)?;
        let writable = mode == OFlags::RDWR;
        let mut lent = None;
        if let Some(namespace) = metacopy_of(&fd)? {
            if writable {
                // Nothing had told so far; now it has been brought.
                self.bring_data(inode, ALL)?;
            } else {
                fd = Arc::new(self.find_data(inode, &fd, namespace)?.fd);
                lent = Some(size);
            }
        }
        let mut fd = FileFd::new(fd, id, writable);
        let lasts = self.lasting && Some(id.layer) != self.upper_id();
        fd.end = lasts.then_some(size);
        fd.lent = lent;
        Ok(self.remember_fd(inode, fd))
    }

    /// Reads up to `size` bytes at `offset` into `buffer`, which is replaced; less only at the end.
    ///
    /// # Errors
    /// Those of the layer.
    pub fn read(&self, ino: u64, offset: u64, size: usize, buffer: &mut Vec<u8>) -> Result<()> {
        let inode = self.inode(ino)?;
        let fd = self.read_fd(&inode)?;
        buffer.resize(fd.within(offset, size), 0); // stays that long from read to read, so this seldom does anything
        let mut len = 0;
        while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(fd.fd(), rest, offset.saturating_add(len as u64)) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e).while_doing(|| "read"),
            }
            if fd.end == Some(offset.saturating_add(len as u64)) {
                break;
            }
        }
        buffer.truncate(len);
        Ok(())
    }

    /// Writes `data` at `offset`, all of it or as much as fits.
    ///
    /// # Errors
    /// The upper's, of the copy-up too, if nothing was written.
    pub fn write(&self, ino: u64, offset: u64, data: &[u8], how: &WriteHow) -> Result<Written> {
        let inode = self.inode(ino)?;
        self.permit_write(&inode, offset)?;
        let fd = self.write_fd(&inode)?;
        self.drop_capability(&inode)?;
        let cleared_privileges = match how.clear_privileges {
            Some(caller) => self.clear_privileges(&inode, caller, Cause::Write)?,
            None => false,
        };
        fd.mark_dirty();
        let len = match how.keep_mtime {
            true => {
                let _times = inode.times.lock();
                keeping_mtime(&fd, || write_all(&fd, offset, data))?
            }
            false => write_all(&fd, offset, data)?,
        };
        Ok(Written {
            len,
            cleared_privileges,
        })
    }
    /// fallocate(2) with the modes that the kernel passes on.
    ///
    /// # Errors
    /// The upper's; `EOPNOTSUPP` for another mode.
    pub fn fallocate(
        &self,
        caller: Caller,
        ino: u64,
        offset: u64,
        len: u64,
        mode: u32,
    ) -> Result<bool> {
        let inode = self.inode(ino)?;
        permit(&inode, if mode == 0 { Act::Touch } else { Act::Change })?;
        let fd = self.write_fd(&inode)?;
        let cleared = self.clear_privileges(&inode, caller, Cause::Change)?;
        fd.mark_dirty();
        crate::upper::allocate(fd.fd(), mode, offset, len).while_doing(|| "allocate")?;
        Ok(cleared)
    }

    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`.
    ///
    /// # Errors
    /// `ENXIO` behind the end; `EINVAL` for another `whence`.
    pub fn seek(&self, ino: u64, offset: u64, whence: i32) -> Result<u64> {
        /// `SEEK_DATA` and `SEEK_HOLE` of lseek(2).
        const DATA: i32 = 3;
        const HOLE: i32 = 4;
        let inode = self.inode(ino)?;
        let fd = self.read_fd(&inode)?;
        let from = match whence {
            DATA => SeekFrom::Data(offset),
            HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL.into()),
        };
        let found = rustix::fs::seek(fd.fd(), from)?;
        match fd.lent {
            Some(size) if offset >= size || (whence == DATA && found >= size) => {
                Err(Errno::NXIO.into())
            }
            Some(size) => Ok(found.min(size)),
            None => Ok(found),
        }
    }

    /// copy_file_range(2) between two files of the view; shares blocks where the layers can.
    ///
    /// # Errors
    /// Those of the layers; `EXDEV` where they cannot (the kernel then copies itself).
    pub fn copy_file_range(
        &self,
        caller: Caller,
        from: (u64, u64),
        to: (u64, u64),
        len: usize,
    ) -> Result<Written> {
        let (source, target) = (self.inode(from.0)?, self.inode(to.0)?);
        self.permit_write(&target, to.1)?;
        let out = self.write_fd(&target)?;
        // After the copy-up, for both may be one file.
        let input = self.read_fd(&source)?;
        let cleared_privileges = self.clear_privileges(&target, caller, Cause::Change)?;
        out.mark_dirty();
        let (mut read, mut written) = (from.1, to.1);
        let len = input.within(read, len);
        let len = rustix::fs::copy_file_range(
            input.fd(),
            Some(&mut read),
            out.fd(),
            Some(&mut written),
            len,
        )?;
        Ok(Written {
            len,
            cleared_privileges,
        })
    }

    /// Waits until what was written to a file is on disk; without its times if `data_only`.
    ///
    /// # Errors
    /// The upper's; also one of before that nobody was told yet.
    pub fn fsync(&self, ino: u64, data_only: bool) -> Result<()> {
        let inode = self.inode(ino)?;
        let Some(upper) = self.upper.as_ref().filter(|u| !u.volatile) else {
            return Ok(());
        };
        if inode.id().layer != upper.layer {
            return Ok(()); // nothing of it was ever changed
        }
        if let Some(e) = inode.write_error.take() {
            return Err(e).while_doing(|| "sync (an error of before)");
        }
        let mut fd = self.read_fd(&inode)?;
        if fd.is_lent() {
            // What was changed is the copy itself.
            let (own, id, _) = self.open_own(&inode, OFlags::RDONLY)?;
            fd = Arc::new(FileFd::new(own, id, false));
        }
        // Before the sync, so that a write that comes meanwhile counts again.
        let was_dirty = fd.dirty.swap(false, Ordering::Relaxed);
        // The name of a copy may not be on disk yet, which fdatasync does not see to.
        let synced = if data_only && !inode.state().has_origin {
            rustix::fs::fdatasync(fd.fd())
        } else {
            rustix::fs::fsync(fd.fd())
        };
        synced
            .inspect_err(|_| fd.dirty.store(was_dirty, Ordering::Relaxed))
            .while_doing(|| "sync")
    }

    /// Waits until the names of a directory are on disk.
    ///
    /// # Errors
    /// The upper's.
    pub fn fsync_dir(&self, ino: u64) -> Result<()> {
        let dir = self.dir(ino)?;
        let Some(upper) = self.upper.as_ref().filter(|u| !u.volatile) else {
            return Ok(());
        };
        if dir.id().layer != upper.layer {
            return Ok(());
        }
        let fd = self
            .with_place(&dir, |place| place.open(OFlags::RDONLY | OFlags::DIRECTORY))
            .while_doing(|| "open a directory to sync it")?;
        rustix::fs::fsync(fd).while_doing(|| "sync a directory")
    }

    /// Says that the mount is gone: see [`crate::upper::Upper::retire`].
    pub fn retire(&self) {
        if let Some(upper) = &self.upper {
            upper.retire();
        }
    }

    /// Waits until everything written so far is on disk. Nothing to wait for in a volatile mount.
    ///
    /// # Errors
    /// The upper's.
    pub fn sync_all(&self) -> Result<()> {
        match &self.upper {
            Some(upper) if !upper.volatile => upper.sync().while_doing(|| "sync the upper"),
            _ => Ok(()),
        }
    }

    /// Housekeeping, about once a second: gives up writable descriptors that are idle.
    pub fn housekeep(&self) {
        let now = now_ms();
        for (ino, fd) in self.file_fds.values() {
            let idle = now.saturating_sub(fd.used_ms.load(Ordering::Relaxed)) >= IDLE_MS;
            if let Some(inode) = self
                .table
                .get(ino)
                .filter(|_| fd.writable && idle && !fd.keep)
            {
                self.downgrade(&inode, &fd);
            }
        }
        self.tidy_memory();
    }

    /// Replaces a writable descriptor by one for reading. It keeps the file's unreported write
    /// errors alive, for the kernel reports them to descriptors that were open by then. One that
    /// its file's mode forbids the daemon to open again stays, until the file is forgotten.
    fn downgrade(&self, inode: &Arc<Inode>, old: &Arc<FileFd>) {
        let root = rustix::process::geteuid().is_root();
        let again = |mode| self.with_place(inode, |place| place.open_quiet(mode));
        let reopened = if root || again(OFlags::WRONLY).is_ok() {
            again(OFlags::RDONLY)
        } else {
            Err(Errno::ACCESS)
        };
        let (fd, writable) = match reopened {
            Ok(fd) => (Ok(fd), false),
            Err(_) => (rustix::io::fcntl_dupfd_cloexec(&old.fd, 0), true),
        };
        let Some(fd) = best_effort("give up a writable descriptor", fd) else {
            return;
        };
        let mut fd = FileFd::new(fd, old.id, writable);
        fd.keep = writable;
        fd.dirty.store(old.is_dirty(), Ordering::Relaxed);
        self.remember_fd(inode, fd);
    }

    /// Syncs a file on nobody's behalf; its next fsync tells the error.
    fn sync_for_good(&self, ino: u64, fd: &FileFd) {
        let Some(inode) = self.table.get(ino) else {
            return;
        };
        fd.dirty.store(false, Ordering::Relaxed);
        if self.upper.as_ref().is_some_and(|u| u.volatile) {
            return;
        }
        let synced = rustix::fs::fsync(&fd.fd);
        if let Err(e) = synced {
            inode.write_error.set(e);
        }
        best_effort("sync a file in the background", synced);
    }
}
