//! Stores where nobody may chown (`force_mask`): the engine keeps owners and modes in attributes, and tells
//! the program of it.

use std::path::PathBuf;
use std::process::Command;

use crate::image;
use crate::kit::must;
use crate::machine::{Driver, Machine, Who};

/// The base without devices, which this containers/storage cannot unpack so.
fn without_devices(machine: &Machine) -> PathBuf {
    let (dir, tar) = (machine.path("tree"), machine.path("base.tar"));
    std::fs::create_dir(&dir).unwrap();
    must(
        Command::new("tar")
            .args(["--exclude=./dev/*", "-xf"])
            .arg(image::base())
            .arg("-C")
            .arg(&dir),
    );
    must(
        Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(&dir)
            .arg("."),
    );
    std::fs::remove_dir_all(dir).unwrap();
    tar
}

fn owners_are_kept(who: Who) {
    let machine = Machine::new(who, Driver::OursMasked);
    let base = without_devices(&machine);
    machine.run("podman import -q", &[base.to_str().unwrap(), "base"]);
    let container = machine.run("buildah from --pull-never localhost/base", &[]);
    let script = "stat -c '%n %U:%G' /etc/shadow /usr/bin/passwd /usr/bin/chage
        echo text >/srv/f && chown www-data:mail /srv/f && chmod 4750 /srv/f
        mkdir -m 1777 /srv/d && chown 7:8 /srv/d && chown 9:9 /etc/issue
        stat -c '%a' /srv/f /srv/d";
    let run = "buildah run --isolation chroot";
    let said = machine.run(run, &[&container, "--", "sh", "-euc", script]);
    // (containers/storage 1.45 forgets setuid and setgid.)
    let wanted = "/etc/shadow root:shadow\n/usr/bin/passwd root:root\n/usr/bin/chage root:shadow\n\
                  4750\n1777";
    assert_eq!(said, wanted, "{who:?}");
    machine.run("buildah commit -q", &[&container, "owned"]);
    // On disk all is the engine's own.
    let upper = "find \"$1\" -path '*/diff/srv/f' -exec stat -c '%U %a' {} +";
    let store = machine.path("store").display().to_string();
    let lines = machine.run_unshared(&[upper, "sh", &store]);
    assert!(lines.lines().any(|line| line == "root 600"), "{lines}");
    let committed = machine.run("buildah from --pull-never localhost/owned", &[]);
    let script = "stat -c '%n %u:%g %a' /srv/f /srv/d /etc/issue /etc/shadow; cat /srv/f";
    let said = machine.run(run, &[&committed, "--", "sh", "-euc", script]);
    let wanted = "/srv/f 33:8 750\n/srv/d 7:8 777\n/etc/issue 9:9 644\n/etc/shadow 0:42 640\ntext";
    assert_eq!(said, wanted, "{who:?}");
}

#[test]
fn owners_are_kept_for_root() {
    owners_are_kept(Who::Root);
}

#[test]
fn owners_are_kept_for_a_plain_user() {
    owners_are_kept(Who::User);
}
