//! Talks to the daemon of a mount through the mount itself: private xattrs of its root.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, getxattr, open, statx, syncfs};
use rustix::io::Errno;

use super::failure::{Failure, reason};
use super::mountinfo::{self, Entry};
use crate::ops::{Completed, Inspect};

/// The daemon hands out answers in pieces of this size; a shorter piece is the last one.
const PIECE: usize = 32 * 1024;

/// Longest answer that is believed (500 layers with long paths take well under 2 MiB).
const LONGEST: usize = 64 * 1024 * 1024;

/// The longest answer about completed copies: what one attribute holds.
const COMPLETED: usize = 64 * 1024;

/// The root of a mount that looks like one of ours.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) entry: Entry,
}

impl Target {
    /// Finds what is mounted at `path`.
    pub(crate) fn find(path: &Path) -> Result<Target, Failure> {
        let absolute = mountinfo::absolute(path)
            .map_err(|e| Failure::new(format!("cannot look at {path:?}: {}", reason(e))))?;
        let entries = mountinfo::entries().map_err(|e| {
            Failure::new(format!(
                "cannot read \"/proc/self/mountinfo\": {}",
                reason(e)
            ))
        })?;
        let found = entries.iter().rfind(|entry| entry.mount_point == absolute);
        match found {
            Some(entry) if entry.may_be_ours() => Ok(Target {
                path: absolute,
                entry: entry.clone(),
            }),
            Some(entry) => Err(not_ours(
                path,
                &format!("a {} is mounted there", entry.fs_type),
            )),
            None => {
                let around = entries
                    .iter()
                    .filter(|entry| absolute.starts_with(&entry.mount_point))
                    .max_by_key(|entry| entry.mount_point.as_os_str().len());
                Err(match around {
                    Some(entry) if entry.may_be_ours() => not_ours(
                        path,
                        &format!("it is inside the one at {:?}: name that", entry.mount_point),
                    ),
                    _ => not_ours(path, "nothing is mounted there"),
                })
            }
        }
    }

    /// The whole answer to `question` (`inspect` or `stats`), as JSON.
    pub(crate) fn ask(&self, question: &str) -> Result<Vec<u8>, Failure> {
        self.try_ask(question).map_err(|e| self.explain(e))
    }

    fn try_ask(&self, question: &str) -> rustix::io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        let mut piece = vec![0u8; PIECE];
        while answer.len() < LONGEST {
            let name = format!("unionmount.{question}@{}", answer.len());
            let got = getxattr(&self.path, name.as_str(), piece.as_mut_slice())?;
            answer.extend_from_slice(piece.get(..got).unwrap_or_default());
            if got < PIECE {
                break;
            }
        }
        Ok(answer)
    }

    /// What the daemon says about itself.
    pub(crate) fn inspect(&self) -> Result<Inspect, Failure> {
        decode(&self.ask("inspect")?)
    }

    /// As [`Target::inspect`]; `None` if there is no daemon any more.
    pub(crate) fn inspect_if_alive(&self) -> Result<Option<Inspect>, Failure> {
        match self.try_ask("inspect") {
            Ok(answer) => decode(&answer).map(Some),
            Err(Errno::NOTCONN | Errno::CONNABORTED) => Ok(None),
            Err(e) => Err(self.explain(e)),
        }
    }

    /// Lets the daemon complete metadata-only copies for a moment, and tell how far it is.
    pub(crate) fn complete(&self) -> Result<Completed, Failure> {
        let mut answer = vec![0u8; COMPLETED];
        match getxattr(&self.path, "unionmount.complete", answer.as_mut_slice()) {
            Ok(len) => decode(answer.get(..len).unwrap_or_default()),
            Err(Errno::ROFS) => Err(Failure::new(format!(
                "cannot complete the upper of {:?}: it is mounted read-only (unmount it, then use \
                 unionmount complete)",
                self.path
            ))),
            Err(e @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) => Err(Failure::new(format!(
                "cannot complete the upper of {:?}: {}",
                self.path,
                reason(e)
            ))),
            Err(e) => Err(self.explain(e)),
        }
    }

    /// Returns when everything written so far is on disk.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        match self.try_sync() {
            Ok(()) => Ok(()),
            Err(e @ (Errno::IO | Errno::NOSPC | Errno::DQUOT | Errno::ROFS)) => {
                Err(Failure::new(format!(
                    "cannot sync {:?}: {}: what was written may be lost (check the upper's disk)",
                    self.path,
                    reason(e)
                )))
            }
            Err(e) => Err(self.explain(e)),
        }
    }

    fn try_sync(&self) -> rustix::io::Result<()> {
        // First the kernel's own dirty pages to the daemon, then all to the disk.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        syncfs(open(&self.path, flags, Mode::empty())?)?;
        getxattr(&self.path, "unionmount.sync", &mut [0u8; 0][..]).map(|_| ())
    }

    /// Makes the daemon and the kernel forget what they know of `path`, or of everything. The answer
    /// is the JSON of how much that was.
    pub(crate) fn refresh(&self, path: Option<&Path>) -> Result<Vec<u8>, Failure> {
        let ino = self.number_of(path.unwrap_or(Path::new("")))?;
        let mut answer = vec![0u8; PIECE];
        let name = format!("unionmount.refresh@{ino}");
        let got = getxattr(&self.path, name.as_str(), answer.as_mut_slice());
        answer.truncate(got.map_err(|e| self.explain(e))?);
        Ok(answer)
    }

    /// The number of what lies at `path` in the mount, or of the nearest directory that is there.
    fn number_of(&self, path: &Path) -> Result<u64, Failure> {
        let full = self.path.join(path);
        let outside = || {
            let remedy = "name a path below it, as seen from there";
            Failure::new(format!("{path:?} is not in {:?} ({remedy})", self.path))
        };
        let look = |path: &Path| statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO);
        let root = look(&self.path).map_err(|e| self.explain(e))?;
        for at in full.ancestors().take_while(|at| at.starts_with(&self.path)) {
            match look(at) {
                Ok(found)
                    if (found.stx_dev_major, found.stx_dev_minor)
                        == (root.stx_dev_major, root.stx_dev_minor) =>
                {
                    return Ok(found.stx_ino);
                }
                Ok(_) => return Err(outside()),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => {}
                Err(e) => {
                    let why = reason(e);
                    return Err(Failure::new(format!("cannot look at {at:?}: {why}")));
                }
            }
        }
        Err(outside())
    }

    fn explain(&self, e: Errno) -> Failure {
        let path = &self.path;
        match e {
            Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => not_ours(
                path,
                &format!("a {} that does not answer is there", self.entry.fs_type),
            ),
            Errno::PERM | Errno::ACCESS => Failure::new(format!(
                "no permission to control {path:?}: only the owner of the mount and root may"
            )),
            Errno::NOTCONN | Errno::CONNABORTED => Failure::new(format!(
                "the daemon of {path:?} is gone (unionmount umount removes the dead mount)"
            )),
            _ => Failure::new(format!("cannot ask the daemon of {path:?}: {}", reason(e))),
        }
    }
}

/// Reads the JSON of an answer.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(|e| {
        Failure::new(format!(
            "cannot understand the daemon's answer: {e} (is it of another version? --json shows it)"
        ))
    })
}

fn not_ours(path: &Path, why: &str) -> Failure {
    Failure::new(format!("{path:?} is not a unionmount mount: {why}"))
}
