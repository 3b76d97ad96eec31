//! What is timed, and what has to be there before.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::image;
use crate::kit::{Scratch, finished, sys};
use crate::machine::Machine;

const RUN: &str = "buildah run --isolation chroot";
const PODMAN_RUN: &str = "podman --runtime runc run --pull never --network none --rm \
     --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

/// The image store of one driver, with the images `base` and `many`.
pub struct Store {
    machine: Machine,
}

impl Store {
    pub fn new(machine: Machine, many: &ManyFiles) -> Store {
        let base = image::base();
        machine.run("podman import -q", &[base.to_str().unwrap(), "base"]);
        machine.run("podman import -q", &[many.tar.to_str().unwrap(), "many"]);
        let context = machine.path("context");
        std::fs::create_dir(&context).unwrap();
        std::fs::create_dir(context.join("tree")).unwrap();
        sys::put(context.join("tree/file"), b"text").unwrap();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/Containerfile");
        std::fs::copy(file, context.join("Containerfile")).unwrap();
        Store { machine }
    }

    fn container(&self, image: &str) -> String {
        let image = format!("localhost/{image}");
        self.machine.run("buildah from --pull-never", &[&image])
    }

    fn run_in(&self, container: &str, script: &str) {
        self.machine
            .run(RUN, &[container, "--", "sh", "-ec", script]);
    }

    /// So that nothing is written out that was written before.
    fn sync(&self) {
        let dir = std::fs::File::open(self.machine.path("store")).unwrap();
        rustix::fs::syncfs(dir).unwrap();
    }

    fn remove(&self, container: &str) {
        self.machine.run("buildah rm", &[container]);
    }
}

/// An archive of an image of many small files, a hundred in a directory.
pub struct ManyFiles {
    tar: PathBuf,
    _scratch: Scratch,
}

pub fn many_files(count: usize) -> ManyFiles {
    let scratch = Scratch::new();
    let root = scratch.path().join("root");
    for n in 0..count {
        let dir = root.join(format!("many/d{}", n / 100));
        if n % 100 == 0 {
            std::fs::create_dir_all(&dir).unwrap();
        }
        sys::put(dir.join(format!("f{n}")), format!("file {n}\n").as_bytes()).unwrap();
    }
    // Something that can be run in it.
    let base = image::base();
    let tar = scratch.path().join("tar");
    let mut command = Command::new("tar");
    command.arg("-x").arg("-f").arg(base).arg("-C").arg(&root);
    finished(&mut command, Duration::from_secs(120)).unwrap();
    let mut command = Command::new("tar");
    command
        .arg("-c")
        .arg("-f")
        .arg(&tar)
        .arg("-C")
        .arg(&root)
        .arg(".");
    finished(&mut command, Duration::from_secs(120)).unwrap();
    std::fs::remove_dir_all(root).unwrap();
    let _scratch = scratch;
    ManyFiles { tar, _scratch }
}

/// One line of the table.
pub struct Row {
    pub name: String,
    work: Work,
}

enum Work {
    Start,
    Install,
    Build,
    /// A container of this image in which the script was run is committed.
    Commit(&'static str, &'static str),
}

pub fn rows(files: usize) -> Vec<Row> {
    let row = |name: &str, work| Row {
        name: name.to_owned(),
        work,
    };
    vec![
        row(
            "start and end of a container: podman run, true",
            Work::Start,
        ),
        row(
            "apt-get install and apt-get purge of a package in a container",
            Work::Install,
        ),
        row("build of five steps, a layer each", Work::Build),
        row(
            "commit: a few files of a Debian changed",
            Work::Commit("base", "echo more >>/etc/issue; touch /srv/new"),
        ),
        row(
            &format!("commit: a few of {files} files changed"),
            Work::Commit("many", "echo more >>/many/d0/f0; touch /srv/new"),
        ),
        row(
            &format!("commit: {files} files new"),
            Work::Commit("many", "cp -r /many /new"),
        ),
    ]
}

impl Row {
    /// Does it once; answers seconds.
    pub fn measure(&self, store: &Store) -> f64 {
        let machine = &store.machine;
        store.sync();
        match self.work {
            Work::Start => timed(|| {
                machine.run(PODMAN_RUN, &["localhost/base", "true"]);
            }),
            Work::Install => {
                let container = store.container("base");
                let script = "export DEBIAN_FRONTEND=noninteractive; apt-get -qq install -y \
                              --no-install-recommends /debs/tcc_*.deb && apt-get -qq purge -y tcc";
                let took = timed(|| store.run_in(&container, script));
                store.remove(&container);
                took
            }
            Work::Build => {
                let context = machine.path("context").display().to_string();
                let build = "podman build -q --no-cache --pull=never --isolation chroot --layers";
                let took = timed(|| {
                    machine.run(build, &["-t", "built", &context]);
                });
                machine.run("podman rmi", &["localhost/built"]);
                took
            }
            Work::Commit(image, script) => {
                let container = store.container(image);
                store.run_in(&container, script);
                store.sync();
                let took = timed(|| {
                    machine.run("buildah commit -q", &[&container, "committed"]);
                });
                store.remove(&container);
                machine.run("buildah rmi", &["localhost/committed"]);
                took
            }
        }
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
