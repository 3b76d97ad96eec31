//! One union on layers of its own: planted from text, mounted, looked at, unmounted whatever happens.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use super::Scratch;
use super::layer::plant;
use super::snapshot::{self, Look, Reading, Snapshot};
use super::subject::{self, Layers, Subject};
use super::sys;

/// How long a test may keep a mount before it counts as hung and its connection is cut.
const PATIENCE: Duration = Duration::from_secs(400);

/// Layers, and the union mounted over them.
pub struct Lab {
    scratch: Scratch,
    subject: Subject,
    lowers: Vec<PathBuf>,
    data: Vec<PathBuf>,
    has_upper: bool,
    mounted: Option<Mounted>,
    /// How long a test may keep a mount before it counts as hung.
    patience: Duration,
    lowers_before: Option<Vec<Snapshot>>,
}

struct Mounted {
    daemons: Vec<u32>,
    /// Dropped to call the watchdog off.
    _watchdog: mpsc::Sender<()>,
}

impl Lab {
    /// With no layers yet.
    pub fn new() -> Lab {
        Lab::on(Scratch::new())
    }

    /// The same on another filesystem than usual: that of directory `parent`.
    pub fn within(parent: &Path) -> Lab {
        Lab::on(Scratch::within(parent))
    }

    fn on(scratch: Scratch) -> Lab {
        let lab = Lab {
            scratch,
            subject: Subject::default(),
            lowers: Vec::new(),
            data: Vec::new(),
            has_upper: false,
            mounted: None,
            patience: PATIENCE,
            lowers_before: None,
        };
        for name in ["mnt", "work"] {
            sys::mkdir(lab.scratch.path().join(name), 0o755).unwrap();
        }
        lab
    }

    /// Adds a lower below those given before.
    pub fn lower(mut self, text: &str) -> Lab {
        let path = self
            .scratch
            .path()
            .join(format!("lower{}", self.lowers.len()));
        plant(&path, text);
        self.lowers.push(path);
        self
    }

    /// Adds a directory that lies elsewhere as the next lower.
    pub fn lower_at(mut self, path: &Path) -> Lab {
        self.lowers.push(path.to_owned());
        self
    }

    /// Adds a layer of data alone below those given before.
    pub fn data(mut self, text: &str) -> Lab {
        let path = self.aside(&format!("data{}", self.data.len()));
        plant(&path, text);
        self.data.push(path);
        self
    }

    /// Gives it an upper with that content.
    pub fn upper(mut self, text: &str) -> Lab {
        plant(&self.upper_dir(), text);
        self.has_upper = true;
        self
    }

    /// Mounts the default subject.
    #[track_caller]
    pub fn mount(self) -> Lab {
        self.mount_as(&Subject::default())
    }

    /// Of a test that takes so much longer than others.
    pub fn patient(mut self, more: Duration) -> Lab {
        self.patience += more;
        self
    }

    #[track_caller]
    pub fn mount_as(mut self, subject: &Subject) -> Lab {
        self.remount_as(subject);
        self
    }

