//! A directory of very many entries: listing it, and changing it.

use std::path::PathBuf;

use anyhow::Result;

use super::Workload;
use super::calls::{create, open_dir, over, unlink};
use super::tools::run;
use crate::layers::Which;
use crate::row::{Goal, each, whole};
use crate::session::{Native, Session};

pub const ALL: &[Workload] = &[
    Workload {
        name: "ls",
        layers: Which::Wide,
        native: Native::Shared,
        rows: &[
            whole(
                "ls-first",
                "ls -lU of 50,000 entries, first",
                Goal::Kernel(1.5),
                2.0,
            ),
            whole(
                "ls-again",
                "ls -lU of 50,000 entries, again",
                Goal::Kernel(1.1),
                3.0,
            ),
        ],
        run: list,
    },
    Workload {
        name: "create-wide",
        layers: Which::Wide,
        native: Native::Shared,
        rows: &[
            each(
                "create-wide",
                "create+write+close among 50,000 entries",
                Goal::Kernel(2.5),
                1.0,
            ),
            each(
                "unlink-wide",
                "unlink among 50,000 entries",
                Goal::Kernel(2.0),
                1.0,
            ),
        ],
        run: change,
    },
];

fn list(session: &mut Session<'_>) -> Result<()> {
    let step = |session: &Session<'_>| run("ls", &[&"-lU", &session.at("wide")]);
    session.mount()?;
    session.meet_daemon()?;
    session.time("ls-first", 1, step)?;
    session.time("ls-again", 1, step)
}

fn change(session: &mut Session<'_>) -> Result<()> {
    let many = session.sizes.operations / 40;
    let names: Vec<PathBuf> = (0..many).map(|n| format!("new{n}").into()).collect();
    session.mount()?;
    session.meet_daemon()?;
    let dir = open_dir(&session.at("wide"))?;
    session.time("create-wide", many, |_| {
        over(&dir, &names, many, |dir, name| create(dir, name))
    })?;
    session.time("unlink-wide", many, |_| {
        over(&dir, &names, many, |dir, name| unlink(dir, name))
    })
}
