//! The system calls the tests make, as plain functions that answer a value or an errno.
//!
//! Every pointer handed to the kernel here comes from a Rust value that outlives the call.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An error number that prints its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

pub type Res<T> = Result<T, Errno>;

const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EIO, "EIO"),
    (libc::ENXIO, "ENXIO"),
    (libc::EBADF, "EBADF"),
    (libc::EACCES, "EACCES"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::EXDEV, "EXDEV"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::EFBIG, "EFBIG"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::EROFS, "EROFS"),
    (libc::EMLINK, "EMLINK"),
    (libc::ERANGE, "ERANGE"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::ELOOP, "ELOOP"),
    (libc::ENODATA, "ENODATA"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ESTALE, "ESTALE"),
];

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

fn last() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn ret(r: libc::c_int) -> Res<()> {
    if r < 0 { Err(last()) } else { Ok(()) }
}

fn len(r: isize) -> Res<usize> {
    usize::try_from(r).map_err(|_| last())
}

fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).expect("a path without NUL")
}

/// What stat(2) says, with only the parts a test may rely on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blocks: u64,
    pub mtime: (i64, i64),
    pub atime: (i64, i64),
    pub ctime: (i64, i64),
}

impl Stat {
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub fn perm(&self) -> u32 {
        self.mode & 0o7777
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }
}

fn stat_with(call: impl FnOnce(*mut libc::stat) -> libc::c_int) -> Res<Stat> {
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    ret(call(&raw mut st))?;
    Ok(Stat {
        dev: st.st_dev,
        ino: st.st_ino,
        mode: st.st_mode,
        nlink: st.st_nlink,
        uid: st.st_uid,
        gid: st.st_gid,
        rdev: st.st_rdev,
        size: st.st_size as u64,
        blocks: st.st_blocks as u64,
        mtime: (st.st_mtime, st.st_mtime_nsec),
        atime: (st.st_atime, st.st_atime_nsec),
        ctime: (st.st_ctime, st.st_ctime_nsec),
    })
}

pub fn lstat(path: impl AsRef<Path>) -> Res<Stat> {
    let path = c(path);
    stat_with(|st| unsafe { libc::lstat(path.as_ptr(), st) })
}

pub fn stat(path: impl AsRef<Path>) -> Res<Stat> {
    let path = c(path);
    stat_with(|st| unsafe { libc::stat(path.as_ptr(), st) })
}

pub fn fstat(fd: &impl AsRawFd) -> Res<Stat> {
    stat_with(|st| unsafe { libc::fstat(fd.as_raw_fd(), st) })
}

pub fn exists(path: impl AsRef<Path>) -> bool {
    lstat(path).is_ok()
}

pub fn open(path: impl AsRef<Path>, flags: i32, mode: u32) -> Res<OwnedFd> {
    let fd = unsafe { libc::open(c(path).as_ptr(), flags | libc::O_CLOEXEC, mode) };
    ret(fd)?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn pread(fd: &impl AsRawFd, offset: u64, count: usize) -> Res<Vec<u8>> {
    let mut buf = vec![0_u8; count];
    let n = len(unsafe {
        libc::pread(
            fd.as_raw_fd(),
            buf.as_mut_ptr().cast(),
            count,
            offset as i64,
        )
    })?;
    buf.truncate(n);
    Ok(buf)
}

pub fn pwrite(fd: &impl AsRawFd, offset: u64, data: &[u8]) -> Res<usize> {
    len(unsafe {
        libc::pwrite(
            fd.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            offset as i64,
        )
    })
}

pub fn write(fd: &impl AsRawFd, data: &[u8]) -> Res<usize> {
    len(unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) })
}

/// Creates or truncates a file and writes `data`.
pub fn put(path: impl AsRef<Path>, data: &[u8]) -> Res<()> {
    let fd = open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, 0o644)?;
    let mut done = 0;
    while done < data.len() {
        done += write(&fd, &data[done..])?;
    }
    Ok(())
}

