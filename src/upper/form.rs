//! Which form deletions have in an upper: what was asked for, what the workdir records, what lies
//! there, or the best that works.
//!
//! Whether `.wh.` names have a meaning cannot be changed any more once an upper was written.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use super::probe::Abilities;
use super::workdir::{UpperOptions, open_dir};
use crate::attr::Kind;
use crate::error::{Errno, SetupError};
use crate::layer::Stat;
use crate::marker::whiteout::{Dialect, WH_PREFIX};
use crate::name::{Name, NameBuf};

/// The form that the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The one recorded, else the best that works.
    Best,
    /// This one or none.
    Only(Dialect),
    /// As `Best`; but where nothing is recorded, `.wh.` files are deletions if there are any: so
    /// fuse-overlayfs leaves an upper.
    Found,
    /// The one recorded, else `.wh.` files.
    PreferFile,
}

/// The file in the workdir that records the form.
const RECORD: &str = "whiteouts";

/// The form of an upper that will only be read.
pub(super) fn read(
    workdir: BorrowedFd<'_>,
    upper: BorrowedFd<'_>,
    options: &UpperOptions<'_>,
) -> Result<Dialect, SetupError> {
    match (recorded(workdir), options.form) {
        (Some(recorded), _) => Ok(recorded),
        (None, Form::Found | Form::PreferFile) if look(upper, options)? => Ok(Dialect::File),
        (None, _) => Ok(Dialect::CharDev),
    }
}

/// The form of an upper that will be written; recorded in its workdir.
pub(super) fn choose(
    workdir: BorrowedFd<'_>,
    upper: BorrowedFd<'_>,
    options: &UpperOptions<'_>,
    can: &Abilities,
) -> Result<Dialect, SetupError> {
    let recorded = recorded(workdir);
    let path = options.upper;
    let refuse = |what: &str, other: &str| {
        Err(SetupError::new(format!(
            "{what} in {path:?}: use --whiteout {other}"
        )))
    };
    let dialect = match (options.form, recorded) {
        (Form::Only(dialect), _) | (_, Some(dialect)) => dialect,
        (Form::PreferFile, None) => Dialect::File,
        (Form::Found, None) if look(upper, options)? => Dialect::File,
        (Form::Found | Form::Best, None) => can.best_dialect(),
    };
    match (dialect, recorded) {
        (Dialect::File, None | Some(Dialect::File)) => {}
        (Dialect::File, Some(_)) => {
            return refuse("names with .wh. are no whiteouts", "auto");
        }
        (_, Some(Dialect::File)) => return refuse("whiteouts are .wh. files", "file or auto"),
        (_, None) if !can.exchange => {
            return refuse("exchanging two names does not work", "file or auto");
        }
        (_, Some(_)) if !can.exchange => {
            return Err(SetupError::new(format!(
                "exchanging two names (RENAME_EXCHANGE) does not work in {path:?}, as the form of \
                 its whiteouts requires: move it to a filesystem that can"
            )));
        }
        (Dialect::CharDev, _) if !can.chardev => {
            return refuse("whiteouts as character devices do not work", "auto");
        }
        (Dialect::Xattr, _) if can.namespace.is_none() => {
            return refuse("extended attributes do not work", "auto");
        }
        _ => {}
    }
    if recorded != Some(dialect) {
        record(workdir, dialect)
            .map_err(|e| SetupError::at("record the whiteout format in", options.work, e))?;
    }
    Ok(dialect)
}

/// The form that a workdir says its upper is of.
fn recorded(workdir: BorrowedFd<'_>) -> Option<Dialect> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(workdir, RECORD, flags, Mode::empty()).ok()?;
    let mut text = [0u8; 16];
    let len = rustix::io::read(&file, &mut text[..]).ok()?;
    let text = text.get(..len)?.trim_ascii();
    let all = [Dialect::CharDev, Dialect::Xattr, Dialect::File];
    all.into_iter().find(|d| d.as_str().as_bytes() == text)
}

fn record(workdir: BorrowedFd<'_>, dialect: Dialect) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(0o644);
    let file = rustix::fs::openat(workdir, RECORD, flags | OFlags::CLOEXEC, mode)?;
    rustix::io::write(&file, format!("{}\n", dialect.as_str()).as_bytes()).map(drop)
}

fn look(upper: BorrowedFd<'_>, options: &UpperOptions<'_>) -> Result<bool, SetupError> {
    holds_wh_files(upper).map_err(|e| SetupError::at("look for whiteouts in", options.upper, e))
}

/// Whether there is a `.wh.` file anywhere below `root`. Walks with a stack of its own, for a tree
/// may be deeper than the thread's. What this process may not read was not written by its like.
fn holds_wh_files(root: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut stack = vec![open_dir(root, b".")?];
    let mut waiting: Vec<Vec<NameBuf>> = Vec::new();
    while let Some(dir) = stack.last() {
        if waiting.len() < stack.len() {
            match look_in(dir.as_fd()) {
                Ok(Seen::WhFile) => return Ok(true),
                Ok(Seen::Dirs(dirs)) => waiting.push(dirs),
                Err(Errno::ACCESS | Errno::PERM) => waiting.push(Vec::new()),
                Err(e) => return Err(e),
            }
        }
        let next = waiting.last_mut().and_then(Vec::pop);
        match next.map(|name| open_dir(dir.as_fd(), &name)) {
            Some(Ok(deeper)) => stack.push(deeper),
            Some(Err(Errno::ACCESS | Errno::PERM)) => {}
            Some(Err(e)) => return Err(e),
            None => {
                stack.pop();
                waiting.pop();
            }
        }
    }
    Ok(false)
}

/// What one directory holds.
enum Seen {
    WhFile,
    /// None, but these directories.
    Dirs(Vec<NameBuf>),
}

fn look_in(dir: BorrowedFd<'_>) -> Result<Seen, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd: OwnedFd = rustix::fs::openat(dir, ".", flags, Mode::empty())?;
    let mut dirs = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        let entry = entry?;
        let name: &Name = entry.file_name().to_bytes();
        let kind = match entry.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Unknown => Stat::at(dir, name)?.attr.kind,
            _ => continue,
        };
        match kind {
            Kind::File if name.starts_with(WH_PREFIX) => return Ok(Seen::WhFile),
            Kind::Dir if name != b"." && name != b".." => dirs.push(name.into()),
            _ => {}
        }
    }
    Ok(Seen::Dirs(dirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wh_files_are_found_wherever_they_are() {
        let scratch = std::env::temp_dir().join(format!("unionmount-form-{}", std::process::id()));
        std::fs::create_dir_all(scratch.join("a/b/.wh.dir/c")).unwrap();
        std::fs::create_dir_all(scratch.join("d")).unwrap();
        std::fs::write(scratch.join("a/f"), "x").unwrap();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(rustix::fs::CWD, &scratch, flags, Mode::empty()).unwrap();
        assert_eq!(holds_wh_files(dir.as_fd()), Ok(false));
        std::fs::write(scratch.join("a/b/.wh.dir/c/.wh..wh..opq"), "").unwrap();
        assert_eq!(holds_wh_files(dir.as_fd()), Ok(true));
        std::fs::remove_dir_all(scratch).unwrap();
    }
}
