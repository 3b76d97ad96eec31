//! Copy-up: the whole object of a lower, built in the workdir.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, XattrFlags};

use super::change::{SetTime, set_times};
use super::stage::Staged;
use super::workdir::Upper;
use crate::attr::{Attr, Kind};
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::{Place, Stat};
use crate::marker::acl;
use crate::marker::override_stat::OverrideStat;
use crate::marker::xattr::{Marker, OnDisk, shown};
use crate::name::NameBuf;

/// Up to so many bytes, a read and a write are cheaper than asking for holes and sharing blocks.
const BY_HAND: u64 = 128 * 1024;

/// Large files are copied in parts of so many bytes.
const PART: u64 = 8 << 20;

/// What to copy.
#[derive(Debug)]
pub struct Source<'a> {
    /// Where it lies.
    pub place: &'a Place,
    /// Its attributes.
    pub attr: &'a Attr,
    /// The names of its extended attributes.
    pub names: &'a [NameBuf],
    /// What of its data to copy.
    pub content: Content<'a>,
    /// Markers to set on the copy.
    pub markers: &'a [(Marker, Vec<u8>)],
}

/// The data of an object that is copied up.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// It has none.
    Nothing,
    /// The first `len` bytes of this file, of which `sparse` says whether it has holes.
    File {
        /// Where the data is: mostly the object itself.
        from: &'a OwnedFd,
        /// How many bytes.
        len: u64,
        /// Whether to look for holes.
        sparse: bool,
    },
    /// None of it: the copy gets the size, and this marker that says that its data lies below.
    Below(&'a [u8]),
}

/// A copy in the workdir.
#[derive(Debug)]
pub struct Copied<'a> {
    /// The copy, not visible yet.
    pub staged: Staged<'a>,
    /// How many bytes of data were copied.
    pub bytes: u64,
    /// The descriptor of a regular file.
    pub fd: Option<Arc<OwnedFd>>,
    /// The origin marker was written: a lower leads to the copy also after a remount.
    pub has_origin: bool,
}

impl Copied<'_> {
    /// Attributes of the copy.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn stat(&self) -> Result<Stat, Errno> {
        match &self.fd {
            Some(fd) => Stat::at(fd.as_fd(), b""),
            None => self.staged.place().stat(),
        }
    }
}

impl Upper {
    /// Copies an object into the workdir: data, attributes, extended attributes, markers; safe
    /// from a crash unless volatile.
    ///
    /// # Errors
    /// Those of either side, with what was being done; nothing is left behind.
    pub fn stage_copy(&self, source: &Source<'_>) -> Result<Copied<'_>> {
        let attr = source.attr;
        let (staged, made) = self
            .make_like(source)
            .while_doing(|| "create in the workdir")?;
        // By descriptor where there is one: cheaper than by name.
        let to = match made {
            Some(fd) => Place::File(fd),
            None => staged.place(),
        };
        let bytes = match (source.content, &to) {
            (Content::File { from, len, sparse }, Place::File(to)) => {
                self.copy_file(from, to, len, sparse)
                    .while_doing(|| "copy data up")?;
                len
            }
            (Content::Below(marker), Place::File(to)) => {
                self.mark_metacopy(to, attr.size, marker)?;
                0
            }
            _ => 0,
        };
        // The owner before the attributes: changing it drops file capabilities.
        let shown = OverrideStat::of(attr);
        self.give_owner(&to, &shown)?;
        self.copy_xattrs(source.names, source.place, &to)?;
        let mut has_origin = false;
        for (marker, value) in source.markers {
            // Before the mode: it may forbid to set attributes.
            let set = self.set_marker(&to, *marker, value)?;
            has_origin |= set && *marker == Marker::Origin;
        }
        self.give_mode(&to, &shown)?;
        // What is cut short has changed: a crash may come before the cut itself says so.
        let mtime = match source.content {
            Content::File { len, .. } if len < attr.size => SetTime::Now,
            _ => SetTime::To(attr.mtime),
        };
        set_times(&to, SetTime::To(attr.atime), mtime).while_doing(|| "copy the times")?;
        let fd = match to {
            Place::File(fd) => Some(fd),
            Place::At(..) | Place::Fd(_) => None,
        };
        if let Some(fd) = fd.as_ref().filter(|_| bytes > 0) {
            self.safety.apply(fd).while_doing(|| "sync a copy")?;
        }
        Ok(Copied {
            staged,
            bytes,
            fd,
            has_origin,
        })
    }

    /// The same for an object without data.
    ///
    /// # Errors
    /// Those of [`Self::stage_copy`].
    pub fn stage_dataless(
        &self,
        place: &Place,
        attr: &Attr,
        markers: &[(Marker, Vec<u8>)],
    ) -> Result<Copied<'_>> {
        let names = place
            .list_xattrs()
            .while_doing(|| "list attributes of an object")?;
        self.stage_copy(&Source {
            place,
            attr,
            names: &names,
            content: Content::Nothing,
            markers,
        })
    }

