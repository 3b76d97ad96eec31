//! The power fails: the disk under the upper records what it is told, and is rebuilt as it may be
//! found at any later moment, without any of the writes that were not flushed by then.
//!
//! `UNIONMOUNT_POWER` sets how many seconds each test spends on such disks, `UNIONMOUNT_SEED` repeats
//! a run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[path = "../kit/mod.rs"]
mod kit;

mod recorder;
mod work;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kit::{Layers, Mounts, Scratch, Subject, must, program, sys};
use recorder::{Disk, Event};
use work::{Job, Stage};

const JOBS: usize = 99;
const KERNEL: &str = "metacopy=on,redirect_dir=on,index=on,xino=on";
/// As few disks are looked at however slow the machine is.
const FEWEST: usize = 6;

const EXT4: (&[&str], u64) = (&["mkfs.ext4", "-q", "-F"], 64);
const XFS: (&[&str], u64) = (&["mkfs.xfs", "-q", "-f"], 300);
const BTRFS: (&[&str], u64) = (&["mkfs.btrfs", "-q", "-f"], 128);

fn number(variable: &str, default: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(default, |n| n.parse().expect("a number"))
}

/// What was recorded while all jobs were done.
struct Record {
    events: Vec<Event>,
    jobs: Vec<Job>,
    /// When the layers were there and prepared, and when the last job was done.
    span: (usize, usize),
    /// Holds the lower.
    scratch: Scratch,
    /// Unmounted, it has the image that the record begins with.
    disk: Disk,
}

/// A union that is unmounted whatever happens.
struct Union(PathBuf, Subject);

impl Union {
    fn mount(subject: Subject, lower: &Path, fs: &Path, mnt: &Path) -> Result<Union, String> {
        let (upper, work) = (fs.join("upper"), fs.join("work"));
        subject.mount(&Layers {
            lowers: &[lower.to_owned()],
            upper: Some((&upper, &work)),
            mnt,
        })?;
        Ok(Union(mnt.to_owned(), subject))
    }
}

impl Drop for Union {
    fn drop(&mut self) {
        if let Err(why) = self.1.umount(&self.0, &[]) {
            let forced = sys::umount(&self.0, libc::MNT_FORCE | libc::MNT_DETACH);
            eprintln!("{}: {why}; by force: {forced:?}", self.0.display());
        }
    }
}

impl Record {
    fn new((mkfs, megabytes): (&[&str], u64), arguments: &[&str]) -> Record {
        let scratch = Scratch::new();
        let [lower, mnt] = ["lower", "mnt"].map(|n| scratch.path().join(n));
        sys::mkdir(&lower, 0o755).unwrap();
        sys::mkdir(&mnt, 0o755).unwrap();
        let mut jobs: Vec<Job> = (0..JOBS).map(Job::new).collect();
        jobs.iter().for_each(|job| job.plant(&lower));
        let mut disk = Disk::new(mkfs, megabytes);
        for name in ["upper", "work"] {
            sys::mkdir(disk.fs().join(name), 0o755).unwrap();
        }
        let union = Union::mount(Subject::ours(arguments), &lower, &disk.fs(), &mnt).unwrap();
        for job in &jobs {
            job.prepare(&mnt).unwrap();
        }
        must(Command::new("sync").arg("-f").arg(disk.fs()));
        let start = disk.log.now();
        for job in &mut jobs {
            job.began = disk.log.now();
            job.run(&mnt)
                .unwrap_or_else(|e| panic!("{:?}: {e:?}", job.kind));
            if job.is_synced() {
                job.acknowledged = disk.log.now();
            }
        }
        let span = (start, disk.log.now());
        let events = disk.log.events();
        drop(union);
        disk.detach();
        Record {
            events,
            jobs,
            span,
            scratch,
            disk,
        }
    }

    /// The disk as it may be when the power fails after `cut` events: what was flushed is there, of
    /// the rest what `keep` says.
    fn rebuild(&self, cut: usize, mut keep: impl FnMut() -> bool, image: &Path) {
        recorder::copy(&self.disk.base(), image);
        let file = std::fs::File::options().write(true).open(image).unwrap();
        let before = &self.events[..cut];
        let safe = before.iter().rposition(|e| matches!(e, Event::Flush));
        for (n, event) in before.iter().enumerate() {
            if let Event::Write(offset, data) = event
                && (safe.is_some_and(|safe| n < safe) || keep())
            {
                file.write_all_at(data, *offset).unwrap();
            }
        }
    }

    /// What is wrong with the union at `root`, if the power failed after `cut` events.
    fn faults(&self, root: &Path, cut: usize) -> Vec<String> {
        let stage = |job: &Job| match cut {
            _ if job.acknowledged <= cut => Stage::Acknowledged,
            _ if job.began < cut => Stage::Doing,
            _ => Stage::NotBegun,
        };
        let faults = self.jobs.iter().map(|job| job.fault(root, stage(job)));
        faults.flatten().collect()
    }

    /// Mounts such a disk and lets `judge` look at it: the filesystem, the mountpoint.
    fn with_disk<T>(
        &self,
        cut: usize,
        keep: impl FnMut() -> bool,
        judge: impl FnOnce(&Path, &Path) -> T,
    ) -> T {
        let mut mounts = Mounts::new();
        let (image, mnt) = (mounts.path("image"), mounts.dir("mnt"));
        self.rebuild(cut, keep, &image);
        let fs = mounts.mount(&["-o", "loop"], &image, "fs");
        judge(&fs, &mnt)
    }

