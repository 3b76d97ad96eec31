//! Reads one directory of one layer: what it shows, what it deletes, whether it is opaque.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawDir};

use super::look::MetRedirect;
use super::place::{Stat, split_names, value};
use crate::attr::{Attr, Kind};
use crate::error::{Errno, Result, WhileDoing};
use crate::marker::opaque::{self, Opacity};
use crate::marker::whiteout::{Class, WH_OPAQUE, WhFiles, classify};
use crate::marker::xattr::{Marker, Namespace};
use crate::name::{Name, NameBuf};

/// An object in a directory of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// Its name.
    pub name: NameBuf,
    /// Its kind.
    pub kind: Kind,
}

/// What one directory of one layer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects, in the order of the disk.
    pub entries: Vec<ListEntry>,
    /// Names that are deleted by an entry of the same name (device or xattr).
    pub whiteouts: Vec<NameBuf>,
    /// Names that are deleted by a `.wh.` file: an object of the name beside it stays.
    pub wh_files: Vec<NameBuf>,
    /// Nothing below this directory shows.
    pub opaque: bool,
    /// It holds objects with an origin marker.
    pub impure: bool,
    /// Its lower part lies at another path.
    pub redirect: Option<MetRedirect>,
}

/// Whether a directory's descriptor can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// It was just opened for reading.
    Yes,
    /// It is open `O_PATH`, or was listed before.
    No,
}

/// Reads the directory `dir`.
///
/// # Errors
/// Those of open(2), getdents(2) and statx(2), with what was being done.
pub fn scan(dir: BorrowedFd<'_>, readable: Readable, wh_files: WhFiles) -> Result<Listing> {
    match readable {
        Readable::Yes => scan_open(dir, wh_files),
        Readable::No => scan_open(open_again(dir)?.as_fd(), wh_files),
    }
}

fn open_again(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = |extra| rustix::fs::openat(dir, ".", flags | extra, Mode::empty());
    match open(OFlags::NOATIME) {
        Err(Errno::PERM) => open(OFlags::empty()),
        result => result,
    }
    .while_doing(|| "open a directory of a layer")
}

fn scan_open(fd: BorrowedFd<'_>, wh_files: WhFiles) -> Result<Listing> {
    let mut listing = Listing::default();
    let opacity = read_opacity(fd, &mut listing).while_doing(|| "read opaque markers")?;
    let mut scan = Scan {
        fd,
        wh_files,
        opacity,
        last_whiteout: None,
        listing,
    };
    scan.read().while_doing(|| "list a directory of a layer")?;
    Ok(scan.listing)
}

