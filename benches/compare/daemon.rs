//! What the process behind a mount used: processor time, memory, requests.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The processes that serve a mount, and the program that asks them.
#[derive(Debug, Default)]
pub struct Daemon {
    pids: Vec<u32>,
    control: Option<(PathBuf, PathBuf)>,
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    ticks: u64,
    requests: Option<u64>,
}

/// The kind of request that has no answer: nobody waits for it.
const UNANSWERED: &str = "forget";

/// What one timed step cost the daemon.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Cost {
    pub cpu_seconds: f64,
    pub peak_rss_kib: u64,
    /// Those that a caller waited for.
    pub requests: Option<u64>,
}

impl Daemon {
    /// Of the mount at `mnt`; `control` is our program, if it is a mount of ours.
    pub fn of(mnt: &Path, control: Option<&Path>) -> Daemon {
        Daemon {
            pids: processes_about(mnt),
            control: control.map(|program| (program.to_owned(), mnt.to_owned())),
        }
    }

    pub fn exists(&self) -> bool {
        !self.pids.is_empty()
    }

    /// Reads the counters, and lets the peak of the memory begin anew.
    pub fn read(&self) -> Reading {
        for pid in &self.pids {
            // Without the permission the peak is that since the mount.
            drop(std::fs::write(format!("/proc/{pid}/clear_refs"), "5"));
        }
        Reading {
            ticks: self.pids.iter().filter_map(|&pid| ticks(pid)).sum(),
            requests: self.requests(),
        }
    }

    /// What it cost since `before`.
    pub fn cost_since(&self, before: &Reading) -> Cost {
        let ticks: u64 = self.pids.iter().filter_map(|&pid| ticks(pid)).sum();
        let peak = self.pids.iter().filter_map(|&pid| peak_rss_kib(pid)).sum();
        // Asking costs requests as well: those of a second question are taken off.
        let asked = self.requests();
        let again = self.requests();
        let requests = match (before.requests, asked, again) {
            (Some(before), Some(asked), Some(again)) => {
                Some((2 * asked).saturating_sub(before + again))
            }
            _ => None,
        };
        Cost {
            // USER_HZ is 100 wherever Linux has FUSE.
            cpu_seconds: ticks.saturating_sub(before.ticks) as f64 / 100.0,
            peak_rss_kib: peak,
            requests,
        }
    }

    fn requests(&self) -> Option<u64> {
        let (program, mnt) = self.control.as_ref()?;
        count_requests(program, mnt).ok()
    }

    /// Waits until the processes are gone.
    pub fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.pids.iter().any(|&pid| runs(pid)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn count_requests(program: &Path, mnt: &Path) -> Result<u64> {
    let done = Command::new(program)
        .args(["stats", "--json"])
        .arg(mnt)
        .output()?;
    let stats: serde_json::Value = serde_json::from_slice(&done.stdout)?;
    let requests = stats
        .get("requests")
        .and_then(serde_json::Value::as_array)
        .context("no requests in the stats")?;
    let awaited = requests.iter().filter(|one| {
        let op = one.get("op").and_then(serde_json::Value::as_str);
        op != Some(UNANSWERED)
    });
    let counts = awaited.filter_map(|one| one.get("count")?.as_u64());
    Ok(counts.sum())
}

/// Processes that were given the mountpoint as an argument: daemons keep the arguments they had.
fn processes_about(mnt: &Path) -> Vec<u32> {
    let Ok(proc) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    proc.flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
            let mut arguments = arguments.split(|&byte| byte == 0);
            arguments
                .any(|argument| argument == mnt.as_os_str().as_bytes())
                .then_some(pid)
        })
        .collect()
}

/// The fields of /proc/PID/stat behind the name, which may hold blanks: the state is the first.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn ticks(pid: u32) -> Option<u64> {
    let fields = stat_fields(pid)?;
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(user + system)
}

fn runs(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

fn peak_rss_kib(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
