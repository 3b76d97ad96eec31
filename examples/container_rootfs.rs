//! Works in a Debian system through a union and shows what that changed:
//!
//! ```text
//! cargo run --release --example container_rootfs -- [--cache DIR] [--suite NAME] [-- COMMAND...]
//! ```
//!
//! The system is made once by mmdebstrap (a Debian package) from the apt sources of this host, and
//! kept in DIR/rootfs if --cache is given. It is the lowest layer and stays as it is; above it lies a
//! small layer with what this host's network needs. COMMAND (a shell, if there is none) runs in the
//! union: as root by chroot, else in a user namespace of its own. Without --cache all is removed
//! afterwards.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

type Result<T> = std::result::Result<T, String>;

/// Set for the copy of this program that runs inside the namespaces: the program to mount with.
const INSIDE: &str = "UNIONMOUNT_ROOTFS_INSIDE";
const USAGE: &str = "usage: container_rootfs [--cache DIR] [--suite NAME] [-- COMMAND...]";
/// Changed paths that are printed; the rest is counted.
const SHOWN: usize = 20;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("container_rootfs: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for.
struct Arguments {
    cache: Option<PathBuf>,
    suite: String,
    command: Vec<OsString>,
}

impl Arguments {
    fn parse() -> Result<Arguments> {
        let mut parsed = Arguments {
            cache: None,
            suite: host_suite().unwrap_or_else(|| "stable".to_owned()),
            command: Vec::new(),
        };
        let mut words = std::env::args_os().skip(1);
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--cache") => {
                    let dir = words.next().ok_or(USAGE)?;
                    let dir = std::path::absolute(dir).map_err(|e| format!("--cache: {e}"))?;
                    parsed.cache = Some(dir);
                }
                Some("--suite") => {
                    let name = words.next().and_then(|w| w.into_string().ok());
                    parsed.suite = name.ok_or(USAGE)?;
                }
                Some("--") => {
                    parsed.command = words.collect();
                    break;
                }
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(parsed)
    }
}

/// The Debian suite of this host.
fn host_suite() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let line = release.lines();
    let mut names = line.filter_map(|line| line.strip_prefix("VERSION_CODENAME="));
    names.next().map(|name| name.trim_matches('"').to_owned())
}

/// Whether the command succeeded.
fn run() -> Result<bool> {
    let arguments = Arguments::parse()?;
    if let Some(program) = std::env::var_os(INSIDE) {
        return session(Path::new(&program), &arguments.command);
    }
    let program = find_program()?;
    let scratch = tempfile::Builder::new().prefix("rootfs-").tempdir();
    let scratch = scratch.map_err(|e| format!("cannot make a temporary directory: {e}"))?;
    let cache = arguments.cache.as_deref().unwrap_or(scratch.path());
    let rootfs = cache.join("rootfs");
    if rootfs.join("etc/debian_version").exists() {
        println!("# Using the system in {}", rootfs.display());
    } else {
        build_rootfs(cache, &rootfs, &arguments.suite)?;
    }
    let work = Workspace::new(scratch.path(), &rootfs)?;
    let finished = work.enter(&program, &arguments.command);
    let changes = Changes::collect(&work);
    match &changes {
        Ok(changes) => changes.print(),
        Err(why) => eprintln!("container_rootfs: cannot tell what changed: {why}"),
    }
    let cleaned = work.remove_upper();
    let status = finished?;
    changes?;
    cleaned?;
    Ok(status)
}

/// The program that belongs to this example: two levels up, built now if it is missing or old.
fn find_program() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    let profile = own.parent().and_then(Path::parent);
    let profile = profile.ok_or("this example does not lie in a target directory")?;
    let program = profile.join("unionmount");
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
    succeed(&mut build)?;
    match program.is_file() {
        true => Ok(program),
        false => Err(format!("cargo did not build {}", program.display())),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn show(command: &Command) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    println!("$ {}", words.join(" "));
}

/// Runs a command that must succeed.
fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status();
    let status = status.map_err(|e| format!("cannot run {name}: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{name} failed: {status}")),
    }
}

