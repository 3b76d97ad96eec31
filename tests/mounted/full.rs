//! An upper without room: what fails has changed nothing, and everything works once there is room.

use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kit::{Errno, Layers, Scratch, Subject, plant, sys};

/// A small filesystem with `upper` and `work`, a lower elsewhere.
struct Small {
    scratch: Scratch,
    mounted: bool,
}

impl Small {
    fn tmpfs(lower: &str, options: &str) -> Small {
        let small = Small::dirs(lower);
        sys::mount("tmpfs", small.fs(), "tmpfs", 0, OsStr::new(options)).unwrap();
        small.ready()
    }

    /// ext4 with small blocks, where a directory soon needs another one.
    fn ext4(lower: &str, megabytes: u64) -> Small {
        let mkfs = "mkfs.ext4 -q -b 1024 -N 1024 -m 0 -F";
        Small::image(lower, mkfs, megabytes)
    }

    fn image(lower: &str, mkfs: &str, megabytes: u64) -> Small {
        let small = Small::dirs(lower);
        let image = small.scratch.path().join("image");
        sys::put(&image, b"").unwrap();
        sys::truncate(&image, megabytes << 20).unwrap();
        let mut words = mkfs.split(' ');
        run(Command::new(words.next().unwrap()).args(words).arg(&image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(small.fs()));
        small.ready()
    }

    fn dirs(lower: &str) -> Small {
        let scratch = Scratch::new();
        plant(&scratch.path().join("lower"), lower);
        for name in ["fs", "mnt"] {
            sys::mkdir(scratch.path().join(name), 0o755).unwrap();
        }
        Small {
            scratch,
            mounted: false,
        }
    }

    fn ready(self) -> Small {
        for name in ["upper", "work"] {
            sys::mkdir(self.fs().join(name), 0o755).unwrap();
        }
        self
    }

    fn fs(&self) -> PathBuf {
        self.scratch.path().join("fs")
    }

    fn mnt(&self) -> PathBuf {
        self.scratch.path().join("mnt")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.mnt().join(name)
    }

    fn try_mount(&mut self, subject: &Subject) -> Result<(), String> {
        let (lower, mnt) = (self.scratch.path().join("lower"), self.mnt());
        let (upper, work) = (self.fs().join("upper"), self.fs().join("work"));
        let layers = Layers {
            lowers: &[lower],
            upper: Some((&upper, &work)),
            mnt: &mnt,
        };
        subject.mount(&layers)?;
        self.mounted = true;
        Ok(())
    }

    #[track_caller]
    fn mount(&mut self, subject: &Subject) {
        self.try_mount(subject).unwrap();
    }

    #[track_caller]
    fn umount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            Subject::ours(&[]).umount(&self.mnt(), &[]).unwrap();
        }
    }

    #[track_caller]
    fn remount(&mut self, subject: &Subject) {
        self.umount();
        self.mount(subject);
    }

    /// Takes all bytes that are left, or all inodes.
    fn fill(&self) {
        let fd = sys::open(self.filler(0), libc::O_CREAT | libc::O_WRONLY, 0o600).unwrap();
        for size in [1 << 16, 1024] {
            while sys::write(&fd, &vec![1; size]).is_ok() {}
        }
    }

    /// Takes all inodes but `left`; returns how many were taken.
    fn fill_inodes(&self, left: usize) {
        let mut taken = 0;
        while sys::put(self.filler(taken), b"").is_ok() {
            taken += 1;
        }
        assert!(taken > left, "only {taken} inodes were free");
        for n in taken - left..taken {
            sys::unlink(self.filler(n)).unwrap();
        }
    }

    fn free(&self) {
        for name in sys::names(self.fs()) {
            if name.starts_with("filler") {
                sys::unlink(self.fs().join(name)).unwrap();
            }
        }
    }

    fn filler(&self, n: usize) -> PathBuf {
        self.fs().join(format!("filler{n}"))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A failed test has its own panic already; nothing may stay mounted either way.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.umount()));
        if outcome.is_err() {
            sys::umount(self.mnt(), libc::MNT_FORCE | libc::MNT_DETACH).ok();
        }
        if let Err(errno) = sys::umount(self.fs(), 0).or_else(|_| {
            std::thread::sleep(std::time::Duration::from_millis(500));
            sys::umount(self.fs(), libc::MNT_DETACH)
        }) {
            eprintln!("{}: {errno:?}", self.fs().display());
        }
        if let (Err(panic), false) = (outcome, std::thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The answer must be success or ENOSPC.
#[track_caller]
fn is_full(result: Result<(), Errno>) -> bool {
    match result {
        Ok(()) => false,
        Err(Errno(libc::ENOSPC)) => true,
        Err(errno) => panic!("{errno:?} in place of ENOSPC"),
    }
}

#[track_caller]
fn expect_one(names: [&Path; 2], text: &str) {
    let [one, two] = names.map(|name| sys::lstat(name).unwrap());
    assert_eq!((one.ino, two.nlink), (two.ino, 2), "{}", names[0].display());
    for name in names {
        assert_eq!(sys::text(name), text, "{}", name.display());
    }
}

/// The copy exists in part: in the index and not yet under its name, or the other way round.
#[test]
fn hard_links_are_copied_up_whole_or_not() {
    let names = |n: usize| {
        let long = "x".repeat(180);
        [format!("d/f{n}-{long}"), format!("l{n}")]
    };
    let mut lower = String::from("d d\nf d/first x\n");
    for n in 0..60 {
        let [f, l] = names(n);
        lower += &format!("f {f} old\nh {l} {f}\n");
    }
    for dialect in ["chardev", "xattr", "file"] {
        let subject = Subject::ours(&["--whiteout", dialect]);
        let mut small = Small::ext4(&lower, 3);
        small.mount(&subject);
        sys::chmod(small.at("d/first"), 0o600).unwrap();
        small.fill();
        let mut failed = 0;
        let mut texts = Vec::new();
        for n in 0..60 {
            let name = small.at(&names(n)[n % 2]);
            let how = libc::O_WRONLY | libc::O_TRUNC;
            let full = is_full(sys::open(name, how, 0).map(drop));
            failed += usize::from(full);
            texts.push(if full { "old" } else { "" });
        }
        assert!(failed > 0, "{dialect}: everything had room");
        let expect = |small: &Small| {
            for (n, text) in texts.iter().enumerate() {
                let [f, l] = names(n).map(|name| small.at(&name));
                expect_one([&f, &l], text);
            }
        };
        expect(&small);
        small.umount();
        small.free();
        small.mount(&subject);
        expect(&small);
        small.remount(&subject);
        expect(&small);
        for n in 0..60 {
            let [f, l] = names(n).map(|name| small.at(&name));
            sys::put(&f, b"new").unwrap();
            expect_one([&f, &l], "new");
        }
        small.remount(&subject);
        for n in 0..60 {
            let [f, l] = names(n).map(|name| small.at(&name));
            expect_one([&l, &f], "new");
        }
    }
}

/// At each number of inodes that are left.
#[test]
fn without_inodes_hard_links_are_copied_up_whole_or_not() {
    for left in 0..6 {
        let subject = Subject::ours(&[]);
        let mut small = Small::tmpfs("f a old\nh d/b a", "size=4m,nr_inodes=100");
        small.mount(&subject);
        small.fill_inodes(left);
        let full = is_full(sys::put(small.at("d/b"), b"new"));
        let text = if full { "old" } else { "new" };
        assert!(full || left > 0, "with no inode left");
        for _ in 0..2 {
            expect_one([&small.at("a"), &small.at("d/b")], text);
            small.free();
            expect_one([&small.at("a"), &small.at("d/b")], text);
            small.remount(&subject);
        }
        sys::put(small.at("d/b"), b"newer").unwrap();
        expect_one([&small.at("a"), &small.at("d/b")], "newer");
    }
}

/// What was to be renamed over or removed is still there.
#[test]
fn without_inodes_names_are_changed_whole_or_not() {
    type Change = fn(&Small) -> Result<(), Errno>;
    let changes: [(&str, Change); 4] = [
        ("mv b a", |s| sys::rename(s.at("b"), s.at("a"))),
        ("rm a", |s| sys::unlink(s.at("a"))),
        ("mv b gone", |s| sys::rename(s.at("b"), s.at("gone"))),
        ("mkdir gone", |s| sys::mkdir(s.at("gone"), 0o755)),
    ];
    let view = |small: &Small| {
        let look = crate::Look {
            since: Some(0),
            ..crate::Look::default()
        };
        let reading = crate::snapshot::read(&small.mnt(), look);
        assert!(reading.faults.is_empty(), "{:?}", reading.faults);
        reading.snapshot
    };
    for dialect in ["chardev", "xattr", "file"] {
        let subject = Subject::ours(&["--whiteout", dialect]);
        for (what, change) in changes {
            let mut worked = false;
            for left in 0..8 {
                let lower = "f a A\nf b B\nf gone g\nf e/x x";
                let mut small = Small::tmpfs(lower, "size=4m,nr_inodes=100");
                small.mount(&subject);
                sys::unlink(small.at("gone")).unwrap();
                small.fill_inodes(left);
                let before = view(&small);
                let full = is_full(change(&small));
                let case = format!("{dialect}: {what} with {left} inodes left");
                let after = view(&small);
                if full {
                    crate::snapshot::assert_same(&case, &before, &after);
                    assert!(!worked, "{case}: worked with fewer");
                } else {
                    assert_ne!(before, after, "{case}: nothing happened");
                    worked = true;
                }
                small.free();
                small.remount(&subject);
                crate::snapshot::assert_same(&case, &after, &view(&small));
                if full {
                    change(&small).unwrap_or_else(|e| panic!("{case}, again: {e:?}"));
                    assert_ne!(before, view(&small), "{case}, again");
                }
            }
            assert!(worked, "{dialect}: {what} never worked");
        }
    }
}

/// From a lack of room follows nothing about what the filesystem can do.
#[test]
fn a_full_upper_is_refused_and_its_dialect_stays() {
    let mut refused = 0;
    for left in 0..8 {
        let mut small = Small::tmpfs("f f text\nf g text", "size=4m,nr_inodes=100");
        small.fill_inodes(left);
        let subject = Subject::ours(&["--whiteout", "chardev"][..left % 2 * 2]);
        match small.try_mount(&subject) {
            Err(why) => {
                refused += 1;
                assert!(why.contains("exit status: 1"), "{left} left: {why}");
                let clear = why.to_lowercase().contains("no space") || why.contains("ENOSPC");
                assert!(clear && why.contains("work"), "{left} left: {why}");
            }
            Ok(()) => small.umount(),
        }
        small.free();
        small.mount(&subject);
        sys::unlink(small.at("f")).unwrap();
        let gone = sys::lstat(small.fs().join("upper/f")).unwrap();
        assert_eq!(gone.mode, libc::S_IFCHR, "{left} inodes left");
    }
    assert!(refused > 0);
}

/// Filesystems of about the smallest size there is.
const FILESYSTEMS: [(&str, u64); 3] = [
    ("mkfs.ext4 -q -F", 16),
    ("mkfs.xfs -q -f", 300),
    ("mkfs.btrfs -q -f -M", 64),
];

/// The caller of write(2) is told, and the file is the lower's still.
#[test]
fn a_write_whose_copy_up_finds_no_room_fails_itself() {
    let lower = format!("f d/big pattern={}", 8 << 20);
    for (mkfs, megabytes) in FILESYSTEMS {
        let mut small = Small::image(&lower, mkfs, megabytes);
        let data = sys::get(small.scratch.path().join("lower/d/big")).unwrap();
        small.mount(&Subject::ours(&[]));
        small.fill();
        let fd = sys::open(small.at("d/big"), libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
        crate::fails!(sys::write(&fd, b"more"), ENOSPC);
        drop(fd);
        let shell = Command::new("bash")
            .args(["-c", "echo more >> \"$0\""])
            .arg(small.at("d/big"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&shell.stderr);
        assert!(
            !shell.status.success() && said.contains("No space left on device"),
            "{mkfs}: {said}"
        );
        assert!(sys::get(small.at("d/big")).unwrap() == data, "{mkfs}");
        assert!(!sys::exists(small.fs().join("upper/d/big")), "{mkfs}");
        let left = sys::names(small.fs().join("work/work"));
        assert!(left.len() <= 1, "{mkfs}: {left:?}");
        small.free();
        sys::append(small.at("d/big"), b"more").unwrap();
        let whole = [&data[..], b"more"].concat();
        small.remount(&Subject::ours(&[]));
        assert!(sys::get(small.at("d/big")).unwrap() == whole, "{mkfs}");
    }
}

/// Holes take no room: a lower file far larger than the upper is copied up.
#[test]
fn a_sparse_file_larger_than_the_disk_is_copied_up() {
    let mut small = Small::image("f big data", FILESYSTEMS[0].0, FILESYSTEMS[0].1);
    let size = 1 << 30;
    sys::truncate(small.scratch.path().join("lower/big"), size).unwrap();
    small.mount(&Subject::ours(&[]));
    sys::append(small.at("big"), b"more").unwrap();
    assert_eq!(sys::stat(small.at("big")).unwrap().size, size + 4);
    let fd = sys::open(small.at("big"), libc::O_RDONLY, 0).unwrap();
    assert_eq!(sys::pread(&fd, 0, 5).unwrap(), b"data\0");
    assert_eq!(sys::pread(&fd, size - 1, 9).unwrap(), b"\0more");
}

/// A lower name is gone or there; what lies in the upper can be removed, and that makes room.
#[test]
fn on_a_full_disk_files_are_removed_or_stay() {
    let lower: String = (0..200).map(|n| format!("f d/f{n} {n}\n")).collect();
    for (mkfs, megabytes) in FILESYSTEMS {
        let kernel = Subject::KernelWith("metacopy=off".to_owned());
        for subject in [kernel, Subject::ours(&[])] {
            let mut small = Small::image(&lower, mkfs, megabytes);
            small.mount(&subject);
            // The first deletion makes the whiteout that all others share.
            sys::unlink(small.at("d/f0")).unwrap();
            sys::put(small.at("mine"), &vec![1; 1 << 20]).unwrap();
            small.fill();
            let removed: Vec<bool> = (1..200)
                .map(|n| !is_full(sys::unlink(small.at(&format!("d/f{n}")))))
                .collect();
            let count = removed.iter().filter(|r| **r).count();
            eprintln!("{mkfs}, {subject:?}: {count} of 199 removed");
            let expect = |small: &Small| {
                for (n, removed) in (1..200).zip(&removed) {
                    let shown = sys::exists(small.at(&format!("d/f{n}")));
                    assert_eq!(shown, !removed, "{mkfs}, {subject:?}: d/f{n}");
                }
            };
            expect(&small);
            sys::unlink(small.at("mine")).unwrap();
            small.free();
            // A mount of the kernel is unmounted by `umount` as well as ours.
            sys::umount(small.mnt(), 0).unwrap();
            small.mounted = false;
            small.mount(&Subject::ours(&[]));
            expect(&small);
            for (n, removed) in (1..200).zip(&removed) {
                if !removed {
                    sys::unlink(small.at(&format!("d/f{n}"))).unwrap();
                }
            }
            assert_eq!(sys::names(small.at("d")), Vec::<String>::new(), "{mkfs}");
        }
    }
}

/// 64 descriptors are few. A removed file of the lower that is written to needs one (EMFILE when there is
/// none, and its data stays), all others need none.
#[test]
fn a_daemon_with_few_descriptors_keeps_what_is_open_and_removed() {
    let lower: String = (0..100).map(|n| format!("f l{n} lower{n}\n")).collect();
    let mut small = Small::tmpfs(&lower, "size=16m");
    small.mount(&Subject::Cramped(64));
    let open = |name: String| {
        let path = small.at(&name);
        let fd = sys::open(&path, libc::O_RDWR | libc::O_CREAT, 0o600).unwrap();
        sys::unlink(&path).unwrap();
        fd
    };
    let lowers: Vec<_> = (0..100).map(|n| open(format!("l{n}"))).collect();
    let uppers: Vec<_> = (0..100).map(|n| open(format!("u{n}"))).collect();
    let data = |what: &str, n: usize| format!("{what}{n}").into_bytes();
    for (n, fd) in uppers.iter().enumerate() {
        sys::pwrite(fd, 0, &data("upper", n)).unwrap();
    }
    let mut written = 0;
    for (n, fd) in lowers.iter().enumerate() {
        assert_eq!(sys::pread(fd, 0, 20).unwrap(), data("lower", n));
        let want = match sys::pwrite(fd, 0, &data("LOWER", n)) {
            Ok(_) => "LOWER",
            Err(errno) => {
                assert_eq!(errno, Errno(libc::EMFILE), "l{n}");
                "lower"
            }
        };
        written += usize::from(want == "LOWER");
        assert_eq!(sys::pread(fd, 0, 20).unwrap(), data(want, n));
    }
    assert!(written > 10, "only {written}");
    for (n, fd) in uppers.iter().enumerate() {
        assert_eq!(sys::pread(fd, 0, 20).unwrap(), data("upper", n), "u{n}");
    }
    assert_eq!(sys::names(small.mnt()), Vec::<String>::new());
    drop((lowers, uppers));
    sys::put(small.at("after"), b"fine").unwrap();
}
