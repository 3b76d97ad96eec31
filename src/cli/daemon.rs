//! From a plan to a process that serves: into the background, mount, report, serve.
//!
//! The order is the point. The process forks while it has one thread; the layers are opened before
//! the mount is made (it may lie over one of them, and engines unmount lowers behind us); success
//! is reported when the kernel has agreed on the protocol; what fails later takes its mount along.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, chdir, getpid, getrlimit, setrlimit, setsid, umask,
    waitpid,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::check;
use super::failure::{Failure, reason};
use super::logging::{self, Log};
use super::mount::{Mounted, Mounter};
use super::options;
use super::plan::MountPlan;
use super::privileges;
use super::render;
use super::shutdown;
use super::stat_override;
use crate::error::best_effort;
use crate::fuse::{IoMode, ServeOptions, Server, default_threads};
use crate::ops::{
    AclMode, Config, Durability, Inspect, Origins, RedirectDir, Union, VerityMode, WhiteoutChoice,
};
use crate::sys::daemon::{Forked, fork};
use crate::sys::signal::{self, Blocked};

/// Mounts and serves. Returns in the parent when the mount is usable, in the serving process when
/// it is unmounted.
pub(crate) fn start(mut plan: MountPlan) -> Result<ExitCode, Failure> {
    check::check(&mut plan)?;
    let log = logging::start(&plan.log, plan.foreground)?;
    for note in &plan.warnings {
        tracing::info!("{note}");
    }
    if plan.foreground {
        return bring_up(&plan)?.settle(log)?.serve();
    }
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|e| Failure::new(format!("cannot make a pipe: {}", reason(e))))?;
    let forked = fork().map_err(|e| Failure::new(format!("cannot fork: {}", reason(e))))?;
    match forked {
        Forked::Parent(child) => {
            drop(write_end);
            wait_for_report(read_end, child, plan.quiet)
        }
        Forked::Child => {
            drop(read_end);
            Ok(in_background(&plan, log, write_end))
        }
    }
}

/// Says that all is well, after lines of what the mount lacks; anything else on the pipe is a
/// complaint.
const ALL_WELL: &[u8] = b"\0";