/// Writes over what is there, without truncating.
pub fn overwrite(path: impl AsRef<Path>, offset: u64, data: &[u8]) -> Res<()> {
    let fd = open(path, libc::O_WRONLY, 0)?;
    assert_eq!(pwrite(&fd, offset, data)?, data.len(), "short write");
    Ok(())
}

pub fn append(path: impl AsRef<Path>, data: &[u8]) -> Res<()> {
    let fd = open(path, libc::O_WRONLY | libc::O_APPEND, 0)?;
    assert_eq!(write(&fd, data)?, data.len(), "short write");
    Ok(())
}

/// The whole content of a file.
pub fn get(path: impl AsRef<Path>) -> Res<Vec<u8>> {
    let fd = open(
        path,
        libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK,
        0,
    )?;
    get_fd(&fd)
}

/// The whole content of an open file, whatever its position.
pub fn get_fd(fd: &impl AsRawFd) -> Res<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let part = pread(fd, all.len() as u64, 1 << 18)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend(part);
    }
}

/// The content as text; for asserting.
pub fn text(path: impl AsRef<Path>) -> String {
    match get(path) {
        Ok(data) => String::from_utf8_lossy(&data).into_owned(),
        Err(errno) => format!("{errno:?}"),
    }
}

pub fn mkdir(path: impl AsRef<Path>, mode: u32) -> Res<()> {
    ret(unsafe { libc::mkdir(c(path).as_ptr(), mode) })
}

/// `mode` carries the type.
pub fn mknod(path: impl AsRef<Path>, mode: u32, rdev: u64) -> Res<()> {
    ret(unsafe { libc::mknod(c(path).as_ptr(), mode, rdev) })
}

pub fn makedev(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

pub fn symlink(target: impl AsRef<Path>, path: impl AsRef<Path>) -> Res<()> {
    ret(unsafe { libc::symlink(c(target).as_ptr(), c(path).as_ptr()) })
}

pub fn readlink(path: impl AsRef<Path>) -> Res<Vec<u8>> {
    let mut buf = vec![0_u8; 4096];
    let n = len(unsafe { libc::readlink(c(path).as_ptr(), buf.as_mut_ptr().cast(), buf.len()) })?;
    buf.truncate(n);
    Ok(buf)
}

pub fn link(old: impl AsRef<Path>, new: impl AsRef<Path>) -> Res<()> {
    ret(unsafe { libc::link(c(old).as_ptr(), c(new).as_ptr()) })
}

pub fn unlink(path: impl AsRef<Path>) -> Res<()> {
    ret(unsafe { libc::unlink(c(path).as_ptr()) })
}

pub fn rmdir(path: impl AsRef<Path>) -> Res<()> {
    ret(unsafe { libc::rmdir(c(path).as_ptr()) })
}

pub fn rename(old: impl AsRef<Path>, new: impl AsRef<Path>) -> Res<()> {
    rename2(old, new, 0)
}

pub fn rename2(old: impl AsRef<Path>, new: impl AsRef<Path>, flags: u32) -> Res<()> {
    let (old, new) = (c(old), c(new));
    let r = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            old.as_ptr(),
            libc::AT_FDCWD,
            new.as_ptr(),
            flags,
        )
    };
    ret(r)
}

pub fn truncate(path: impl AsRef<Path>, size: u64) -> Res<()> {
    ret(unsafe { libc::truncate(c(path).as_ptr(), size as i64) })
}

pub fn ftruncate(fd: &impl AsRawFd, size: u64) -> Res<()> {
    ret(unsafe { libc::ftruncate(fd.as_raw_fd(), size as i64) })
}

pub fn fallocate(fd: &impl AsRawFd, mode: i32, offset: u64, count: u64) -> Res<()> {
    ret(unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset as i64, count as i64) })
}

pub fn lseek(fd: &impl AsRawFd, offset: i64, whence: i32) -> Res<i64> {
    let r = unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) };
    if r < 0 { Err(last()) } else { Ok(r) }
}

