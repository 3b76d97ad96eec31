//! A tour of unionmount on three small layers: `cargo run --release --example quickstart`.
//!
//! Every step prints the command that it runs and what that said. Nothing is left behind: the mount
//! and the layers are removed at the end, also after a failure. Root needs nothing more; a plain
//! user is put into a user and mount namespace of their own first (`unshare -Urm`, of util-linux).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

type Result<T> = std::result::Result<T, String>;

/// Set for the copy of this program that runs inside the namespaces.
const INSIDE: &str = "UNIONMOUNT_QUICKSTART_INSIDE";

/// What is shown: why, and the shell command. A leading `!` means that it must fail.
const STEPS: &[(&str, &str)] = &[
    (
        "Three read-only layers and an empty directory for changes. Each layer holds a little.",
        "mkdir site tools base upper work union",
    ),
    (
        "",
        "mkdir base/etc base/doc tools/etc site/etc\n\
         echo 'hello from base' > base/etc/greeting\n\
         echo 'base' > base/etc/name\n\
         echo 'nobody reads this' > base/doc/manual\n\
         echo 'tools' > tools/etc/name\n\
         echo 'port = 80' > site/etc/site.conf",
    ),
    (
        "Mount them as one tree, the leftmost on top. Changes will go to `upper`.",
        "unionmount --lower site:tools:base --upper upper --work work union",
    ),
    (
        "One directory shows the names of all layers; `name` comes from the topmost that has it.",
        "ls union union/etc\ncat union/etc/name",
    ),
    (
        "Copy-up: a file of a lower is changed. The copy lies in `upper`, the lower stays as it was.",
        "echo 'and from me' >> union/etc/greeting\n\
         cat union/etc/greeting\n\
         echo '--- in base:' && cat base/etc/greeting\n\
         echo '--- in upper:' && find upper -type f",
    ),
    (
        "Whiteout: a file of a lower is deleted. It is gone from the union, but not from `base`.\n\
         # In `upper` a character device 0, 0 says so, as kernel overlayfs writes it.",
        "rm union/doc/manual\n\
         ls union/doc\n\
         echo '--- in base:' && ls base/doc\n\
         echo '--- in upper:' && ls -l upper/doc",
    ),
    ("!", "cat union/doc/manual"),
    (
        "The daemon tells what it is made of, asked through the mount itself.",
        "unionmount inspect union",
    ),
    ("And what it was asked so far.", "unionmount stats union"),
    (
        "Unmount. What was changed is kept in `upper`, ready for the next mount.",
        "unionmount umount union\nls union\nfind upper",
    ),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("quickstart: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    if let Some(program) = std::env::var_os(INSIDE) {
        return tour(Path::new(&program));
    }
    let program = find_program()?;
    if rustix::process::geteuid().is_root() {
        return tour(&program);
    }
    enter_namespaces(&program)
}

/// Runs this program again as root of a user namespace, where it may mount.
fn enter_namespaces(program: &Path) -> Result<()> {
    let options = ["--user", "--map-root-user", "--mount"];
    let probe = Command::new("unshare").args(options).arg("true").output();
    let probe = probe.map_err(|e| format!("cannot run unshare (package util-linux): {e}"))?;
    if !probe.status.success() {
        let said = String::from_utf8_lossy(&probe.stderr);
        return Err(format!(
            "this host forbids user namespaces to plain users ({}): run as root",
            said.trim()
        ));
    }
    say("Not root: going on in a user and mount namespace of our own (unshare -Urm).")?;
    let own = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    let status = Command::new("unshare")
        .args(options)
        .arg(own)
        .env(INSIDE, program)
        .status()
        .map_err(|e| format!("cannot run unshare: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err("the tour failed inside the namespaces".to_owned()),
    }
}

/// The program that belongs to this example: two levels up, built now if it is missing or old.
fn find_program() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    let profile = own.parent().and_then(Path::parent);
    let profile = profile.ok_or("this example does not lie in a target directory")?;
    let program = profile.join("unionmount");
    // Cargo, when it runs an example, says where it is itself; alone, we use what is there.
    let cargo = std::env::var_os("CARGO");
    if cargo.is_none() && program.is_file() {
        return Ok(program);
    }
    let mut build = Command::new(cargo.unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--bin", "unionmount"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(target) = profile.parent() {
        build.arg("--target-dir").arg(target);
    }
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let built = build.status();
    let built = built.map_err(|e| format!("cannot run cargo to build unionmount: {e}"))?;
    if !built.success() || !program.is_file() {
        return Err(format!("cannot build {}", program.display()));
    }
    Ok(program)
}

/// The directory of the tour; unmounted and removed when dropped.
struct Place {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        // The kernel lists paths without symlinks.
        let dir = self.dir.path();
        let union = dir.canonicalize().unwrap_or(dir.to_owned()).join("union");
        if !is_mounted(&union) {
            return;
        }
        eprintln!("quickstart: unmounting {}", union.display());
        for words in [
            vec![self.program.as_os_str(), "umount".as_ref()],
            vec!["umount".as_ref(), "--lazy".as_ref()],
        ] {
            if is_mounted(&union)
                && let Some((program, arguments)) = words.split_first()
            {
                let done = Command::new(program).args(arguments).arg(&union).status();
                if let Err(e) = done {
                    eprintln!("quickstart: cannot run {}: {e}", program.display());
                }
            }
        }
    }
}

/// Whether something is mounted at `path`, by the kernel's list.
fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4).map(Path::new) == Some(path))
}

fn tour(program: &Path) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("quickstart-").tempdir();
    let dir = dir.map_err(|e| format!("cannot make a directory to work in: {e}"))?;
    let place = Place {
        dir,
        program: program.to_owned(),
    };
    say(&format!(
        "This is {}, working in {}.",
        program.display(),
        place.dir.path().display()
    ))?;
    for (why, command) in STEPS {
        step(&place, why, command)?;
    }
    drop(place);
    say("Done: unmounted, and everything removed.")
}

/// Says why, runs the command, shows both it and what it said.
fn step(place: &Place, why: &str, command: &str) -> Result<()> {
    let (why, must_fail) = match why.strip_prefix('!') {
        Some(why) => (why, true),
        None => (why, false),
    };
    if !why.is_empty() {
        say(&format!("\n# {why}"))?;
    }
    let mut path = place
        .program
        .parent()
        .unwrap_or(Path::new("/"))
        .as_os_str()
        .to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    for line in command.lines() {
        say(&format!("$ {line}"))?;
        let done = Command::new("sh")
            .args(["-c", &format!("{{ {line}; }} 2>&1")])
            .current_dir(place.dir.path())
            .env("PATH", &path)
            .output()
            .map_err(|e| format!("cannot run sh: {e}"))?;
        let said = String::from_utf8_lossy(&done.stdout);
        if !said.is_empty() {
            say(said.trim_end())?;
        }
        if done.status.success() == must_fail {
            return Err(format!("unexpected end of {line:?}: {}", done.status));
        }
    }
    Ok(())
}

fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").map_err(|e| format!("cannot write: {e}"))
}
