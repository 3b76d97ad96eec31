//! Layers of somebody who wishes us ill: nothing outside of them is reached, nothing hangs or ends.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::kit::{Lab, Mounts, Scratch, Subject, finished, plant, program, sys};

/// Markers and what may be wrong with them.
const MARKERS: [&str; 10] = [
    "opaque", "redirect", "metacopy", "origin", "nlink", "impure", "protattr", "whiteout", "layer",
    "uuid",
];

/// Values of no meaning, or of a bad one.
fn junk() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = [
        "",
        "\0",
        "y\0",
        "x",
        "/",
        "//",
        "/../../..",
        "../..",
        ".",
        "a/b",
        "/a//b",
        "U-9",
        "L+99999999999",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    values.push(vec![0xff; 3]);
    // The head of an origin, with a length that lies.
    values.push([&[0, 0xfb, 0xff, 0, 1][..], &[0xaa; 24]].concat());
    values.push([&[0, 0xfb, 21, 0, 0x81][..], &[0; 16]].concat());
    values.push([&[0, 200, 0, 1][..], &[7; 32]].concat());
    values.push(b"/x".repeat(1500));
    values
}

/// Every marker with every value, in both namespaces, on a file and a directory each.
fn plant_markers(root: &Path) {
    for (m, marker) in MARKERS.iter().enumerate() {
        for (v, value) in junk().iter().enumerate() {
            let (file, dir) = (
                root.join(format!("f{m}-{v}")),
                root.join(format!("d{m}-{v}")),
            );
            sys::put(&file, b"text").unwrap();
            sys::mkdir(&dir, 0o755).unwrap();
            sys::put(dir.join("inside"), b"text").unwrap();
            for namespace in ["trusted", "user"] {
                for object in [&file, &dir] {
                    let name = format!("{namespace}.overlay.{marker}");
                    // Some values are too long for some names.
                    answered(&sys::setxattr(object, &name, value, 0));
                }
            }
        }
    }
}

/// Whether it worked or failed, it came back.
fn answered<T>(_result: &Result<T, crate::kit::Errno>) {}

/// Reads and changes everything; each call answers, with success or an error.
fn use_everything(root: &Path) {
    for entry in sys::list(root).unwrap() {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        if name.len() == 1 {
            continue; // what must stay
        }
        let path = root.join(&name);
        let stat = sys::lstat(&path);
        if stat.is_ok_and(|stat| stat.kind() == libc::S_IFLNK) {
            // Whoever follows it leaves the mount, and is not the daemon.
            answered(&sys::readlink(&path));
            continue;
        }
        answered(&sys::get(&path));
        answered(&sys::list(&path));
        answered(&sys::readlink(&path));
        answered(&sys::listxattr(&path));
        answered(&sys::get(path.join("inside")));
        answered(&sys::chmod(&path, 0o700));
        answered(&sys::append(&path, b"more"));
        answered(&sys::put(path.join("new"), b"new"));
        answered(&sys::rename(&path, root.join(format!("moved-{name}"))));
        answered(&sys::link(&path, root.join(format!("linked-{name}"))));
        answered(&sys::unlink(path.join("inside")));
    }
}

#[test]
fn markers_of_no_meaning_are_survived_in_every_layer() {
    for follow in [&["--redirect-dir", "on", "--metacopy", "on"][..], &[]] {
        let mut lab = Lab::new()
            .lower("f x text")
            .lower("")
            .lower("f y text")
            .upper("");
        for dir in [lab.lower_dir(0), lab.lower_dir(1), lab.upper_dir()] {
            plant_markers(&dir);
        }
        lab.lowers_may_change();
        lab.remount_as(&Subject::with(follow));
        use_everything(&lab.mnt());
        assert_eq!(sys::text(lab.at("x")), "text");
        assert_eq!(sys::text(lab.at("y")), "text");
        assert_eq!(lab.control("stats")["panics"], 0);
        sys::put(lab.at("z"), b"still here").unwrap();
        lab.remount();
        assert_eq!(sys::text(lab.at("z")), "still here");
        use_everything(&lab.mnt());
        assert_eq!(lab.control("stats")["panics"], 0);
    }
}

