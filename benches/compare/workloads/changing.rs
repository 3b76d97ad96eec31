//! Changes to whole trees by the usual programs.

use anyhow::Result;

use super::Workload;
use super::tools::{run, shell, together};
use crate::layers::Which;
use crate::row::{Goal, whole};
use crate::session::{Native, Session};

pub const ALL: &[Workload] = &[
    Workload {
        name: "untar",
        layers: Which::Bulk,
        native: Native::Shared,
        rows: &[
            whole("untar", "untar of small files", Goal::Kernel(2.5), 3.0),
            whole(
                "written-grep",
                "grep of what was just unpacked",
                Goal::None,
                1.0,
            ),
            whole(
                "written-tar",
                "tar of what was just unpacked",
                Goal::None,
                1.0,
            ),
        ],
        run: untar,
    },
    Workload {
        name: "cp",
        layers: Which::Bulk,
        native: Native::Shared,
        rows: &[whole("cp", "cp -r of lower files", Goal::Kernel(2.5), 3.0)],
        run: cp,
    },
    Workload {
        name: "rm",
        layers: Which::Bulk,
        native: Native::Copied,
        rows: &[whole("rm", "rm -rf of lower files", Goal::Kernel(2.0), 3.0)],
        run: rm,
    },
    Workload {
        name: "chown",
        layers: Which::Bulk,
        native: Native::Copied,
        rows: &[whole(
            "chown",
            "chown -R of lower files",
            Goal::Kernel(0.6),
            1.0,
        )],
        run: chown,
    },
    Workload {
        name: "mv",
        layers: Which::Bulk,
        native: Native::Copied,
        rows: &[whole(
            "mv",
            "mv of a lower directory of 2,000 files",
            Goal::None,
            1.0,
        )],
        run: mv,
    },
];

fn untar(session: &mut Session<'_>) -> Result<()> {
    let archive = session.fixtures.archive()?;
    session.mount()?;
    session.meet_daemon()?;
    session.time("untar", 1, |session| {
        run("tar", &[&"xf", &archive, &"-C", &session.made("")])
    })?;
    let made = [session.made("bulk")];
    session.time("written-grep", 1, |_| {
        let script = r#"grep -r zzqqxxjj "$@" | cat >/dev/null"#;
        together(vec![shell(script, &made)])
    })?;
    session.time("written-tar", 1, |_| {
        let script = r#"tar cf - "$@" 2>/dev/null | cat >/dev/null"#;
        together(vec![shell(script, &made)])
    })
}

fn cp(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    session.time("cp", 1, |session| {
        run(
            "cp",
            &[&"-r", &session.at("bulk/half0"), &session.made("copy")],
        )
    })
}

fn rm(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    session.time("rm", 1, |session| run("rm", &[&"-rf", &session.at("bulk")]))
}

fn chown(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    session.time("chown", 1, |session| {
        run("chown", &[&"-R", &"12345:12345", &session.at("bulk")])
    })
}

fn mv(session: &mut Session<'_>) -> Result<()> {
    session.mount()?;
    session.meet_daemon()?;
    session.time("mv", 1, |session| {
        run("mv", &[&session.at("moved"), &session.made("moved")])
    })
}