fn wait_for_report(read_end: OwnedFd, child: Pid, quiet: bool) -> Result<ExitCode, Failure> {
    let mut report = Vec::new();
    let received = File::from(read_end).read_to_end(&mut report);
    if let (Ok(_), Some(lines)) = (received, report.strip_suffix(ALL_WELL)) {
        let lines = String::from_utf8_lossy(lines);
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        if !quiet {
            super::warn(&lines);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let status = waitpid(Some(child), WaitOptions::empty());
    if !report.is_empty() {
        return Err(Failure::new(String::from_utf8_lossy(&report)));
    }
    let how = match status {
        Ok(Some((_, status))) => match status.terminating_signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => format!("exit status {}", status.exit_status().unwrap_or_default()),
        },
        _ => "no exit status".to_owned(),
    };
    Err(Failure::new(format!(
        "the daemon died before the mount was usable ({how})"
    )))
}

fn in_background(plan: &MountPlan, log: Log, report: OwnedFd) -> ExitCode {
    best_effort("setsid", setsid());
    let mut report = File::from(report);
    let complain = |report: &mut File, failure: &Failure| {
        best_effort("report", report.write_all(failure.to_string().as_bytes()));
        ExitCode::from(failure.status())
    };
    // Before we go where there is none; what else is wrong is worth more to know.
    let null = open_null();
    let brought_up = bring_up(plan).and_then(|ready| close_stdio(&null?).map(|()| ready));
    let running = match brought_up {
        Ok(running) => running,
        Err(failure) => return complain(&mut report, &failure),
    };
    // A parent that is gone will never tell anybody that there is a mount: take it back.
    let mut lines = running.union.missing().join("\n").into_bytes();
    lines.extend_from_slice(ALL_WELL);
    if report.write_all(&lines).is_err() {
        return ExitCode::FAILURE;
    }
    drop(report);
    match running.settle(log).and_then(Running::serve) {
        Ok(code) => code,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn open_null() -> Result<File, Failure> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/null");
    opened.map_err(|e| Failure::new(format!("cannot open \"/dev/null\": {}", reason(e))))
}

/// Callers wait until our end of their pipes is closed.
fn close_stdio(null: &File) -> Result<(), Failure> {
    for done in [
        rustix::stdio::dup2_stdin(null),
        rustix::stdio::dup2_stdout(null),
        rustix::stdio::dup2_stderr(null),
    ] {
        done.map_err(|e| Failure::new(format!("cannot close stdio: {}", reason(e))))?;
    }
    Ok(())
}

/// A union that is mounted; the mount is undone if this is dropped.
struct Ready {
    union: Arc<Union>,
    pending: super::mount::Pending,
    server: Server,
    signals: Blocked,
}

impl Ready {
    /// From here on the mount stays until somebody unmounts it.
    fn settle(self, log: Log) -> Result<Running, Failure> {
        let Some(mounted) = self.pending.settle() else {
            return Err(Failure::new("the mount is gone already"));
        };
        let mounted = Arc::new(mounted);
        let statistics = self.server.statistics();
        let report = move || log.print(&render::stats(&statistics()));
        let watched = shutdown::Watched {
            mounted: Arc::clone(&mounted),
            union: Arc::clone(&self.union),
            report: Box::new(report),
        };
        shutdown::watch(self.signals, watched)
            .map_err(|e| Failure::new(format!("cannot start a thread: {}", reason(e))))?;
        Ok(Running {
            mounted,
            server: self.server,
        })
    }
}

struct Running {
    mounted: Arc<Mounted>,
    server: Server,
}

impl Running {
    fn serve(self) -> Result<ExitCode, Failure> {
        let path = self.mounted.path();
        tracing::info!("serving {path:?}");
        let served = self.server.run();
        match served {
            Ok(()) => {
                tracing::info!("{path:?} is unmounted");
                Ok(ExitCode::SUCCESS)
            }
            Err(e) => {
                // Nobody answers any more: do not leave a dead mount behind.
                best_effort("unmount", self.mounted.unmount(super::mount::How::Lazy));
                Err(Failure::new(format!(
                    "cannot serve {path:?} any longer: {}",
                    reason(e)
                )))
            }
        }
    }
}

fn bring_up(plan: &MountPlan) -> Result<Ready, Failure> {
    let mounter = Mounter::find(&plan.mountpoint)?;
    let signals = Blocked::new(&[Signal::TERM, Signal::INT, Signal::USR1])
        .map_err(|e| Failure::new(format!("cannot block signals: {}", reason(e))))?;
    for signal in [Signal::HUP, Signal::PIPE] {
        best_effort("ignore a signal", signal::ignore(signal));
    }
    umask(Mode::empty());
    raise_descriptor_limit();
    obey_quotas();
    crate::sys::memory::keep_little();
    let union = Arc::new(Union::open(&plan.config)?);
    let runs_programs = matches!(mounter, Mounter::Fusermount(_));
    let (mut pending, device) = mounter.mount(plan)?;
    let serve = ServeOptions {
        // Counted here: what the CPUs are limited to cannot be seen from where we go.
        threads: Some(plan.serve.threads.unwrap_or_else(default_threads)),
        ..plan.serve
    };
    // Found while there is a path to it, raised when the protocol is agreed on.
    let readahead = pending.readahead();
    let namespace = pending.leave();
    privileges::lower(runs_programs);
    let mut inspect = inspect(plan, namespace);
    for lack in union.missing() {
        match plan.foreground {
            true => tracing::warn!("{lack}"),
            false => tracing::info!("{lack}"),
        }
        inspect.notes.push(lack);
    }
    let server = Server::new(Arc::clone(&union), device, serve, inspect).map_err(|e| {
        Failure::new(format!(
            "cannot agree with the kernel on the FUSE protocol: {} (Linux 5.4 or later is needed)",
            reason(e)
        ))
    })?;
    if let Some(readahead) = readahead {
        readahead.raise();
    }
    best_effort("chdir", chdir("/"));
    Ok(Ready {
        union,
        pending,
        server,
        signals,
    })
}

/// One descriptor per file in use: take all that we may.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    best_effort("raise RLIMIT_NOFILE", setrlimit(Resource::Nofile, raised));
}

/// What we write for others is bound by their disk quotas: the kernel would let us exceed them. Its own
/// overlayfs does without that right too. Only of this thread and those it makes.
fn obey_quotas() {
    let lowered = capabilities(None).and_then(|mut sets| {
        sets.effective.remove(CapabilitySet::SYS_RESOURCE);
        set_capabilities(None, sets)
    });
    best_effort("do without CAP_SYS_RESOURCE", lowered);
}

/// What `unionmount inspect` tells beside the layers.
fn inspect(plan: &MountPlan, namespace: String) -> Inspect {
    Inspect {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: getpid().as_raw_nonzero().get().unsigned_abs(),
        mountpoint: plan.mountpoint.to_string_lossy().into_owned(),
        source: plan.source.to_string_lossy().into_owned(),
        options: options_in_force(plan),
        namespace,
        notes: plan.warnings.clone(),
        layers: Vec::new(),
    }
}

fn options_in_force(plan: &MountPlan) -> Vec<String> {
    let mut all = vec![if plan.config.read_only { "ro" } else { "rw" }.to_owned()];
    let mut add = |on: bool, text: String| {
        if on {
            all.push(text);
        }
    };
    for word in options::flag_words(plan.flags.set) {
        add(word != "ro", word.to_owned());
    }
    let io = match plan.serve.io {
        IoMode::Cached => "cached",
        IoMode::Direct => "direct",
    };
    add(true, format!("io={io}"));
    add(plan.serve.writeback, "writeback".to_owned());
    if let Some(count) = plan.serve.threads {
        add(true, format!("threads={count}"));
    }
    let cache_size = plan.config.cache_size;
    add(
        cache_size != Config::CACHE_SIZE,
        format!("cache_size={cache_size}"),
    );
    for (kind, map) in [
        ("u", &plan.config.ids.users),
        ("g", &plan.config.ids.groups),
    ] {
        let (ranges, squash) = map.describe();
        let ranges = ranges.map(|ranges| format!("{kind}idmapping={ranges}"));
        let squash = squash.map(|id| format!("squash_to_{kind}id={id}"));
        for text in ranges.into_iter().chain(squash) {
            add(true, text);
        }
    }
    if let Some(mode) = stat_override::word(plan.config.stat_override) {
        add(true, format!("stat_override={mode}"));
    }
    add(plan.config.acl == AclMode::Off, "acl=off".to_owned());
    if let Some(timeout) = plan.serve.timeout {
        add(true, format!("timeout={}", timeout.as_secs_f64()));
    }
    let redirects = match plan.config.redirect_dir {
        RedirectDir::Auto => None,
        RedirectDir::On => Some("on"),
        RedirectDir::Off => Some("off"),
        RedirectDir::Follow => Some("follow"),
        RedirectDir::NoFollow => Some("nofollow"),
    };
    if let Some(mode) = redirects {
        add(true, format!("redirect_dir={mode}"));
    }
    if let Some(upper) = &plan.config.upper {
        add(upper.origins == Origins::Anonymous, "uuid=off".to_owned());
        let form = match upper.whiteout {
            WhiteoutChoice::Auto => "auto",
            WhiteoutChoice::CharDev => "chardev",
            WhiteoutChoice::Xattr => "xattr",
            WhiteoutChoice::File => "file",
            WhiteoutChoice::Found => "found",
            WhiteoutChoice::PreferFile => "prefer-file",
        };
        add(true, format!("whiteout={form}"));
        match upper.durability {
            Durability::Synced => {}
            Durability::Unsynced => add(true, "fsync=0".to_owned()),
            Durability::Volatile => add(true, "volatile".to_owned()),
        }
    }
    add(plan.config.metacopy.on, "metacopy=on".to_owned());
    let verity = match plan.config.metacopy.verity {
        VerityMode::Off => "off",
        VerityMode::On => "on",
        VerityMode::Require => "require",
    };
    add(verity != "off", format!("verity={verity}"));
    add(plan.allow_other, "allow_other".to_owned());
    all
}
