//! What is done to the union before the power fails, and what must be found afterwards.

use std::path::Path;

use crate::kit::{Errno, Res, sys};

/// Appended to files of the lower.
const MORE: &[u8] = b"this came later";

/// What one job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Append,
    /// Nobody asks for it to be on disk, but others do so later for theirs.
    AppendUnsynced,
    Chmod,
    Chown,
    Create,
    Replace,
    Unlink,
    /// A directory of the lower is emptied, removed and made anew.
    Renew,
    RenameDir,
    /// The same with a copy of the directory that was on disk long before.
    RenameSettled,
    /// Appends to one of two names.
    HardLink,
}

const KINDS: [Kind; 11] = [
    Kind::Append,
    Kind::AppendUnsynced,
    Kind::Chmod,
    Kind::Chown,
    Kind::Create,
    Kind::Replace,
    Kind::Unlink,
    Kind::Renew,
    Kind::RenameDir,
    Kind::RenameSettled,
    Kind::HardLink,
];

/// How far a job had come when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    NotBegun,
    Doing,
    /// Its last fsync was answered.
    Acknowledged,
}

/// A change in a directory of its own, which ends with an fsync as a rule.
pub struct Job {
    pub kind: Kind,
    dir: String,
    data: Vec<u8>,
    /// The moments, in events of the disk, before it began and after it was acknowledged.
    pub began: usize,
    pub acknowledged: usize,
}

impl Job {
    pub fn new(n: usize) -> Job {
        let sizes = [1, 100, 5000, 70_000, 200_000];
        Job {
            kind: KINDS[n % KINDS.len()],
            dir: format!("j{n}"),
            data: sys::pattern(n as u64, sizes[(n / KINDS.len()) % sizes.len()]),
            began: usize::MAX,
            acknowledged: usize::MAX,
        }
    }

    pub fn plant(&self, lower: &Path) {
        let at = lower.join(&self.dir);
        sys::mkdir(&at, 0o755).unwrap();
        let file = |name: &str| sys::put(at.join(name), &self.data).unwrap();
        match self.kind {
            Kind::Create => {}
            Kind::Renew | Kind::RenameDir | Kind::RenameSettled => {
                sys::mkdir(at.join("d"), 0o755).unwrap();
                file("d/f");
            }
            Kind::HardLink => {
                file("f");
                sys::link(at.join("f"), at.join("l")).unwrap();
            }
            _ => file("f"),
        }
    }

    /// Whether it ends with an fsync.
    pub fn is_synced(&self) -> bool {
        self.kind != Kind::AppendUnsynced
    }

    /// What was done to the union long before.
    pub fn prepare(&self, root: &Path) -> Res<()> {
        if self.kind == Kind::RenameSettled {
            sys::setxattr(root.join(&self.dir).join("d"), "user.a", b"1", 0)?;
        }
        Ok(())
    }

    /// What the job leaves or begins with where a file is replaced or made.
    fn new_data(&self) -> Vec<u8> {
        let mut data = self.data.clone();
        data.reverse();
        data.extend(MORE);
        data
    }

    fn appended(&self) -> Vec<u8> {
        [&self.data, MORE].concat()
    }

    pub fn run(&self, root: &Path) -> Res<()> {
        let at = root.join(&self.dir);
        let f = at.join("f");
        match self.kind {
            Kind::Append | Kind::HardLink => {
                sys::append(&f, MORE)?;
                sync(&f)
            }
            Kind::AppendUnsynced => sys::append(&f, MORE),
            Kind::Chmod => {
                sys::chmod(&f, 0o600)?;
                sync(&f)
            }
            Kind::Chown => {
                sys::lchown(&f, 1000, 1001)?;
                sync(&f)
            }
            Kind::Create => {
                sys::put(&f, &self.new_data())?;
                sync(&f)?;
                sync(&at)
            }
            Kind::Replace => {
                sys::put(at.join("new"), &self.new_data())?;
                sync(&at.join("new"))?;
                sys::rename(at.join("new"), &f)?;
                sync(&at)
            }
            Kind::Unlink => {
                sys::unlink(&f)?;
                sync(&at)
            }
            Kind::Renew => {
                sys::unlink(at.join("d/f"))?;
                sys::rmdir(at.join("d"))?;
                sys::mkdir(at.join("d"), 0o700)?;
                sync(&at)
            }
            Kind::RenameDir | Kind::RenameSettled => {
                sys::rename(at.join("d"), at.join("e"))?;
                sync(&at)
            }
        }
    }

    /// What is wrong with what it left in the union at `root`.
    pub fn fault(&self, root: &Path, stage: Stage) -> Option<String> {
        let at = root.join(&self.dir);
        let names = sys::names(&at);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let judged = match self.kind {
            Kind::Append | Kind::AppendUnsynced | Kind::Chmod | Kind::Chown => {
                must_be(&names, &[&["f"]]).and_then(|()| self.one_file(&at.join("f"), stage))
            }
            Kind::HardLink => must_be(&names, &[&["f", "l"]]).and_then(|()| {
                self.one_file(&at.join("f"), stage)?;
                let same = sys::get(at.join("f")) == sys::get(at.join("l"));
                same.then_some(()).ok_or("two names, two contents".into())
            }),
            Kind::Create => must_be(&names, &either(stage, &[], &["f"])).and_then(|()| {
                // Not synced yet, its data may be missing, as in any filesystem.
                let whole = stage == Stage::Acknowledged;
                let want = self.new_data();
                if whole {
                    is(&at.join("f"), &[&want])
                } else {
                    Ok(())
                }
            }),
            Kind::Replace => self.replaced(&at, &names, stage),
            Kind::Unlink => must_be(&names, &either(stage, &["f"], &[])).and_then(|()| {
                if names.is_empty() {
                    Ok(())
                } else {
                    is(&at.join("f"), &[&self.data])
                }
            }),
            Kind::Renew => self.renewed(&at, &names, stage),
            Kind::RenameDir | Kind::RenameSettled => {
                must_be(&names, &either(stage, &["d"], &["e"])).and_then(|()| {
                    must_be(&inside(&at.join(names[0])), &[&["f"]])?;
                    is(&at.join(names[0]).join("f"), &[&self.data])
                })
            }
        };
        let why = judged.err()?;
        Some(format!("{:?} in {}, {stage:?}: {why}", self.kind, self.dir))
    }

