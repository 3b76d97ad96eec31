//! The upper and its workdir: taken for one process alone, cleaned, probed.
//!
//! Layout of the workdir, the kernel's: `work/` for objects in the making (named `#` and a hex
//! number), `index/` for hard links that were copied up, `work/incompat/` for what other users of
//! the upper must know. Ours is one file beside them, `whiteouts`, that records the form of deletions.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use super::form::{self, Form};
use super::holder::Holder;
use super::link_index::{LinkIndex, Origins};
use super::owners::OwnersAside;
use super::probe::{Abilities, probe_reflink, probe_unnamed};
use super::safety::{Durability, Safety};
use crate::attr::Kind;
use crate::error::{Errno, SetupError};
use crate::layer::{Layer, LayerId, Place, Stat, clone_common_mount, supports_acl};
use crate::marker::acl;
use crate::marker::whiteout::Dialect;
use crate::marker::xattr::Namespace;
use crate::name::{Name, NameBuf};

/// The writable layer's own options.
#[derive(Debug, Clone)]
pub struct UpperOptions<'a> {
    /// Directory that receives all changes.
    pub upper: &'a Path,
    /// Its workdir.
    pub work: &'a Path,
    /// The form of deletions.
    pub form: Form,
    /// What is made safe from a crash of the machine.
    pub durability: Durability,
    /// What origin markers say.
    pub origins: Origins,
    /// Nothing will be changed, not even the workdir.
    pub read_only: bool,
}

/// The opened upper: everything that writes goes through it.
#[derive(Debug)]
pub struct Upper {
    /// Its position in the stack: always the first.
    pub layer: LayerId,
    /// `WORKDIR/work`, `O_PATH`.
    pub work: Arc<OwnedFd>,
    /// Form in which deletions are written.
    pub dialect: Dialect,
    /// Namespace of the markers; `None`: none can be written.
    pub namespace: Option<Namespace>,
    /// Never sync.
    pub volatile: bool,
    /// Files without a name work, and are faster than those with one.
    pub(super) unnamed_files: AtomicBool,
    /// What makes copies safe.
    pub safety: Safety,
    /// `RENAME_WHITEOUT` works.
    pub rename_whiteout: bool,
    /// `RENAME_EXCHANGE` works. Where it does not, deletions are `.wh.` files.
    pub exchange: bool,
    /// Access control lists work.
    pub acl: bool,
    /// Where owners are.
    pub owners: OwnersAside,
    /// Copies share their data.
    pub reflink: bool,
    /// Copied-up hard links.
    pub links: LinkIndex,
    /// What origin markers say.
    pub origins: Origins,
    /// Name in `work` of the whiteout that all others are hard links of.
    pub(super) shared_whiteout: Mutex<Option<NameBuf>>,
    counter: AtomicU64,
    /// User and group of this process: those of what it makes.
    pub(super) ids: (u32, u32),
    /// Open for reading, for syncfs; holds the lock on the upper.
    sync: OwnedFd,
    /// Holds the lock on the workdir.
    _lock: OwnedFd,
}

const WORK: &str = "work";
const INDEX: &str = "index";