    fn copy_file(&self, from: &OwnedFd, to: &OwnedFd, len: u64, sparse: bool) -> Result<(), Errno> {
        if len <= BY_HAND && !sparse && !self.reflink {
            return copy_by_hand(from, to, 0, len);
        }
        let safety = self.safety;
        copy_data(from, to, len, |part| safety.start(to, part))
    }

    /// Makes an empty file that nobody sees yet a metadata-only copy.
    fn mark_metacopy(&self, file: &Arc<OwnedFd>, size: u64, marker: &[u8]) -> Result<()> {
        rustix::fs::ftruncate(file, size).while_doing(|| "give a copy its size")?;
        let place = Place::File(Arc::clone(file));
        match self.set_marker(&place, Marker::Metacopy, marker)? {
            true => Ok(()),
            false => Err(Errno::OPNOTSUPP).while_doing(|| "mark a copy as one without data"),
        }
    }

    /// Gives a metadata-only copy, which lies in the upper already, the first `len` bytes of its
    /// data, safe from a crash. Its marker is the caller's to remove.
    ///
    /// # Errors
    /// Those of either file.
    pub fn fill(&self, from: &OwnedFd, to: &OwnedFd, len: u64, sparse: bool) -> Result<(), Errno> {
        // What an earlier try has left lies where the data may have holes.
        let stat = rustix::fs::fstat(to)?;
        if stat.st_blocks > 0 && stat.st_size > 0 {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            best_effort(
                "empty a metadata-only copy",
                rustix::fs::fallocate(to, flags, 0, stat.st_size as u64),
            );
        }
        if len > 0 {
            self.copy_file(from, to, len, sparse)?;
            self.safety.apply(to)?;
        }
        Ok(())
    }

    /// Copies those of the extended attributes `names` that are not markers. Access control lists come
    /// along, for they are attributes.
    fn copy_xattrs(&self, names: &[NameBuf], from: &Place, to: &Place) -> Result<()> {
        // What is a user's own (escaped) is copied as it lies on disk.
        for name in names.iter().filter(|n| shown(n) != OnDisk::Private) {
            if is_label(name) {
                continue;
            }
            let Some(target) = self.name_of_copy(name) else {
                continue;
            };
            let Some(value) = from
                .get_xattr(name)
                .while_doing(|| "read an attribute of a lower")?
            else {
                continue;
            };
            match to.set_xattr(&target, &value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) if !must_be_copied(name) => left_out(name),
                Err(e) => {
                    return Err(e)
                        .while_doing(|| format!("copy attribute {}", name.escape_ascii()));
                }
            }
        }
        Ok(())
    }

    /// Makes an empty object of the source's kind, for its owner only.
    fn make_like(&self, source: &Source<'_>) -> Result<(Staged<'_>, Option<Arc<OwnedFd>>), Errno> {
        let mode = Mode::from_raw_mode(0o600);
        let kind = self.kind_on_disk(source.attr.kind);
        if kind == Kind::File && self.unnamed_files.load(Ordering::Relaxed) {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let file = Arc::new(rustix::fs::openat(&self.work, ".", flags, mode)?);
            return Ok((Staged::unnamed(self, Arc::clone(&file)), Some(file)));
        }
        let (work, name) = (&self.work, self.temp_name());
        let mut file = None;
        match kind {
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
                let made = rustix::fs::openat(work, &*name, flags | OFlags::CLOEXEC, mode)?;
                file = Some(Arc::new(made));
            }
            Kind::Dir => rustix::fs::mkdirat(work, &*name, Mode::from_raw_mode(0o700))?,
            Kind::Symlink => {
                rustix::fs::symlinkat(&*source.place.read_link()?, work, &*name)?;
            }
            kind => {
                let rdev = source.attr.rdev;
                rustix::fs::mknodat(work, &*name, kind.file_type(), mode, rdev)?;
            }
        }
        Ok((Staged::adopt(self, name), file))
    }
}

