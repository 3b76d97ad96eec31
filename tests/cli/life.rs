//! From mount to unmount: what is seen, by whom, and how it ends.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::{Lab, PROGRAM, outcome};

/// Longest that the end may take after the mount is gone (Apptainer kills after 500 ms).
const PROMPT: Duration = Duration::from_millis(500);

const READ_WRITE: &str = "--lower l1:l2 --upper u --work w m";

#[test]
fn mount_and_umount() {
    let lab = Lab::new();
    let mounted = lab.run(READ_WRITE);
    assert_eq!((&*mounted.stdout, &*mounted.stderr), ("", ""));
    mounted.succeeds();
    let line = lab.mounted("m").unwrap();
    assert!(line.starts_with("unionmount fuse.unionmount rw,"), "{line}");
    assert_eq!(fs::read_to_string(lab.path("m/one")).unwrap(), "1");
    assert_eq!(fs::read_to_string(lab.path("m/two")).unwrap(), "2");
    fs::write(lab.path("m/three"), "3").unwrap();

    let pid = lab.daemon();
    lab.run("umount m").succeeds();
    assert!(is_gone(pid), "umount returned before the daemon was gone");
    assert_eq!(lab.mounted("m"), None);
    assert_eq!(fs::read_to_string(lab.path("u/three")).unwrap(), "3");
}

/// No process, or one that only waits to be reaped.
fn is_gone(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z'),
        Err(_) => true,
    }
}

#[test]
fn a_mount_without_upper_is_read_only() {
    let lab = Lab::new();
    lab.run("mount --lower l1 m").succeeds();
    assert!(lab.mounted("m").unwrap().contains("fuse.unionmount ro,"));
    let e = fs::write(lab.path("m/new"), "").unwrap_err();
    assert_eq!(
        e.raw_os_error(),
        Some(rustix::io::Errno::ROFS.raw_os_error())
    );
    lab.run("umount m").succeeds();
}

#[test]
fn a_colon_in_a_name() {
    let lab = Lab::new();
    fs::rename(lab.path("l1"), lab.path("l:1")).unwrap();
    lab.run(r"--lower l\:1:l2 m").succeeds();
    let json = lab.run("inspect --json m").succeeds();
    assert!(json.contains("l:1") && json.contains("l2"), "{json}");
    lab.run("umount m").succeeds();
}

#[test]
fn control_commands_answer() {
    let lab = Lab::new();
    lab.run(READ_WRITE).succeeds();
    let text = lab.run("inspect m").succeeds();
    for part in ["version", "pid", "options", "ROLE", "io=cached"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = lab.run("inspect m --json").succeeds();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["mountpoint"], lab.path("m").to_str().unwrap());
    assert!(lab.run("stats m").succeeds().contains("REQUEST"));
    let json = lab.run("stats m --json").succeeds();
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
    lab.run("sync m").succeeds();
    fs::create_dir(lab.path("m/sub")).unwrap();
    lab.run("inspect m/sub").fails(1, &["inside", "name that"]);
    lab.run("umount m").succeeds();
}

/// What the kernel still holds back under --writeback reaches the upper by `sync`.
#[test]
fn sync_reaches_what_the_kernel_holds() {
    let lab = Lab::new();
    lab.run(&format!("--writeback {READ_WRITE}")).succeeds();
    let mut file = fs::File::create(lab.path("m/late")).unwrap();
    std::io::Write::write_all(&mut file, b"late").unwrap();
    lab.run("sync m").succeeds();
    assert_eq!(fs::read_to_string(lab.path("u/late")).unwrap(), "late");
    drop(file);
    lab.run("umount m").succeeds();
}

#[test]
fn hundreds_of_layers_are_all_reported() {
    let lab = Lab::new();
    let lowers: Vec<String> = (0..500)
        .map(|n| format!("lower-with-a-long-name-{n:0100}"))
        .collect();
    for lower in &lowers {
        fs::create_dir(lab.path(lower)).unwrap();
    }
    lab.run(&format!("--lower {} m", lowers.join(":")))
        .succeeds();
    let json = lab.run("inspect m --json").succeeds();
    assert!(
        json.len() > 64 * 1024,
        "longer than one xattr may be: {}",
        json.len()
    );
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["layers"].as_array().unwrap().len(), 500);
    lab.run("umount m").succeeds();
}

#[test]
fn a_mount_over_its_own_lower() {
    let lab = Lab::new();
    lab.run("--lower l1:l2 l1").succeeds();
    assert_eq!(fs::read_to_string(lab.path("l1/one")).unwrap(), "1");
    lab.run("umount l1").succeeds();
}

#[test]
fn the_foreground_is_silent_and_ends_with_the_mount() {
    let lab = Lab::new();
    let daemon = lab.foreground(READ_WRITE);
    lab.run("umount m").succeeds();
    let (ended, took) = daemon.wait();
    assert_eq!(
        (&*ended.stdout, &*ended.stderr, ended.code),
        ("", "", Some(0))
    );
    assert!(took < PROMPT, "{took:?}");
}

