//! A Debian system in a directory, from where the host's apt gets its packages.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::finished;

const PATIENCE: Duration = Duration::from_secs(400);

/// Makes it with mmdebstrap, which is given further arguments.
pub fn bootstrap(base: &Path, arguments: &[&str]) {
    let (suite, mirror) = source();
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=root", "--quiet"])
        .args(arguments)
        .arg("--customize-hook=touch \"$1/etc/resolv.conf\"")
        .arg(&suite)
        .arg(base)
        .arg(&mirror);
    finished(&mut command, PATIENCE).unwrap_or_else(|why| {
        panic!("{why}\n(if mmdebstrap is missing: apt-get install mmdebstrap)")
    });
}

/// The suite and the mirror from which the host's apt gets what this Debian consists of.
fn source() -> (String, String) {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .expect("VERSION_CODENAME in /etc/os-release: these tests need a Debian host")
        .to_owned();
    // This needs no lists, and fetches nothing.
    let listed = Command::new("apt-get")
        .args(["update", "--print-uris"])
        .output()
        .expect("apt-get, to find the host's mirror");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let end = format!("/dists/{suite}/InRelease");
    let mut mirrors = listed
        .lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once(&end))
        .map(|(mirror, _)| mirror.to_owned());
    // Others' repositories may name their suites like Debian's.
    let debian = mirrors.clone().find(|mirror| mirror.contains("debian.org"));
    let mirror = debian
        .or_else(|| mirrors.next())
        .unwrap_or_else(|| panic!("no apt source of the host has {suite}:\n{listed}"));
    (suite, mirror)
}
