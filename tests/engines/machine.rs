//! Where engines run: in namespaces of their own, with users, a configuration and an image store that
//! the machine outside knows nothing of. All its processes and mounts end with it.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::kit::{Scratch, is_alive, output, program, sys};

/// For one command.
const PATIENCE: Duration = Duration::from_secs(180);

const USER: u32 = 31_000;
const SUBORDINATE: &str = "engines:3100000:65536\n";

/// Who runs the engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Root,
    /// A plain user with subordinate ids.
    User,
}

/// What mounts images and containers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// Kernel overlayfs, called by the engine itself. With redirects, for then engines find out what
    /// changed as with a `mount_program`: by comparing two mounts, not by reading the upper.
    Kernel,
    /// Kernel overlayfs as an engine uses it by itself: it reads the upper to learn what changed.
    KernelDirect,
    /// Our program, as `mount_program`.
    Ours,
    /// The same in a store with `force_mask`.
    OursMasked,
    /// Debian's fuse-overlayfs, as `mount_program`.
    FuseOverlayfs,
}

/// One image store and who uses it.
pub struct Machine {
    who: Who,
    driver: Cell<Driver>,
    init: Child,
    scratch: Scratch,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}", self.who, self.driver.get())
    }
}

/// Mounts of its own, and a process that takes in orphans until its standard input ends.
const INIT: &str = r#"
# What others have mounted just now must not stay mounted here.
while read -r what dir kind rest; do
    case $kind in fuse*|overlay) umount --lazy "$dir" || true ;; esac
done </proc/self/mounts
mount --make-rshared /
mount -t tmpfs -o mode=755 none /run
mkdir -p -m 700 /run/user/31000
chown 31000:31000 /run/user/31000
mount -t tmpfs -o mode=1777 none /dev/shm
for file in passwd group subuid subgid; do
    [ -e /etc/$file ] || touch /etc/$file
    mount --bind etc/$file /etc/$file
done
mount --bind etc/containers /etc/containers
mknod -m 666 etc/fuse c 10 229
mount --bind etc/fuse /dev/fuse
echo ready
exec 3<&0
cat <&3 >/dev/null &
wait $!
"#;

