//! Walks and reads of a whole tree by the usual programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Workload;
use super::tools::{command, cpus, run, shell, together};
use crate::layers::Which;
use crate::row::{Goal, whole};
use crate::session::{Native, Session};

/// tar writes nothing when it writes to /dev/null, hence the pipe.
const TAR: &str = r#"tar cf - "$@" 2>/dev/null | cat >/dev/null"#;

/// What a second look is repeated for.
const AGAIN: usize = 2;

pub const ALL: &[Workload] = &[
    Workload {
        name: "find",
        layers: Which::Debian,
        native: Native::Shared,
        rows: &[
            whole(
                "find-first",
                "find with attributes, first",
                Goal::Kernel(1.5),
                2.0,
            ),
            whole(
                "find-again",
                "find with attributes, again",
                Goal::Kernel(1.1),
                3.0,
            ),
        ],
        run: find,
    },
    Workload {
        name: "find-cpus",
        layers: Which::Debian,
        native: Native::Shared,
        rows: &[
            whole(
                "find-cpus-first",
                "find by a process per CPU, first",
                Goal::Kernel(1.5),
                2.0,
            ),
            whole(
                "find-cpus-again",
                "find by a process per CPU, again",
                Goal::Kernel(1.1),
                3.0,
            ),
        ],
        run: find_by_all,
    },
    Workload {
        name: "tar",
        layers: Which::Debian,
        native: Native::Shared,
        rows: &[
            whole(
                "tar-first",
                "tar of usr and opt, first",
                Goal::Kernel(2.0),
                2.0,
            ),
            whole(
                "tar-again",
                "tar of usr and opt, again",
                Goal::Kernel(1.1),
                3.0,
            ),
        ],
        run: tar,
    },
    Workload {
        name: "tar-cpus",
        layers: Which::Debian,
        native: Native::Shared,
        rows: &[
            whole(
                "tar-cpus-first",
                "tar by a process per CPU, first",
                Goal::Kernel(2.0),
                2.0,
            ),
            whole(
                "tar-cpus-again",
                "tar by a process per CPU, again",
                Goal::Kernel(1.1),
                3.0,
            ),
        ],
        run: tar_by_all,
    },
    Workload {
        name: "grep",
        layers: Which::Debian,
        native: Native::Shared,
        rows: &[whole(
            "grep-first",
            "grep -r by two processes, first",
            Goal::Kernel(2.0),
            1.0,
        )],
        run: grep,
    },
];

fn find(session: &mut Session<'_>) -> Result<()> {
    let step = |session: &Session<'_>| run("find", &[&session.mnt, &"-printf", &"%s %m %u\n"]);
    session.mount()?;
    session.meet_daemon()?;
    session.time("find-first", 1, step)?;
    session.time("find-again", AGAIN, |session| {
        (0..AGAIN).try_for_each(|_| step(session))
    })
}

/// The big directories of the tree.
const TOPS: &[&str] = &[
    "usr/share",
    "usr/share/doc",
    "usr/lib/python3/dist-packages",
    "usr/include",
];

/// Their children dealt out to as many workers as there are CPUs; read from the layers, so that
/// nothing of the mount is known before.
fn shares(session: &Session<'_>) -> Result<Vec<Vec<PathBuf>>> {
    let mut all = BTreeSet::new();
    for lower in &session.set.lowers {
        let tops = TOPS.iter().map(|top| lower.join(top));
        for top in tops.filter(|top| top.is_dir()) {
            for entry in std::fs::read_dir(&top)? {
                all.insert(entry?.path().strip_prefix(lower)?.to_owned());
            }
        }
    }
    all.remove(Path::new("usr/share/doc"));
    let mut shares = vec![Vec::new(); cpus()];
    let workers = shares.len();
    for (n, path) in all.into_iter().enumerate() {
        shares[n % workers].push(session.mnt.join(path));
    }
    Ok(shares)
}

fn find_by_all(session: &mut Session<'_>) -> Result<()> {
    let shares = shares(session)?;
    let step = |_: &Session<'_>| {
        let commands = shares.iter().map(|share| {
            let mut command = command("find", &[]);
            command.args(share).args(["-printf", "%s %m %u\n"]);
            command
        });
        together(commands.collect())
    };
    session.mount()?;
    session.meet_daemon()?;
    session.time("find-cpus-first", 1, step)?;
    session.time("find-cpus-again", AGAIN, |session| {
        (0..AGAIN).try_for_each(|_| step(session))
    })
}

fn tar(session: &mut Session<'_>) -> Result<()> {
    let step =
        |session: &Session<'_>| together(vec![shell(TAR, &[session.at("usr"), session.at("opt")])]);
    session.mount()?;
    session.meet_daemon()?;
    session.time("tar-first", 1, step)?;
    session.time("tar-again", AGAIN, |session| {
        (0..AGAIN).try_for_each(|_| step(session))
    })
}

fn tar_by_all(session: &mut Session<'_>) -> Result<()> {
    let shares = shares(session)?;
    let step = |_: &Session<'_>| together(shares.iter().map(|share| shell(TAR, share)).collect());
    session.mount()?;
    session.meet_daemon()?;
    session.time("tar-cpus-first", 1, step)?;
    session.time("tar-cpus-again", AGAIN, |session| {
        (0..AGAIN).try_for_each(|_| step(session))
    })
}

/// A word that is not in the text: all is read, nothing printed.
const GREP: &str = r#"grep -r zzqqxxjj "$@" | cat >/dev/null"#;

fn grep(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    session.time("grep-first", 1, |session| {
        let share = session.at("usr/share");
        let rest = ["usr/lib", "usr/bin", "usr/include", "opt", "var"];
        let rest: Vec<_> = rest.iter().map(|name| session.at(name)).collect();
        together(vec![shell(GREP, &[share]), shell(GREP, &rest)])
    })
}