pub fn copy_file_range(
    from: &impl AsRawFd,
    from_offset: u64,
    to: &impl AsRawFd,
    to_offset: u64,
    count: usize,
) -> Res<usize> {
    let (mut off_in, mut off_out) = (from_offset as i64, to_offset as i64);
    len(unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            &raw mut off_in,
            to.as_raw_fd(),
            &raw mut off_out,
            count,
            0,
        )
    })
}

pub fn fsync(fd: &impl AsRawFd) -> Res<()> {
    ret(unsafe { libc::fsync(fd.as_raw_fd()) })
}

pub fn fdatasync(fd: &impl AsRawFd) -> Res<()> {
    ret(unsafe { libc::fdatasync(fd.as_raw_fd()) })
}

pub fn chmod(path: impl AsRef<Path>, mode: u32) -> Res<()> {
    ret(unsafe { libc::chmod(c(path).as_ptr(), mode) })
}

pub fn fchmod(fd: &impl AsRawFd, mode: u32) -> Res<()> {
    ret(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })
}

pub fn lchown(path: impl AsRef<Path>, uid: u32, gid: u32) -> Res<()> {
    ret(unsafe { libc::lchown(c(path).as_ptr(), uid, gid) })
}

pub fn fchown(fd: &impl AsRawFd, uid: u32, gid: u32) -> Res<()> {
    ret(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) })
}

fn spec((tv_sec, tv_nsec): (i64, i64)) -> libc::timespec {
    libc::timespec { tv_sec, tv_nsec }
}

/// Sets access and modification time; never follows a symlink.
pub fn utimens(path: impl AsRef<Path>, atime: (i64, i64), mtime: (i64, i64)) -> Res<()> {
    let times = [spec(atime), spec(mtime)];
    let (at, flags) = (libc::AT_FDCWD, libc::AT_SYMLINK_NOFOLLOW);
    ret(unsafe { libc::utimensat(at, c(path).as_ptr(), times.as_ptr(), flags) })
}

pub fn set_mtime(path: impl AsRef<Path>, mtime: (i64, i64)) -> Res<()> {
    utimens(path, (0, libc::UTIME_OMIT), mtime)
}

pub fn futimens(fd: &impl AsRawFd, atime: (i64, i64), mtime: (i64, i64)) -> Res<()> {
    let times = [spec(atime), spec(mtime)];
    ret(unsafe { libc::futimens(fd.as_raw_fd(), times.as_ptr()) })
}

pub fn setxattr(path: impl AsRef<Path>, name: &str, value: &[u8], flags: i32) -> Res<()> {
    let (path, name) = (c(path), c(name));
    ret(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    })
}

pub fn fsetxattr(fd: &impl AsRawFd, name: &str, value: &[u8], flags: i32) -> Res<()> {
    let (fd, name) = (fd.as_raw_fd(), c(name));
    ret(unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), flags) })
}

pub fn getxattr(path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> Res<Vec<u8>> {
    let mut buf = vec![0_u8; 65536];
    let (path, name) = (c(path), c(name.as_ref()));
    let n = len(unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
        )
    })?;
    buf.truncate(n);
    Ok(buf)
}

/// How long a value is, read into so many bytes.
pub fn getxattr_into(path: impl AsRef<Path>, name: &str, bytes: usize) -> Res<usize> {
    let (path, name, mut buf) = (c(path), c(name), vec![0_u8; bytes]);
    let to = buf.as_mut_ptr().cast();
    len(unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), to, bytes) })
}

/// How long the list of names is, read into so many bytes.
pub fn listxattr_into(path: impl AsRef<Path>, bytes: usize) -> Res<usize> {
    let (path, mut buf) = (c(path), vec![0_u8; bytes]);
    let to = buf.as_mut_ptr().cast();
    len(unsafe { libc::llistxattr(path.as_ptr(), to, bytes) })
}

