//! Finds out, in the workdir, what the upper's filesystem really can do: some say yes and lie.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};

use super::safety::EXT4;

use crate::attr::Kind;
use crate::error::Errno;
use crate::layer::{Place, Stat};
use crate::marker::whiteout::Dialect;
use crate::marker::xattr::{Marker, Namespace};
use crate::name::Name;

/// What was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abilities {
    /// Character devices 0/0 can be made, found again and renamed.
    pub(super) chardev: bool,
    /// `RENAME_WHITEOUT` works.
    pub(super) rename_whiteout: bool,
    /// `RENAME_EXCHANGE` works.
    pub(super) exchange: bool,
    /// The xattr namespace in which markers can be written.
    pub(super) namespace: Option<Namespace>,
}

impl Abilities {
    /// Tries everything in `work`, an empty directory, and cleans up behind itself.
    ///
    /// # Errors
    /// A lack of space or the like, from which nothing follows about what works.
    pub(super) fn probe(work: BorrowedFd<'_>) -> Result<Abilities, Errno> {
        probe_space(work)?;
        Ok(Abilities {
            chardev: probe_chardev(work),
            rename_whiteout: probe_rename_whiteout(work),
            exchange: probe_exchange(work),
            namespace: Namespace::ALL
                .into_iter()
                .find(|ns| probe_namespace(work, *ns)),
        })
    }

    /// The form of deletions that works here, the kernel's first. One that lies at the name itself
    /// has to change places with a directory.
    pub(super) fn best_dialect(&self) -> Dialect {
        match (self.chardev, self.namespace) {
            _ if !self.exchange => Dialect::File,
            // No attribute can say that a directory made anew is opaque; a file in it can.
            (_, None) => Dialect::File,
            (true, Some(_)) => Dialect::CharDev,
            (false, Some(_)) => Dialect::Xattr,
        }
    }
}

/// Filesystems on which a file without a name that gets one takes less time than one that is
/// renamed (measured: ext4 33 us against 48; it is no gain where that needs an entry in a tree).
const QUICK_UNNAMED: [u64; 2] = [EXT4, TMPFS];
/// `TMPFS_MAGIC`.
const TMPFS: u64 = 0x0102_1994;

/// Whether to build files without a name (`O_TMPFILE`) in `work`.
pub(super) fn probe_unnamed(work: BorrowedFd<'_>) -> bool {
    let magic = rustix::fs::fstatfs(work).map(|s| s.f_type as u64);
    if !magic.is_ok_and(|m| QUICK_UNNAMED.contains(&m)) {
        return false;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let linked = rustix::fs::openat(work, ".", flags, Mode::from_raw_mode(0o600)).and_then(|fd| {
        let place = Place::File(Arc::new(fd));
        let (path, _) = place.proc_path();
        rustix::fs::linkat(CWD, &*path, work, A, AtFlags::SYMLINK_FOLLOW)
    });
    let works = linked.is_ok() && Stat::at(work, A).is_ok_and(|s| s.attr.nlink == 1);
    clean(work);
    works
}

const A: &Name = b"#probe-a";
const B: &Name = b"#probe-b";

fn is_whiteout(dir: BorrowedFd<'_>, name: &Name) -> bool {
    Stat::at(dir, name).is_ok_and(|s| s.attr.kind == Kind::CharDev && s.attr.rdev == 0)
}

fn clean(work: BorrowedFd<'_>) {
    for name in [A, B] {
        for flags in [AtFlags::empty(), AtFlags::REMOVEDIR] {
            // Most of them are not there: the result says nothing.
            rustix::fs::unlinkat(work, name, flags).ok();
        }
    }
}

/// Makes what any filesystem can make, so that a failure of the other probes means something: two
/// names, and an attribute if there are any.
fn probe_space(work: BorrowedFd<'_>) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o700);
    let made = rustix::fs::mkdirat(work, A, mode).and_then(|()| {
        rustix::fs::mknodat(work, B, FileType::RegularFile, mode, 0)?;
        let place = Place::at(
            std::sync::Arc::new(work.try_clone_to_owned().map_err(|_| Errno::MFILE)?),
            A,
        );
        let (path, _) = place.proc_path();
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::lsetxattr(&*path, "user.unionmount.probe", &[b'x'; 64], flags) {
            Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS)) => Err(e),
            _ => Ok(()),
        }
    });
    clean(work);
    made
}

fn probe_chardev(work: BorrowedFd<'_>) -> bool {
    let made = rustix::fs::mknodat(work, A, FileType::CharacterDevice, Mode::empty(), 0).is_ok();
    let works = made
        && is_whiteout(work, A)
        && rustix::fs::renameat(work, A, work, B).is_ok()
        && is_whiteout(work, B);
    clean(work);
    works
}

fn probe_rename_whiteout(work: BorrowedFd<'_>) -> bool {
    let made = rustix::fs::mknodat(
        work,
        A,
        FileType::RegularFile,
        Mode::from_raw_mode(0o600),
        0,
    )
    .is_ok();
    let works = made
        && rustix::fs::renameat_with(work, A, work, B, RenameFlags::WHITEOUT).is_ok()
        && is_whiteout(work, A)
        && Stat::at(work, B).is_ok_and(|s| s.attr.kind == Kind::File);
    clean(work);
    works
}

fn probe_exchange(work: BorrowedFd<'_>) -> bool {
    let mode = Mode::from_raw_mode(0o700);
    let works = rustix::fs::mkdirat(work, A, mode).is_ok()
        && rustix::fs::mknodat(work, B, FileType::RegularFile, mode, 0).is_ok()
        && rustix::fs::renameat_with(work, A, work, B, RenameFlags::EXCHANGE).is_ok()
        && Stat::at(work, A).is_ok_and(|s| s.attr.kind == Kind::File)
        && Stat::at(work, B).is_ok_and(|s| s.attr.kind == Kind::Dir);
    clean(work);
    works
}

fn probe_namespace(work: BorrowedFd<'_>, namespace: Namespace) -> bool {
    let mode = Mode::from_raw_mode(0o700);
    let name = namespace.name(Marker::Opaque);
    let works = rustix::fs::mkdirat(work, A, mode).is_ok()
        && work.try_clone_to_owned().is_ok_and(|dir| {
            let place = Place::at(dir.into(), A); // keeps the descriptor in the path open
            let (path, _) = place.proc_path();
            rustix::fs::lsetxattr(&*path, name, b"y", rustix::fs::XattrFlags::empty()).is_ok()
                && rustix::fs::lgetxattr_query(&*path, name) == Ok(1)
        });
    clean(work);
    works
}

/// Whether the file at `a` shares its data with a clone: cheap copies.
pub(super) fn probe_reflink(work: BorrowedFd<'_>) -> bool {
    use rustix::fs::OFlags;
    let create = |name: &Name| {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(work, name, flags, Mode::from_raw_mode(0o600))
    };
    let works = match (create(A), create(B)) {
        (Ok(a), Ok(b)) => {
            rustix::io::write(&a, &[0u8; 4096]) == Ok(4096)
                && rustix::fs::ioctl_ficlone(b.as_fd(), a.as_fd()).is_ok()
        }
        _ => false,
    };
    clean(work);
    works
}
