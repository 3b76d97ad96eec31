//! Called by other programs: mount(8), fuse-overlayfs's callers.

use crate::lab::{Lab, outcome};

#[test]
fn the_mount_helper_and_remount() {
    let lab = Lab::new();
    lab.program_as("mount.fuse.unionmount");
    // Both ways of mount -o remount: our helper, and mount(8) by itself (-i: no helper).
    let script = "
        helper=bin/mount.fuse.unionmount
        show() { grep ' '$PWD/m' ' /proc/self/mounts; }
        $helper 'my data' m -o rw,lowerdir=l1:l2,upperdir=u,workdir=w,nodev,_netdev,x-a.b
        show
        $helper 'my data' m -o remount,ro
        show
        $helper 'my data' m -o remount,rw,noexec
        show
        mount -i -o remount,ro $PWD/m
        show
        $U umount m";
    let shown = lab.in_user_namespace(script).succeeds();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    for (line, start) in lines.iter().zip([
        "rw,nodev,relatime",
        "ro,nodev,relatime",
        "rw,nodev,noexec",
        "ro,nodev",
    ]) {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some(r"my\040data"));
        assert_eq!(words.nth(1), Some("fuse.unionmount"));
        assert!(words.next().unwrap().starts_with(start), "{start}: {line}");
    }
}

#[test]
fn a_read_only_union_cannot_be_remounted_writable() {
    let lab = Lab::new();
    lab.program_as("mount.fuse.unionmount");
    let script = "
        bin/mount.fuse.unionmount none m -o lowerdir=l1
        bin/mount.fuse.unionmount none m -o remount,rw";
    lab.in_user_namespace(script)
        .fails(1, &["writable", "was mounted read-only"]);
}

#[test]
fn as_containerd_calls_fuse_overlayfs() {
    let lab = Lab::new();
    let program = lab.program_as("fuse-overlayfs");
    let line = "overlay m -o lowerdir=l1:l2,upperdir=u,workdir=w,fsync=0,volatile,dev,suid";
    outcome(lab.command(program, line)).succeeds();
    let shown = lab.mounted("m").unwrap();
    assert!(
        shown.starts_with("fuse-overlayfs fuse.fuse-overlayfs rw,"),
        "{shown}"
    );
    lab.run("umount m").succeeds();
}
