//! pjdfstest, the POSIX suite, as root in the union's root and in a directory that only a lower
//! has: it fails what kernel overlayfs fails, and not one case more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../kit/mod.rs"]
mod kit;

mod expected;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use kit::{Lab, Layers, Subject, program, sys};

/// The features are those that Linux has; the users are on every Debian.
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = ALLOW
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

#[test]
fn by_default() {
    run(&Subject::ours(&["--allow-other"]));
}

#[test]
fn with_writeback() {
    run(&Subject::ours(&["--allow-other", "--writeback"]));
}

#[test]
fn with_direct_io() {
    run(&Subject::ours(&["--allow-other", "--io", "direct"]));
}

#[test]
fn with_no_caching_at_all() {
    run(&Subject::ours(&["--allow-other", "--timeout", "0"]));
}

/// The list of expected failures itself.
#[test]
fn on_kernel_overlayfs() {
    run(&Subject::Kernel);
}

/// The mount namespace of a suite under way holds the mounts of all other tests, too: they could be
/// unmounted, but not be mounted again on the same layers.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(subject: &Subject) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lab = Lab::new()
        .lower("d below/deep\nf below/file text")
        .lower("f other text")
        .upper("")
        .mount_as(subject);
    let helper = MountHelper::new(&lab);
    for place in [lab.mnt(), lab.at("below")] {
        // One process cannot run all: open::einval_invalid_combination keeps removed files open,
        // and with such files no filesystem of Linux can be remounted read-only.
        let mut said = suite(&lab, &helper, &place, None);
        said.push_str(&suite(&lab, &helper, &place, Some("erofs")));
        check(subject, &place, &said);
    }
    lab.expect_paths("below below/deep below/file other");
    lab.expect_same_after_remount();
}

/// What the suite says of each case, or of those that remount.
fn suite(lab: &Lab, helper: &MountHelper, place: &Path, only: Option<&str>) -> String {
    let config = lab.aside("pjdfstest.toml");
    let allow = only.is_some().to_string();
    sys::put(&config, CONFIG.replace("ALLOW", &allow).as_bytes()).unwrap();
    let secondary = lab.aside("secondary");
    std::fs::create_dir_all(&secondary).unwrap();
    let done = Command::new("unshare")
        .args(["--mount", "--propagation", "slave"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-e", "-c"])
        .arg("mount --bind \"$1\" /usr/sbin; mount -t tmpfs none \"$2\"; shift 2; exec \"$@\"")
        .arg("sh")
        .arg(&helper.sbin)
        .arg(&secondary)
        .arg(kit::tools::find("pjdfstest", "pjdfstest@0.2.2"))
        .arg("-c")
        .arg(&config)
        .arg("-s")
        .arg(&secondary)
        .arg("-p")
        .arg(place)
        .args(only)
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains("Summary:"),
        "{}: {said}\n{errors}",
        done.status
    );
    said
}

/// Each case must end as it should, those that fail included.
fn check(subject: &Subject, place: &Path, said: &str) {
    let lines: Vec<&str> = said.lines().collect();
    // A case that the first run skipped has its result in the second.
    let mut results = BTreeMap::new();
    for (n, line) in lines.iter().enumerate() {
        if let Some((name, result)) = case(line) {
            results.insert(name, (result, &lines[n + 1..]));
        }
    }
    let mut faults = Vec::new();
    for (name, (result, rest)) in &results {
        let want = match () {
            () if expected::FAIL.contains(name) => "FAILED",
            () if expected::SKIPPED.contains(name) => "skipped",
            () => "ok",
        };
        if *result != want {
            let why = rest.iter().take(3).copied().collect::<Vec<_>>().join(" ");
            faults.push(format!("{name}: {result}, not {want}: {why}"));
        }
    }
    let total = results.len();
    let listed = expected::FAIL.iter().chain(expected::SKIPPED);
    let missing = listed.filter(|name| !results.contains_key(*name));
    faults.extend(missing.map(|name| format!("{name}: did not run")));
    if total != expected::TOTAL {
        faults.push(format!("{total} cases, not {}", expected::TOTAL));
    }
    assert!(
        faults.is_empty(),
        "{subject:?} in {}: {} faults\n{}",
        place.display(),
        faults.len(),
        faults.join("\n")
    );
}

/// The name and the result of a case; other lines have none.
fn case(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let (name, result) = (words.next()?, words.next()?);
    let is_case = !line.starts_with(char::is_whitespace)
        && name.contains("::")
        && matches!(result, "ok" | "FAILED" | "skipped")
        && words.next().is_none();
    is_case.then_some((name, result))
}

/// A copy of /usr/sbin in which mount(8) finds our program as its helper, so that `mount -o
/// remount,ro` of the EROFS cases goes through it: an overlay, bound over the real one in the mount
/// namespace of the suite alone.
struct MountHelper {
    sbin: PathBuf,
}

impl MountHelper {
    fn new(lab: &Lab) -> MountHelper {
        let (extra, sbin) = (lab.aside("extra"), lab.aside("sbin"));
        for dir in [&extra, &sbin] {
            std::fs::create_dir(dir).unwrap();
        }
        sys::symlink(program(), extra.join("mount.fuse.unionmount")).unwrap();
        Subject::Kernel
            .mount(&Layers {
                lowers: &[extra, PathBuf::from("/usr/sbin")],
                upper: None,
                mnt: &sbin,
            })
            .unwrap();
        MountHelper { sbin }
    }
}

impl Drop for MountHelper {
    fn drop(&mut self) {
        if let Err(errno) = sys::umount(&self.sbin, libc::MNT_DETACH) {
            eprintln!("{}: {errno:?}", self.sbin.display());
        }
    }
}
