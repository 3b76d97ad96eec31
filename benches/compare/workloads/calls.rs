//! Single system calls in a loop, on names that the kernel has seen.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use rustix::fs::{AtFlags, Mode, OFlags, fgetxattr, fstat, open, openat, statat, unlinkat};
use rustix::io::{Errno, read, write};

use super::Workload;
use super::tools::cpus;
use crate::layers::Which;
use crate::row::{Goal, each};
use crate::session::{MADE, Native, Session};

/// The row that shows what any request takes, whatever it asks for.
pub const A_REQUEST: &str = "request";

/// How many files the loops go round.
const FILES: usize = 100;

pub const ALL: &[Workload] = &[
    Workload {
        name: "calls",
        layers: Which::Debian,
        native: Native::Shared,
        rows: &[
            each("open-close", "open+close, warm", Goal::Kernel(1.1), 3.0),
            each(
                "open-read-close",
                "open+fstat+read+close, warm",
                Goal::Kernel(1.1),
                3.0,
            ),
            each("stat", "stat, warm", Goal::Kernel(1.1), 3.0),
            each(
                "stat-missing",
                "stat of a missing name, warm",
                Goal::Kernel(1.1),
                3.0,
            ),
            each(
                "open-read-close-cpus",
                "open+fstat+read+close by a thread per CPU",
                Goal::Kernel(1.1),
                3.0,
            ),
            each(
                "stat-cpus",
                "stat by a thread per CPU",
                Goal::Kernel(1.1),
                3.0,
            ),
        ],
        run: calls,
    },
    Workload {
        name: "request",
        layers: Which::Debian,
        native: Native::Shared,
        rows: &[
            each(
                A_REQUEST,
                "a missing xattr: one request, answered from memory",
                Goal::None,
                0.0,
            ),
            each(
                "request-cpus",
                "the same by a thread per CPU",
                Goal::None,
                0.0,
            ),
        ],
        run: requests,
    },
    Workload {
        name: "create",
        layers: Which::Blank,
        native: Native::Shared,
        rows: &[
            each(
                "create",
                "create+write+close of a new file",
                Goal::Kernel(2.5),
                1.0,
            ),
            each("unlink-new", "unlink of a new file", Goal::Kernel(2.0), 1.0),
            each(
                "create-cpus",
                "create+write+close by a thread per CPU",
                Goal::Kernel(2.5),
                1.0,
            ),
            each(
                "unlink-new-cpus",
                "unlink by a thread per CPU",
                Goal::Kernel(2.0),
                1.0,
            ),
        ],
        run: create_unlink,
    },
];

pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

fn open_close(dir: impl AsFd, name: &Path) -> Result<()> {
    drop(openat(dir, name, OFlags::RDONLY, Mode::empty())?);
    Ok(())
}

fn open_read_close(dir: impl AsFd, name: &Path) -> Result<()> {
    let file = openat(dir, name, OFlags::RDONLY, Mode::empty())?;
    fstat(&file)?;
    let mut buffer = [0; 8192];
    read(&file, &mut buffer)?;
    Ok(())
}

pub fn stat(dir: impl AsFd, name: &Path) -> Result<()> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

pub fn stat_missing(dir: impl AsFd, name: &Path) -> Result<()> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        _ => bail!("{} is there", name.display()),
    }
}

pub fn create(dir: impl AsFd, name: &Path) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    write(&file, &[b'x'; 100])?;
    Ok(())
}

pub fn unlink(dir: impl AsFd, name: &Path) -> Result<()> {
    Ok(unlinkat(dir, name, AtFlags::empty())?)
}

/// Does something with so many names, beginning anew when they are through.
pub fn over(
    dir: &OwnedFd,
    names: &[PathBuf],
    count: usize,
    call: fn(&OwnedFd, &Path) -> Result<()>,
) -> Result<()> {
    let names = names.iter().cycle().take(count);
    names.into_iter().try_for_each(|name| call(dir, name))
}

