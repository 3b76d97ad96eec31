//! The union that is under test, and the others it is measured against.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::sys;

/// Who mounts a lab's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The program of this package, with further arguments.
    Ours(Vec<String>),
    /// Ours, which may open no more than so many descriptors.
    Cramped(u32),
    /// Ours, started by this command, with further arguments.
    OursUnder(Vec<String>, Vec<String>),
    /// The kernel's overlayfs, with the options under which it keeps hard links and renames
    /// directories.
    Kernel,
    /// The same with these options in place of its own.
    KernelWith(String),
    /// The same, which renames no directory that has a part in a lower.
    KernelWithoutRedirects,
    /// The fuse-overlayfs found on PATH.
    FuseOverlayfs,
    /// The same with these options too.
    FuseOverlayfsWith(String),
}

/// The layers of one mount.
pub struct Layers<'a> {
    pub lowers: &'a [PathBuf],
    pub upper: Option<(&'a Path, &'a Path)>,
    pub mnt: &'a Path,
}

impl Default for Subject {
    /// Ours, unless UNIONMOUNT_SUBJECT asks for a stand-in (`kernel` or `fuse-overlayfs`).
    fn default() -> Subject {
        match std::env::var("UNIONMOUNT_SUBJECT").as_deref() {
            Err(_) | Ok("" | "ours") => Subject::ours(&[]),
            Ok("kernel") => Subject::Kernel,
            Ok("fuse-overlayfs") => Subject::FuseOverlayfs,
            Ok(other) => panic!("UNIONMOUNT_SUBJECT={other}: not ours, kernel or fuse-overlayfs"),
        }
    }
}

impl Subject {
    pub fn ours(arguments: &[&str]) -> Subject {
        Subject::Ours(arguments.iter().map(|&a| a.to_owned()).collect())
    }

    /// The default subject with further arguments, where it is ours.
    pub fn with(arguments: &[&str]) -> Subject {
        match Subject::default() {
            Subject::Ours(_) => Subject::ours(arguments),
            other => other,
        }
    }

    /// The subject, and before it kernel overlayfs: shows that the test itself is right.
    pub fn and_kernel() -> Vec<Subject> {
        let mut all = vec![Subject::Kernel, Subject::default()];
        all.dedup();
        all
    }

    /// The kernel, and the subject in each of its ways to do I/O.
    pub fn all_io() -> Vec<Subject> {
        let mut all = vec![Subject::Kernel];
        all.extend(Subject::modes());
        all.dedup();
        all
    }

    /// The subject in each of its ways to do I/O.
    pub fn modes() -> Vec<Subject> {
        let modes: [&[&str]; 4] = [
            &[],
            &["--writeback"],
            &["--io", "direct"],
            &["--timeout", "0"],
        ];
        let mut all: Vec<Subject> = modes
            .iter()
            .map(|arguments| Subject::with(arguments))
            .collect();
        all.dedup();
        all
    }

    pub fn is_ours(&self) -> bool {
        matches!(
            self,
            Subject::Ours(_) | Subject::Cramped(_) | Subject::OursUnder(..)
        )
    }

    pub fn is_kernel(&self) -> bool {
        matches!(
            self,
            Subject::Kernel | Subject::KernelWith(_) | Subject::KernelWithoutRedirects
        )
    }

    /// Mounts and answers what went wrong, as the subject said it.
    pub fn mount(&self, layers: &Layers<'_>) -> Result<(), String> {
        match self {
            Subject::Ours(arguments) => {
                let mut command = Command::new(program());
                finished(
                    our_layers(&mut command, layers)
                        .args(arguments)
                        .arg(layers.mnt),
                    Duration::from_secs(60),
                )
            }
            Subject::Cramped(descriptors) => {
                let mut command = Command::new("sh");
                let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
                command.arg("-ec").arg(script).arg(program());
                let command = our_layers(&mut command, layers).arg(layers.mnt);
                finished(command, Duration::from_secs(60))
            }
            Subject::OursUnder(before, arguments) => {
                let mut command = Command::new(&before[0]);
                command.args(&before[1..]).arg(program());
                let command = our_layers(&mut command, layers).args(arguments);
                finished(command.arg(layers.mnt), Duration::from_secs(60))
            }
            Subject::FuseOverlayfs | Subject::FuseOverlayfsWith(_) => {
                let mut command = Command::new("fuse-overlayfs");
                if let Subject::FuseOverlayfsWith(more) = self {
                    command.arg("-o").arg(more);
                }
                command
                    .arg("-o")
                    .arg(overlay_options(layers))
                    .arg("-o")
                    .arg("allow_other");
                finished(command.arg(layers.mnt), Duration::from_secs(60))
            }
            Subject::Kernel | Subject::KernelWithoutRedirects => {
                let index = if layers.upper.is_some() { "on" } else { "off" };
                let redirects = match self {
                    Subject::Kernel => "on",
                    _ => "off",
                };
                let own = format!("redirect_dir={redirects},metacopy=off,xino=on,index={index}");
                mount_overlay(layers, &own)
            }
            Subject::KernelWith(own) => mount_overlay(layers, own),
        }
    }

