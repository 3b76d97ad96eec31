//! Outside suites, run on a mount: fsx, which checks every byte it reads against what it wrote.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../kit/mod.rs"]
mod kit;

use std::path::Path;
use std::process::Command;

use kit::{Lab, Subject, sys};

/// Weights for everything that the kernel passes to FUSE.
const EVERYTHING: &str = "
flen = 262144
[opsize]
min = 0
max = 65536
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 10
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 3
posix_fadvise = 1
copy_file_range = 5
";

/// The size never changes: the file of a lower is changed in place, never truncated first.
const IN_PLACE: &str = "
flen = 262144
blockmode = true
[opsize]
min = 512
max = 65536
align = 512
[weights]
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 0
fsync = 1
punch_hole = 5
sendfile = 3
copy_file_range = 5
";

const OPERATIONS: &str = "3000";

fn fsx(lab: &Lab, config: &str, file: &Path, seed: u64) {
    let config_file = lab.aside(&format!("fsx-{seed}.toml"));
    sys::put(&config_file, config.as_bytes()).unwrap();
    let artifacts = lab.aside("artifacts");
    std::fs::create_dir_all(&artifacts).unwrap();
    let done = Command::new(kit::tools::find("fsx", "fsx"))
        .args(["-N", OPERATIONS, "-S", &seed.to_string()])
        .arg("-f")
        .arg(&config_file)
        .arg("-P")
        .arg(&artifacts)
        .arg(file)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let tail: Vec<&str> = said.lines().rev().take(40).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    assert!(
        done.status.success(),
        "fsx -S {seed} on {} with {:?}: {}\n{}",
        file.display(),
        lab.subject(),
        done.status,
        tail.join("\n")
    );
}

/// Several seeds on a new file, and on files of a lower; what is left must be what is on disk.
fn run(arguments: &[&str]) {
    let lower: String = (0..6)
        .map(|n| format!("f dir/low{n} pattern=262144 mode=0644\n"))
        .collect();
    let mut lab = Lab::new()
        .lower(&lower)
        .upper("")
        .mount_as(&Subject::with(arguments));
    for seed in 0..3 {
        fsx(
            &lab,
            EVERYTHING,
            &lab.at(format!("dir/new{seed}")),
            11 + seed,
        );
        fsx(
            &lab,
            EVERYTHING,
            &lab.at(format!("dir/low{seed}")),
            21 + seed,
        );
        fsx(
            &lab,
            IN_PLACE,
            &lab.at(format!("dir/low{}", 3 + seed)),
            31 + seed,
        );
    }
    lab.expect_same_after_remount();
}

#[test]
fn fsx_by_default() {
    run(&[]);
}

#[test]
fn fsx_with_writeback() {
    run(&["--writeback"]);
}

#[test]
fn fsx_with_direct_io() {
    run(&["--io", "direct"]);
}

#[test]
fn fsx_with_no_caching_at_all() {
    run(&["--timeout", "0"]);
}

/// The suite itself: the kernel's overlayfs passes it.
#[test]
fn fsx_on_kernel_overlayfs() {
    let lab = Lab::new()
        .lower("f low pattern=262144\nf low2 pattern=262144")
        .upper("");
    let lab = lab.mount_as(&Subject::Kernel);
    fsx(&lab, EVERYTHING, &lab.at("new"), 1);
    fsx(&lab, EVERYTHING, &lab.at("low"), 2);
    fsx(&lab, IN_PLACE, &lab.at("low2"), 3);
}