    /// Tries to mount; what went wrong comes back as the subject said it.
    pub fn try_mount_as(&mut self, subject: &Subject) -> Result<(), String> {
        assert!(self.mounted.is_none(), "mounted already");
        self.subject = subject.clone();
        if self.lowers_before.is_none() {
            self.lowers_before = Some(self.read_lowers());
        }
        let (upper, work, mnt) = (self.upper_dir(), self.work_dir(), self.mnt());
        let (subject, lowers) = self.with_data(subject);
        let layers = Layers {
            lowers: &lowers,
            upper: self.has_upper.then_some((&upper, &work)),
            mnt: &mnt,
        };
        // A mount namespace that another process was making just now keeps the last mount, and so
        // the upper, for a moment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match subject.mount(&layers) {
                Err(why) if why.contains("EBUSY") && std::time::Instant::now() < deadline => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                result => break result,
            }
        }?;
        let daemons = if subject.is_kernel() {
            Vec::new()
        } else {
            subject::processes_about(&mnt)
        };
        self.mounted = Some(Mounted {
            daemons,
            _watchdog: watchdog(mnt, self.patience),
        });
        Ok(())
    }

    /// Unmounts, if mounted, and mounts the same layers as another (or the same) subject.
    #[track_caller]
    pub fn remount_as(&mut self, subject: &Subject) {
        self.umount();
        self.try_mount_as(subject)
            .unwrap_or_else(|why| panic!("{subject:?}: {why}"));
    }

    #[track_caller]
    pub fn remount(&mut self) {
        let subject = self.subject.clone();
        self.remount_as(&subject);
    }

    #[track_caller]
    pub fn umount(&mut self) {
        if let Some(mounted) = &self.mounted {
            let done = self.subject.umount(&self.mnt(), &mounted.daemons);
            done.unwrap_or_else(|why| panic!("unmounting {:?}: {why}", self.subject));
            self.mounted = None;
        }
    }

    /// From now on the test itself changes the lowers.
    pub fn lowers_may_change(&mut self) {
        self.lowers_before = Some(Vec::new());
    }

    /// The mounted subject.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Processes that serve the mount.
    pub fn daemons(&self) -> &[u32] {
        self.mounted
            .as_ref()
            .map_or(&[], |mounted| &mounted.daemons)
    }

    /// Takes note that the union is gone by other means than [`Lab::umount`].
    pub fn is_unmounted(&mut self) {
        self.mounted = None;
    }

    pub fn mnt(&self) -> PathBuf {
        self.scratch.path().join("mnt")
    }

    pub fn upper_dir(&self) -> PathBuf {
        self.scratch.path().join("upper")
    }

    pub fn work_dir(&self) -> PathBuf {
        self.scratch.path().join("work")
    }

    pub fn lower_count(&self) -> usize {
        self.lowers.len()
    }

    pub fn lower_dir(&self, n: usize) -> PathBuf {
        self.lowers[n].clone()
    }

    /// A path outside of all layers and of the mount.
    pub fn aside(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A path in the union.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.mnt().join(path)
    }

    /// A path in the upper.
    pub fn in_upper(&self, path: impl AsRef<Path>) -> PathBuf {
        self.upper_dir().join(path)
    }

    pub fn read(&self, look: Look) -> Reading {
        snapshot::read(&self.mnt(), look)
    }

    /// The whole visible tree; panics where its listing and its objects disagree.
    #[track_caller]
    pub fn tree(&self) -> Snapshot {
        let reading = self.read(Look {
            dir_mtime: true,
            ..Look::default()
        });
        assert!(
            reading.faults.is_empty(),
            "{:?}: {:#?}",
            self.subject,
            reading.faults
        );
        reading.snapshot
    }

    /// The same without times: for comparing what was changed at different moments.
    #[track_caller]
    pub fn timeless_tree(&self) -> Snapshot {
        let reading = self.read(Look {
            since: Some(0),
            ..Look::default()
        });
        assert!(
            reading.faults.is_empty(),
            "{:?}: {:#?}",
            self.subject,
            reading.faults
        );
        reading.snapshot
    }

    /// Sorted names of a directory of the union.
    #[track_caller]
    pub fn ls(&self, path: &str) -> Vec<String> {
        sys::names(self.at(path))
    }

    /// Asserts which paths the union shows, the root left out; `want` is separated by blanks.
    #[track_caller]
    pub fn expect_paths(&self, want: &str) {
        let tree = self.tree();
        let mut have: Vec<String> = tree
            .entries
            .keys()
            .skip(1)
            .map(|p| snapshot::show(p))
            .collect();
        let mut want: Vec<String> = want.split_whitespace().map(str::to_owned).collect();
        have.sort();
        want.sort();
        assert_eq!(have, want, "paths shown by {:?}", self.subject);
    }

    /// Remounts and asserts that nothing changed by that, inode numbers included.
    #[track_caller]
    pub fn expect_same_after_remount(&mut self) {
        let before = (self.tree(), self.read(Look::default()).inos);
        self.umount();
        self.expect_nothing_wrong();
        let subject = self.subject.clone();
        self.remount_as(&subject);
        let after = (self.tree(), self.read(Look::default()).inos);
        snapshot::assert_same("before and after a remount", &before.0, &after.0);
        assert_eq!(before.1, after.1, "st_ino before and after a remount");
    }

    /// Asserts that `unionmount check` has nothing to say against the upper, which is not mounted.
    #[track_caller]
    pub fn expect_nothing_wrong(&self) {
        if !self.has_upper || !self.subject.is_ours() {
            return;
        }
        let mut command = Command::new(subject::program());
        command.arg("check").arg(self.upper_dir());
        command.arg("--work").arg(self.work_dir());
        for data in &self.data {
            command.arg("--data").arg(data);
        }
        for n in 0..self.lower_count() {
            command.arg("--lower").arg(self.lower_dir(n));
        }
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let complaint = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "check: {said}{complaint}");
    }

    /// Runs a control command of our program on the mount.
    #[track_caller]
    pub fn control(&self, command: &str) -> serde_json::Value {
        self.control_with(command, &[])
    }

    /// The same with further arguments behind the mountpoint.
    #[track_caller]
    pub fn control_with(&self, command: &str, more: &[&str]) -> serde_json::Value {
        let done = Command::new(subject::program())
            .arg(command)
            .arg(self.mnt())
            .args(more)
            .arg("--json")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command}: {}: {said}", done.status);
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// The subject and its lowers with the layers of data alone, as each of them is told.
    fn with_data(&self, subject: &Subject) -> (Subject, Vec<PathBuf>) {
        let (mut subject, mut lowers) = (subject.clone(), self.lowers.clone());
        for data in &self.data {
            match (&mut subject, lowers.last_mut()) {
                (Subject::Ours(arguments), _) => {
                    let data = data.to_str().unwrap().to_owned();
                    arguments.extend(["--data".to_owned(), data]);
                }
                (_, Some(last)) => {
                    last.as_mut_os_string().push("::");
                    last.as_mut_os_string().push(data);
                }
                (_, None) => panic!("layers of data alone need a lower"),
            }
        }
        (subject, lowers)
    }

    /// Unmounts, and changes a lower as its owner may between two mounts.
    #[track_caller]
    pub fn change_lower(&mut self, n: usize, change: impl FnOnce(&Path)) {
        self.umount();
        change(&self.lowers[n]);
        self.lowers_before = Some(self.read_lowers());
    }

    fn read_lowers(&self) -> Vec<Snapshot> {
        let look = Look {
            dir_mtime: true,
            ..Look::default()
        };
        self.lowers
            .iter()
            .chain(&self.data)
            .map(|lower| snapshot::read(lower, look).snapshot)
            .collect()
    }

    fn force_umount(&mut self) {
        let Some(mounted) = self.mounted.take() else {
            return;
        };
        if self.subject.umount(&self.mnt(), &mounted.daemons).is_ok() {
            return;
        }
        // MNT_FORCE ends requests that hang; what still holds the mount keeps a detached one.
        for flags in [libc::MNT_FORCE, libc::MNT_FORCE | libc::MNT_DETACH] {
            if sys::umount(self.mnt(), flags).is_ok() {
                break;
            }
        }
        if let Err(why) = subject::wait_gone(&mounted.daemons, Duration::from_secs(5)) {
            eprintln!("{:?}: {why}; killing what this test started", self.subject);
            for &pid in &mounted.daemons {
                unsafe { libc::kill(pid as i32, libc::SIGKILL) };
            }
        }
    }
}

/// Cuts the connection of a FUSE mount that is kept too long, so that a hung call of the test
/// returns with an error instead of hanging the whole run.
fn watchdog(mnt: PathBuf, patience: Duration) -> mpsc::Sender<()> {
    let (call_off, called_off) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if called_off.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!(
                "{}: hung for {patience:?}: cutting the connection",
                mnt.display()
            );
            if let Err(errno) = sys::umount(&mnt, libc::MNT_FORCE | libc::MNT_DETACH) {
                eprintln!("{}: {errno:?}", mnt.display());
            }
        }
    });
    call_off
}

impl Drop for Lab {
    /// Nothing may ever have been written to a lower, whatever the test was about.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("(the subject was {:?})", self.subject);
        }
        self.force_umount();
        if let (Some(before), false) = (self.lowers_before.take(), std::thread::panicking()) {
            for (n, (old, new)) in before.iter().zip(self.read_lowers()).enumerate() {
                snapshot::assert_same(&format!("lower {n} was changed"), old, &new);
            }
        }
    }
}