#[test]
fn signals_unmount() {
    for signal in [Signal::TERM, Signal::INT] {
        let lab = Lab::new();
        let daemon = lab.foreground(READ_WRITE);
        daemon.signal(signal);
        let (ended, took) = daemon.wait();
        assert_eq!(
            (&*ended.stdout, &*ended.stderr, ended.code),
            ("", "", Some(0))
        );
        assert!(took < PROMPT, "{took:?}");
        assert_eq!(lab.mounted("m"), None);
    }
}

#[test]
fn signals_of_terminals_and_pipes_are_survived() {
    let lab = Lab::new();
    let daemon = lab.foreground(READ_WRITE);
    for signal in [Signal::HUP, Signal::PIPE] {
        daemon.signal(signal);
    }
    lab.run("inspect m").succeeds();
    lab.run("umount m").succeeds();
    assert_eq!(daemon.wait().0.code, Some(0));
}

#[test]
fn a_busy_mount() {
    let lab = Lab::new();
    let daemon = lab.foreground(READ_WRITE);
    let mut user = lab.command("sleep", "20");
    let mut user = user.current_dir(lab.path("m")).spawn().unwrap();
    lab.run("umount m").fails(1, &["busy", "fuser -vm"]);
    assert!(lab.mounted("m").is_some());
    // SIGTERM takes it out of the tree all the same, and does not wait for ever.
    daemon.signal(Signal::TERM);
    let (ended, took) = daemon.wait();
    assert_eq!(ended.code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(lab.mounted("m"), None);
    user.kill().unwrap();
    user.wait().unwrap();
}

/// What somebody else mounted at our path is not ours to unmount.
#[test]
fn a_covered_mount_is_left_alone() {
    let lab = Lab::new();
    let script = "
        $U -f --lower l1 m & daemon=$!
        until $U inspect m >/dev/null 2>&1; do sleep 0.05; done
        mount -t tmpfs other m
        kill $daemon
        wait $daemon
        grep -c ' '$PWD/m' tmpfs ' /proc/self/mounts";
    assert_eq!(lab.in_user_namespace(script).succeeds().trim(), "1");
}

#[test]
fn a_dead_mount_is_named_and_removed() {
    let lab = Lab::new();
    let daemon = lab.foreground("--lower l1 m");
    daemon.signal(Signal::KILL);
    daemon.wait();
    lab.run("inspect m")
        .fails(1, &["daemon", "gone", "unionmount umount"]);
    lab.run("--lower l1 m")
        .fails(1, &["daemon is gone", "unionmount umount"]);
    lab.run("umount m").succeeds();
    assert_eq!(lab.mounted("m"), None);
}

#[test]
fn the_caller_gets_its_pipes_back() {
    let lab = Lab::new();
    // `outcome` waits until stdout and stderr are closed by everybody.
    let start = Instant::now();
    outcome(lab.command(PROGRAM, READ_WRITE)).succeeds();
    assert!(start.elapsed() < Duration::from_secs(5));
    let pid = lab.daemon();
    for fd in 0..3 {
        let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(target, Path::new("/dev/null"));
    }
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        Path::new("/")
    );
    lab.run("umount m").succeeds();
}

#[test]
fn a_log_file() {
    let lab = Lab::new();
    lab.run("--lower l1 --log info --log-file log m").succeeds();
    lab.run("umount m").succeeds();
    let log = fs::read_to_string(lab.path("log")).unwrap();
    assert!(
        log.contains("serving") && log.contains("unmounted"),
        "{log}"
    );
}

#[test]
fn what_should_not_fail_is_logged_once_with_its_path() {
    let lab = Lab::new();
    // A metadata-only copy whose data is nowhere.
    fs::create_dir(lab.path("l1/dir")).unwrap();
    fs::write(lab.path("l1/dir/broken"), "zeros").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let broken = lab.path("l1/dir/broken");
    rustix::fs::setxattr(&broken, "trusted.overlay.metacopy", b"", flags).unwrap();
    lab.run("--lower l1:l2 --log debug --log-file log m")
        .succeeds();
    for _ in 0..3 {
        assert!(fs::read(lab.path("m/dir/broken")).is_err());
        assert!(fs::read(lab.path("m/dir/missing")).is_err());
    }
    lab.run("umount m").succeeds();
    let log = fs::read_to_string(lab.path("log")).unwrap();
    let lines = |words: &[&str]| {
        let all = log.lines();
        all.filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    };
    assert_eq!(
        lines(&["WARN", "read of /dir/broken (inode ", ", layer 0): "]),
        1,
        "{log}"
    );
    assert!(
        lines(&["DEBUG", "read of /dir/broken (inode "]) >= 1,
        "{log}"
    );
    assert!(lines(&["WARN", "missing"]) == 0, "{log}");
}

/// Stopped as by a debugger, it goes on where it was.
#[test]
fn a_stop_is_survived() {
    let lab = Lab::new();
    let daemon = lab.foreground(READ_WRITE);
    daemon.signal(Signal::STOP);
    let file = lab.path("m/new");
    let writer = std::thread::spawn(move || fs::write(file, "text"));
    std::thread::sleep(Duration::from_millis(300));
    daemon.signal(Signal::CONT);
    writer.join().unwrap().unwrap();
    assert_eq!(fs::read_to_string(lab.path("m/new")).unwrap(), "text");
    lab.run("umount m").succeeds();
    assert_eq!(daemon.wait().0.code, Some(0));
}