pub fn fgetxattr(fd: &impl AsRawFd, name: &str) -> Res<Vec<u8>> {
    let mut buf = vec![0_u8; 65536];
    let name = c(name);
    let n = len(unsafe {
        libc::fgetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
        )
    })?;
    buf.truncate(n);
    Ok(buf)
}

pub fn removexattr(path: impl AsRef<Path>, name: &str) -> Res<()> {
    ret(unsafe { libc::lremovexattr(c(path).as_ptr(), c(name).as_ptr()) })
}

/// Names of all visible xattrs, sorted.
pub fn listxattr(path: impl AsRef<Path>) -> Res<Vec<Vec<u8>>> {
    let mut buf = vec![0_u8; 65536];
    let path = c(path);
    let n = len(unsafe { libc::llistxattr(path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) })?;
    buf.truncate(n);
    let mut names: Vec<Vec<u8>> = buf
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    Ok(names)
}

pub fn access(path: impl AsRef<Path>, mode: i32) -> Res<()> {
    let path = c(path);
    let flags = libc::AT_EACCESS;
    ret(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, flags) })
}

pub fn statvfs(path: impl AsRef<Path>) -> Res<libc::statvfs> {
    let mut st: libc::statvfs = unsafe { std::mem::zeroed() };
    ret(unsafe { libc::statvfs(c(path).as_ptr(), &raw mut st) })?;
    Ok(st)
}

const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: libc::c_ulong = 0x4008_6602;

pub fn get_flags(fd: &impl AsRawFd) -> Res<u32> {
    let mut flags: libc::c_long = 0;
    ret(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFLAGS, &raw mut flags) })?;
    Ok(flags as u32)
}

pub fn set_flags(fd: &impl AsRawFd, flags: u32) -> Res<()> {
    let flags = libc::c_long::from(flags);
    ret(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_SETFLAGS, &raw const flags) })
}

const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;

/// Makes a filesystem (ext4, xfs) stop as if its machine had crashed, with all of its journal written
/// but no data (1), or with the journal as it is just now (2).
pub fn shut_down(root: impl AsRef<Path>, how: u32) -> Res<()> {
    let fd = open(root, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    ret(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const how) })
}

/// One name as getdents64(2) tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dirent {
    pub name: Vec<u8>,
    pub ino: u64,
    pub offset: i64,
    pub kind: u8,
}

/// One buffer of names; empty at the end.
pub fn getdents(fd: &impl AsRawFd, buffer: usize) -> Res<Vec<Dirent>> {
    let mut buf = vec![0_u8; buffer];
    let n = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_raw_fd(),
            buf.as_mut_ptr(),
            buf.len(),
        )
    };
    let n = len(n as isize)?;
    let mut entries = Vec::new();
    let mut at = 0;
    while at < n {
        let field = |from: usize, to: usize| &buf[at + from..at + to];
        let size = usize::from(u16::from_ne_bytes(field(16, 18).try_into().unwrap()));
        let name = field(19, size).split(|b| *b == 0).next().unwrap();
        entries.push(Dirent {
            name: name.to_vec(),
            ino: u64::from_ne_bytes(field(0, 8).try_into().unwrap()),
            offset: i64::from_ne_bytes(field(8, 16).try_into().unwrap()),
            kind: buf[at + 18],
        });
        at += size;
    }
    Ok(entries)
}

/// All names of a directory in the order given, without "." and "..".
pub fn list(path: impl AsRef<Path>) -> Res<Vec<Dirent>> {
    let fd = open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut all = list_fd(&fd)?;
    all.retain(|entry| entry.name != b"." && entry.name != b"..");
    Ok(all)
}

/// All names from the current position on, "." and ".." included.
pub fn list_fd(fd: &impl AsRawFd) -> Res<Vec<Dirent>> {
    let mut all = Vec::new();
    loop {
        let part = getdents(fd, 1 << 16)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend(part);
    }
}

/// Sorted names as text.
pub fn names(path: impl AsRef<Path>) -> Vec<String> {
    let path = path.as_ref();
    let entries = list(path).unwrap_or_else(|e| panic!("listing {}: {e:?}", path.display()));
    let mut names: Vec<String> = entries
        .iter()
        .map(|e| String::from_utf8_lossy(&e.name).into_owned())
        .collect();
    names.sort();
    names
}

