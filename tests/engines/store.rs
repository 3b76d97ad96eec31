//! One image store for all: what fuse-overlayfs wrote is mounted by unionmount, and the other way
//! round; and mounts that come and go leave nothing behind.

use crate::image;
use crate::machine::{Driver, Machine, Who};

const SHOW: &str = include_str!("show.sh");

/// An image, and a container of it in which work was done, that is not committed.
fn fill(machine: &Machine) -> String {
    let base = image::base();
    machine.run("podman import -q", &[base.to_str().unwrap(), "base"]);
    let container = machine.run("buildah from --pull-never localhost/base", &[]);
    work(machine, &container, crate::WORK);
    machine.run("buildah commit -q", &[&container, "worked"]);
    let container = machine.run("buildah from --pull-never localhost/worked", &[]);
    let more = "rm -r /usr/share/perl5.moved/Debconf && echo more >>/etc/issue && mkdir /etc/new
        rm /usr/bin/tac.link && mv /usr/share/base-files.back /usr/share/base-files";
    work(machine, &container, more);
    container
}

fn work(machine: &Machine, container: &str, script: &str) {
    let run = "buildah run --isolation chroot";
    machine.run(run, &[container, "--", "sh", "-euc", script]);
}

/// The tree that a container shows.
fn shown(machine: &Machine, container: &str) -> Vec<String> {
    let script = format!("(\n{SHOW}\n) && buildah umount {container} >/dev/null");
    let mount = format!("set -eu; set -- $(buildah mount {container}); {script}");
    let shown = machine.run_unshared(&[&mount]);
    assert!(shown.lines().count() > 4000, "{shown:.2000}");
    shown.lines().map(str::to_owned).collect()
}

/// A store that one wrote is read, and written on, by the other.
fn exchange(who: Who, first: Driver, second: Driver) {
    let machine = Machine::new(who, first);
    let container = fill(&machine);
    let wanted = shown(&machine, &container);
    machine.mount_with(second);
    assert_same(&machine, &wanted, &shown(&machine, &container));
    let more = "test ! -e /usr/share/perl5.moved/Debconf && mkdir /usr/share/perl5.moved/Debconf
        rm -r /etc/new && echo new >/etc/new && rm /usr/bin/tac && echo other >>/etc/issue";
    work(&machine, &container, more);
    let wanted = shown(&machine, &container);
    machine.run("buildah commit -q", &[&container, "exchanged"]);
    machine.mount_with(first);
    assert_same(&machine, &wanted, &shown(&machine, &container));
    let committed = machine.run("buildah from --pull-never localhost/exchanged", &[]);
    let committed = shown(&machine, &committed);
    assert_same(&machine, &timeless(&wanted), &timeless(&committed));
}

/// Without times, which an image has in whole seconds and of some directories not at all, and without
/// the sum over everything.
fn timeless(tree: &[String]) -> Vec<String> {
    let lines = tree.iter().filter(|line| line.starts_with('.'));
    let lines = lines.map(|line| line.split(' ').filter(|word| !is_time(word)).collect());
    lines.map(|words: Vec<&str>| words.join(" ")).collect()
}

/// Seconds with ten decimal places, as find prints them.
fn is_time(word: &str) -> bool {
    word.split_once('.').is_some_and(|(seconds, parts)| {
        seconds.len() == 10 && parts.len() == 10 && parts.bytes().all(|b| b.is_ascii_digit())
    })
}

#[track_caller]
fn assert_same(machine: &Machine, wanted: &[String], shown: &[String]) {
    let only = |a: &[String], b: &[String], sign: &str| -> Vec<String> {
        let b: std::collections::BTreeSet<_> = b.iter().collect();
        let lines = a.iter().filter(|line| !b.contains(line));
        lines.map(|line| format!("{sign} {line}")).collect()
    };
    let mut lines = only(wanted, shown, "<");
    lines.extend(only(shown, wanted, ">"));
    assert!(lines.is_empty(), "{machine:?}:\n{}", lines.join("\n"));
}

#[test]
fn root_takes_over_the_store_of_fuse_overlayfs() {
    exchange(Who::Root, Driver::FuseOverlayfs, Driver::Ours);
}

#[test]
fn a_plain_user_takes_over_the_store_of_fuse_overlayfs() {
    exchange(Who::User, Driver::FuseOverlayfs, Driver::Ours);
}

#[test]
fn fuse_overlayfs_takes_over_the_store_of_root() {
    exchange(Who::Root, Driver::Ours, Driver::FuseOverlayfs);
}

#[test]
fn fuse_overlayfs_takes_over_the_store_of_a_plain_user() {
    exchange(Who::User, Driver::Ours, Driver::FuseOverlayfs);
}

/// A hundred mounts, each used and unmounted.
fn come_and_go(who: Who) {
    let machine = Machine::new(who, Driver::Ours);
    let base = image::base();
    machine.run("podman import -q", &[base.to_str().unwrap(), "base"]);
    let container = machine.run("buildah from --pull-never localhost/base", &[]);
    let script = "
        for n in $(seq 100); do
            dir=$(buildah mount $1)
            grep -q \"$dir fuse.fuse-overlayfs\" /proc/self/mounts
            echo $n >$dir/srv/n
            buildah umount $1 >/dev/null
            test ! -e $dir/srv
        done
        dir=$(buildah mount $1)
        cat $dir/srv/n
        buildah umount $1 >/dev/null";
    // A plain user's first call leaves a process that keeps the namespaces.
    machine.run_unshared(&["true"]);
    let before = machine.processes();
    let said = machine.run_unshared(&[script, "sh", &container]);
    assert_eq!(said, "100");
    machine.expect_processes(&before);
    let store = machine.path("store").display().to_string();
    assert!(!machine.mounts().contains(&store), "{}", machine.mounts());
}

#[test]
fn mounts_of_root_come_and_go() {
    come_and_go(Who::Root);
}

#[test]
fn mounts_of_a_plain_user_come_and_go() {
    come_and_go(Who::User);
}