/// Reads the markers on the directory itself.
fn read_opacity(fd: BorrowedFd<'_>, listing: &mut Listing) -> Result<Opacity> {
    let mut buffer = [0u8; 4096];
    let len = match rustix::fs::flistxattr(fd, &mut buffer[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Opacity::Clear),
        Ok(len) => Some(len),
        Err(Errno::RANGE | Errno::TOOBIG) => None, // more names than fit: ask for each marker
        Err(e) => return Err(e.into()),
    };
    let names = len.map(|len| split_names(buffer.get(..len).unwrap_or_default()));
    let present = |name: &str| match &names {
        Some(names) => names.iter().any(|n| **n == *name.as_bytes()),
        None => true,
    };
    listing.impure = Namespace::ALL
        .iter()
        .any(|namespace| present(namespace.name(Marker::Impure)));
    listing.redirect = MetRedirect::find(|name| match present(name) {
        true => value(|buffer| rustix::fs::fgetxattr(fd, name, buffer)),
        false => Err(Errno::NODATA),
    })?;
    let mut found = Opacity::Clear;
    for name in opaque::xattr_names()
        .into_iter()
        .filter(|name| present(name))
    {
        let mut value = [0u8; 16];
        match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
            Ok(len) => match opaque::decode(value.get(..len).unwrap_or_default()) {
                Opacity::Opaque => {
                    listing.opaque = true;
                    return Ok(Opacity::Opaque);
                }
                Opacity::MayHoldXattrWhiteouts => found = Opacity::MayHoldXattrWhiteouts,
                Opacity::Clear => {}
            },
            Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

struct Scan<'a> {
    fd: BorrowedFd<'a>,
    wh_files: WhFiles,
    opacity: Opacity,
    /// Inode of the whiteout seen last: whiteouts are hard links of one, so most need no look.
    last_whiteout: Option<u64>,
    listing: Listing,
}

impl Scan<'_> {
    fn read(&mut self) -> Result<(), Errno> {
        let mut buffer = Vec::with_capacity(64 * 1024);
        let mut entries = RawDir::new(self.fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.entry(name, Kind::from_file_type(entry.file_type()), entry.ino())?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &Name, kind: Option<Kind>, ino: u64) -> Result<(), Errno> {
        let kind = match kind {
            Some(kind) => kind,
            None => match Stat::at(self.fd, name) {
                Ok(stat) => stat.attr.kind,
                Err(Errno::NOENT) => return Ok(()), // gone since it was listed
                Err(e) => return Err(e),
            },
        };
        match classify(name, kind, self.wh_files) {
            Class::Hidden => {}
            Class::Opaque => self.listing.opaque = true,
            Class::Whiteout(target) => self.listing.wh_files.push(target.into()),
            Class::Object if self.is_whiteout(name, kind, ino)? => {
                self.listing.whiteouts.push(name.into());
            }
            Class::Object => self.listing.entries.push(ListEntry {
                name: name.into(),
                kind,
            }),
        }
        Ok(())
    }

    /// Looks at an object that may be a whiteout. One that the daemon may not look at is shown, so that
    /// its own error shows too; with any other error the listing fails, for a whiteout that is taken
    /// for an object would show what is deleted.
    fn is_whiteout(&mut self, name: &Name, kind: Kind, ino: u64) -> Result<bool, Errno> {
        if kind == Kind::CharDev && self.last_whiteout == Some(ino) {
            return Ok(true);
        }
        let may_be = match kind {
            Kind::CharDev => true,
            Kind::File => {
                self.opacity == Opacity::MayHoldXattrWhiteouts
                    || name == WH_OPAQUE && self.listing.opaque
            }
            _ => false,
        };
        if !may_be {
            return Ok(false);
        }
        let stat = match Stat::at(self.fd, name) {
            Ok(stat) => stat.attr,
            Err(Errno::NOENT | Errno::ACCESS) => return Ok(false),
            Err(e) => return Err(e),
        };
        if kind == Kind::CharDev {
            let found = stat.kind == Kind::CharDev && stat.rdev == 0;
            self.last_whiteout = found.then_some(ino).or(self.last_whiteout);
            return Ok(found);
        }
        if self.opacity == Opacity::MayHoldXattrWhiteouts {
            return Ok(stat.size == 0 && has_whiteout_xattr(self.fd, name)?);
        }
        Ok(is_by_the_way(&stat))
    }
}

/// Whether a `.wh..wh..opq` is what fuse-overlayfs writes in every directory that it makes opaque, in
/// uppers whose deletions are not `.wh.` files too. Nothing of that name is to be seen there.
fn is_by_the_way(stat: &Attr) -> bool {
    stat.size == 0 && stat.perm == 0o700
}

/// Whether `name` in `dir` carries the whiteout xattr, in either namespace, with any value.
///
/// # Errors
/// Those of listxattr(2), but for layers without attributes, which have none, and for what the daemon
/// may not look at.
pub fn has_whiteout_xattr(dir: BorrowedFd<'_>, name: &Name) -> Result<bool, Errno> {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let none = [
        Errno::OPNOTSUPP,
        Errno::NODATA,
        Errno::ACCESS,
        Errno::NOENT,
        Errno::NOSYS,
    ];
    let answer = |result: Result<usize, Errno>| match result {
        Err(e) if none.contains(&e) => Ok(None),
        result => result.map(Some),
    };
    // Nearly always there is no attribute at all, which one call finds out.
    if matches!(
        answer(rustix::fs::llistxattr_query(&*path))?,
        None | Some(0)
    ) {
        return Ok(false);
    }
    for namespace in Namespace::ALL {
        let name = namespace.name(Marker::Whiteout);
        if answer(rustix::fs::lgetxattr_query(&*path, name))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
