//! The standard library of this machine's Python, compiled, as a lower.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Plan, empty};
use crate::scratch::succeed;

/// Where the library lies in the layer.
pub const LIBRARY: &str = "usr/lib/python3";

/// Left out: what no program imports, or what is not the library.
const WITHOUT: &[&str] = &[
    "__pycache__",
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "idlelib",
];

pub fn make(root: &Path) -> Result<Plan> {
    let plan = empty(root, 2)?;
    if let Some(bottom) = plan.lowers.last() {
        let from = ask("import sysconfig; print(sysconfig.get_paths()['stdlib'])")?;
        let to = bottom.join(LIBRARY);
        copy(&from, &to)?;
        // What is not meant for this version does not compile, which does not matter.
        let mut compile = Command::new(interpreter()?);
        compile.args(["-m", "compileall", "-q", "-q"]).arg(&to);
        compile.status().context("python3 -m compileall")?;
    }
    Ok(plan)
}

/// The interpreter itself: `python3` on PATH may be a script that looks for it.
pub fn interpreter() -> Result<PathBuf> {
    ask("import sys; print(sys.executable)")
}

fn ask(question: &str) -> Result<PathBuf> {
    let done = Command::new("python3")
        .args(["-c", question])
        .output()
        .context("python3 is missing")?;
    if !done.status.success() {
        bail!("python3: {}", done.status);
    }
    Ok(String::from_utf8(done.stdout)?.trim().into())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if WITHOUT.iter().any(|without| name == *without) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            succeed(Command::new("cp").arg("-a").arg(entry.path()).arg(target))?;
        }
    }
    Ok(())
}
