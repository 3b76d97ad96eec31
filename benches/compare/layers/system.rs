//! A small Debian system with a few packages to install, from the apt sources of this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Plan, empty};
use crate::scratch::succeed;

/// Where the packages lie in the system.
pub const PACKAGES: &str = "packages";

/// Packages of many files that need nothing but a minimal system.
const TO_INSTALL: &[&str] = &["git-man", "manpages-dev", "perl-doc", "vim-runtime"];

pub fn make(root: &Path) -> Result<Plan> {
    let plan = empty(root, 2)?;
    if let Some(bottom) = plan.lowers.last() {
        succeed(
            Command::new("mmdebstrap")
                .args(["--quiet", "--variant=minbase", "--format=directory"])
                .arg(suite()?)
                .arg(bottom),
        )?;
        let packages = bottom.join(PACKAGES);
        std::fs::create_dir(&packages)?;
        succeed(
            Command::new("apt-get")
                .args(["download", "-q"])
                .args(TO_INSTALL)
                .current_dir(packages),
        )?;
    }
    Ok(plan)
}

/// The release that runs here: its packages are in the apt sources.
fn suite() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release")?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no VERSION_CODENAME")?;
    Ok(name.trim_matches('"').to_owned())
}
