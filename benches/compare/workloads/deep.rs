//! Many layers: walks, lookups, and how long the mount itself takes.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use super::Workload;
use super::calls::{open_dir, over, stat, stat_missing};
use super::tools::run;
use crate::layers::Which;
use crate::layers::deep::{BOTTOM_FILES, DIRECTORIES};
use crate::row::{Goal, each, whole};
use crate::session::{Native, Session};

pub const ALL: &[Workload] = &[
    Workload {
        name: "walk-60",
        layers: Which::Deep,
        native: Native::Shared,
        rows: &[whole(
            "walk-60",
            "walk of 60 layers, first",
            Goal::Kernel(1.0),
            2.0,
        )],
        run: walk,
    },
    Workload {
        name: "miss-60",
        layers: Which::Deep,
        native: Native::Shared,
        rows: &[each(
            "miss-60",
            "stat of a missing name in 60 layers, first",
            Goal::Kernel(0.5),
            2.0,
        )],
        run: miss,
    },
    Workload {
        name: "mount",
        layers: Which::Many,
        native: Native::Absent,
        rows: &[
            whole("mount-1", "mount of 1 lower", Goal::None, 0.0),
            whole("mount-4", "mount of 4 lowers", Goal::Value(0.010), 0.0),
            whole("mount-100", "mount of 100 lowers", Goal::None, 0.0),
            whole("mount-500", "mount of 500 lowers", Goal::Value(0.060), 0.0),
        ],
        run: mount,
    },
    Workload {
        name: "lookup",
        layers: Which::Many,
        native: Native::Absent,
        rows: &[
            each("bottom-1", "lookup in 1 lower, first", Goal::None, 1.0),
            each(
                "absent-1",
                "missing name in 1 lower, first",
                Goal::None,
                1.0,
            ),
            each(
                "bottom-10",
                "lookup at the bottom of 10 lowers, first",
                Goal::None,
                1.0,
            ),
            each(
                "absent-10",
                "missing name in 10 lowers, first",
                Goal::None,
                1.0,
            ),
            each(
                "bottom-100",
                "lookup at the bottom of 100 lowers, first",
                Goal::None,
                1.0,
            ),
            each(
                "absent-100",
                "missing name in 100 lowers, first",
                Goal::None,
                1.0,
            ),
            each(
                "bottom-500",
                "lookup at the bottom of 500 lowers, first",
                Goal::None,
                1.0,
            ),
            each(
                "absent-500",
                "missing name in 500 lowers, first",
                Goal::None,
                1.0,
            ),
        ],
        run: lookup,
    },
];

fn walk(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    session.time("walk-60", 1, |session| {
        run("find", &[&session.mnt, &"-printf", &"%s %m %u\n"])
    })
}

fn miss(session: &mut Session<'_>) -> Result<()> {
    let names = (0..500).map(|n| format!("d{}/absent{n}", n % DIRECTORIES).into());
    let names: Vec<PathBuf> = names.collect();
    session.mount()?;
    session.meet_daemon()?;
    let dir = open_dir(&session.mnt)?;
    session.time("miss-60", names.len(), |_| {
        over(&dir, &names, names.len(), |dir, name| {
            stat_missing(dir, name)
        })
    })
}

/// So many lowers, the bottom one among them.
fn bottom_lowers(session: &Session<'_>, count: usize) -> Vec<PathBuf> {
    let lowers = &session.set.lowers;
    lowers[lowers.len() - count..].to_vec()
}

fn mount(session: &mut Session<'_>) -> Result<()> {
    let counts = [
        (1, "mount-1"),
        (4, "mount-4"),
        (100, "mount-100"),
        (500, "mount-500"),
    ];
    for (count, slug) in counts {
        let lowers = bottom_lowers(session, count);
        session.prepare()?;
        let start = Instant::now();
        session.mount_prepared(&lowers)?;
        rustix::fs::stat(&session.mnt)?;
        session.record(slug, start.elapsed().as_secs_f64());
        session.meet_daemon()?;
        session.unmount()?;
        session.clear()?;
    }
    Ok(())
}

fn lookup(session: &mut Session<'_>) -> Result<()> {
    let counts = [
        (1, "bottom-1", "absent-1"),
        (10, "bottom-10", "absent-10"),
        (100, "bottom-100", "absent-100"),
        (500, "bottom-500", "absent-500"),
    ];
    let bottom: Vec<PathBuf> = (0..BOTTOM_FILES)
        .map(|n| format!("bottom{n}").into())
        .collect();
    let absent: Vec<PathBuf> = (0..500).map(|n| format!("absent{n}").into()).collect();
    for (count, found, missing) in counts {
        let lowers = bottom_lowers(session, count);
        session.mount_lowers(&lowers)?;
        session.meet_daemon()?;
        let dir = open_dir(&session.at("common"))?;
        session.time(found, bottom.len(), |_| {
            over(&dir, &bottom, bottom.len(), |dir, name| stat(dir, name))
        })?;
        session.time(missing, absent.len(), |_| {
            over(&dir, &absent, absent.len(), |dir, name| {
                stat_missing(dir, name)
            })
        })?;
        drop(dir);
        session.unmount()?;
        session.clear()?;
    }
    Ok(())
}