/// Deals the names out to a thread for each CPU, each of which does `count` calls.
fn over_by_all(
    dir: &OwnedFd,
    names: &[PathBuf],
    count: usize,
    call: fn(&OwnedFd, &Path) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let shares = names.chunks(names.len().div_ceil(cpus()));
        let threads: Vec<_> = shares
            .map(|share| scope.spawn(move || over(dir, share, count, call)))
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })
}

fn calls(session: &mut Session<'_>) -> Result<()> {
    let many = session.sizes.operations;
    let files = some_files(session);
    let missing: Vec<PathBuf> = files.iter().map(|file| file.with_extension("no")).collect();
    session.mount()?;
    session.meet_daemon()?;
    let dir = open_dir(&session.mnt)?;
    over(&dir, &files, 2 * files.len(), |dir, name| {
        open_read_close(dir, name)
    })?;
    over(&dir, &missing, missing.len(), |dir, name| {
        stat_missing(dir, name)
    })?;
    session.time("open-close", many, |_| {
        over(&dir, &files, many, |dir, name| open_close(dir, name))
    })?;
    session.time("open-read-close", many, |_| {
        over(&dir, &files, many, |dir, name| open_read_close(dir, name))
    })?;
    session.time("stat", many, |_| {
        over(&dir, &files, many, |dir, name| stat(dir, name))
    })?;
    session.time("stat-missing", many, |_| {
        over(&dir, &missing, many, |dir, name| stat_missing(dir, name))
    })?;
    let each = many / cpus();
    session.time("open-read-close-cpus", each * cpus(), |_| {
        over_by_all(&dir, &files, each, |dir, name| open_read_close(dir, name))
    })?;
    session.time("stat-cpus", each * cpus(), |_| {
        over_by_all(&dir, &files, each, |dir, name| stat(dir, name))
    })
}

fn getxattr_missing(dir: impl AsFd, name: &Path) -> Result<()> {
    let file = openat(dir, name, OFlags::RDONLY, Mode::empty())?;
    match fgetxattr(&file, "user.none", &mut [0; 16]) {
        Err(Errno::NODATA) => Ok(()),
        _ => bail!("{} has user.none", name.display()),
    }
}

/// The kernel keeps no extended attribute of a FUSE filesystem: it asks each time.
fn requests(session: &mut Session<'_>) -> Result<()> {
    let each = session.sizes.operations / cpus();
    let files = some_files(session);
    session.mount()?;
    session.meet_daemon()?;
    let dir = open_dir(&session.mnt)?;
    over(&dir, &files, files.len(), |dir, name| {
        getxattr_missing(dir, name)
    })?;
    session.time(A_REQUEST, each, |_| {
        over(&dir, &files, each, |dir, name| getxattr_missing(dir, name))
    })?;
    session.time("request-cpus", each * cpus(), |_| {
        over_by_all(&dir, &files, each, |dir, name| getxattr_missing(dir, name))
    })
}

/// Some of the files, from all over the tree.
fn some_files(session: &Session<'_>) -> Vec<PathBuf> {
    let all = &session.set.files;
    let step = (all.len() / FILES).max(1);
    all.iter().step_by(step).take(FILES).cloned().collect()
}

fn create_unlink(session: &mut Session<'_>) -> Result<()> {
    let many = session.sizes.operations / 4;
    let names: Vec<PathBuf> = (0..many).map(|n| format!("new{n}").into()).collect();
    session.mount()?;
    session.meet_daemon()?;
    let dir = open_dir(&session.at(MADE))?;
    session.time("create", many, |_| {
        over(&dir, &names, many, |dir, name| create(dir, name))
    })?;
    session.time("unlink-new", many, |_| {
        over(&dir, &names, many, |dir, name| unlink(dir, name))
    })?;
    let each = many.div_ceil(cpus());
    let many = each * cpus();
    let names: Vec<PathBuf> = (0..many).map(|n| format!("also{n}").into()).collect();
    session.time("create-cpus", many, |_| {
        over_by_all(&dir, &names, each, |dir, name| create(dir, name))
    })?;
    session.time("unlink-new-cpus", many, |_| {
        over_by_all(&dir, &names, each, |dir, name| unlink(dir, name))
    })
}
