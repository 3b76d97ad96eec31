//! A crash of the machine in the middle of copying up: what the upper then holds is whole.
//!
//! The filesystem of the upper is stopped as if its machine had lost power, mounted again (which
//! replays its journal), and looked at. That this finds what is lost is shown by volatile mounts.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::kit::{
    Errno, Layers, Res, Scratch, Subject, finished, processes_about, program, sys, wait_gone,
};

const ORDER: Ordering = Ordering::SeqCst;
const FILES: usize = 320;
const DIRS: usize = 8;
/// Marks copies without data.
const METACOPY: &str = "trusted.overlay.metacopy";
/// What is appended to some of the files.
const MORE: &[u8] = b"this came later";

/// How the filesystem of the upper stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    /// All of the journal is written, and no data.
    Flushed = 1,
    /// The journal ends with what it held anyway. Somebody's fsync lets it grow again and again.
    Sudden = 2,
}

/// What is done to a file, which copies it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Chmod,
    Chown,
    Append,
}

/// A file of the lower.
struct File {
    path: String,
    /// Another name of it.
    link: Option<String>,
    data: Vec<u8>,
    change: Change,
}

impl File {
    fn new(n: usize) -> File {
        let pattern = |size| sys::pattern(n as u64, size);
        let data = match n % 16 {
            _ if n % 40 == 7 => pattern((1 << 20) + 1),
            _ if n % 40 == 23 => pattern(130 << 10),
            0 => Vec::new(),
            1 | 8 => pattern(1),
            2 | 9 | 12 => pattern(100),
            3 | 10 => pattern(64 << 10),
            // Sparse, see `plant`.
            4 => [vec![0; 300_000], pattern(5000), vec![0; 300_000]].concat(),
            _ => pattern(5000 + n),
        };
        File {
            path: format!("d{}/f{n}", n % DIRS),
            link: (n % 10 == 1).then(|| format!("d{}/l{n}", (n + 1) % DIRS)),
            data,
            change: [Change::Chmod, Change::Chown, Change::Append][n % 3],
        }
    }

    fn plant(&self, lower: &Path) {
        let path = lower.join(&self.path);
        sys::put(&path, b"").unwrap();
        let start = self.data.iter().position(|b| *b != 0).unwrap_or(0);
        let end = self.data.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1);
        let written = sys::overwrite(&path, start as u64, &self.data[start..end]);
        written.unwrap();
        sys::truncate(&path, self.data.len() as u64).unwrap();
        if let Some(link) = &self.link {
            sys::link(&path, lower.join(link)).unwrap();
        }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.path).chain(&self.link)
    }

    fn apply(&self, root: &Path) -> Res<()> {
        let path = root.join(&self.path);
        match self.change {
            Change::Chmod => sys::chmod(path, 0o640),
            Change::Chown => sys::lchown(path, 1000, 1001),
            Change::Append => sys::append(path, MORE),
        }
    }

    /// What is wrong with it, as it lies at `path` now.
    fn fault(&self, path: &Path) -> Option<String> {
        let found = match sys::get(path) {
            Ok(found) => found,
            Err(errno) => return Some(format!("{errno:?}")),
        };
        let size = self.data.len();
        if found.len() < size {
            return Some(format!("{} bytes in place of {size}", found.len()));
        }
        let (data, rest) = found.split_at(size);
        if let Some(at) = (0..size).find(|&n| data[n] != self.data[n]) {
            let zeros = data.iter().all(|b| *b == 0);
            return Some(format!("byte {at} of {size} is wrong; all zero: {zeros}"));
        }
        // Nobody has synced what was appended: it is there, not there, or there as zeros.
        let may_grow = self.change == Change::Append && rest.len() <= MORE.len();
        let fits = rest.iter().zip(MORE).all(|(b, m)| *b == *m || *b == 0);
        if !(rest.is_empty() || may_grow && fits) {
            let start = &rest[..rest.len().min(20)];
            return Some(format!("{} bytes follow: {start:?}", rest.len()));
        }
        let stat = sys::lstat(path).unwrap();
        let state = (stat.perm(), stat.uid, stat.gid);
        let (before, after) = match self.change {
            Change::Chmod => ((0o644, 0, 0), (0o640, 0, 0)),
            Change::Chown => ((0o644, 0, 0), (0o644, 1000, 1001)),
            Change::Append => ((0o644, 0, 0), (0o644, 0, 0)),
        };
        (state != before && state != after)
            .then(|| format!("mode and owner are {state:?}, neither {before:?} nor {after:?}"))
    }
}

