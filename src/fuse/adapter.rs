//! The requests: each decoded, passed to the union, its result encoded.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use super::control;
use super::convert::{file_attr, file_type, nothing, time_change};
use super::counters::Op;
use super::server::IoMode;
use super::shared::{Shared, caller, empty, xattr};
use super::weight::{Disk, Weight};
use crate::attr::Kind;
use crate::error;
use crate::ops::{
    Change, DirItem, NewObject, Outdated, Perm, RenameMode, SetAttr, TimeChange, Union, WriteHow,
};

/// The largest write the kernel sends at once.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background: with few, a handful of writes
/// that wait for a copy-up would stop all readahead.
const MAX_BACKGROUND: u16 = 512;

/// The filesystem as fuser sees it.
#[derive(Debug)]
pub(super) struct Adapter {
    shared: Arc<Shared>,
}

impl Adapter {
    pub(super) fn new(shared: Arc<Shared>) -> Adapter {
        Adapter { shared }
    }

    fn create_object(
        &self,
        op: Op,
        req: &Request,
        (parent, name): (INodeNo, &OsStr),
        object: NewObject<'_>,
        perm: Perm,
        reply: ReplyEntry,
    ) {
        let result = self.shared.call(op, parent, |union| {
            union.create(caller(req), parent.0, name.as_bytes(), object, perm)
        });
        self.shared.changed(parent);
        self.shared.entry(result, reply);
    }

    /// Runs `job` here, or on another thread if it may take long.
    fn dispatch(&self, weight: Weight, job: impl FnOnce(&Shared) + Send + 'static) {
        if self.shared.gauges.run_here(weight) {
            return self.shared.gauges.measure(weight, || job(&self.shared));
        }
        let shared = Arc::clone(&self.shared);
        self.shared
            .pool
            .run(move || shared.gauges.measure(weight, || job(&shared)));
    }

    /// What a request weighs that has to copy so many bytes first. A panic here is left for the
    /// request itself to meet.
    fn weigh(&self, bytes: impl FnOnce(&Union) -> Option<u64>) -> Weight {
        let found = catch_unwind(AssertUnwindSafe(|| bytes(&self.shared.union)));
        Weight::of_copy(found.unwrap_or_default())
    }

    /// What a change of an object weighs, for it may have to be copied up first.
    fn change(&self, ino: INodeNo, change: Change) -> Weight {
        self.weigh(|union| union.needs_copy(ino.0, change))
    }
}

