//! Help, versions and command lines that make no sense (more of them in `cli::plan`'s tables).

use crate::lab::{Lab, outcome};

#[test]
fn help_and_version() {
    let lab = Lab::new();
    let help = lab.run("--help").succeeds();
    for part in [
        "--lower",
        "--upper",
        "--whiteout",
        "--cache-size",
        "umount",
        "Examples:",
        "Exit status",
    ] {
        assert!(help.contains(part), "{part}");
    }
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    for command in ["mount", "umount", "inspect", "stats", "sync", "refresh"] {
        assert!(
            lab.run(&format!("{command} --help"))
                .succeeds()
                .contains("MOUNTPOINT")
        );
    }
    let version = format!("unionmount {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(lab.run("-V").succeeds(), version);
    let helper = lab.program_as("mount.fuse.unionmount");
    assert_eq!(outcome(lab.command(helper, "-V")).succeeds(), version);
}

#[test]
fn wrong_usage_is_status_2() {
    let lab = Lab::new();
    for (line, part) in [
        ("", "MOUNTPOINT"),
        ("umount", "MOUNTPOINT"),
        ("--frobnicate m", "--frobnicate"),
        ("--lower l1 -o frobnicate m", "frobnicate"),
        ("--lower l1 --upper u m", "--work"),
        ("--lower l1 --work w m", "--upper"),
        ("m", "--lower"),
        ("--lower l1 l2 m", "colons"),
        ("--lower l1 --io sideways m", "sideways"),
    ] {
        lab.run(line).fails(2, &[part]);
    }
    let helper = lab.program_as("mount.fuse.unionmount");
    outcome(lab.command(helper, "m")).fails(2, &["SOURCE MOUNTPOINT"]);
}