impl Upper {
    /// Opens upper and workdir, takes them, cleans the workdir and finds out what works there.
    ///
    /// # Errors
    /// They are in use, on different mounts, not writable, or were left by a volatile mount.
    pub fn open(options: &UpperOptions<'_>) -> Result<(Upper, Layer), SetupError> {
        let (upper_fd, work_fd, private) = open_both(options.upper, options.work)?;
        let sync = lock(upper_fd.as_fd(), options.upper, "upper", NOTICE)?;
        let lock = lock(work_fd.as_fd(), options.work, "workdir", WORK_DONE)?;
        let fail = |what: &str, e: Errno| SetupError::at(what, options.work, e);
        refuse_incompat(work_fd.as_fd(), options.work)?;
        let found = match options.read_only {
            true => look(&work_fd, upper_fd.as_fd(), options)?,
            false => prepare(&work_fd, upper_fd.as_fd(), options)?,
        };
        let Found {
            work,
            can,
            dialect,
            acl,
            reflink,
        } = found;
        let links = LinkIndex::open(work_fd, INDEX, options.read_only)
            .map_err(|e| fail("read index of", e))?;
        let layer = Layer::from_root(0, options.upper, dialect.wh_files(), upper_fd, private)?;
        let unnamed_files = !options.read_only && probe_unnamed(work.as_fd());
        let upper = Upper {
            layer: layer.id,
            work,
            dialect,
            namespace: can.namespace,
            volatile: options.durability != Durability::Synced,
            unnamed_files: AtomicBool::new(unnamed_files),
            safety: Safety::of(sync.as_fd(), options.durability),
            exchange: can.exchange,
            rename_whiteout: can.rename_whiteout && dialect == Dialect::CharDev,
            acl,
            owners: OwnersAside::default(),
            reflink,
            links,
            origins: options.origins,
            shared_whiteout: Mutex::new(None),
            counter: AtomicU64::new(0),
            ids: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            sync,
            _lock: lock,
        };
        Ok((upper, layer))
    }

    /// A name in `work` that nothing has.
    pub fn temp_name(&self) -> NameBuf {
        // Relaxed: only uniqueness matters; the workdir was empty when we took it.
        let n = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("#{n:x}").into_bytes().into()
    }

    /// A file without a name was refused one: from now on they have one from the start. Whether that
    /// is news.
    pub fn give_up_unnamed_files(&self) -> bool {
        self.unnamed_files.swap(false, Ordering::Relaxed)
    }

    /// Says that the mount is gone and this process about to end: who mounts the upper again need not
    /// take it for in use. The workdir stays ours to the end, for what is under way.
    pub fn retire(&self) {
        crate::error::best_effort(
            "unlock the upper",
            rustix::fs::flock(&self.sync, FlockOperation::Unlock),
        );
    }

    /// Waits until everything written to the upper's filesystem is on disk.
    ///
    /// # Errors
    /// Those of syncfs(2).
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.sync)
    }

    /// Removes `name` in `work` with all below it. A failure leaves garbage for the next mount to
    /// clean, which is why it is only logged.
    pub fn discard(&self, name: &Name) {
        crate::error::best_effort("clean the workdir", remove_tree(self.work.as_fd(), name));
    }
}

/// Opens both directories within one mount, a private clone where permitted.
fn open_both(upper: &Path, work: &Path) -> Result<(OwnedFd, OwnedFd, bool), SetupError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| {
        rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|e| SetupError::at("open", path, e))
    };
    if let Some((upper, work)) = clone_common_mount(upper, work) {
        return Ok((upper, work, true));
    }
    Ok((open(upper)?, open(work)?, false))
}

/// What the workdir inherited is not to be passed on to everything built in it.
fn drop_acls(work: &Arc<OwnedFd>) {
    let (path, _) = Place::Fd(Arc::clone(work)).proc_path();
    for name in [acl::DEFAULT, acl::ACCESS] {
        match rustix::fs::removexattr(&*path, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => tracing::warn!("the workdir keeps an inherited ACL: {e}"),
        }
    }
}

/// How long a daemon whose mount is gone may take to notice: on a machine that is busy, and because a
/// container that is just starting may hold a copy of the mount, until it has a root of its own.
const NOTICE: Duration = Duration::from_secs(5);
/// How long it may then take to write out what it has.
const WORK_DONE: Duration = Duration::from_secs(30);
/// When to look whether there is anything to wait for: nearly always it has ended before that.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(2);