    /// Unmounts politely; the daemon is gone afterwards, or the answer says why not.
    pub fn umount(&self, mnt: &Path, daemons: &[u32]) -> Result<(), String> {
        // A child that another test has just forked holds our descriptors until it execs.
        let end = Instant::now() + Duration::from_secs(3);
        loop {
            match self.try_umount(mnt) {
                Ok(()) => break,
                Err(why) if !why.to_lowercase().contains("busy") || Instant::now() > end => {
                    return Err(why);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        // Ours has promised that its daemon is gone when the command returns.
        let patience = Duration::from_secs(if self.is_ours() { 0 } else { 10 });
        wait_gone(daemons, patience)
    }

    fn try_umount(&self, mnt: &Path) -> Result<(), String> {
        match self {
            Subject::Ours(_) | Subject::Cramped(_) | Subject::OursUnder(..) => {
                let mut command = Command::new(program());
                finished(command.arg("umount").arg(mnt), Duration::from_secs(60))
            }
            Subject::Kernel
            | Subject::KernelWith(_)
            | Subject::KernelWithoutRedirects
            | Subject::FuseOverlayfs
            | Subject::FuseOverlayfsWith(_) => {
                sys::umount(mnt, 0).map_err(|errno| format!("umount2: {errno:?}"))
            }
        }
    }
}

fn mount_overlay(layers: &Layers<'_>, own: &str) -> Result<(), String> {
    let mut options = overlay_options(layers);
    options.push(format!(",{own}"));
    sys::mount("overlay", layers.mnt, "overlay", 0, &options).map_err(|errno| {
        let shown = options.display().to_string();
        format!("mount -t overlay -o {shown:.300}: {errno:?}")
    })
}

/// The program of this package.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_unionmount"))
}

/// Waits until the processes are gone.
pub fn wait_gone(processes: &[u32], patience: Duration) -> Result<(), String> {
    let end = Instant::now() + patience;
    loop {
        match processes.iter().find(|&&pid| is_alive(pid)) {
            None => return Ok(()),
            Some(pid) if Instant::now() > end => {
                return Err(format!("the daemon (process {pid}) is still there"));
            }
            Some(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Whether the process runs; a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    !matches!(state, None | Some(b'Z' | b'X'))
}

/// Processes, other than this one, that have `word` on their command line.
pub fn processes_about(word: &Path) -> Vec<u32> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let word = word.as_os_str().as_encoded_bytes();
        if pid != own && line.split(|b| *b == 0).any(|argument| argument == word) {
            found.push(pid);
        }
    }
    found
}

fn our_layers<'a>(command: &'a mut Command, layers: &Layers<'_>) -> &'a mut Command {
    for lower in layers.lowers {
        command.arg("--lower").arg(escaped(lower, b":\\"));
    }
    if let Some((upper, work)) = layers.upper {
        command.arg("--upper").arg(upper).arg("--work").arg(work);
    }
    command
}

fn overlay_options(layers: &Layers<'_>) -> OsString {
    let mut options = OsString::from("lowerdir=");
    for (n, lower) in layers.lowers.iter().enumerate() {
        if n > 0 {
            options.push(":");
        }
        options.push(lower);
    }
    if let Some((upper, work)) = layers.upper {
        options.push(",upperdir=");
        options.push(upper);
        options.push(",workdir=");
        options.push(work);
    }
    options
}

fn escaped(path: &Path, special: &[u8]) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if special.contains(byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    OsString::from_vec(out)
}

/// Runs a command to its end, without input; a failure is told with all that it said.
pub fn finished(command: &mut Command, patience: Duration) -> Result<(), String> {
    output(command, patience).map(drop)
}

/// What a command writes to its standard output, run without input; a failure is told with all that
/// it said.
pub fn output(command: &mut Command, patience: Duration) -> Result<String, String> {
    let what = format!("{command:?}");
    // A daemon that kept our pipe would keep us: output goes to files.
    let out = tempfile::tempfile().map_err(|e| e.to_string())?;
    let err = tempfile::tempfile().map_err(|e| e.to_string())?;
    let writer = |file: &std::fs::File| file.try_clone().map(Stdio::from).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer(&out))
        .stderr(writer(&err))
        .spawn()
        .map_err(|e| format!("{what}: cannot be started: {e}"))?;
    let end = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        if Instant::now() > end {
            child.kill().map_err(|e| e.to_string())?;
            child.wait().map_err(|e| e.to_string())?;
            return Err(format!("{what}: not finished after {patience:?}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let said = read_back(out)?;
    if status.success() {
        return Ok(said);
    }
    let signal = status
        .signal()
        .map_or(String::new(), |s| format!(" (signal {s})"));
    let complaint = read_back(err)?;
    let all = format!("{}\n{}", said.trim(), complaint.trim());
    Err(format!("{what}: {status}{signal}: {}", all.trim()))
}

fn read_back(mut file: std::fs::File) -> Result<String, String> {
    let mut text = Vec::new();
    std::io::Seek::rewind(&mut file).map_err(|e| e.to_string())?;
    file.read_to_end(&mut text).map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