impl Machine {
    /// With an empty store.
    pub fn new(who: Who, driver: Driver) -> Machine {
        let scratch = Scratch::new();
        configure(scratch.path());
        let mut init = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-euc", INIT])
            .current_dir(scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare of util-linux");
        let mut line = String::new();
        let said = BufReader::new(init.stdout.take().unwrap()).read_line(&mut line);
        assert_eq!((said.unwrap(), &*line), (6, "ready\n"), "namespaces");
        let machine = Machine {
            who,
            driver: Cell::new(driver),
            init,
            scratch,
        };
        machine.mount_with(driver);
        machine
    }

    /// From now on the store is mounted by another driver.
    pub fn mount_with(&self, driver: Driver) {
        self.driver.set(driver);
        let path = |name: &str| self.path(name).display().to_string();
        let program = |path: String| format!("mount_program = {path:?}\n");
        let (more, mount_program) = match driver {
            Driver::Kernel => (",redirect_dir=on", String::new()),
            Driver::KernelDirect => ("", String::new()),
            Driver::Ours => ("", program(path("bin/fuse-overlayfs"))),
            Driver::OursMasked => {
                let masked = program(path("bin/fuse-overlayfs")) + "force_mask = \"shared\"\n";
                ("", masked)
            }
            Driver::FuseOverlayfs => ("", program("/usr/bin/fuse-overlayfs".to_owned())),
        };
        let run = match self.who {
            Who::Root => "/run/containers/storage",
            Who::User => "/run/user/31000/containers",
        };
        let text = format!(
            "[storage]\ndriver = \"overlay\"\nrunroot = {run:?}\ngraphroot = {store:?}\n\
             rootless_storage_path = {store:?}\n\
             [storage.options.overlay]\nmountopt = \"nodev{more}\"\n{mount_program}",
            store = path("store"),
        );
        sys::put(self.path("storage.conf"), text.as_bytes()).unwrap();
    }

    /// A path that both sides see.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Runs a command line, its words separated by blanks, and further arguments; answers what it
    /// printed, and how a failure was explained.
    pub fn try_run(&self, line: &str, more: &[&str]) -> Result<String, String> {
        let inside = format!("/proc/{}/ns", self.init.id());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={inside}/mnt"))
            .arg(format!("--pid={inside}/pid_for_children"))
            .args(["env", "-i"])
            .arg(format!("--chdir={}", self.path("home").display()))
            .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
            .arg(format!("HOME={}", self.path("home").display()))
            .arg(format!("TMPDIR={}", self.path("tmp").display()))
            .arg(format!(
                "CONTAINERS_STORAGE_CONF={}",
                self.path("storage.conf").display()
            ));
        if self.who == Who::User {
            command
                .args(["XDG_RUNTIME_DIR=/run/user/31000", "USER=engines"])
                .args(["setpriv", "--clear-groups"])
                .arg(format!("--reuid={USER}"))
                .arg(format!("--regid={USER}"));
        }
        command.args(line.split_whitespace()).args(more);
        output(&mut command, PATIENCE).map(|text| text.trim_end().to_owned())
    }

    /// The same for what must succeed.
    #[track_caller]
    pub fn run(&self, line: &str, more: &[&str]) -> String {
        self.try_run(line, more)
            .unwrap_or_else(|why| panic!("{self:?}: {why}"))
    }

    /// Runs a script where mounts of containers are seen: a plain user's are in namespaces of that
    /// user's.
    #[track_caller]
    pub fn run_unshared(&self, script: &[&str]) -> String {
        match self.who {
            Who::Root => self.run("sh -euc", script),
            Who::User => self.run("buildah unshare sh -euc", script),
        }
    }

    /// The processes in it, as the outside numbers them.
    pub fn processes(&self) -> Vec<u32> {
        let namespace = |pid: &str, which: &str| fs::read_link(format!("/proc/{pid}/ns/{which}"));
        let ours = namespace(&self.init.id().to_string(), "pid_for_children").unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
                continue;
            };
            let pid = name.parse().unwrap();
            if namespace(name, "pid").is_ok_and(|other| other == ours) && is_alive(pid) {
                found.push(pid);
            }
        }
        found
    }

    /// Waits until no other processes run than these: a daemon ends after the unmount.
    #[track_caller]
    pub fn expect_processes(&self, wanted: &[u32]) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.processes() != wanted {
            assert!(Instant::now() < end, "{self:?}: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The mounts in it.
    pub fn mounts(&self) -> String {
        fs::read_to_string(format!("/proc/{}/mounts", self.init.id())).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process ends with its input, and the kernel ends all others with it.
        drop(self.init.stdin.take());
        if let Err(e) = self.init.wait() {
            eprintln!("engines: {e}");
        }
    }
}

/// Files of /etc, the program, and directories.
fn configure(dir: &Path) {
    let at = |name: &str| dir.join(name);
    for name in ["etc", "etc/containers", "bin", "store", "home", "tmp"] {
        sys::mkdir(at(name), 0o755).unwrap();
    }
    for name in ["store", "home", "tmp"] {
        sys::chmod(at(name), 0o777).unwrap();
    }
    let outside = |name: &str| fs::read_to_string(name).unwrap_or_default();
    let put = |name: &str, text: String| sys::put(at(name), text.as_bytes()).unwrap();
    let home = at("home").display().to_string();
    let user = format!("engines:x:{USER}:{USER}::{home}:/bin/sh\n");
    put("etc/passwd", outside("/etc/passwd") + &user);
    put(
        "etc/group",
        outside("/etc/group") + &format!("engines:x:{USER}:\n"),
    );
    put("etc/subuid", SUBORDINATE.to_owned());
    put("etc/subgid", SUBORDINATE.to_owned());
    let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
    put("etc/containers/policy.json", policy.to_owned());
    let engine = "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n";
    put("etc/containers/containers.conf", engine.to_owned());
    // A copy: a plain user need not reach where cargo builds.
    let copy = at("bin/fuse-overlayfs");
    fs::copy(program(), &copy).unwrap();
    fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).unwrap();
}