/// The absolute paths, and those with `..`, that a daemon gave to system calls from the first look at
/// `start` on.
fn paths_outside(log: &str) -> Vec<String> {
    let lines = log.lines().skip_while(|line| !line.contains("\"start\""));
    let quoted = lines.flat_map(|line| {
        let parts = line.split('"').skip(1).step_by(2);
        // What it writes into attributes, and what it reads of links, is data.
        let data =
            line.contains("getxattr(") || line.contains("setxattr(") || line.contains("readlink");
        parts
            .take(if data { 1 } else { usize::MAX })
            .map(str::to_owned)
    });
    let own = |path: &str| {
        path.starts_with("/proc/self/fd/")
            || path.starts_with("/proc/") && path.ends_with("/stat")
            || path.starts_with("/proc/") && path.ends_with("/status")
    };
    let outside = |path: &String| {
        path.starts_with('/') && !own(path) || path.split('/').any(|part| part == "..")
    };
    quoted.filter(outside).collect()
}

/// Mounts with our program under strace, which writes to `log`.
fn traced(lab: &Lab, log: &Path) -> std::process::Child {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-s", "4096", "-e", "trace=%file", "-o"])
        .arg(log)
        .arg(program());
    for n in 0..lab.lower_count() {
        command.arg("--lower").arg(lab.lower_dir(n));
    }
    command
        .arg("--upper")
        .arg(lab.upper_dir())
        .arg("--work")
        .arg(lab.work_dir());
    command
        .args(["--redirect-dir", "on", "--metacopy", "on", "--foreground"])
        .arg(lab.mnt());
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn nothing_outside_of_the_layers_is_reached() {
    let secret = Lab::new().lower("f secret hidden");
    let outside = secret.lower_dir(0);
    let mut lab = Lab::new()
        .lower("")
        .lower("f start text\nf d/f text")
        .upper("");
    let up = format!("{}/{}", "../".repeat(30), outside.display());
    for dir in [lab.lower_dir(0), lab.upper_dir()] {
        for (n, target) in [
            &*outside.display().to_string(),
            &up,
            ".",
            "loop3",
            "/proc/self/root",
        ]
        .iter()
        .enumerate()
        {
            sys::symlink(target, dir.join(format!("loop{n}"))).unwrap();
            sys::mkdir(dir.join(format!("to{n}")), 0o755).unwrap();
            sys::put(dir.join(format!("data{n}")), b"000000").unwrap();
            for marker in ["trusted.overlay.redirect", "user.overlay.redirect"] {
                sys::setxattr(dir.join(format!("to{n}")), marker, target.as_bytes(), 0).unwrap();
                sys::setxattr(dir.join(format!("data{n}")), marker, target.as_bytes(), 0).unwrap();
            }
            for marker in ["trusted.overlay.metacopy", "user.overlay.metacopy"] {
                sys::setxattr(dir.join(format!("data{n}")), marker, b"", 0).unwrap();
            }
        }
        let odd = [
            &b".wh."[..],
            b".wh..",
            b".wh...",
            b".wh..wh..opq",
            b".wh..wh.plnk",
            b"\xff\xfe",
            b"...",
        ];
        for name in odd {
            use std::os::unix::ffi::OsStrExt;
            sys::put(dir.join(std::ffi::OsStr::from_bytes(name)), b"").unwrap();
        }
    }
    lab.lowers_may_change();
    let log = lab.aside("trace");
    let mut traced = traced(&lab, &log);
    let end = Instant::now() + Duration::from_secs(30);
    while !sys::is_mounted(lab.mnt()) {
        assert!(Instant::now() < end, "not mounted");
        std::thread::sleep(Duration::from_millis(10));
    }
    sys::text(lab.at("start"));
    for name in ["to0", "to1", "to4", "data0", "data1"] {
        let path = lab.at(name);
        assert!(sys::get(path.join("secret")).is_err(), "{name}");
        assert_ne!(sys::get(&path).unwrap_or_default(), b"hidden", "{name}");
    }
    use_everything(&lab.mnt());
    finished(
        Command::new(program()).arg("umount").arg(lab.mnt()),
        Duration::from_secs(60),
    )
    .unwrap();
    assert!(traced.wait().unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.lines().count() > 100, "{log:.1000}");
    let outside: Vec<String> = paths_outside(&log);
    // How it ends is its own.
    let outside: Vec<&String> = outside
        .iter()
        .filter(|path| Path::new(path) != lab.mnt())
        .collect();
    assert!(outside.is_empty(), "{outside:#?}");
}

/// A directory of a layer becomes a symlink to somewhere else, again and again, while it is read. It is
/// opened anew each time, for there are more directories than may be kept open.
#[test]
fn a_directory_that_is_swapped_for_a_symlink_leads_nowhere() {
    const DIRS: usize = 60;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let few = ["sh", "-ec", "ulimit -n 128; exec \"$0\" \"$@\""];
    let subject = Subject::OursUnder(words(&few), words(&["--timeout", "0"]));
    // Where the symlink leads from the layer, but not from the mount.
    let scratch = Scratch::new();
    let lower = scratch.path().join("a/b/lower");
    for n in 0..DIRS {
        plant(&lower, &format!("f d{n}/f text"));
    }
    plant(&scratch.path().join("a/b/outside"), "f f hidden");
    let mut lab = Lab::new().lower_at(&lower);
    lab.lowers_may_change();
    lab.remount_as(&subject);
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, dir, away) = (Arc::clone(&stop), lower.join("d0"), lower.join("away"));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                sys::rename(&dir, &away).unwrap();
                sys::symlink("../outside", &dir).unwrap();
                std::thread::yield_now();
                sys::unlink(&dir).unwrap();
                sys::rename(&away, &dir).unwrap();
            }
        })
    };
    let mut read = 0;
    for n in 0..200 * DIRS {
        answered(&sys::get(lab.at(format!("d{}/f", n % DIRS))));
        if n % 20 == 0
            && let Ok(text) = sys::get(lab.at("d0/f"))
        {
            assert_eq!(text, b"text");
            read += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    println!("read {read} times while it was swapped");
    assert_eq!(sys::text(lab.at("d0/f")), "text");
}

/// More deletions in one directory than a file may have links (65,000 on ext4).
#[test]
fn more_deletions_than_links_of_one_whiteout() {
    const FILES: usize = 66_000;
    let mut mounts = Mounts::new();
    let disk = mounts.format(&["mkfs.ext4", "-q", "-N", "200000"], 512, "disk");
    let lower = disk.join("lower");
    sys::mkdir(&lower, 0o755).unwrap();
    for n in 0..FILES {
        sys::put(lower.join(format!("f{n}")), b"").unwrap();
    }
    let mut lab = Lab::within(&disk).lower_at(&lower).upper("").mount();
    for n in 0..FILES {
        sys::unlink(lab.at(format!("f{n}"))).unwrap();
    }
    assert_eq!(lab.ls("").len(), 0);
    let whiteouts = sys::list(lab.upper_dir()).unwrap();
    assert_eq!(whiteouts.len(), FILES);
    lab.remount();
    assert_eq!(lab.ls("").len(), 0);
    sys::put(lab.at("f7"), b"back").unwrap();
    assert_eq!(lab.ls(""), ["f7"]);
    lab.umount();
}

/// The test above itself.
#[test]
fn paths_outside_are_noticed() {
    let log = "1 openat(AT_FDCWD, \"/lib/x\", O_RDONLY) = 3\n1 statx(5, \"start\", AT_SYMLINK_NOFOLLOW) = 0\n\
               1 openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY) = 3\n1 openat(5, \"a/../b\", O_RDONLY) = 4\n\
               1 openat(5, \"a\", O_RDONLY) = 4\n1 statx(5, \"/proc/self/fd/7\", 0) = 0\n\
               1 lgetxattr(\"/proc/self/fd/7/x\", \"user.x\", \"/secret\", 7) = 7\n";
    assert_eq!(paths_outside(log), ["/etc/passwd", "a/../b"]);
}