    fn lower(&self) -> PathBuf {
        self.scratch.path().join("lower")
    }

    #[track_caller]
    fn expect_safe(&self, case: &str, cut: usize, keep: impl FnMut() -> bool) {
        self.with_disk(cut, keep, |fs, mnt| {
            let ours = Subject::ours(&["--metacopy", "on"]);
            for subject in [ours, Subject::KernelWith(KERNEL.to_owned())] {
                let union = Union::mount(subject.clone(), &self.lower(), fs, mnt)
                    .unwrap_or_else(|why| panic!("{case}: {why}"));
                let faults = self.faults(mnt, cut);
                assert!(faults.is_empty(), "{case}, {subject:?}: {faults:#?}");
                if subject.is_ours() {
                    let left = sys::names(fs.join("work/work"));
                    assert!(left.len() <= 1, "{case}: left in the workdir: {left:?}");
                }
                drop(union);
            }
            let done = Command::new(program())
                .arg("check")
                .arg(fs.join("upper"))
                .arg("--work")
                .arg(fs.join("work"))
                .arg("--lower")
                .arg(self.lower())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success(), "{case}: check: {said}");
        });
    }
}

/// Fails the power again and again for as long as is asked.
fn expect_safe(filesystem: (&[&str], u64), arguments: &[&str]) {
    let seed = number("UNIONMOUNT_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let record = Record::new(filesystem, arguments);
    let (start, end) = record.span;
    let flushes: Vec<usize> = (start..end)
        .filter(|n| matches!(record.events[*n], Event::Flush))
        .collect();
    assert!(flushes.len() > JOBS / 2, "only {} flushes", flushes.len());
    let deadline = Instant::now() + Duration::from_secs(number("UNIONMOUNT_POWER", 20));
    let mut disks = 0;
    while disks < FEWEST || Instant::now() < deadline {
        // Before a flush as much as can be is at risk.
        let cut = match disks % 3 {
            0 => flushes[random.usize(..flushes.len())],
            1 => flushes[random.usize(..flushes.len())] + 1,
            _ => random.usize(start..=end),
        };
        let kept = [0.0, 1.0, 0.5, 0.9, 0.1][disks / 3 % 5];
        let case = format!("seed {seed}, {filesystem:?}, {cut} of {start}..{end}, kept {kept}");
        let mut choice = random.fork();
        record.expect_safe(&case, cut, || choice.f64() < kept);
        disks += 1;
    }
    let (writes, flushes) = (end - start - flushes.len(), flushes.len());
    eprintln!(
        "{}: {writes} writes, {flushes} flushes, {disks} disks",
        filesystem.0[0]
    );
}

#[test]
fn power_loss_on_ext4_loses_nothing_acknowledged() {
    expect_safe(EXT4, &[]);
}

#[test]
fn power_loss_on_ext4_leaves_metadata_only_copies_whole() {
    expect_safe(EXT4, &["--metacopy", "on"]);
}

#[test]
fn power_loss_on_xfs_loses_nothing_acknowledged() {
    expect_safe(XFS, &["--metacopy", "on"]);
}

#[test]
fn power_loss_on_btrfs_loses_nothing_acknowledged() {
    expect_safe(BTRFS, &[]);
}

/// Shows that the tests above would find a loss.
#[test]
fn a_volatile_mount_loses_what_was_acknowledged() {
    let record = Record::new(EXT4, &["--volatile"]);
    let (_, end) = record.span;
    let faults = record.with_disk(
        end,
        || true,
        |fs, mnt| {
            sys::remove_tree(fs.join("work/work")).ok();
            let _union = Union::mount(Subject::ours(&[]), &record.lower(), fs, mnt).unwrap();
            record.faults(mnt, end)
        },
    );
    assert!(
        !faults.is_empty(),
        "{} jobs, nothing lost",
        record.jobs.len()
    );
}

/// As kernel overlayfs does it: the mark stays when the machine or the daemon goes, and the kernel
/// refuses such a workdir too.
#[test]
fn a_volatile_workdir_is_refused_until_its_mark_is_removed() {
    let lower = Scratch::new();
    let mut mounts = Mounts::new();
    let (fs, mnt) = (mounts.format(EXT4.0, EXT4.1, "fs"), mounts.dir("mnt"));
    for name in ["upper", "work"] {
        sys::mkdir(fs.join(name), 0o755).unwrap();
    }
    let mount = |subject| Union::mount(subject, lower.path(), &fs, &mnt);
    drop(mount(Subject::ours(&["--volatile"])).unwrap());
    let mark = fs.join("work/work/incompat/volatile");
    assert!(sys::exists(&mark));
    let refusal = mount(Subject::ours(&[])).err().expect("refused");
    assert!(refusal.contains("volatile"), "{refusal}");
    assert!(mount(Subject::KernelWith(KERNEL.to_owned())).is_err());
    sys::remove_tree(&mark).unwrap();
    drop(mount(Subject::ours(&[])).unwrap());
}