/// Makes a Debian system in `rootfs`, whole or not at all.
fn build_rootfs(cache: &Path, rootfs: &Path, suite: &str) -> Result<()> {
    let fail = |e: std::io::Error| format!("cannot use {}: {e}", cache.display());
    fs::create_dir_all(cache).map_err(fail)?;
    let tar = cache.join("rootfs.tar");
    let new = cache.join("rootfs.new");
    let sources = host_sources(suite)?;
    println!("# Making a Debian system ({suite}); this takes a minute or two");
    let mut build = Command::new("mmdebstrap");
    build.args(["--variant=minbase", "--quiet"]);
    for line in host_apt_options() {
        build.arg(format!("--aptopt={line}"));
    }
    build.arg(suite).arg(&tar).arg("-").stdin(Stdio::piped());
    show(&build);
    let started = build.spawn();
    let mut child = started.map_err(|e| {
        format!("cannot run mmdebstrap: {e} (it is a Debian package: apt-get install mmdebstrap)")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        let written = stdin.write_all(sources.as_bytes());
        written.map_err(|e| format!("cannot tell mmdebstrap the sources: {e}"))?;
    }
    let status = child.wait().map_err(|e| format!("mmdebstrap: {e}"))?;
    if !status.success() {
        let hint = match is_root() {
            true => "",
            false => " (as a plain user it needs subordinate ids: package uidmap, /etc/subuid)",
        };
        return Err(format!("mmdebstrap failed: {status}{hint}"));
    }
    // As root of a namespace there is only one owner, and no device can be made.
    let mut unpack = match is_root() {
        true => Command::new("tar"),
        false => {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "tar", "--no-same-owner"]);
            command
        }
    };
    fs::create_dir_all(&new).map_err(fail)?;
    unpack
        .arg("--exclude=./dev/*")
        .arg("-xf")
        .arg(&tar)
        .arg("-C")
        .arg(&new);
    succeed(&mut unpack)?;
    fs::remove_file(&tar).map_err(fail)?;
    fs::rename(&new, rootfs).map_err(fail)
}

/// The sources of this host's apt that are about `suite`, in the form that apt reads: what works
/// here works for mmdebstrap.
fn host_sources(suite: &str) -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    files.extend(parts.flatten().map(|entry| entry.path()));
    files.sort();
    let security = format!("{suite}-");
    let about = |word: &str| word == suite || word.starts_with(&security);
    let (mut lines, mut stanzas) = (String::new(), String::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(OsStr::to_str) {
            Some("list") => {
                for line in text.lines().map(str::trim) {
                    let words = line.split_whitespace();
                    if line.starts_with("deb ") && words.skip(1).any(about) {
                        lines.push_str(line);
                        lines.push('\n');
                    }
                }
            }
            Some("sources") => {
                for stanza in text.split("\n\n") {
                    let suites = stanza.lines().find_map(|line| line.strip_prefix("Suites:"));
                    if suites.is_some_and(|s| s.split_whitespace().any(about)) {
                        stanzas.push_str(stanza.trim());
                        stanzas.push_str("\n\n");
                    }
                }
            }
            _ => {}
        }
    }
    // mmdebstrap takes one form at a time.
    match (stanzas.is_empty(), lines.is_empty()) {
        (false, _) => Ok(stanzas),
        (true, false) => Ok(lines),
        (true, true) => Err(format!(
            "apt on this host has no source for {suite} (--suite NAME)"
        )),
    }
}

/// What this host's apt needs to reach its sources: proxies and the like.
fn host_apt_options() -> Vec<String> {
    let dump = Command::new("apt-config")
        .args(["dump", "Acquire"])
        .output();
    let text = dump.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
    let wanted = [
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
        "Acquire::Check-",
    ];
    let lines = text.unwrap_or_default();
    let lines = lines
        .lines()
        .filter(|line| wanted.iter().any(|w| line.starts_with(w)));
    lines.map(str::to_owned).collect()
}

/// The layers of one session, and where they are mounted.
struct Workspace {
    lowers: [PathBuf; 2],
    upper: PathBuf,
    work: PathBuf,
    root: PathBuf,
}

