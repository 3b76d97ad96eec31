//! Without the rights of root: in a user namespace, and as a plain user through fusermount3.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use crate::lab::{Lab, Outcome, outcome};

#[test]
fn in_a_user_namespace() {
    let lab = Lab::new();
    let script = "
        $U --lower l1 --upper u --work w m
        grep ' '$PWD/m' ' /proc/self/mounts
        cat m/one
        $U inspect m >/dev/null
        $U umount m";
    let shown = lab.in_user_namespace(script).succeeds();
    assert!(
        shown.contains("fuse.unionmount") && shown.contains("allow_other"),
        "{shown}"
    );
}

#[test]
fn a_user_namespace_without_a_mount_namespace() {
    let lab = Lab::new();
    let mut command = lab.command("unshare", "-Ur");
    command.args([crate::lab::PROGRAM, "--lower", "l1", "m"]);
    outcome(command).fails(1, &["operation not permitted", "unshare -Urm"]);
}

/// Asked for, metadata-only copies work with the markers that are possible there; other mounts refuse
/// them unless they are asked too.
#[test]
fn metadata_only_copies_in_a_user_namespace() {
    let lab = Lab::new();
    fs::write(lab.path("l1/big"), vec![b'x'; 3 << 20]).unwrap();
    fs::write(lab.path("l1/other"), "other").unwrap();
    let script = "
        $U --lower l1 --upper u --work w --metacopy on m
        chmod 600 m/one m/big && mv m/other m/moved
        test $(stat -c %b u/big) -lt 100
        cat m/one m/moved
        printf + >> m/one
        cat u/one
        $U umount m
        $U --lower l1 --upper u --work w m
        cat m/moved && exit 1
        $U umount m
        $U complete u --lower l1 && exit 1
        $U complete u --lower l1 --userxattr
        cmp u/big l1/big
        cat u/moved";
    let outcome = lab.in_user_namespace(script);
    assert!(outcome.stderr.contains("userxattr"), "{}", outcome.stderr);
    let shown = outcome.succeeds();
    assert_eq!(
        shown,
        "1other1+0 metadata-only copies completed (0 bytes)\n\
         2 metadata-only copies completed (3145733 bytes)\nother"
    );
}

/// Runs a script as a plain user. If we are root: in a mount namespace where `/dev/fuse` is open
/// to all, as udev makes it on real machines.
pub(crate) fn as_plain_user(lab: &Lab, script: &str) -> Outcome {
    let mut command = if fs::metadata("/proc/self").unwrap().uid() == 0 {
        for dir in ["m", "u", "w"] {
            chown(lab.path(dir), Some(65534), Some(65534)).unwrap();
        }
        fs::create_dir(lab.path("dev")).unwrap();
        let mut command = lab.command("unshare", "-m sh -euc");
        command.arg(
            "mount -t tmpfs -o mode=755 none dev
             mknod -m 666 dev/fuse c 10 229
             mount --bind dev/fuse /dev/fuse
             exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -euc \"$SCRIPT\"",
        );
        command
    } else {
        let mut command = lab.command("sh", "-euc");
        command.arg(script);
        command
    };
    command.env("SCRIPT", script).env("U", crate::lab::PROGRAM);
    outcome(command)
}