/// How a mount can end while it is used.
#[derive(Clone, Copy, Debug)]
enum End {
    /// umount(8), again and again until it is not busy
    Plain,
    /// fusermount3 -u, likewise
    Fusermount,
    /// Our own, likewise
    Own,
    /// umount(8) -l
    Lazy,
    /// SIGTERM
    Signal,
    /// The kernel's own way out: /sys/fs/fuse/connections/N/abort
    Abort,
}

impl End {
    /// How many work meanwhile: with many, there is no moment in which the mount is not busy.
    fn workers(self) -> usize {
        match self {
            End::Plain | End::Fusermount | End::Own => 1,
            End::Lazy | End::Signal | End::Abort => 8,
        }
    }
}

/// Runs a command that is refused while somebody is in the mount.
fn until_not_busy(lab: &Lab, program: &str, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let outcome = outcome(lab.command(program, line));
        if outcome.code == Some(0) {
            return;
        }
        assert!(outcome.stderr.contains("busy"), "{outcome:?}");
        assert!(Instant::now() < deadline, "busy for ever: {outcome:?}");
    }
}

/// Works in `dir` until that fails.
fn work(dir: &Path) {
    for n in 0.. {
        let (file, other) = (dir.join(format!("f{n}")), dir.join(format!("g{n}")));
        let done = fs::write(&file, vec![7; 5000])
            .and_then(|()| fs::rename(&file, &other))
            .and_then(|()| fs::read(&other))
            .and_then(|_| fs::read_dir(dir).map(Iterator::count))
            .and_then(|_| fs::remove_file(&other));
        if done.is_err() {
            return;
        }
    }
}

#[test]
fn under_load_it_ends_by_itself_and_leaves_nothing() {
    let all = [
        End::Plain,
        End::Fusermount,
        End::Own,
        End::Lazy,
        End::Signal,
        End::Abort,
    ];
    for end in all {
        let lab = Lab::new();
        for n in 0..200 {
            fs::write(lab.path(&format!("l1/lower{n}")), "text").unwrap();
        }
        let daemon = lab.foreground(READ_WRITE);
        let workers: Vec<_> = (0..end.workers())
            .map(|n| {
                let dir = lab.path(&format!("m/d{n}"));
                fs::create_dir(&dir).unwrap();
                std::thread::spawn(move || work(&dir))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        match end {
            End::Plain => until_not_busy(&lab, "umount", "m"),
            End::Fusermount => until_not_busy(&lab, "fusermount3", "-u m"),
            End::Own => until_not_busy(&lab, PROGRAM, "umount m"),
            End::Lazy => drop(outcome(lab.command("umount", "-l m")).succeeds()),
            End::Signal => daemon.signal(Signal::TERM),
            End::Abort => abort(&lab),
        }
        // By their paths they find nothing any more, or an error.
        for worker in workers {
            worker.join().unwrap();
        }
        let (ended, took) = daemon.wait();
        assert_eq!(ended.code, Some(0), "{end:?}: {ended:?}");
        assert!(took < Duration::from_secs(5), "{end:?}: {took:?}");
        if lab.mounted("m").is_some() {
            // An aborted one has still to be taken away.
            lab.run("umount m").succeeds();
        }
        assert_eq!(lab.mounted("m"), None, "{end:?}");
        lab.run(READ_WRITE).succeeds();
        assert_eq!(fs::read_to_string(lab.path("m/lower7")).unwrap(), "text");
        assert_eq!(
            fs::read_dir(lab.path("w/work")).unwrap().count(),
            0,
            "{end:?}"
        );
        lab.run("umount m").succeeds();
    }
}

/// Cuts the connection of `m`.
fn abort(lab: &Lab) {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(lab.path("m")).unwrap().dev();
    let control = lab.path("connections");
    fs::create_dir(&control).unwrap();
    outcome(lab.command("mount", "-t fusectl none connections")).succeeds();
    let minor = rustix::fs::minor(device).to_string();
    let cut = fs::write(control.join(minor).join("abort"), "1");
    outcome(lab.command("umount", "connections")).succeeds();
    cut.unwrap();
}

/// What it does not need cannot be taken from it.
#[test]
fn a_daemon_of_root_keeps_only_the_rights_that_files_take() {
    let lab = Lab::new();
    lab.run(READ_WRITE).succeeds();
    let status = fs::read_to_string(format!("/proc/{}/status", lab.daemon())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    let permitted = u64::from_str_radix(&field("CapPrm:"), 16).unwrap();
    // CAP_KILL, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_SYS_TIME, CAP_BPF
    for number in [5, 12, 13, 16, 17, 22, 25, 39] {
        assert_eq!(permitted & (1 << number), 0, "capability {number}");
    }
    assert_eq!(field("CapInh:"), "0000000000000000");
    lab.run("umount m").succeeds();
}
