//! Container engines, as Debian packages them, with unionmount as `mount_program`: buildah and podman
//! as root and as a plain user, whose layers must be those of kernel overlayfs; and bubblewrap.
//!
//! `cargo test --test engines`. Needs root, the packages that tests/run names, and a mirror of Debian
//! for the first run, which keeps its base image in `target/tmp`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../rootfs/exceptions.rs"]
mod exceptions;
#[path = "../kit/mod.rs"]
mod kit;

mod image;
mod layers;
// benches/engines uses more of it.
#[allow(dead_code)]
mod machine;
mod masked;
mod store;
mod unions;

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kit::sys;
use layers::{Layer, above_base, differences};
use machine::{Driver, Machine, Who};

const WORK: &str = include_str!("work.sh");

/// What podman needs where a user may not set everything up.
const PODMAN_RUN: &str = "podman --runtime runc run --pull never --network none \
     --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

/// What an engine made, to be compared.
struct Made {
    worked: Vec<Layer>,
    built: Vec<Layer>,
    changed: Vec<String>,
}

/// When the first of all runs began: what has a later time was written by one.
fn start() -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    *START.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap()
    })
}

/// By kernel overlayfs, once.
fn wanted() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| made(&Machine::new(Who::Root, Driver::Kernel)))
}

/// All that is done with one store.
fn made(machine: &Machine) -> Made {
    let base = image::base();
    let since = start();
    let clock = Instant::now();
    let done = |what: &str| eprintln!("{machine:?}: {what} after {:.1?}", clock.elapsed());
    machine.run("podman import -q", &[base.to_str().unwrap(), "base"]);
    done("imported");
    let container = machine.run("buildah from --pull-never localhost/base", &[]);
    let run = "buildah run --isolation chroot";
    machine.run(run, &[&container, "--", "sh", "-c", WORK]);
    done("worked");
    machine.run("buildah commit -q", &[&container, "worked"]);
    machine.run("buildah rm", &[&container]);
    done("committed");
    plant_context(machine);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/Containerfile");
    let text = std::fs::read(file).unwrap();
    sys::put(machine.path("context/Containerfile"), &text).unwrap();
    let context = machine.path("context").display().to_string();
    machine.run(
        "podman build -q --pull=never --isolation chroot --layers -t built",
        &[&context],
    );
    done("built");
    let changed = run_podman(machine);
    done("run");
    let made = Made {
        worked: above_base(machine, "worked", since),
        built: above_base(machine, "built", since),
        changed,
    };
    done("read");
    made
}

/// What the Containerfile copies.
fn plant_context(machine: &Machine) {
    let tree = machine.path("context/tree");
    std::fs::create_dir_all(tree.join("d/empty")).unwrap();
    sys::put(tree.join("file"), b"text\n").unwrap();
    sys::put(tree.join("d/program"), b"#!/bin/sh\necho ran\n").unwrap();
    sys::chmod(tree.join("d/program"), 0o755).unwrap();
    sys::symlink("d/program", tree.join("link")).unwrap();
}

/// Runs both images; answers what a container changed, as `podman diff` sees it.
fn run_podman(machine: &Machine) -> Vec<String> {
    let said = machine.run(PODMAN_RUN, &["--rm", "localhost/worked", "compiled"]);
    assert_eq!(said, "compiled");
    let script = "/opt/tree/link && cat /usr/share/perl5.moved/Debconf/Config.pm >/dev/null
        test ! -e /etc/host.conf && test ! -e /usr/share/common-licenses
        stat -c '%a %u %g' /usr/bin/tac /usr/share/base-files
        echo more >>/etc/issue && rm /etc/issue.net && rm -r /etc/skel && mkdir /srv/new";
    let more = ["--name", "changes", "localhost/built", "sh", "-euc", script];
    let said = machine.run(PODMAN_RUN, &more);
    assert_eq!(said, "ran\n4711 0 0\n755 7 8");
    let changed = machine.run("podman diff changes", &[]);
    let mut changed: Vec<String> = changed.lines().map(str::to_owned).collect();
    changed.sort();
    machine.run("podman rm changes", &[]);
    changed
}

fn is_what_the_kernel_makes(who: Who) {
    let made = made(&Machine::new(who, Driver::Ours));
    let wanted = wanted();
    let mut faults = differences(&wanted.worked, &made.worked);
    faults.extend(differences(&wanted.built, &made.built));
    assert!(
        faults.is_empty(),
        "{who:?}: {} faults\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert_eq!(wanted.changed, made.changed, "{who:?}: podman diff");
}

#[test]
fn images_made_by_root() {
    is_what_the_kernel_makes(Who::Root);
}

#[test]
fn images_made_by_a_plain_user() {
    is_what_the_kernel_makes(Who::User);
}