#[test]
fn a_plain_user_mounts_through_fusermount3() {
    let lab = Lab::new();
    let script = r"
        $U --lower l1 --upper u --work w -o fsname='a\\\,b c',noatime m
        grep ' '$PWD/m' ' /proc/self/mounts
        cat m/one
        $U inspect m >/dev/null
        $U umount m
        ! grep ' '$PWD/m' ' /proc/self/mounts";
    let shown = as_plain_user(&lab, script).succeeds();
    assert!(shown.starts_with(r"a\134,b\040c "), "{shown}");
    for word in [
        "fuse.unionmount",
        "nosuid,nodev",
        "noatime",
        "default_permissions",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(!shown.contains("allow_other"), "{shown}");
}

#[test]
fn a_plain_user_ends_it_by_a_signal() {
    let lab = Lab::new();
    let script = "
        $U -f --lower l1 m & daemon=$!
        until $U inspect m >/dev/null 2>&1; do sleep 0.05; done
        kill $daemon
        wait $daemon
        ! grep ' '$PWD/m' ' /proc/self/mounts";
    as_plain_user(&lab, script).succeeds();
}

#[test]
fn what_fusermount3_refuses_is_explained() {
    let lab = Lab::new();
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !conf.lines().any(|line| line.trim() == "user_allow_other") {
        as_plain_user(&lab, "exec $U --lower l1 --allow-other m")
            .fails(1, &["user_allow_other", "/etc/fuse.conf"]);
    }
    let lab = Lab::new();
    as_plain_user(&lab, "exec $U --lower l1 /proc").fails(1, &["cannot mount on", "fusermount3"]);
}

#[test]
fn fusermount3_is_missing() {
    let lab = Lab::new();
    // Hidden, and without the right to mount by oneself.
    let script = "
        for f in /usr/bin/fusermount /usr/bin/fusermount3; do
            [ ! -e $f ] || mount --bind /dev/null $f
        done
        PATH=/usr/bin exec setpriv --bounding-set=-all --inh-caps=-all $U --lower l1 m";
    lab.in_user_namespace(script)
        .fails(1, &["fusermount3 is missing", "package fuse3"]);
}

/// As mount.fuse3 does with `drop_privileges`, or a helper with more rights than we have.
#[test]
fn the_caller_has_mounted() {
    let lab = Lab::new();
    let script = "
        exec 9<>/dev/fuse
        mount -i -t fuse.unionmount -o fd=9,rootmode=40000,user_id=0,group_id=0 given m
        setpriv --bounding-set=-all --inh-caps=-all $U --lower l1 --upper u --work w /dev/fd/9
        exec 9>&-
        cat m/one; echo x >m/new; cat u/new
        grep ' '$PWD/m' ' /proc/self/mounts | cut -d ' ' -f 1
        daemon=$($U inspect m | sed -n 's/^pid *//p')
        umount m
        n=0
        while kill -0 $daemon 2>/dev/null; do n=$((n+1)); test $n -lt 200; sleep 0.05; done";
    let shown = lab.in_user_namespace(script).succeeds();
    assert_eq!(shown, "1x\ngiven\n");
    // It is not ours to unmount.
    let script = "
        exec 9<>/dev/fuse
        mount -i -t fuse.unionmount -o fd=9,rootmode=40000,user_id=0,group_id=0 given m
        $U -f --lower l1 /dev/fd/9 & daemon=$!
        exec 9>&-
        cat m/one
        kill $daemon; wait $daemon
        grep -c ' '$PWD/m' ' /proc/self/mounts";
    assert_eq!(lab.in_user_namespace(script).succeeds(), "11\n");
}

#[test]
fn a_descriptor_that_is_none_of_fuse() {
    let lab = Lab::new();
    lab.run("--lower l1 /dev/fd/9")
        .fails(1, &["/dev/fd/9", "bad file descriptor"]);
    lab.run("--lower l1 /dev/fd/1").fails(1, &["/dev/fd/1"]);
    lab.in_user_namespace("exec 9</dev/null; exec $U --lower l1 /dev/fd/9")
        .fails(1, &["/dev/fd/9", "not the FUSE device"]);
}

/// What `check-host` says in there, `WAY yes` or `WAY no`.
fn ways(said: &str) -> Vec<String> {
    let lines = said.lines().skip(1);
    let words = lines.map(|line| {
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    });
    words.collect()
}

#[test]
fn what_works_on_this_machine() {
    let lab = Lab::new();
    let said = as_plain_user(&lab, "TMPDIR=$PWD/m exec $U check-host").succeeds();
    let want = [
        "root no",
        "user-namespace yes",
        "fusermount3 yes",
        "pod yes",
        "descriptor yes",
    ];
    assert_eq!(ways(&said), want, "{said}");
    // Each of them is true: `a_plain_user_mounts_through_fusermount3`, `in_a_user_namespace`.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let said = lab.run("check-host").succeeds();
        assert_eq!(ways(&said)[0], "root yes", "{said}");
    }
    let json = lab.in_user_namespace("$U check-host --json").succeeds();
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["ways"][0]["works"], false, "{json}");
    assert_eq!(report["ways"][1]["works"], true, "{json}");
    assert!(json.contains("sudo"), "{json}");
    assert_eq!(fs::read_dir(lab.path("m")).unwrap().count(), 0);
}

#[test]
fn what_is_missing_is_named() {
    let lab = Lab::new();
    let script = "mount -t tmpfs none /dev && exec $U check-host";
    let outcome = lab.in_user_namespace(script);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        ways(&outcome.stdout).iter().all(|way| way.ends_with(" no")),
        "{outcome:?}"
    );
    assert!(outcome.stdout.contains("--device /dev/fuse"), "{outcome:?}");
}

#[test]
fn other_users_may_not_control_a_mount() {
    let lab = Lab::new();
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("not run: a plain user cannot become another one; run the tests as root too");
        return;
    }
    lab.run("--lower l1 m").succeeds();
    let mut command = lab.command("setpriv", "--reuid=65534 --regid=65534 --clear-groups");
    command.args([crate::lab::PROGRAM, "inspect", "m"]);
    outcome(command).fails(1, &["no permission", "owner of the mount and root"]);
    lab.run("umount m").succeeds();
}

/// A redirect that anybody can write is neither written nor followed unless that is asked for.
#[test]
fn in_a_user_namespace_redirects_are_asked_for() {
    let lab = Lab::new();
    let script = r#"
        mkdir -p l1/d/sub; echo text >l1/d/sub/f
        move() { perl -e 'rename($ARGV[0], $ARGV[1]) or die "$!\n"' "$1" "$2"; }
        union="--lower l1 --upper u --work w"
        $U $union m
        if move m/d m/e; then exit 9; fi
        $U umount m
        $U $union --redirect-dir on m
        move m/d m/e
        cat m/e/sub/f
        $U umount m
        $U $union m
        if cat m/e/sub/f; then exit 9; fi
        $U umount m
        $U $union -o redirect_dir=follow m
        cat m/e/sub/f
        if move m/e m/d; then exit 9; fi
        $U umount m"#;
    let shown = lab.in_user_namespace(script).succeeds();
    assert_eq!(shown, "text\ntext\n");
}
