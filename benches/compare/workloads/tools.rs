//! Runs the usual programs on a tree.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs programs side by side, and waits for all of them; what they print is thrown away.
pub fn together(commands: Vec<Command>) -> Result<()> {
    let mut children = Vec::new();
    for mut command in commands {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        children.push((command, child));
    }
    for (command, mut child) in children {
        let status = child.wait()?;
        if !status.success() {
            bail!("{command:?}: {status}");
        }
    }
    Ok(())
}

/// Runs one program.
pub fn run(program: &str, arguments: &[&dyn AsRef<OsStr>]) -> Result<()> {
    together(vec![command(program, arguments)])
}

pub fn command(program: &str, arguments: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command = Command::new(program);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    command
}

/// `script` in a shell, with `$@`.
pub fn shell(script: &str, arguments: &[PathBuf]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-ec").arg(script).arg("sh").args(arguments);
    command
}

/// How many processes or threads can run at once.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
