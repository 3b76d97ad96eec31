//! `unionmount check`: what is wrong with an upper that is not mounted.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::{CheckArgs, OnOff};
use super::failure::Failure;
use super::metacopy::Metacopies;
use super::values::dirs;
use super::{complain, print};
use crate::ops::{
    Config, Finding, Leftovers, Mend, RedirectDir, StatOverride, Trouble, Union, UpperConfig,
    Weight, WhiteoutChoice, leftovers,
};

/// How often somebody who waits is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Ends as fsck(8) does.
const MENDED: u8 = 1;
const LEFT: u8 = 4;
const FAILED: u8 = 8;

/// What was found, as JSON has it.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Objects of the upper that were looked at.
    looked: u64,
    findings: Vec<Finding>,
}

/// Checks, and mends if that is wanted.
pub(crate) fn check(args: &CheckArgs) -> ExitCode {
    match run(args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(FAILED)
        }
    }
}

fn run(args: &CheckArgs) -> Result<u8, Failure> {
    let config = config(args)?;
    let work = Path::new(&args.work);
    let failed = |e: crate::error::SetupError| Failure::new(e.to_string());
    let mut report = Report::default();
    let Leftovers {
        unfinished,
        volatile,
    } = leftovers(work).map_err(failed)?;
    for name in unfinished {
        report.findings.push(Finding {
            path: format!("work/{}", name.escape_ascii()),
            trouble: Trouble::Leftover,
            text: "what was being made when the last mount ended (every mount removes it)".into(),
            mended: args.repair && !volatile,
        });
    }
    if volatile {
        report.findings.push(Finding {
            path: "work/incompat/volatile".into(),
            trouble: Trouble::Volatile,
            text: "the last mount was volatile and did not end in order: if the machine crashed since, data \
                   may be lost; check it, then remove this directory, and check again"
                .into(),
            mended: false,
        });
        return finish(report, args.json);
    }
    look(&config, args, &mut report).map_err(failed)?;
    finish(report, args.json)
}

/// Looks at all of it; once more to mend, if that is wanted.
fn look(
    config: &Config,
    args: &CheckArgs,
    report: &mut Report,
) -> Result<(), crate::error::SetupError> {
    let before = report.findings.len();
    let walk = |config: &Config, mend: Mend, report: &mut Report| {
        let union = Union::open(config)?;
        let mut progress = Progress::default();
        let looked = union.check(mend, &mut |finding| {
            report.findings.push(finding);
            progress.tell(report.findings.len());
        });
        report.looked = looked
            .map_err(|e| crate::error::SetupError::new(format!("cannot check the upper: {e}")))?;
        Ok::<(), crate::error::SetupError>(())
    };
    let reading = Config {
        read_only: true,
        ..config.clone()
    };
    walk(&reading, Mend::Nothing, report)?;
    if !args.repair || report.findings.is_empty() {
        return Ok(());
    }
    // Origins that lead nowhere: these may not be all lowers, and deletions of what they lack may count.
    let strange = report
        .findings
        .iter()
        .any(|f| f.trouble == Trouble::LostOrigin);
    report.findings.truncate(before);
    let mend = match args.prune && !strange {
        true => Mend::Prune,
        false => Mend::Safe,
    };
    walk(config, mend, report)?;
    for finding in &mut report.findings {
        if strange && args.prune && finding.trouble == Trouble::IdleWhiteout {
            let why = "; it stays, for some copies come from what is not in these lowers";
            finding.text.push_str(why);
        }
    }
    Ok(())
}

fn config(args: &CheckArgs) -> Result<Config, Failure> {
    let words = Metacopies {
        metacopy: args.userxattr.then_some(OnOff::On),
        verity: None,
        userxattr: false,
    };
    let (metacopy, redirect_dir) = words.finish(RedirectDir::Auto)?;
    let mut lowers = Vec::new();
    for text in &args.lower {
        lowers.extend(dirs(text, "--lower")?.into_iter().map(PathBuf::from));
    }
    Ok(Config {
        lowers,
        data: args.data.iter().map(PathBuf::from).collect(),
        metacopy,
        redirect_dir,
        stat_override: StatOverride::Read,
        upper: Some(UpperConfig {
            whiteout: WhiteoutChoice::Found,
            ..UpperConfig::new((&args.upper).into(), (&args.work).into())
        }),
        ..Config::default()
    })
}

/// Tells people who wait.
#[derive(Debug)]
struct Progress {
    told: Instant,
    shown: bool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            told: Instant::now(),
            shown: std::io::stderr().is_terminal(),
        }
    }
}

impl Progress {
    fn tell(&mut self, findings: usize) {
        if self.shown && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            complain(&format!("{findings} findings so far"));
        }
    }
}

/// Prints all, and says how it ended.
fn finish(report: Report, json: bool) -> Result<u8, Failure> {
    let problem = |finding: &&Finding| finding.trouble.weight() == Weight::Problem;
    let left = report
        .findings
        .iter()
        .filter(problem)
        .filter(|f| !f.mended)
        .count();
    let mended = report
        .findings
        .iter()
        .filter(problem)
        .filter(|f| f.mended)
        .count();
    if json {
        let text =
            serde_json::to_string_pretty(&report).map_err(|e| Failure::new(e.to_string()))?;
        print(&format!("{text}\n"))?;
    } else {
        let mut text = String::new();
        for finding in &report.findings {
            let how = match (finding.mended, finding.trouble.weight()) {
                (true, _) => "mended: ",
                (false, Weight::Note) => "note: ",
                (false, Weight::Problem) => "",
            };
            text.push_str(&format!("{}: {how}{}\n", finding.path, finding.text));
        }
        let notes = report.findings.len() - left - mended;
        text.push_str(&format!(
            "{} objects looked at: {left} problems, {mended} mended, {notes} notes\n",
            report.looked
        ));
        print(&text)?;
    }
    Ok(match (left, mended) {
        (0, 0) => 0,
        (0, _) => MENDED,
        _ => LEFT,
    })
}
