//! `unionmount complete` and `umount --complete`: metadata-only copies get their data.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::{CompleteArgs, OnOff};
use super::control::Target;
use super::failure::{Failure, reason};
use super::metacopy::Metacopies;
use super::values::dirs;
use super::{complain, print};
use crate::error::best_effort;
use crate::ops::{
    Completed, Config, Durability, Origins, RedirectDir, Union, UpperConfig, WhiteoutChoice,
};

/// How often somebody who waits is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long one step may take.
const STEP: Duration = Duration::from_millis(500);

/// Completes the upper of a mount, before it is unmounted.
pub(crate) fn mounted(target: &Target, json: bool) -> Result<(), Failure> {
    let completed = to_the_end(|| target.complete())?;
    tell(&completed, json)
}

/// Completes an upper that is not mounted.
pub(crate) fn unmounted(args: &CompleteArgs) -> Result<ExitCode, Failure> {
    let words = Metacopies {
        metacopy: args.userxattr.then_some(OnOff::On),
        verity: args.verity,
        userxattr: false,
    };
    let (metacopy, redirect_dir) = words.finish(RedirectDir::Auto)?;
    let mut lowers = Vec::new();
    for text in &args.lower {
        lowers.extend(dirs(text, "--lower")?.into_iter().map(PathBuf::from));
    }
    let upper = PathBuf::from(&args.upper);
    let (work, _temporary) = match &args.work {
        Some(work) => (PathBuf::from(work), None),
        None => {
            let made = Temporary::beside(&upper)?;
            (made.0.clone(), Some(made))
        }
    };
    let union = Union::open(&Config {
        lowers,
        data: args.data.iter().map(PathBuf::from).collect(),
        metacopy,
        upper: Some(UpperConfig {
            upper,
            work,
            whiteout: WhiteoutChoice::Found,
            durability: Durability::Synced,
            origins: Origins::Named,
        }),
        redirect_dir,
        ..Config::default()
    });
    let union = union.map_err(|e| Failure::new(e.to_string()))?;
    let completed = to_the_end(|| {
        let step = union.complete(STEP);
        step.map_err(|e| Failure::new(format!("cannot complete {:?}: {e}", args.upper)))
    })?;
    tell(&completed, args.json).map(|()| ExitCode::SUCCESS)
}

fn to_the_end(step: impl Fn() -> Result<Completed, Failure>) -> Result<Completed, Failure> {
    let mut told = Instant::now();
    loop {
        let so_far = step()?;
        if so_far.done {
            return Ok(so_far);
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            complain(&counts(&so_far));
        }
    }
}

fn counts(completed: &Completed) -> String {
    let Completed { files, bytes, .. } = completed;
    format!("{files} metadata-only copies completed ({bytes} bytes)")
}

/// Tells what was done; what could not be is a failure.
fn tell(completed: &Completed, json: bool) -> Result<(), Failure> {
    let text = match json {
        true => serde_json::to_string(completed).map_err(|e| Failure::new(e.to_string()))?,
        false => counts(completed),
    };
    print(&format!("{text}\n"))?;
    if completed.failed == 0 {
        return Ok(());
    }
    if !json {
        for failed in &completed.failures {
            complain(&format!(
                "cannot complete {:?}: {}",
                failed.path, failed.error
            ));
        }
    }
    Err(Failure::new(format!(
        "{} metadata-only copies could not be completed (name all layers that they were made over, and \
         --userxattr if their markers are user.overlay.*)",
        completed.failed
    )))
}

/// A workdir for the time of the command, beside the upper.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(upper: &Path) -> Result<Temporary, Failure> {
        let absolute = std::fs::canonicalize(upper)
            .map_err(|e| Failure::new(format!("cannot use upper {upper:?}: {}", reason(e))))?;
        let path = absolute.with_file_name(format!(".unionmount-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| {
            Failure::new(format!(
                "cannot make a work directory {path:?}: {} (name one with --work)",
                reason(e)
            ))
        })?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        best_effort("remove a work directory", std::fs::remove_dir_all(&self.0));
    }
}
