//! The Debian package: built as the README says, installed into a Debian of its own, used there as a new
//! user would, and removed without a trace.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../engines/image.rs"]
mod image;
#[macro_use]
#[path = "../kit/mod.rs"]
mod kit;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kit::{Mounts, must, output, sys, tools};

const PATIENCE: Duration = Duration::from_secs(600);

fn say(command: &mut Command) -> String {
    let what = format!("{command:?}");
    output(command, PATIENCE).unwrap_or_else(|why| panic!("{what}: {why}"))
}

/// Builds the package; with the tests' own build of it where that is a release.
fn build(to: &Path) -> PathBuf {
    let root = env!("CARGO_MANIFEST_DIR");
    let cargo = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(words).current_dir(root);
        // Of the cargo that runs this test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PKG_") {
                command.env_remove(name);
            }
        }
        command
    };
    say(cargo(&[
        "build",
        "--quiet",
        "--release",
        "--bins",
        "--example",
        "pages",
    ])
    .arg("--locked"));
    let pages = "run --quiet --release --locked --example pages -- target/pages";
    say(&mut cargo(&pages.split(' ').collect::<Vec<&str>>()));
    let mut command = Command::new(tools::find("cargo-deb", "cargo-deb"));
    let command = command.args(["deb", "--quiet", "--strip", "--no-build", "--output"]);
    say(command.arg(to).current_dir(root));
    let made = std::fs::read_dir(to)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let packages: Vec<PathBuf> = made
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    assert_eq!(packages.len(), 1, "{packages:?}");
    packages[0].clone()
}

/// A Debian without the package, in which things can be mounted.
struct Root {
    path: PathBuf,
    _mounts: Mounts,
}

impl Root {
    fn new() -> Root {
        let mut mounts = Mounts::new();
        let path = mounts.dir("root");
        must(
            Command::new("tar")
                .arg("-xf")
                .arg(image::base())
                .arg("-C")
                .arg(&path),
        );
        let proc = path.join("proc");
        let words = ["mount", "-t", "proc", "proc"].map(|word| word.as_ref());
        mounts.run(&words, &proc);
        let fuse = path.join("dev/fuse");
        if !sys::exists(&fuse) {
            sys::mknod(&fuse, libc::S_IFCHR | 0o666, sys::makedev(10, 229)).unwrap();
        }
        Root {
            path,
            _mounts: mounts,
        }
    }

    /// Runs a script in it, in a mount namespace of its own that ends with it.
    fn run(&self, script: &str) -> String {
        let mut command = Command::new("unshare");
        command.args(["-m", "chroot"]).arg(&self.path);
        say(command.args(["sh", "-euc", script]))
    }

    /// All files of it, but those that others write.
    fn files(&self) -> Vec<String> {
        let text = self.run("find / -xdev -path /proc -prune -o -path /run -prune -o -path /var/log -prune -o -path /var/lib/dpkg -prune \
                             -o -path /var/cache -prune -o -print | sort");
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_package_installs_works_and_goes() {
    let root = Root::new();
    let package = build(&root.path);
    let name = package.file_name().unwrap().to_str().unwrap().to_owned();
    let before = root.files();
    // The image of the engines' tests leaves documents out.
    root.run(&format!(
        "dpkg --path-include='/usr/share/doc/*' -i /{name}"
    ));

    // As a new user would.
    let shown = root.run(
        "mkdir -p /t/l /t/u /t/w /t/m; echo lower >/t/l/f
         unionmount --lower /t/l --upper /t/u --work /t/w /t/m; cat /t/m/f; echo more >>/t/m/f; cat /t/u/f
         unionmount umount /t/m
         mount -t fuse.unionmount -o lowerdir=/t/l,upperdir=/t/u,workdir=/t/w none /t/m; cat /t/m/f; umount /t/m
         /usr/lib/unionmount/fuse-overlayfs -o lowerdir=/t/l,upperdir=/t/u,workdir=/t/w /t/m; cat /t/m/f
         umount /t/m
         rm -r /t",
    );
    assert_eq!(shown, "lower\nlower\nmore\nlower\nmore\nlower\nmore\n");

    let pages = root.run("dpkg -L unionmount | grep /man/");
    for page in pages
        .lines()
        .filter(|line| line.contains("unionmount.") || line.contains("unionmount-"))
    {
        let text = say(Command::new("man")
            .arg("-l")
            .arg(root.path.join(&page[1..])));
        assert!(
            text.contains("NAME") && text.contains("SYNOPSIS"),
            "{page}: {text}"
        );
    }
    assert!(
        pages.contains("unionmount.1") && pages.contains("mount.fuse.unionmount.8"),
        "{pages}"
    );
    completes(&root.path);
    let conf = root.run("cat /usr/share/doc/unionmount/examples/storage.conf");
    assert!(
        conf.contains("mount_program = \"/usr/lib/unionmount/fuse-overlayfs\""),
        "{conf}"
    );

    root.run("dpkg -P unionmount");
    let after = root.files();
    let left: Vec<&String> = after.iter().filter(|file| !before.contains(file)).collect();
    let gone: Vec<&String> = before.iter().filter(|file| !after.contains(file)).collect();
    assert!(
        left.is_empty() && gone.is_empty(),
        "left: {left:?}, gone: {gone:?}"
    );
}

/// The shells themselves load what is installed, and complete with it.
fn completes(root: &Path) {
    let file = |path: &str| root.join(path);
    let script = "source \"$0\"; COMP_WORDS=(unionmount ins); COMP_CWORD=1; _unionmount unionmount ins unionmount
                  echo \"${COMPREPLY[@]}\"";
    let bash = file("usr/share/bash-completion/completions/unionmount");
    assert_eq!(
        say(Command::new("bash").arg("-c").arg(script).arg(bash)).trim(),
        "inspect"
    );
    let fish = file("usr/share/fish/vendor_completions.d/unionmount.fish");
    let script = format!("source {}; complete -C 'unionmount ins'", fish.display());
    let shown = say(Command::new("fish").args(["--no-config", "-c", &script]));
    assert!(shown.starts_with("inspect"), "{shown}");
    let zsh = file("usr/share/zsh/vendor-completions");
    let script = format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; autoload +X -Uz _unionmount; \
         print $_comps[unionmount]",
        zsh.display()
    );
    let shown = say(Command::new("zsh").args(["-f", "-c", &script]));
    assert_eq!(shown.trim(), "_unionmount");
}