impl Workspace {
    fn new(scratch: &Path, rootfs: &Path) -> Result<Workspace> {
        let workspace = Workspace {
            lowers: [scratch.join("settings"), rootfs.to_owned()],
            upper: scratch.join("upper"),
            work: scratch.join("work"),
            root: scratch.join("root"),
        };
        let fail = |e: std::io::Error| format!("cannot use {}: {e}", scratch.display());
        for dir in [&workspace.upper, &workspace.work, &workspace.root] {
            fs::create_dir(dir).map_err(fail)?;
        }
        workspace.write_settings().map_err(fail)?;
        for dir in [&workspace.upper, &workspace.lowers[0]] {
            // It becomes "/" in the union, which everybody may enter.
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(fail)?;
        }
        Ok(workspace)
    }

    /// A layer with what the command needs to know of this host.
    fn write_settings(&self) -> std::io::Result<()> {
        let [settings, _] = &self.lowers;
        fs::create_dir_all(settings.join("etc/apt/apt.conf.d"))?;
        fs::create_dir_all(settings.join("usr/sbin"))?;
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            if let Ok(text) = fs::read(file) {
                fs::write(settings.join(&file[1..]), text)?;
            }
        }
        let mut apt = String::new();
        if !is_root() {
            // There is but one user in the namespace.
            apt.push_str("APT::Sandbox::User \"root\";\n");
        }
        fs::write(settings.join("etc/apt/apt.conf.d/90sandbox"), apt)?;
        // Packages must not start daemons.
        let policy = settings.join("usr/sbin/policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))
    }

    /// Runs the command in a mount namespace (and, for a plain user, a user namespace) of its own:
    /// whatever is mounted there is seen by nobody else.
    fn enter(&self, program: &Path, command: &[OsString]) -> Result<bool> {
        let own = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
        let mut inside = Command::new("unshare");
        inside.arg("--mount");
        if !is_root() {
            inside.args(["--user", "--map-root-user"]);
        }
        inside.arg(own).arg("--").args(command).env(INSIDE, program);
        inside.env("UNIONMOUNT_ROOTFS_DIRS", self.dirs());
        let status = inside.status();
        let status = status.map_err(|e| format!("cannot run unshare (package util-linux): {e}"))?;
        Ok(status.success())
    }

    fn dirs(&self) -> OsString {
        let [settings, rootfs] = &self.lowers;
        let dirs = [settings, rootfs, &self.upper, &self.work, &self.root];
        let mut joined = OsString::new();
        for dir in dirs {
            joined.push(dir);
            joined.push("\n");
        }
        joined
    }

    fn from_dirs(joined: &str) -> Result<Workspace> {
        let mut dirs = joined.lines().map(PathBuf::from);
        let mut next = || {
            dirs.next()
                .ok_or("the directories were not passed on".to_owned())
        };
        Ok(Workspace {
            lowers: [next()?, next()?],
            upper: next()?,
            work: next()?,
            root: next()?,
        })
    }

    /// Removes what other users own, too: a plain user does so inside a namespace.
    fn remove_upper(&self) -> Result<()> {
        let mut remove = match is_root() {
            true => Command::new("rm"),
            false => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-root-user", "rm"]);
                command
            }
        };
        succeed(remove.arg("-rf").arg(&self.upper).arg(&self.work))
    }
}

/// Mounts that are undone when dropped, the last one first.
struct Mounts<'a> {
    program: &'a Path,
    union: Option<PathBuf>,
    binds: Vec<PathBuf>,
}

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        for bind in self.binds.drain(..).rev() {
            let mut umount = Command::new("umount");
            // Lazy takes all below it along, which in a user namespace cannot go one by one.
            complain(umount.arg("--lazy").arg(&bind));
        }
        if let Some(union) = self.union.take() {
            complain(Command::new(self.program).arg("umount").arg(&union));
        }
    }
}

fn complain(command: &mut Command) {
    if let Err(why) = succeed(command) {
        eprintln!("container_rootfs: {why}");
    }
}