/// Removes a tree as `rm -r` does: in the order in which the directory lists it.
pub fn remove_tree(path: impl AsRef<Path>) -> Res<()> {
    let path = path.as_ref();
    if !lstat(path)?.is_dir() {
        return unlink(path);
    }
    for entry in list(path)? {
        remove_tree(path.join(OsStr::from_bytes(&entry.name)))?;
    }
    rmdir(path)
}

/// A mapping of an open file; unmapped on drop.
pub struct Map {
    address: *mut libc::c_void,
    size: usize,
}

impl Map {
    pub fn new(fd: &impl AsRawFd, size: usize, prot: i32, flags: i32) -> Res<Map> {
        let null = std::ptr::null_mut();
        let address = unsafe { libc::mmap(null, size, prot, flags, fd.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            Err(last())
        } else {
            Ok(Map { address, size })
        }
    }

    pub fn shared(fd: &impl AsRawFd, size: usize) -> Res<Map> {
        Map::new(
            fd,
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
        )
    }

    pub fn bytes(&self) -> &[u8] {
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.size) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.size) }
    }

    pub fn sync(&self) -> Res<()> {
        ret(unsafe { libc::msync(self.address, self.size, libc::MS_SYNC) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.address, self.size) };
    }
}

pub fn mount(
    source: &str,
    target: impl AsRef<Path>,
    kind: &str,
    flags: u64,
    data: &OsStr,
) -> Res<()> {
    let (source, target, kind, data) = (c(source), c(target), c(kind), c(data));
    ret(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
}

pub fn umount(target: impl AsRef<Path>, flags: i32) -> Res<()> {
    ret(unsafe { libc::umount2(c(target).as_ptr(), flags) })
}

/// Lets this process open as many files as it may.
pub fn raise_descriptor_limit() {
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

/// Sets the umask of the whole process.
pub fn umask(mask: u32) {
    unsafe { libc::umask(mask) };
}

/// Whether something is mounted right there.
pub fn is_mounted(target: impl AsRef<Path>) -> bool {
    let wanted = target.as_ref().as_os_str().to_string_lossy().into_owned();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(&wanted))
}

pub fn kill(pid: u32, signal: i32) -> Res<()> {
    ret(unsafe { libc::kill(pid as i32, signal) })
}

/// Lets the kernel forget every clean name and inode that is not in use.
pub fn drop_caches() {
    std::fs::write("/proc/sys/vm/drop_caches", "2").expect("the right to drop caches");
}

/// Runs `work` in a thread that has become another user, without any capability.
pub fn as_user<T: Send>(uid: u32, gid: u32, work: impl FnOnce() -> T + Send) -> T {
    in_thread(move || {
        // The raw calls change this thread only; libc's would change the whole process.
        unsafe {
            assert_eq!(
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()),
                0
            );
            assert_eq!(libc::syscall(libc::SYS_setresgid, gid, gid, gid), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
        }
        work()
    })
}

/// Runs `work` in a thread with a umask of its own.
pub fn with_umask<T: Send>(umask: u32, work: impl FnOnce() -> T + Send) -> T {
    in_thread(move || {
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_FS), 0, "unshare(CLONE_FS)");
            libc::umask(umask);
        }
        work()
    })
}

/// Runs `work` in a thread that has `root` as its root directory.
pub fn in_root<T: Send>(root: &Path, work: impl FnOnce() -> T + Send) -> T {
    in_thread(|| {
        unsafe { assert_eq!(libc::unshare(libc::CLONE_FS), 0, "unshare(CLONE_FS)") };
        ret(unsafe { libc::chroot(c(root).as_ptr()) }).unwrap();
        work()
    })
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Bytes that differ at every offset and for every seed, so that a shifted or foreign block shows.
pub fn pattern(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(size).collect()
}
