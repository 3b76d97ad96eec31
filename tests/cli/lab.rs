//! A scratch place with layers, a way to run the program in it, and the certainty that nothing
//! stays mounted.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_unionmount");

/// Longest that any command here may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Directories `l1`, `l2`, `u`, `w` and `m`; removed, and all below unmounted, at the end.
pub(crate) struct Lab {
    root: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "stdout: {} stderr: {}",
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Failed with this status and one line on stderr that holds all of `parts`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "stderr: {}", self.stderr);
        assert!(
            self.stderr.starts_with("unionmount: "),
            "stderr: {}",
            self.stderr
        );
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "{part:?} is not in: {}",
                self.stderr
            );
        }
    }
}

impl Lab {
    pub(crate) fn new() -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("unionmount-cli-{}-{count}", std::process::id());
        let root = std::env::temp_dir().canonicalize().unwrap().join(name);
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let lab = Lab { root };
        for dir in ["l1", "l2", "u", "w", "m", "bin"] {
            fs::create_dir(lab.path(dir)).unwrap();
        }
        fs::write(lab.path("l1/one"), "1").unwrap();
        fs::write(lab.path("l2/two"), "2").unwrap();
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The program under another name.
    pub(crate) fn program_as(&self, name: &str) -> PathBuf {
        let link = self.path("bin").join(name);
        if !link.exists() {
            symlink(PROGRAM, &link).unwrap();
        }
        link
    }

    /// `program` with the words of `line`, in the scratch directory.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>, line: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(line.split_whitespace())
            .current_dir(&self.root)
            .stdin(Stdio::null());
        command
    }

    /// Runs `unionmount LINE`.
    pub(crate) fn run(&self, line: &str) -> Outcome {
        outcome(self.command(PROGRAM, line))
    }

    /// Runs a shell script with the program as `$U`, in user and mount namespaces of its own.
    pub(crate) fn in_user_namespace(&self, script: &str) -> Outcome {
        let mut command = self.command("unshare", "-Urm sh -euc");
        command.arg(script).env("U", PROGRAM);
        outcome(command)
    }

    /// Starts `unionmount -f LINE` and waits until it is mounted on `m`.
    pub(crate) fn foreground(&self, line: &str) -> Foreground {
        let mut command = self.command(PROGRAM, line);
        command
            .arg("-f")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + LIMIT;
        while self.mounted("m").is_none() {
            if let Some(status) = child.try_wait().unwrap() {
                let got = child.wait_with_output().unwrap();
                panic!("{status}: {}", String::from_utf8_lossy(&got.stderr));
            }
            assert!(Instant::now() < deadline, "not mounted after {LIMIT:?}");
            thread::sleep(Duration::from_millis(5));
        }
        Foreground { child: Some(child) }
    }

    /// `SOURCE TYPE OPTIONS` of what is mounted on `name`.
    pub(crate) fn mounted(&self, name: &str) -> Option<String> {
        mounts_below(&self.path(name)).pop().map(|(_, rest)| rest)
    }

    /// The process behind the mount on `m`.
    pub(crate) fn daemon(&self) -> u32 {
        let json = self.run("inspect --json m").succeeds();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        value["pid"].as_u64().unwrap().try_into().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (mountpoint, _) in mounts_below(&self.root).into_iter().rev() {
            let plain = |program: &str, args: &[&str]| {
                Command::new(program)
                    .args(args)
                    .arg(&mountpoint)
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success())
            };
            if !plain("umount", &["-l"]) && !plain("fusermount3", &["-uz"]) {
                eprintln!("left mounted: {}", mountpoint.display());
                return;
            }
        }
        if let Err(e) = fs::remove_dir_all(&self.root) {
            eprintln!("left behind: {}: {e}", self.root.display());
        }
    }
}

/// A daemon that is our child; killed if a test fails while it runs.
pub(crate) struct Foreground {
    child: Option<Child>,
}

impl Foreground {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.as_ref().unwrap().id().try_into().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }

    /// Waits for its end; returns how it ended and how long that took.
    pub(crate) fn wait(mut self) -> (Outcome, Duration) {
        let start = Instant::now();
        let child = self.child.take().unwrap();
        let outcome = bounded(move || child.wait_with_output());
        (outcome, start.elapsed())
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Runs `command` to its end, and until its pipes are closed by whoever inherited them.
pub(crate) fn outcome(mut command: Command) -> Outcome {
    bounded(move || command.output())
}

fn bounded(
    run: impl FnOnce() -> std::io::Result<std::process::Output> + Send + 'static,
) -> Outcome {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(run()));
    let output = receive
        .recv_timeout(LIMIT)
        .expect("still running, or a pipe is still open");
    let output = output.expect("the program can be started");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Mounts at or below `path`, as `(mount point, SOURCE TYPE OPTIONS)`.
fn mounts_below(path: &Path) -> Vec<(PathBuf, String)> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap();
    text.lines()
        .filter_map(|line| {
            let [source, mountpoint, fs_type, options, ..] =
                line.split(' ').collect::<Vec<_>>()[..]
            else {
                return None;
            };
            let mountpoint = PathBuf::from(mountpoint);
            let rest = format!("{source} {fs_type} {options}");
            mountpoint.starts_with(path).then_some((mountpoint, rest))
        })
        .collect()
}