/// Inside the namespaces: mounts, runs the command, unmounts.
fn session(program: &Path, command: &[OsString]) -> Result<bool> {
    let dirs = std::env::var("UNIONMOUNT_ROOTFS_DIRS").unwrap_or_default();
    let place = Workspace::from_dirs(&dirs)?;
    let mut mounts = Mounts {
        program,
        union: None,
        binds: Vec::new(),
    };
    let mut mount = Command::new(program);
    for lower in &place.lowers {
        mount.arg("--lower").arg(lower);
    }
    mount
        .arg("--upper")
        .arg(&place.upper)
        .arg("--work")
        .arg(&place.work)
        .arg(&place.root);
    show(&mount);
    succeed(&mut mount)?;
    mounts.union = Some(place.root.clone());
    for name in ["proc", "dev", "sys"] {
        let at = place.root.join(name);
        let mut bind = Command::new("mount");
        // A slave: what is unmounted here is not unmounted elsewhere.
        bind.args(["--rbind", "--make-rslave"])
            .arg(Path::new("/").join(name))
            .arg(&at);
        succeed(&mut bind)?;
        mounts.binds.push(at);
    }
    let mut chroot = Command::new("chroot");
    chroot.arg(&place.root);
    match command {
        [] => chroot.args(["/bin/bash", "-i"]),
        command => chroot.args(command),
    };
    show(&chroot);
    chroot.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    chroot
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8");
    chroot
        .env_remove(INSIDE)
        .env_remove("UNIONMOUNT_ROOTFS_DIRS")
        .env_remove("TMPDIR");
    let status = chroot
        .status()
        .map_err(|e| format!("cannot run chroot: {e}"))?;
    println!("# The command ended: {status}");
    Ok(status.success())
}

/// What the upper holds, against the layers below it.
struct Changes {
    paths: BTreeMap<PathBuf, char>,
}

impl Changes {
    fn collect(place: &Workspace) -> Result<Changes> {
        let mut changes = Changes {
            paths: BTreeMap::new(),
        };
        let fail = |e: std::io::Error| format!("{}: {e}", place.upper.display());
        changes.walk(place, Path::new("")).map_err(fail)?;
        Ok(changes)
    }

    fn walk(&mut self, place: &Workspace, dir: &Path) -> std::io::Result<()> {
        let entries = match fs::read_dir(place.upper.join(dir)) {
            // Owned by somebody else of the namespace.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            let metadata = entry.metadata()?;
            let below = place
                .lowers
                .iter()
                .find_map(|l| l.join(&path).symlink_metadata().ok());
            if let Some(change) = change(&metadata, below.as_ref()) {
                self.paths.insert(path.clone(), change);
            }
            if metadata.is_dir() {
                self.walk(place, &path)?;
            }
        }
        Ok(())
    }

    fn print(&self) {
        let count = |kind| self.paths.values().filter(|k| **k == kind).count();
        let (added, changed, deleted) = (count('A'), count('C'), count('D'));
        println!("# In the upper: {added} added, {changed} changed, {deleted} deleted");
        let of = |kind| self.paths.iter().filter(move |(_, k)| **k == kind);
        let all = of('D').chain(of('C')).chain(of('A'));
        for (path, kind) in all.take(SHOWN) {
            println!("{kind} /{}", path.display());
        }
        if self.paths.len() > SHOWN {
            println!("... and {} more", self.paths.len() - SHOWN);
        }
    }
}

/// What an object of the upper means: A for added, C changed, D deleted.
fn change(upper: &Metadata, below: Option<&Metadata>) -> Option<char> {
    let Some(below) = below else {
        return (!is_whiteout(upper)).then_some('A');
    };
    if is_whiteout(upper) {
        return Some('D');
    }
    let of = |m: &Metadata| (m.mode(), m.uid(), m.gid());
    // A directory may have been copied up only for what is in it.
    let only_a_parent = upper.is_dir() && of(upper) == of(below);
    (!only_a_parent).then_some('C')
}

/// The default form of a deletion: a character device 0, 0.
fn is_whiteout(metadata: &Metadata) -> bool {
    let kind: FileType = metadata.file_type();
    kind.is_char_device() && metadata.rdev() == 0
}