    fn one_file(&self, f: &Path, stage: Stage) -> Result<(), String> {
        let stat = sys::stat(f).map_err(|e| format!("{e:?}"))?;
        let state = (stat.perm(), stat.uid, stat.gid);
        let (old, appends) = (
            (0o644, 0, 0),
            matches!(
                self.kind,
                Kind::Append | Kind::AppendUnsynced | Kind::HardLink
            ),
        );
        let new = match self.kind {
            Kind::Chmod => (0o600, 0, 0),
            Kind::Chown => (0o644, 1000, 1001),
            _ => old,
        };
        let fits = match stage {
            Stage::NotBegun => state == old,
            Stage::Doing => state == old || state == new,
            Stage::Acknowledged => state == new,
        };
        if !fits {
            return Err(format!("mode and owner are {state:?}"));
        }
        let new = if appends {
            self.appended()
        } else {
            self.data.clone()
        };
        match stage {
            Stage::NotBegun => is(f, &[&self.data]),
            Stage::Acknowledged => is(f, &[&new]),
            // What was appended may be missing, or there in part, or as zeros; nothing else may.
            Stage::Doing => {
                let found = sys::get(f).map_err(|e| format!("{e:?}"))?;
                let (whole, rest) = found.split_at(found.len().min(self.data.len()));
                let more = rest.iter().zip(MORE).all(|(b, m)| b == m || *b == 0);
                let room = if appends { MORE.len() } else { 0 };
                (whole == self.data && rest.len() <= room && more)
                    .then_some(())
                    .ok_or(format!("{} bytes, not the lower's", found.len()))
            }
        }
    }

    fn replaced(&self, at: &Path, names: &[&str], stage: Stage) -> Result<(), String> {
        let new = self.new_data();
        match stage {
            Stage::NotBegun => {
                must_be(names, &[&["f"]]).and_then(|()| is(&at.join("f"), &[&self.data]))
            }
            Stage::Doing => must_be(names, &[&["f"], &["f", "new"]])
                .and_then(|()| is(&at.join("f"), &[&self.data, &new])),
            Stage::Acknowledged => {
                must_be(names, &[&["f"]]).and_then(|()| is(&at.join("f"), &[&new]))
            }
        }
    }

    fn renewed(&self, at: &Path, names: &[&str], stage: Stage) -> Result<(), String> {
        let d = at.join("d");
        match stage {
            Stage::NotBegun => {
                must_be(names, &[&["d"]])?;
                must_be(&inside(&d), &[&["f"]])?;
                is(&d.join("f"), &[&self.data])
            }
            Stage::Doing => {
                must_be(names, &[&["d"], &[]])?;
                let inside = inside(&d);
                must_be(&inside, &[&["f"], &[]])?;
                // The new directory never shows what lay in the old one.
                let is_new = sys::stat(&d).is_ok_and(|stat| stat.perm() == 0o700);
                match (is_new, inside.is_empty()) {
                    (true, false) => Err("a deleted name came back".into()),
                    (false, false) => is(&d.join("f"), &[&self.data]),
                    (_, true) => Ok(()),
                }
            }
            Stage::Acknowledged => {
                must_be(names, &[&["d"]])?;
                must_be(&inside(&d), &[&[]])?;
                let mode = sys::stat(&d).map_err(|e| format!("{e:?}"))?.perm();
                (mode == 0o700)
                    .then_some(())
                    .ok_or(format!("mode {mode:o}"))
            }
        }
    }
}

/// The names in a directory, none if it is missing.
fn inside(dir: &Path) -> Vec<String> {
    if sys::lstat(dir) == Err(Errno(libc::ENOENT)) {
        return Vec::new();
    }
    sys::names(dir)
}

/// Which listings are right: the old before, the new afterwards, either one meanwhile.
fn either<'a>(stage: Stage, old: &'a [&'a str], new: &'a [&'a str]) -> Vec<&'a [&'a str]> {
    match stage {
        Stage::NotBegun => vec![old],
        Stage::Doing => vec![old, new],
        Stage::Acknowledged => vec![new],
    }
}

fn must_be<S: AsRef<str>>(names: &[S], allowed: &[&[&str]]) -> Result<(), String> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let fits = allowed.iter().any(|want| *want == names);
    fits.then_some(()).ok_or(format!("shows {names:?}"))
}

fn is(path: &Path, allowed: &[&[u8]]) -> Result<(), String> {
    let found = sys::get(path).map_err(|e| format!("{}: {e:?}", path.display()))?;
    if allowed.contains(&found.as_slice()) {
        return Ok(());
    }
    let zeros = found.iter().all(|b| *b == 0);
    Err(format!("{} wrong bytes; all zero: {zeros}", found.len()))
}

fn sync(path: &Path) -> Res<()> {
    sys::fsync(&sys::open(path, libc::O_RDONLY, 0)?)
}