/// A label that belongs to the place of an object: the system gives the copy one of its own.
fn is_label(name: &[u8]) -> bool {
    name == b"security.selinux" || name == b"security.evm"
}

/// Whether an object must not be without this attribute: it says who may do what, or what the object
/// may do (kernel: fs/overlayfs, `ovl_must_copy_xattr`).
fn must_be_copied(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT || name.starts_with(b"security.")
}

/// Says that the upper's filesystem does not take an attribute: loudly once, for it will not take the
/// next one either.
fn left_out(name: &[u8]) {
    static SAID: AtomicBool = AtomicBool::new(false);
    let name = name.escape_ascii();
    match SAID.swap(true, Ordering::Relaxed) {
        false => tracing::warn!("the upper cannot hold attribute {name}: copies are without it"),
        true => tracing::debug!("attribute {name} is not copied up"),
    }
}

/// Copies the first `len` bytes of `from` to `to`, which has no data, and gives it that size. Shares
/// the blocks where the filesystem can, leaves holes as holes. `copied` is told of each part but the
/// last, behind which the caller goes on.
///
/// # Errors
/// Those of either file.
fn copy_data(
    from: &OwnedFd,
    to: &OwnedFd,
    len: u64,
    copied: impl Fn(Range<u64>),
) -> Result<(), Errno> {
    if len == 0 {
        return Ok(());
    }
    let whole = rustix::fs::fstat(from)?.st_size as u64 <= len;
    if whole && rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()).is_ok() {
        return Ok(());
    }
    // Gives the file its size first, so that a hole at its end stays one.
    if (rustix::fs::fstat(to)?.st_size as u64) < len {
        rustix::fs::ftruncate(to, len)?;
    }
    let mut at = 0;
    while at < len {
        let (start, end) = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) if start >= len => break,
            Ok(start) => {
                let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
                (start, end.min(len))
            }
            Err(Errno::NXIO) => break, // a hole up to the end
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => (at, len), // no idea of holes
            Err(e) => return Err(e),
        };
        let mut part = start;
        while part < end {
            let next = end.min(part + PART);
            copy_range(from, to, part, next)?;
            if next < len {
                copied(part..next);
            }
            part = next;
        }
        at = end;
    }
    Ok(())
}

/// Copies the bytes from `start` to `end`.
fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let chunk = (end - read) as usize;
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), chunk) {
            Ok(1..) => {}
            // Some filesystems answer 0 for what they cannot do: the reads find the real end.
            Ok(0) => return copy_by_hand(from, to, read, end),
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::IO) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let mut buffer = vec![0u8; (end - start).min(1 << 20) as usize];
    let mut at = start;
    while at < end {
        let want = buffer.len().min((end - at) as usize);
        let got = rustix::io::pread(from, buffer.get_mut(..want).unwrap_or_default(), at)?;
        if got == 0 {
            return Ok(());
        }
        let mut data = buffer.get(..got).unwrap_or_default();
        while !data.is_empty() {
            let n = rustix::io::pwrite(to, data, at)?;
            at += n as u64;
            data = data.get(n..).unwrap_or_default();
        }
    }
    Ok(())
}

/// fallocate(2) as FUSE passes it on.
///
/// # Errors
/// Those of fallocate(2).
pub fn allocate(fd: &OwnedFd, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
    let flags = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
    rustix::fs::fallocate(fd, flags, offset, len)
}