/// Takes a directory for this process (and the children that inherit the descriptor). Whoever mounts
/// again right after an unmount waits for the daemon of the old mount, up to `patience`; not for one
/// whose mount is still there.
fn lock(
    dir: BorrowedFd<'_>,
    path: &Path,
    what: &str,
    patience: Duration,
) -> Result<OwnedFd, SetupError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, ".", flags, Mode::empty())
        .map_err(|e| SetupError::at("open", path, e))?;
    let start = Instant::now();
    let mut look = LOOK;
    loop {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            Err(Errno::WOULDBLOCK) => {}
            Err(e) => return Err(SetupError::at("lock", path, e)),
        }
        let waited = start.elapsed();
        if waited >= patience.min(look) {
            look = patience;
            let late = waited >= patience;
            let holder = Holder::of(fd.as_fd());
            if late || holder.as_ref().is_some_and(|holder| holder.serves) {
                return Err(in_use(path, what, holder.as_ref()));
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn in_use(path: &Path, what: &str, holder: Option<&Holder>) -> SetupError {
    let whose = match holder {
        Some(Holder { pid, .. }) => format!(" (process {pid})"),
        None => String::new(),
    };
    SetupError::new(format!(
        "{what} {path:?} is in use by another mount{whose}: unmount that first, or give this one its own"
    ))
}

/// What a workdir still has from its last use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Names in it of what was never finished.
    pub unfinished: Vec<NameBuf>,
    /// The mount was volatile, and did not end in order.
    pub volatile: bool,
}

/// Looks into a workdir, without a change.
///
/// # Errors
/// Those of reading it.
pub fn leftovers(workdir: &Path) -> Result<Leftovers, SetupError> {
    let fail = |e: Errno| SetupError::at("read workdir", workdir, e);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, workdir, flags, Mode::empty()).map_err(fail)?;
    let work = match open_dir(dir.as_fd(), WORK.as_bytes()) {
        Err(Errno::NOENT) => return Ok(Leftovers::default()),
        work => work.map_err(fail)?,
    };
    // The whiteout that all others are links of stays there.
    let is_whiteout = |name: &Name| {
        Stat::at(work.as_fd(), name).is_ok_and(|s| s.attr.kind == Kind::CharDev && s.attr.rdev == 0)
    };
    let mut unfinished = entries(work.as_fd()).map_err(fail)?;
    unfinished.retain(|name| **name != *b"incompat" && !is_whiteout(name));
    let volatile = refuse_incompat(dir.as_fd(), workdir).is_err();
    Ok(Leftovers {
        unfinished,
        volatile,
    })
}

/// Refuses an upper whose last user left a mark that we do not understand or that forbids it.
fn refuse_incompat(workdir: BorrowedFd<'_>, path: &Path) -> Result<(), SetupError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let incompat = match rustix::fs::openat(workdir, "work/incompat", flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
        Err(e) => return Err(SetupError::at("read workdir", path, e)),
    };
    let found = entries(incompat.as_fd()).map_err(|e| SetupError::at("read workdir", path, e))?;
    let Some(name) = found.first() else {
        return Ok(());
    };
    let feature = String::from_utf8_lossy(name);
    let marker = path.join("work/incompat").join(&*feature);
    Err(SetupError::new(if feature == "volatile" {
        format!(
            "workdir {path:?} was last used by a volatile mount, so the upper may have lost \
             data if the machine crashed since: check or discard the upper, then remove {marker:?}"
        )
    } else {
        format!("workdir {path:?} was left with the unknown feature {feature:?}: see {marker:?}")
    }))
}

fn mark_volatile(work: BorrowedFd<'_>) -> Result<(), Errno> {
    let incompat = make_dir(work, b"incompat")?;
    let volatile = make_dir(incompat.as_fd(), b"volatile")?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&volatile, "dirty", flags, Mode::from_raw_mode(0o600)).map(drop)
}

/// What is known of an upper before it is used.
struct Found {
    work: Arc<OwnedFd>,
    can: Abilities,
    dialect: Dialect,
    acl: bool,
    reflink: bool,
}

/// Of an upper that will only be read.
fn look(
    workdir: &OwnedFd,
    upper: BorrowedFd<'_>,
    options: &UpperOptions<'_>,
) -> Result<Found, SetupError> {
    let work = workdir
        .try_clone()
        .map_err(|e| SetupError::new(format!("out of descriptors: {e}")));
    let work = Arc::new(work?);
    let can = Abilities {
        chardev: false,
        rename_whiteout: false,
        exchange: false,
        namespace: None,
    };
    let dialect = form::read(workdir.as_fd(), upper, options)?;
    let acl = supports_acl(&Place::Fd(Arc::clone(&work)));
    Ok(Found {
        work,
        can,
        dialect,
        acl,
        reflink: false,
    })
}

