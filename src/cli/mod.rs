//! The command line: arguments, mount, daemon, control commands.
//!
//! Dialects (`helper`, `words`, `options`) become one `plan`, `check` looks at its directories,
//! `daemon` carries it out. The only place that prints, and that reads the environment.

mod args;
mod check;
mod compat;
mod complete;
mod control;
mod daemon;
mod environment;
mod failure;
mod fsck;
mod fusermount;
mod helper;
mod host;
mod logging;
mod metacopy;
mod mount;
mod mountinfo;
mod namespace;
mod options;
mod owners;
mod plan;
mod privileges;
mod readahead;
mod remount;
mod render;
mod shutdown;
mod stat_override;
mod umount;
mod values;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Control, MountArgs, QueryArgs, RefreshArgs};
use control::Target;
use environment::Environment;
use failure::{Failure, reason};
use helper::Request;
use plan::{Personality, Plan};

pub use compat::{Word, option_words};

/// The command line as clap has it, for man pages and completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program with `args` (the name it was called under first).
pub fn run(args: Vec<OsString>) -> ExitCode {
    let argv0 = args.first().cloned().unwrap_or_default();
    let done = match helper::personality(&argv0) {
        Personality::Plain => match Cli::try_parse_from(&args) {
            Ok(cli) => dispatch(cli),
            Err(e) => return by_clap(&e),
        },
        who => foreign(args.get(1..).unwrap_or_default(), who),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(failure.status())
        }
    }
}

/// What a command line asks for, as text for people who look for mistakes in reading them; no path is
/// looked at. The fuzz target `words` calls it.
///
/// # Errors
/// The complaint that [`run`] would print.
pub fn understand(args: &[OsString]) -> Result<String, String> {
    let argv0 = args.first().cloned().unwrap_or_default();
    let who = helper::personality(&argv0);
    let mount = match who {
        Personality::Plain => {
            let cli = Cli::try_parse_from(args).map_err(|e| e.to_string())?;
            match cli.command {
                None => cli.mount,
                Some(Control::Mount(args)) => *args,
                Some(other) => return Ok(format!("{other:?}")),
            }
        }
        who => match helper::parse(args.get(1..).unwrap_or_default(), who) {
            Ok(Request::Mount(args)) => *args,
            Ok(Request::Version | Request::Help) => return Ok("information".to_owned()),
            Err(failure) => return Err(failure.to_string()),
        },
    };
    let plan = plan::plan(mount, who, environment::Environment::default())
        .map_err(|failure| failure.to_string())?;
    Ok(format!("{plan:?}"))
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        None => mount(cli.mount, Personality::Plain),
        Some(Control::Mount(args)) => mount(*args, Personality::Plain),
        Some(Control::Umount(args)) => umount::umount(&args).map(success),
        Some(Control::Complete(args)) => complete::unmounted(&args),
        Some(Control::Check(args)) => Ok(fsck::check(&args)),
        Some(Control::Sync(args)) => Target::find(Path::new(&args.mountpoint))?
            .sync()
            .map(success),
        Some(Control::CheckHost(args)) => {
            let report = host::check();
            print(&if args.json {
                report.json()
            } else {
                render::host(&report)
            })?;
            Ok(ExitCode::from(u8::from(!report.any())))
        }
        Some(Control::Refresh(args)) => refresh(&args),
        Some(Control::Inspect(args)) => query(&args, "inspect", |json| {
            Ok(render::inspect(&control::decode(json)?))
        }),
        Some(Control::Stats(args)) => query(&args, "stats", |json| {
            Ok(render::stats(&control::decode(json)?))
        }),
    }
}

fn foreign(args: &[OsString], who: Personality) -> Result<ExitCode, Failure> {
    match helper::parse(args, who)? {
        Request::Mount(args) => mount(*args, who),
        // Engines show the first line to people as it is.
        Request::Version => print(match who {
            Personality::FuseOverlayfs => {
                concat!(
                    "fuse-overlayfs: unionmount ",
                    env!("CARGO_PKG_VERSION"),
                    "\n"
                )
            }
            _ => concat!("unionmount ", env!("CARGO_PKG_VERSION"), "\n"),
        }),
        Request::Help => print(match who {
            Personality::FuseOverlayfs => "Usage: fuse-overlayfs [-fd] -o OPTIONS MOUNTPOINT\n",
            _ => "Usage: mount.fuse.unionmount SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS]\n",
        }),
    }
}

fn mount(args: MountArgs, who: Personality) -> Result<ExitCode, Failure> {
    let environment = match who {
        Personality::FuseOverlayfs => Environment::read(),
        Personality::Plain | Personality::Helper => Environment::default(),
    };
    match plan::plan(args, who, environment)? {
        Plan::Mount(plan) => {
            if !plan.quiet {
                warn(&plan.warnings);
            }
            daemon::start(*plan)
        }
        Plan::Remount(plan) => {
            warn(&plan.warnings);
            remount::remount(&plan).map(success)
        }
    }
}

fn query(
    args: &QueryArgs,
    question: &str,
    render: impl Fn(&[u8]) -> Result<String, Failure>,
) -> Result<ExitCode, Failure> {
    let answer = Target::find(Path::new(&args.target.mountpoint))?.ask(question)?;
    if args.json {
        return print(&format!(
            "{}\n",
            String::from_utf8_lossy(&answer).trim_end()
        ));
    }
    print(&render(&answer)?)
}

fn refresh(args: &RefreshArgs) -> Result<ExitCode, Failure> {
    let target = Target::find(Path::new(&args.query.target.mountpoint))?;
    let answer = target.refresh(args.path.as_ref().map(Path::new))?;
    if args.query.json {
        return print(&format!("{}\n", String::from_utf8_lossy(&answer)));
    }
    print(&render::refreshed(control::decode(&answer)?))
}

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever reads has seen enough (`| head`).
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(e) => Err(Failure::new(format!(
            "cannot write to stdout: {}",
            reason(e)
        ))),
    }
}

/// Says what was asked for, or is wanted as a rule, and will not be.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        complain(&format!("warning: {warning}"));
    }
}

fn complain(message: &str) {
    let line = format!("unionmount: {message}\n");
    // If stderr is closed there is nobody left to tell.
    crate::error::best_effort("stderr", std::io::stderr().write_all(line.as_bytes()));
}

/// Help and version go to stdout; a usage error is one line, as all others are.
fn by_clap(e: &clap::Error) -> ExitCode {
    if !e.use_stderr() {
        crate::error::best_effort("stdout", e.print());
        return ExitCode::SUCCESS;
    }
    let text = e.render().to_string();
    let why: Vec<&str> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let why = why.join(" ");
    let why = why.strip_prefix("error: ").unwrap_or(&why);
    complain(&format!("{why} (see unionmount --help)"));
    ExitCode::from(2)
}
