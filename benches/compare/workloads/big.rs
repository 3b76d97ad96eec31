//! Big files: reading them, copying them up, and what others notice of that.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Workload;
use super::data::read_at_all;
use crate::layers::Which;
use crate::layers::big::SMALL_FILES;
use crate::row::{Goal, Row, Unit, each, whole};
use crate::session::{Native, Session};

pub const ALL: &[Workload] = &[
    Workload {
        name: "read-big",
        layers: Which::Big,
        native: Native::Shared,
        rows: &[
            whole(
                "read-big-first",
                "read of 512 MiB, first",
                Goal::Kernel(3.0),
                0.0,
            ),
            whole("read-big-again", "read of 512 MiB, again", Goal::None, 0.0),
        ],
        run: read,
    },
    Workload {
        name: "read-pieces",
        layers: Which::Big,
        native: Native::Shared,
        rows: &[each(
            "read-pieces",
            "4 KiB random read of 512 MiB, first touch",
            Goal::None,
            1.0,
        )],
        run: read_pieces,
    },
    Workload {
        name: "append-big",
        layers: Which::Big,
        native: Native::Absent,
        rows: &[whole(
            "append-big",
            "copy-up of 512 MiB by appending a byte",
            Goal::Kernel(1.0),
            1.0,
        )],
        run: append,
    },
    Workload {
        name: "chmod-big",
        layers: Which::Big,
        native: Native::Absent,
        rows: &[whole(
            "chmod-big",
            "chmod of 512 MiB",
            Goal::Kernel(1.0),
            1.0,
        )],
        run: chmod,
    },
    Workload {
        name: "copying",
        layers: Which::Huge,
        native: Native::Absent,
        rows: &[
            each("stat-idle", "stat of a new name, idle", Goal::None, 0.0),
            each(
                "stat-copying",
                "stat of a new name during a copy-up of 2 GiB",
                Goal::None,
                1.0,
            ),
            times("stat-times", "stat: copying in relation to idle"),
            each("write-idle", "write of 100 bytes, idle", Goal::None, 0.0),
            each(
                "write-copying",
                "write of 100 bytes during a copy-up of 2 GiB",
                Goal::None,
                1.0,
            ),
            times("write-times", "write: copying in relation to idle"),
            whole("copy-huge", "that copy-up", Goal::None, 0.0),
        ],
        run: copying,
    },
];

/// A latency under load in relation to that without.
const fn times(slug: &'static str, title: &'static str) -> Row {
    Row {
        slug,
        title,
        unit: Unit::Times,
        goal: Goal::Value(2.0),
        beats: 0.0,
    }
}

fn read_all(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn read(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    let path = session.at("big");
    session.time("read-big-first", 1, |_| read_all(&path))?;
    session.time("read-big-again", 1, |_| read_all(&path))
}

fn read_pieces(session: &mut Session<'_>) -> Result<()> {
    let pieces = session.sizes.big_bytes / 4096;
    let mut rng = fastrand::Rng::with_seed(6);
    let many = session.sizes.operations / 2;
    let offsets: Vec<u64> = (0..many).map(|_| rng.u64(..pieces) * 4096).collect();
    session.mount()?;
    session.meet_daemon()?;
    let file = File::open(session.at("big"))?;
    session.time("read-pieces", many, |_| read_at_all(&file, &offsets))
}

fn append_byte(path: &Path) -> Result<()> {
    Ok(File::options().append(true).open(path)?.write_all(b"x")?)
}

fn append(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    session.time("append-big", 1, |session| append_byte(&session.at("big")))
}

fn chmod(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    session.time("chmod-big", 1, |session| {
        let mode = std::fs::Permissions::from_mode(0o640);
        Ok(std::fs::set_permissions(session.at("big"), mode)?)
    })
}

/// Latencies of what somebody else does meanwhile.
struct Latencies {
    stat: f64,
    write: f64,
}

/// Takes latencies every other millisecond until `done`, or until there are no more names.
fn watch(names: &[PathBuf], file: &File, mut done: impl FnMut() -> bool) -> Result<Latencies> {
    let (mut stats, mut writes) = (Vec::new(), Vec::new());
    for (n, name) in names.iter().enumerate() {
        if done() && n >= 3 {
            break;
        }
        let start = Instant::now();
        rustix::fs::lstat(name)?;
        stats.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        file.write_all_at(&[b'z'; 100], 100 * n as u64)?;
        writes.push(start.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(Latencies {
        stat: middle(stats),
        write: middle(writes),
    })
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn copying(session: &mut Session<'_>) -> Result<()> {
    let names: Vec<PathBuf> = (0..SMALL_FILES)
        .map(|n| session.at(format!("small/f{n}")))
        .collect();
    let (for_idle, for_load) = names.split_at(SMALL_FILES / 8);
    session.mount()?;
    session.meet_daemon()?;
    let file = File::create_new(session.made("elsewhere"))?;
    let idle = watch(for_idle, &file, || false)?;
    session.settle()?;
    let huge = session.at("big");
    let start = Instant::now();
    let (load, copied) = std::thread::scope(|scope| {
        let copying = scope.spawn(move || {
            append_byte(&huge)?;
            anyhow::Ok(start.elapsed().as_secs_f64())
        });
        let load = watch(for_load, &file, || copying.is_finished());
        match copying.join() {
            Ok(copied) => Ok((load, copied)),
            Err(_) => bail!("a thread panicked"),
        }
    })?;
    let load = load?;
    session.record("copy-huge", copied?);
    session.record("stat-idle", idle.stat);
    session.record("stat-copying", load.stat);
    session.record("stat-times", load.stat / idle.stat);
    session.record("write-idle", idle.write);
    session.record("write-copying", load.write);
    session.record("write-times", load.write / idle.write);
    Ok(())
}