/// A lower, and a filesystem with the upper of a union that is mounted over both.
struct Machine {
    scratch: Scratch,
    files: Vec<File>,
    /// All files are copied without their data before the machine crashes while that follows.
    late: bool,
    /// Those who serve the union, if it is mounted.
    daemons: Option<Vec<u32>>,
    /// The loop device under the filesystem of the upper, if that is mounted.
    device: Option<String>,
}

impl Machine {
    fn new() -> Machine {
        let scratch = Scratch::new();
        for name in ["lower", "fs", "mnt"] {
            sys::mkdir(scratch.path().join(name), 0o755).unwrap();
        }
        let lower = scratch.path().join("lower");
        for n in 0..DIRS {
            sys::mkdir(lower.join(format!("d{n}")), 0o755).unwrap();
        }
        let files: Vec<File> = (0..FILES).map(File::new).collect();
        for file in &files {
            file.plant(&lower);
        }
        Machine {
            scratch,
            files,
            late: false,
            daemons: None,
            device: None,
        }
    }

    /// One whose files are all appended to, long after their attributes were changed.
    fn late() -> Machine {
        let mut machine = Machine::new();
        machine.late = true;
        for file in &mut machine.files {
            file.change = Change::Append;
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn upper(&self) -> PathBuf {
        self.path("fs/upper")
    }

    fn mnt(&self) -> PathBuf {
        self.path("mnt")
    }

    /// Makes a new filesystem with an empty upper.
    fn format(&mut self, mkfs: &[&str], megabytes: u64) {
        assert!(self.device.is_none());
        let image = self.path("image");
        sys::put(&image, b"").unwrap();
        sys::truncate(&image, 0).unwrap();
        sys::truncate(&image, megabytes << 20).unwrap();
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        self.attach();
        for name in ["fs/upper", "fs/work"] {
            sys::mkdir(self.path(name), 0o755).unwrap();
        }
        // The crash is meant for what comes from now on.
        run(Command::new("sync").arg("-f").arg(self.path("fs")));
    }

    fn attach(&mut self) {
        let (image, fs) = (self.path("image"), self.path("fs"));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(&fs));
        self.device = Some(String::new()); // to be unmounted, whatever follows
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table
            .lines()
            .rfind(|line| line.split(' ').nth(4).map(OsStr::new) == Some(fs.as_os_str()));
        let (_, rest) = line.unwrap().split_once(" - ").unwrap();
        let device = Path::new(rest.split(' ').nth(1).unwrap());
        self.device = Some(device.file_name().unwrap().to_str().unwrap().to_owned());
    }

    /// Unmounts the filesystem of the upper and waits until nobody has it any more: a mount
    /// namespace that another test is making just now may keep it for a moment.
    fn detach(&mut self) -> Result<(), String> {
        let Some(device) = self.device.take() else {
            return Ok(());
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(errno) = sys::umount(self.path("fs"), 0) {
            if Instant::now() > deadline {
                let detached = sys::umount(self.path("fs"), libc::MNT_DETACH);
                return Err(format!(
                    "unmounting the upper: {errno:?}; lazily: {detached:?}"
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let bound = format!("/sys/block/{device}/loop/backing_file");
        let image = self.path("image");
        while std::fs::read(&bound).is_ok_and(|file| file.starts_with(image.as_os_str().as_bytes()))
        {
            if Instant::now() > deadline {
                return Err(format!("{device} keeps its image"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn mount(&mut self, subject: &Subject) {
        let (upper, work, mnt) = (self.upper(), self.path("fs/work"), self.mnt());
        let layers = Layers {
            lowers: &[self.path("lower")],
            upper: Some((&upper, &work)),
            mnt: &mnt,
        };
        subject.mount(&layers).unwrap();
        self.daemons = Some(processes_about(&mnt));
    }

    /// Unmounts the union; by force if it cannot go in peace.
    fn umount(&mut self) -> Result<(), String> {
        let Some(daemons) = self.daemons.take() else {
            return Ok(());
        };
        let Err(why) = Subject::ours(&[]).umount(&self.mnt(), &daemons) else {
            return Ok(());
        };
        let forced = sys::umount(self.mnt(), libc::MNT_FORCE | libc::MNT_DETACH);
        if wait_gone(&daemons, Duration::from_secs(5)).is_err() {
            for &pid in &daemons {
                sys::kill(pid, libc::SIGKILL).ok();
            }
        }
        Err(format!("{why}; by force: {forced:?}"))
    }

    /// Changes all files and crashes after about `target` of them and `delay`. How many were changed.
    fn change_and_crash(&self, crash: Crash, target: usize, delay: Duration) -> usize {
        const CHANGERS: usize = 2;
        let (changed, running) = (AtomicUsize::new(0), AtomicUsize::new(CHANGERS));
        let crashed = AtomicBool::new(false);
        let check = |what: &str, result: Res<()>| match result {
            Ok(()) => true,
            Err(errno) if crashed.load(ORDER) => {
                assert!(
                    [libc::EIO, libc::EROFS].contains(&errno.0),
                    "{what}: {errno:?}"
                );
                false
            }
            Err(errno) => panic!("{what}, before the crash: {errno:?}"),
        };
        std::thread::scope(|scope| {
            for me in 0..CHANGERS {
                let (changed, running, check) = (&changed, &running, &check);
                let mine = self.files.iter().skip(me).step_by(CHANGERS);
                scope.spawn(move || {
                    let _done = Running(running);
                    for file in mine {
                        if !check(&file.path, file.apply(&self.mnt())) {
                            break;
                        }
                        changed.fetch_add(1, ORDER);
                    }
                });
            }
            if crash == Crash::Sudden {
                // Each fsync writes the journal, with what others have put there.
                let bystander = self.path("fs/bystander");
                let (running, check) = (&running, &check);
                scope.spawn(move || {
                    let fd = sys::open(bystander, libc::O_CREAT | libc::O_WRONLY, 0o600).unwrap();
                    let sync = || sys::pwrite(&fd, 0, b"x").and_then(|_| sys::fsync(&fd));
                    while running.load(ORDER) > 0 && check("bystander", sync()) {}
                });
            }
            while running.load(ORDER) > 0 && changed.load(ORDER) < target {
                std::hint::spin_loop();
            }
            std::thread::sleep(delay);
            crashed.store(true, ORDER);
            sys::shut_down(self.path("fs"), crash as u32).unwrap();
        });
        changed.load(ORDER)
    }

    /// The filesystem of the upper, mounted again after a crash.
    fn reboot(&mut self) {
        // The daemon must go also when its upper answers nothing but errors.
        self.umount().unwrap();
        self.detach().unwrap();
        self.attach();
    }

    /// What is wrong with the files that the upper holds now, and how many it holds.
    fn look_at_upper(&self) -> (Vec<String>, usize) {
        let (mut faults, mut held) = (Vec::new(), 0);
        for file in &self.files {
            for name in file.names() {
                let path = self.upper().join(name);
                if sys::lstat(&path) == Err(Errno(libc::ENOENT)) {
                    continue;
                }
                if sys::getxattr(&path, METACOPY).is_ok() {
                    continue; // its data is still that of the lower
                }
                held += 1;
                let fault = file.fault(&path);
                faults.extend(fault.map(|why| format!("{name}, {:?}: {why}", file.change)));
            }
        }
        (faults, held)
    }

    /// The union shows each file under all its names, and nothing else.
    #[track_caller]
    fn expect_whole_view(&self, case: &str) {
        let mut names = std::collections::BTreeSet::new();
        let mut faults = Vec::new();
        for file in &self.files {
            for name in file.names() {
                names.insert(name.clone());
                let fault = file.fault(&self.mnt().join(name));
                faults.extend(fault.map(|why| format!("{name}, {:?}: {why}", file.change)));
            }
        }
        expect_none(&format!("{case}, the view"), &faults);
        let mut shown = std::collections::BTreeSet::new();
        for dir in sys::names(self.mnt()) {
            let inside = sys::names(self.mnt().join(&dir));
            shown.extend(inside.iter().map(|name| format!("{dir}/{name}")));
        }
        assert_eq!(shown, names, "{case}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A failed test has its own panic already; nothing may stay mounted either way.
        for result in [self.umount(), self.detach()] {
            if let Err(why) = result {
                eprintln!("{}: {why}", self.scratch.path().display());
            }
        }
    }
}

/// Counts one thread less when it ends, also by a panic.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, ORDER);
    }
}

#[track_caller]
fn run(command: &mut Command) {
    finished(command, Duration::from_secs(60)).unwrap_or_else(|why| panic!("{why}"));
}

#[track_caller]
fn expect_none(case: &str, faults: &[String]) {
    let first = &faults[..faults.len().min(10)];
    assert!(
        faults.is_empty(),
        "{case}: {} faults: {first:#?}",
        faults.len()
    );
}

/// A filesystem for the upper.
struct Kind {
    mkfs: &'static [&'static str],
    megabytes: u64,
    /// What `inspect` must say, or not: that copies rely on the order of the journal.
    ordered: bool,
}

const EXT4: Kind = Kind {
    mkfs: &["mkfs.ext4", "-q", "-F"],
    megabytes: 64,
    ordered: true,
};

/// It has no smaller ones.
const XFS: Kind = Kind {
    mkfs: &["mkfs.xfs", "-q", "-f"],
    megabytes: 300,
    ordered: false,
};

impl Machine {
    /// One crash on a new filesystem: what is wrong with the upper, how many names it holds.
    fn crash(
        &mut self,
        kind: &Kind,
        crash: Crash,
        volatile: bool,
        random: &mut fastrand::Rng,
    ) -> (String, Vec<String>, usize) {
        self.format(kind.mkfs, kind.megabytes);
        let mut arguments = vec!["--metacopy", if self.late { "on" } else { "off" }];
        arguments.extend(volatile.then_some("--volatile"));
        self.mount(&Subject::ours(&arguments));
        if self.late {
            for file in &self.files {
                sys::setxattr(self.mnt().join(&file.path), "user.a", b"1", 0).unwrap();
            }
            run(Command::new("sync").arg("-f").arg(self.path("fs")));
        }
        assert_eq!(self.relies_on_order(), kind.ordered && !volatile);
        let target = random.usize(FILES / 8..FILES * 7 / 8);
        let delay = Duration::from_micros(random.u64(0..1500));
        let changed = self.change_and_crash(crash, target, delay);
        let case = format!("{} {crash:?} after {changed} changes", kind.mkfs[0]);
        self.reboot();
        let (faults, held) = self.look_at_upper();
        (format!("{case}, {held} names"), faults, held)
    }

    /// Whether copies rely on the order of the journal.
    fn relies_on_order(&self) -> bool {
        let inspect = Command::new(program())
            .arg("inspect")
            .arg(self.mnt())
            .output();
        let said = String::from_utf8(inspect.unwrap().stdout).unwrap();
        assert!(said.contains("upper"), "{said}");
        said.contains("ordered-journal")
    }

    /// Crashes must leave every copy whole.
    fn expect_safe(&mut self, kind: &Kind, crashes: &[Crash]) {
        let mut random = fastrand::Rng::new();
        let mut held = [0; 2];
        for &crash in crashes {
            let (case, faults, names) = self.crash(kind, crash, false, &mut random);
            expect_none(&case, &faults);
            held[crash as usize - 1] += names;
            self.mount(&Subject::ours(&[]));
            self.expect_whole_view(&case);
            self.umount().unwrap();
            self.detach().unwrap();
        }
        for crash in crashes {
            assert!(held[*crash as usize - 1] > 0, "{crash:?}: nothing survived");
        }
    }

    /// The same without any safety must lose something; else this would prove nothing.
    fn expect_found_out(&mut self, kind: &Kind, crash: Crash) {
        let mut random = fastrand::Rng::new();
        // A sync of all filesystems by somebody else may save the data.
        for _ in 0..5 {
            let (_, faults, _) = self.crash(kind, crash, true, &mut random);
            self.detach().unwrap();
            if !faults.is_empty() {
                return;
            }
        }
        panic!("{} {crash:?}: a volatile mount lost nothing", kind.mkfs[0]);
    }
}

/// The data is written first and the journal keeps the order; there is no fsync.
#[test]
fn a_crash_of_ext4_leaves_copies_whole() {
    use Crash::{Flushed, Sudden};
    let mut machine = Machine::new();
    for crash in [Flushed, Sudden] {
        machine.expect_found_out(&EXT4, crash);
    }
    machine.expect_safe(&EXT4, &[Flushed, Sudden, Flushed, Sudden, Sudden]);
}

/// Metadata-only copies are whole, or still such copies, when the machine crashes while they get their
/// data: it is on disk before the marker goes.
#[test]
fn a_crash_of_ext4_leaves_metadata_only_copies_whole() {
    use Crash::{Flushed, Sudden};
    let mut machine = Machine::late();
    machine.expect_found_out(&EXT4, Flushed);
    machine.expect_safe(&EXT4, &[Flushed, Sudden, Sudden]);
}

/// The same where the data is synced.
#[test]
fn a_crash_of_xfs_leaves_metadata_only_copies_whole() {
    let mut machine = Machine::late();
    machine.expect_safe(&XFS, &[Crash::Flushed]);
}

/// There is no order to rely on.
#[test]
fn copies_are_synced_on_ext4_without_a_journal() {
    let mut machine = Machine::new();
    machine.format(&["mkfs.ext4", "-q", "-F", "-O", "^has_journal"], 64);
    machine.mount(&Subject::ours(&[]));
    assert!(!machine.relies_on_order());
    machine.umount().unwrap();
    machine.detach().unwrap();
}

/// Each copy is synced.
#[test]
fn a_crash_of_xfs_leaves_copies_whole() {
    let mut machine = Machine::new();
    machine.expect_found_out(&XFS, Crash::Flushed);
    machine.expect_safe(&XFS, &[Crash::Flushed]);
}