// Argument lists are fuser's.
#[allow(clippy::too_many_arguments)]
impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let options = &self.shared.options;
        let mut wanted = vec![
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // v2, never v1, and never neither: else every write is preceded by a GETXATTR.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ];
        if options.handle_free() {
            wanted.extend([
                InitFlags::FUSE_NO_OPEN_SUPPORT,
                InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            ]);
        }
        if options.writeback && self.shared.union.is_writable() {
            wanted.push(InitFlags::FUSE_WRITEBACK_CACHE);
        }
        if options.io == IoMode::Direct {
            wanted.push(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        }
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!("this kernel has no {flag:?}");
            }
        }
        let acl = InitFlags::FUSE_POSIX_ACL | InitFlags::FUSE_DONT_MASK;
        if self.shared.union.has_acls() && config.add_capabilities(acl).is_ok() {
            self.shared.dont_mask.store(true, Ordering::Relaxed);
        }
        for limited in [
            config.set_max_write(MAX_WRITE).err(),
            config
                .set_max_readahead(MAX_WRITE)
                .err()
                .filter(|max| *max > 0),
        ] {
            tracing::trace!("kernel's limit: {limited:?}");
        }
        if config.set_max_background(MAX_BACKGROUND).is_err() {
            tracing::debug!("the number of background requests could not be set");
        }
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let result = self.shared.call(Op::Lookup, parent, |union| {
            union.lookup(parent.0, name.as_bytes())
        });
        match result {
            Err(e) if e == Errno::ENOENT && !self.shared.ttl().is_zero() => {
                reply.entry(&self.shared.ttl(), &nothing(), Generation(0));
            }
            result => self.shared.entry(result, reply),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        // No turn: they come many to a request, and one of them may not keep the rest waiting.
        // Nobody waits for an answer; the failure of a panic is logged.
        let forgotten = self.shared.call(Op::Forget, ino, |union| {
            union.forget(ino.0, nlookup);
            Ok(())
        });
        self.shared.forgotten(ino);
        if let Err(e) = forgotten {
            tracing::debug!("forget of inode {}: {e:?}", ino.0);
        }
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        match self
            .shared
            .call(Op::Getattr, ino, |union| union.getattr(ino.0))
        {
            Ok(attr) => reply.attr(&self.shared.ttl(), &file_attr(&attr)),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let mut change = SetAttr {
            perm: mode.map(|m| m & 0o7777),
            uid,
            gid,
            size,
            atime: time_change(atime),
            mtime: time_change(mtime),
        };
        let caller = caller(req);
        let weight = self.change(ino, size.map_or(Change::Attributes, |_| Change::Data));
        // With writeback the kernel keeps the time and sends one with every size that is another.
        let keep_mtime = self.shared.options.writeback && size.is_some() && mtime.is_none();
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Setattr, ino, |union| {
                if keep_mtime {
                    change.mtime = TimeChange::To(union.getattr(ino.0)?.mtime);
                }
                union.setattr(caller, ino.0, &change)
            });
            match result {
                Ok(attr) => reply.attr(&shared.ttl(), &file_attr(&attr)),
                Err(e) => reply.error(e),
            }
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        match self
            .shared
            .call(Op::Readlink, ino, |union| union.readlink(ino.0))
        {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(e),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let object = match Kind::from_mode(mode) {
            kind @ (Kind::Fifo | Kind::Socket) => NewObject::Special(kind),
            kind @ (Kind::CharDev | Kind::BlockDev) => NewObject::Device(kind, rdev.into()),
            Kind::File | Kind::Dir | Kind::Symlink => NewObject::File,
        };
        let perm = self.shared.perm(mode, umask);
        self.create_object(Op::Mknod, req, (parent, name), object, perm, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let perm = self.shared.perm(mode, umask);
        self.create_object(Op::Mkdir, req, (parent, name), NewObject::Dir, perm, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let object = NewObject::Symlink(target.as_os_str().as_bytes());
        let perm = Perm {
            perm: 0o777,
            umask: 0,
        };
        self.create_object(Op::Symlink, req, (parent, link_name), object, perm, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let name = name.as_bytes().to_vec();
        let weight = self.weigh(|union| union.needs_copy_to_remove(parent.0, &name));
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Unlink, parent, |union| union.unlink(parent.0, &name));
            shared.changed(parent);
            empty(result, reply);
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let name = name.as_bytes();
        let result = self
            .shared
            .call(Op::Rmdir, parent, |union| union.rmdir(parent.0, name));
        self.shared.changed(parent);
        empty(result, reply);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let mode = match flags {
            f if f.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let (name, newname) = (name.as_bytes().to_vec(), newname.as_bytes().to_vec());
        let weight = self
            .weigh(|union| union.child_needs_copy(parent.0, &name))
            .and(self.weigh(|union| union.child_needs_copy(newparent.0, &newname)));
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Rename, parent, |union| {
                union.rename(parent.0, &name, newparent.0, &newname, mode)
            });
            shared.changed(parent);
            shared.changed(newparent);
            empty(result, reply);
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let newname = newname.as_bytes().to_vec();
        let weight = self.change(ino, Change::Attributes);
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Link, ino, |union| {
                union.link(ino.0, newparent.0, &newname)
            });
            shared.changed(newparent);
            shared.entry(result, reply);
        });
    }

    fn open(&self, req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        if self.shared.options.handle_free() {
            return reply.error(self.shared.refuse(Op::Open));
        }
        self.shared.counters.count(Op::Open, Duration::ZERO, false);
        let flags = match self.shared.options.io {
            IoMode::Direct => FopenFlags::FOPEN_DIRECT_IO,
            IoMode::Cached => FopenFlags::empty(),
        };
        reply.opened(FileHandle(0), flags);
    }

    fn opendir(&self, req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        if self.shared.options.handle_free() {
            return reply.error(self.shared.refuse(Op::Opendir));
        }
        self.shared
            .counters
            .count(Op::Opendir, Duration::ZERO, false);
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn create(
        &self,
        req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        // The kernel sends MKNOD instead: a handle given here would never be released.
        reply.error(self.shared.refuse(Op::Create));
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        thread_local! {
            static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        BUFFER.with_borrow_mut(|buffer| {
            let result = self.shared.call(Op::Read, ino, |union| {
                union.read(ino.0, offset, size as usize, buffer)
            });
            match result {
                Ok(()) => reply.data(buffer),
                Err(e) => reply.error(e),
            }
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let clear = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let how = WriteHow {
            clear_privileges: clear.then(|| caller(req)),
            keep_mtime: cached && self.shared.options.writeback,
        };
        let weight = self.change(ino, Change::Data);
        if weight == Weight::Light {
            let result = self.shared.call(Op::Write, ino, |union| {
                union.write(ino.0, offset, data, &how)
            });
            return self.shared.written(ino, result, reply);
        }
        let data = data.to_vec();
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Write, ino, |union| {
                union.write(ino.0, offset, &data, &how)
            });
            shared.written(ino, result, reply);
        });
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        reply.error(self.shared.refuse(Op::Flush));
    }

    fn fsync(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        self.dispatch(Weight::Unsure(Disk::Sync), move |shared| {
            empty(
                shared.call(Op::Fsync, ino, |union| union.fsync(ino.0, datasync)),
                reply,
            );
        });
    }

    fn fsyncdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        self.dispatch(Weight::Unsure(Disk::Sync), move |shared| {
            empty(
                shared.call(Op::Fsyncdir, ino, |union| union.fsync_dir(ino.0)),
                reply,
            );
        });
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let mut any = false;
        let mut add = |item: &DirItem<'_>| {
            any = true;
            let kind = file_type(item.attr.kind);
            !reply.add(
                INodeNo(item.attr.ino),
                item.cookie,
                kind,
                OsStr::from_bytes(item.name),
            )
        };
        self.shared.begin_listing(ino, offset);
        let result = self.shared.call(Op::Readdir, ino, |union| {
            union.read_dir(ino.0, offset, false, &mut add)
        });
        if !any {
            self.shared.end_listing(ino);
        }
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let ttl = self.shared.ttl();
        let mut any = false;
        let mut add = |item: &DirItem<'_>| {
            any = true;
            let ttl = if item.unknown { Duration::ZERO } else { ttl };
            let (attr, name) = (file_attr(&item.attr), OsStr::from_bytes(item.name));
            !reply.add(
                INodeNo(item.attr.ino),
                item.cookie,
                name,
                &ttl,
                &attr,
                Generation(0),
            )
        };
        self.shared.begin_listing(ino, offset);
        let result = self.shared.call(Op::Readdirplus, ino, |union| {
            union.read_dir(ino.0, offset, true, &mut add)
        });
        if !any {
            self.shared.end_listing(ino);
        }
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        match self.shared.call(Op::Statfs, ino, Union::statfs) {
            Ok(s) => reply.statfs(
                s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.frsize,
            ),
            Err(e) => reply.error(e),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let name = name.as_bytes();
        if control::is_control(ino.0, name) {
            return reply.error(Errno::EPERM);
        }
        let (caller, name, value) = (caller(req), name.to_vec(), value.to_vec());
        let weight = self.change(ino, Change::Attributes);
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Setxattr, ino, |union| {
                union.setxattr(caller, ino.0, &name, &value, flags as u32)
            });
            if result.is_ok() && Union::changes_mode(&name) {
                shared.invalidate_attributes(ino);
            }
            empty(result, reply);
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let name = name.as_bytes();
        if control::is_control(ino.0, name) {
            let (caller, name) = (caller(req), name.to_vec());
            if control::is_refresh(&name) {
                let shared = Arc::clone(&self.shared);
                return self.shared.flushes.run(move || {
                    let tell = |outdated: &Outdated| shared.forget(outdated);
                    let result = shared.call(Op::Getxattr, ino, |union| {
                        control::refresh(union, caller, &name, tell)
                    });
                    xattr(result, size, reply);
                });
            }
            return self.dispatch(Weight::Heavy, move |shared| {
                let result = shared.call(Op::Getxattr, ino, |union| {
                    control::answer(union, &shared.counters, &shared.inspect, caller, &name)
                });
                xattr(result, size, reply);
            });
        }
        let result = self
            .shared
            .call(Op::Getxattr, ino, |union| union.getxattr(ino.0, name));
        xattr(result, size, reply);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let result = self.shared.call(Op::Listxattr, ino, |union| {
            let mut list = Vec::new();
            for name in union.listxattr(caller(req), ino.0)? {
                list.extend_from_slice(&name);
                list.push(0);
            }
            Ok(list)
        });
        xattr(result, size, reply);
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let (caller, name) = (caller(req), name.as_bytes().to_vec());
        let weight = self.change(ino, Change::Attributes);
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Removexattr, ino, |union| {
                union.removexattr(caller, ino.0, &name)
            });
            if result.is_ok() && Union::changes_mode(&name) {
                shared.invalidate_attributes(ino);
            }
            empty(result, reply);
        });
    }

    fn access(&self, req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        // Permissions are the kernel's to check (default_permissions).
        reply.error(self.shared.refuse(Op::Access));
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let (weight, input) = (self.change(ino, Change::Attributes), in_data.to_vec());
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Ioctl, ino, |union| union.ioctl(ino.0, cmd, &input));
            match result {
                Ok(answer) => {
                    let len = answer.data.len().min(out_size as usize);
                    reply.ioctl(0, answer.data.get(..len).unwrap_or_default());
                }
                Err(e) => reply.error(e),
            }
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let caller = caller(req);
        let weight = self
            .change(ino, Change::Data)
            .and(Weight::Unsure(Disk::Copy));
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::Fallocate, ino, |union| {
                union.fallocate(caller, ino.0, offset, length, mode as u32)
            });
            if result == Ok(true) {
                shared.invalidate_attributes(ino);
            }
            empty(result.map(drop), reply);
        });
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        // The layer knows nothing of pages that are still to be written: what was written through
        // a mapping, or (with the writeback cache) at all. A file with such pages may yet be one
        // of a lower: its first write copies it up.
        let flush = self.shared.options.io == IoMode::Cached && self.shared.union.is_writable();
        let job = move |shared: &Shared| {
            if flush {
                shared.flush_pages(ino);
            }
            let result = shared.call(Op::Lseek, ino, |union| {
                let offset = u64::try_from(offset).map_err(|_| error::Errno::NXIO)?;
                union.seek(ino.0, offset, whence)
            });
            match result {
                Ok(at) => reply.offset(at as i64),
                Err(e) => reply.error(e),
            }
        };
        if !flush {
            return job(&self.shared);
        }
        let shared = Arc::clone(&self.shared);
        self.shared.flushes.run(move || job(&shared));
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _turn = self.shared.readers.begin_turn(req.pid());
        let caller = caller(req);
        let copied = |union: &Union| Some(union.bytes_from(ino_in.0, offset_in).min(len));
        let weight = self.change(ino_out, Change::Data).and(self.weigh(copied));
        self.dispatch(weight, move |shared| {
            let result = shared.call(Op::CopyFileRange, ino_out, |union| {
                // The reply has 32 bits for the length.
                let len = len.min(1 << 30) as usize;
                union.copy_file_range(caller, (ino_in.0, offset_in), (ino_out.0, offset_out), len)
            });
            shared.written(ino_out, result, reply);
        });
    }
}
