//! Every kind of bad input: one line with the thing, the cause and the remedy; nothing changed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use crate::lab::{Lab, outcome};

/// Command lines and what the complaint must name.
const UNUSABLE: &[(&str, &[&str])] = &[
    (
        "--lower nope m",
        &["lower", "nope", "no such file", "create it"],
    ),
    ("--lower file m", &["lower", "file", "not a directory"]),
    ("--lower l1 nope", &["mount on", "nope", "create it"]),
    ("--lower l1 file", &["mount on", "file", "not a directory"]),
    ("--lower l1 --upper nope --work w m", &["upper", "nope"]),
    (
        "--lower l1 --upper file --work w m",
        &["upper", "not a directory"],
    ),
    ("--lower l1 --upper u --work nope m", &["work", "nope"]),
    (
        "--lower l1 --upper u --work /proc m",
        &["work", "not on the filesystem"],
    ),
    ("--lower l1 --upper u --work u m", &["as upper and as work"]),
    (
        "--lower l1 --upper u --work u/sub m",
        &["work", "is inside upper"],
    ),
    (
        "--lower l1 --upper u/sub --work u m",
        &["upper", "is inside work"],
    ),
    ("--lower u --upper u --work w m", &["as upper and as lower"]),
    ("--lower w --upper u --work w m", &["as work and as lower"]),
    ("--lower . --upper u --work w m", &["is inside lower"]),
    (
        "--lower u/sub --upper u --work w m",
        &["lower", "is inside upper"],
    ),
    (
        "--lower l1 --upper l1/sub --work w m",
        &["upper", "is inside lower"],
    ),
    (
        "--lower l1 --upper link/sub --work w m",
        &["upper", "is inside lower"],
    ),
    ("--lower l1:l2:l1 m", &["lower", "twice"]),
    ("--lower l1:link m", &["lower", "twice"]),
    ("--lower l1:l1/sub m", &["is inside lower"]),
    (
        "--lower l1 --log-file nope/log m",
        &["log file", "nope/log"],
    ),
];

#[test]
fn directories_that_cannot_be_used() {
    let lab = Lab::new();
    fs::write(lab.path("file"), "").unwrap();
    fs::create_dir(lab.path("l1/sub")).unwrap();
    fs::create_dir(lab.path("u/sub")).unwrap();
    symlink("l1", lab.path("link")).unwrap();
    for (line, parts) in UNUSABLE {
        lab.run(line).fails(1, parts);
    }
    assert_eq!(
        fs::read_dir(lab.path("w")).unwrap().count(),
        0,
        "nothing is written to the work"
    );
    assert_eq!(
        fs::read_dir(lab.path("u")).unwrap().count(),
        1,
        "nothing is written to the upper"
    );
    assert_eq!(lab.mounted("m"), None);
}

/// What root may do anywhere, a plain user may not.
#[test]
fn directories_that_are_not_permitted() {
    let lab = Lab::new();
    let allow = |name: &str, mode: u32| {
        fs::set_permissions(lab.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        allow("l2", 0o000);
        allow("w", 0o000);
        lab.run("--lower l2 m")
            .fails(1, &["lower", "l2", "permission denied"]);
        lab.run("--lower l1 --upper u --work w m")
            .fails(1, &["work", "permission denied"]);
        allow("l2", 0o700);
        allow("w", 0o700);
        return;
    }
    let as_nobody = "--reuid=65534 --regid=65534 --clear-groups";
    let run = |line: &str| {
        let mut command = lab.command("setpriv", as_nobody);
        command.arg(crate::lab::PROGRAM).args(line.split(' '));
        outcome(command)
    };
    allow("l2", 0o700);
    run("--lower l2 m").fails(1, &["lower", "l2", "permission denied"]);
    run("--lower l1 --upper u --work w m").fails(1, &["upper", "permission denied", "write"]);
}

#[test]
fn an_upper_in_use() {
    let lab = Lab::new();
    fs::create_dir(lab.path("m2")).unwrap();
    fs::create_dir(lab.path("w2")).unwrap();
    fs::create_dir(lab.path("u2")).unwrap();
    lab.run("--lower l1 --upper u --work w m").succeeds();
    let process = format!("process {}", lab.daemon());
    let start = Instant::now();
    for line in [
        "--lower l2 --upper u --work w m2",
        "--lower l2 --upper u --work w2 m2",
        "--lower l2 --upper u2 --work w m2",
    ] {
        lab.run(line).fails(1, &["in use", &process]);
    }
    // Nothing is to be waited for: the mount is still there.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(lab.mounted("m2"), None);
    lab.run("umount m").succeeds();
    lab.run("--lower l2 --upper u --work w m2").succeeds();
    lab.run("umount m2").succeeds();
}

#[test]
fn control_commands_want_a_mount_of_ours() {
    let lab = Lab::new();
    for command in ["umount", "inspect", "stats", "sync", "refresh"] {
        lab.run(&format!("{command} nope"))
            .fails(1, &["nope", "no such file"]);
        lab.run(&format!("{command} m"))
            .fails(1, &["not a unionmount mount"]);
        lab.run(&format!("{command} /proc"))
            .fails(1, &["not a unionmount mount", "proc"]);
    }
}

#[test]
fn a_refresh_of_what_is_not_in_the_mount() {
    let lab = Lab::new();
    lab.run("--lower l1 m").succeeds();
    for path in ["/proc", "../l1", "/"] {
        lab.run(&format!("refresh m {path}"))
            .fails(1, &["is not in", "below it"]);
    }
    let said = lab.run("refresh m one").succeeds();
    assert_eq!(said, "forgot directories: 0, other objects: 1\n");
    let said = lab.run("refresh --json m missing/deep").succeeds();
    assert_eq!(said, "{\"directories\":1,\"others\":1}\n");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let mut command = lab.command("setpriv", "--reuid=65534 --regid=65534 --clear-groups");
        command.args([crate::lab::PROGRAM, "refresh", "m"]);
        outcome(command).fails(1, &["no permission", "m"]);
    }
    lab.run("umount m").succeeds();
}

#[test]
fn the_fuse_device_is_missing() {
    let lab = Lab::new();
    let script = "mount -t tmpfs none /dev && exec $U --lower l1 m";
    lab.in_user_namespace(script)
        .fails(1, &["/dev/fuse", "no such file", "--device /dev/fuse"]);
    let script = "mount -t tmpfs none /dev && : > /dev/null && exec $U --lower l1 -f m";
    lab.in_user_namespace(script)
        .fails(1, &["/dev/fuse", "no such file", "--device /dev/fuse"]);
}

#[test]
fn words_of_others_are_warned_about_once() {
    let lab = Lab::new();
    let outcome = lab.run("--lower l1 -o nfs_export=on,nfs_export=on,nofail,x-a.b,private m");
    assert_eq!(
        outcome.stderr.matches("warning").count(),
        1,
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("nfs_export=on"),
        "{}",
        outcome.stderr
    );
    outcome.succeeds();
    lab.run("umount m").succeeds();
}
