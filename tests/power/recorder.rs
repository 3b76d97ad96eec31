//! A disk that remembers every write and every flush in order: a file served over FUSE, for a loop device.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::kit::{Scratch, must, sys};

/// The name of the only file.
const NAME: &str = "disk";
const DISK: INodeNo = INodeNo(2);
/// Nobody but the reader of the file changes it.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// What the disk was told.
#[derive(Clone)]
pub enum Event {
    Write(u64, Vec<u8>),
    /// All that was written before is safe.
    Flush,
}

#[derive(Default)]
pub struct Log(Mutex<Vec<Event>>);

impl Log {
    /// How many events there were: a moment.
    pub fn now(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }
}

struct Server {
    image: std::fs::File,
    log: Arc<Log>,
}

impl Server {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_disk = ino == DISK;
        let size = if is_disk {
            self.image.metadata().unwrap().len()
        } else {
            0
        };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOREVER, &self.attr(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut data = vec![0; size as usize];
        match self.image.read_at(&mut data, offset) {
            Ok(count) => reply.data(&data[..count]),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut events = self.log.0.lock().unwrap();
        match self.image.write_all_at(data, offset) {
            Ok(()) => {
                events.push(Event::Write(offset, data.to_vec()));
                reply.written(data.len() as u32);
            }
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.log.0.lock().unwrap().push(Event::Flush);
        reply.ok();
    }
}

/// A filesystem on a recording disk. Unmount what lies on it before [`Disk::detach`] or drop.
pub struct Disk {
    pub log: Arc<Log>,
    session: Option<BackgroundSession>,
    scratch: Scratch,
}

impl Disk {
    /// Makes the filesystem, keeps its image as it was made at [`Disk::base`], and mounts it.
    pub fn new(mkfs: &[&str], megabytes: u64) -> Disk {
        let scratch = Scratch::new();
        let [base, image, served, fs] =
            ["base", "image", "served", "fs"].map(|n| scratch.path().join(n));
        sys::mkdir(&served, 0o755).unwrap();
        sys::mkdir(&fs, 0o755).unwrap();
        sys::put(&base, b"").unwrap();
        sys::truncate(&base, megabytes << 20).unwrap();
        must(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&base));
        copy(&base, &image);
        let log = Arc::new(Log::default());
        let server = Server {
            image: std::fs::File::options()
                .read(true)
                .write(true)
                .open(&image)
                .unwrap(),
            log: log.clone(),
        };
        let session = fuser::spawn_mount(server, &served, &Config::default()).unwrap();
        let disk = Disk {
            log,
            session: Some(session),
            scratch,
        };
        must(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(served.join(NAME))
                .arg(&fs),
        );
        disk
    }

    /// The image before anything was recorded.
    pub fn base(&self) -> PathBuf {
        self.scratch.path().join("base")
    }

    /// Where the filesystem is mounted.
    pub fn fs(&self) -> PathBuf {
        self.scratch.path().join("fs")
    }
}

impl Disk {
    /// Unmounts it, so that a copy of it may be mounted: XFS and btrfs refuse two of one UUID.
    pub fn detach(&mut self) {
        // The loop device lets go of the file a moment after the filesystem is unmounted.
        for name in ["fs", "served"] {
            let point = self.scratch.path().join(name);
            let deadline = Instant::now() + Duration::from_secs(10);
            while sys::is_mounted(&point) && sys::umount(&point, 0).is_err() {
                if Instant::now() > deadline {
                    let lazily = sys::umount(&point, libc::MNT_DETACH);
                    eprintln!("{}: stayed busy; lazily: {lazily:?}", point.display());
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        drop(self.session.take());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Copies an image; holes stay holes.
pub fn copy(from: &Path, to: &Path) {
    must(Command::new("cp").arg("--sparse=always").arg(from).arg(to));
}