/// Of an upper that will be written: cleans the workdir, finds out what works, leaves marks.
fn prepare(
    workdir: &OwnedFd,
    upper: BorrowedFd<'_>,
    options: &UpperOptions<'_>,
) -> Result<Found, SetupError> {
    let fail = |what: &str, e: Errno| SetupError::at(what, options.work, e);
    let work = make_dir(workdir.as_fd(), WORK.as_bytes()).map_err(|e| fail("use workdir", e))?;
    let work = Arc::new(work);
    drop_acls(&work);
    let acl = supports_acl(&Place::Fd(Arc::clone(&work)));
    clean(work.as_fd()).map_err(|e| fail("clean workdir", e))?;
    let can =
        Abilities::probe(work.as_fd()).map_err(|e| fail("try out what works in workdir", e))?;
    let dialect = form::choose(workdir.as_fd(), upper, options, &can)?;
    if options.durability == Durability::Volatile {
        mark_volatile(work.as_fd()).map_err(|e| fail("mark workdir volatile", e))?;
    }
    let reflink = probe_reflink(work.as_fd());
    Ok(Found {
        work,
        can,
        dialect,
        acl,
        reflink,
    })
}

/// Opens directory `name` in `dir`, made if it is missing, and usable by its owner.
pub(super) fn make_dir(dir: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    let fd = open_dir(dir, name)?;
    let stat = Stat::at(fd.as_fd(), b"")?;
    // The kernel leaves mode 0; only root could use that.
    if stat.attr.perm & 0o700 != 0o700 && !rustix::process::geteuid().is_root() {
        crate::sys::attr::chmod_nofollow(dir, name, 0o700)?;
    }
    Ok(fd)
}

/// Opens directory `name` in `dir` as `O_PATH`.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &Name) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// The names in a directory.
pub(super) fn entries(dir: BorrowedFd<'_>) -> Result<Vec<NameBuf>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
    }
    Ok(names)
}

/// Empties a directory.
fn clean(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    for name in entries(dir)? {
        remove_tree(dir, &name)?;
    }
    Ok(())
}

/// Removes `name` in `dir` with all below it; what is gone already is fine. Walks with a stack of
/// its own, for a tree may be deeper than the thread's.
pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &Name) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        result => return result,
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        result => return result,
    }
    let open = |dir: BorrowedFd<'_>, name: &Name| {
        if !rustix::process::geteuid().is_root() {
            // Its mode may forbid its owner to empty it.
            crate::error::best_effort(
                "make a directory removable",
                crate::sys::attr::chmod_nofollow(dir, name, 0o700),
            );
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::empty())
    };
    let top = open(dir, name)?;
    let mut stack = vec![(top, NameBuf::from(name))];
    while let Some((fd, _)) = stack.last() {
        let mut deeper = None;
        for child in entries(fd.as_fd())? {
            match rustix::fs::unlinkat(fd, &*child, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => {}
                result => {
                    result?;
                    continue;
                }
            }
            if rustix::fs::unlinkat(fd, &*child, AtFlags::REMOVEDIR).is_err() {
                deeper = Some((open(fd.as_fd(), &child)?, child));
                break;
            }
        }
        if let Some(deeper) = deeper {
            stack.push(deeper);
        } else if let Some((_, name)) = stack.pop() {
            let parent = stack.last().map_or(dir, |(fd, _)| fd.as_fd());
            rustix::fs::unlinkat(parent, &*name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_tree_is_removed() {
        let scratch = std::env::temp_dir().join(format!("unionmount-deep-{}", std::process::id()));
        std::fs::create_dir_all(scratch.join("a/b/c/d")).unwrap();
        std::fs::write(scratch.join("a/b/f"), "x").unwrap();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, &scratch, flags, Mode::empty()).unwrap();
        remove_tree(dir.as_fd(), b"a").unwrap();
        assert!(!scratch.join("a").exists());
        remove_tree(dir.as_fd(), b"missing").unwrap();
        std::fs::remove_dir(scratch).unwrap();
    }
}
