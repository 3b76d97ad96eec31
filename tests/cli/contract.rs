//! What container engines rely on when they run fuse-overlayfs: command lines, exit, descriptors,
//! what the uppers of fuse-overlayfs mean, environment, signals.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use crate::lab::{Lab, Outcome, PROGRAM, outcome};

/// Longest that anything here is waited for.
const LIMIT: Duration = Duration::from_secs(20);

/// The directories that the lab has, as engines write them.
fn layers(lab: &Lab) -> String {
    let path = |name| lab.path(name).to_str().unwrap().to_owned();
    let (l1, l2, u, w) = (path("l1"), path("l2"), path("u"), path("w"));
    format!("lowerdir={l1}:{l2},upperdir={u},workdir={w}")
}

/// Runs fuse-overlayfs with `options` on `m`, as containers/storage does: three arguments.
fn fuse_overlayfs(lab: &Lab, options: &str) -> Outcome {
    let mut command = lab.command(lab.program_as("fuse-overlayfs"), "");
    command.arg("-o").arg(options).arg(lab.path("m"));
    outcome(command)
}

#[track_caller]
fn silent(outcome: Outcome) {
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("", ""));
    outcome.succeeds();
}

fn notes(lab: &Lab) -> Vec<String> {
    let json = lab.run("inspect --json m").succeeds();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    serde_json::from_value(value["notes"].clone()).unwrap()
}

#[test]
fn the_command_lines_of_the_engines() {
    let lab = Lab::new();
    let dirs = layers(&lab);
    let m = lab.path("m").to_str().unwrap().to_owned();
    let u = lab.path("u").to_str().unwrap().to_owned();
    let w = lab.path("w").to_str().unwrap().to_owned();
    let l1 = lab.path("l1").to_str().unwrap().to_owned();
    let one = |options: &str| vec!["-o".to_owned(), options.to_owned(), m.clone()];
    let lines = [
        // podman and buildah: plain, with a label, with mapped owners, of old versions.
        (one(&format!("{dirs},fsync=0")), "rw,nodev,noatime"),
        (
            one(&format!(
                "{dirs},fsync=0,context=\"system_u:object_r:container_file_t:s0:c1,c2\""
            )),
            "rw,nodev,noatime",
        ),
        (
            one(&format!(
                "{dirs},uidmapping=:0:100000:65536,gidmapping=:0:100000:65536"
            )),
            "rw,nodev,noatime",
        ),
        (one(&format!("{dirs},,fsync=0,")), "rw,nodev,noatime"),
        // podman: a layer alone, to be compared. There is no `ro`.
        (one(&format!("lowerdir={l1}")), "ro,nodev,noatime"),
        // buildah: -v SRC:DST:O
        (one(&format!("{dirs},private")), "rw,nodev,noatime"),
        // moby
        (
            one(&format!("{dirs},squash_to_uid=7,squash_to_gid=8")),
            "rw,nodev,noatime",
        ),
        // containerd, through mount.fuse3
        (
            [
                "overlay",
                &m,
                "-o",
                &format!("workdir={w}"),
                "-o",
                &format!("upperdir={u}"),
                "-o",
                &format!("lowerdir={l1},dev,suid"),
            ]
            .map(str::to_owned)
            .to_vec(),
            "rw,noatime",
        ),
        // Apptainer's options
        (one(&format!("{dirs},xino=on")), "rw,nodev,noatime"),
        (
            vec![
                format!("-o{dirs},threaded=1,writeback=0,noacl=0"),
                m.clone(),
            ],
            "rw,nodev,noatime",
        ),
    ];
    for (args, flags) in lines {
        let mut command = lab.command(lab.program_as("fuse-overlayfs"), "");
        command.args(&args);
        silent(outcome(command));
        let shown = lab.mounted("m").unwrap();
        let want = format!("fuse-overlayfs fuse.fuse-overlayfs {flags},");
        assert!(shown.starts_with(&want), "{args:?}: {shown}");
        assert_eq!(fs::read_to_string(lab.path("m/one")).unwrap(), "1");
        assert_eq!(notes(&lab), [""; 0], "{args:?}");
        lab.run("umount m").succeeds();
    }
}

/// mount.fuse3 runs it by a shell, with everything that it was given joined.
#[test]
fn as_containerd_mounts_through_mount_fuse3() {
    let lab = Lab::new();
    let bin = lab.program_as("fuse-overlayfs");
    let path = format!(
        "{}:/usr/sbin:/usr/bin:/sbin:/bin",
        bin.parent().unwrap().display()
    );
    let at = |name| lab.path(name).to_str().unwrap().to_owned();
    let mut command = lab.command("mount.fuse3", "");
    command
        .env("PATH", path)
        .args(["overlay", &at("m")])
        .args(["-o", &format!("workdir={}", at("w"))])
        .args(["-o", &format!("upperdir={}", at("u"))])
        .args(["-o", &format!("lowerdir={}:{}", at("l1"), at("l2"))])
        .args(["-o", "uidmapping=0:100000:65536", "-t", "fuse-overlayfs"]);
    silent(outcome(command));
    let shown = lab.mounted("m").unwrap();
    assert!(
        shown.starts_with("fuse-overlayfs fuse.fuse-overlayfs rw,noatime,"),
        "{shown}"
    );
    assert_eq!(fs::metadata(lab.path("m/one")).unwrap().uid(), 100_000);
    lab.run("umount m").succeeds();
}

/// The same under our own name.
#[test]
fn under_our_own_name() {
    let lab = Lab::new();
    let mut command = lab.command(PROGRAM, "-o");
    command.arg(format!("{},fsync=0,,private", layers(&lab)));
    silent(outcome({
        command.arg(lab.path("m"));
        command
    }));
    assert!(
        lab.mounted("m")
            .unwrap()
            .starts_with("unionmount fuse.unionmount rw,")
    );
    lab.run("umount m").succeeds();
}

#[test]
fn what_is_not_known_is_noted() {
    let lab = Lab::new();
    let mut command = lab.command(lab.program_as("fuse-overlayfs"), "-x --frobnicate -o");
    command.arg(format!(
        "{},frobnicate=1,frobnicate=1,noxattrs=1",
        layers(&lab)
    ));
    command.arg(lab.path("m"));
    silent(outcome(command));
    let notes = notes(&lab);
    assert_eq!(notes.len(), 4, "{notes:?}");
    let text = lab.run("inspect m").succeeds();
    for word in ["-x", "--frobnicate", "frobnicate=1", "noxattrs=1"] {
        assert!(
            notes.iter().any(|note| note.contains(word)),
            "{word}: {notes:?}"
        );
        assert!(text.contains(word), "{word}: {text}");
    }
    lab.run("umount m").succeeds();
}

#[test]
fn what_would_show_wrong_things_is_refused() {
    let lab = Lab::new();
    let dirs = layers(&lab);
    fuse_overlayfs(&lab, &format!("{dirs},plugins=/p")).fails(1, &["plug-ins"]);
    fuse_overlayfs(&lab, "lowerdir=//tar//data/x").fails(1, &["plug-ins"]);
    fuse_overlayfs(&lab, "lowerdir=/nowhere").fails(1, &["/nowhere", "no such file"]);
    assert_eq!(lab.mounted("m"), None);
}

/// `<home>/l/ID` are symlinks; `<lower>/../diff1` begins behind one.
#[test]
fn lowers_as_symlinks_and_beside_them() {
    let lab = Lab::new();
    for dir in ["l", "id", "id/diff", "id/diff1"] {
        fs::create_dir(lab.path(dir)).unwrap();
    }
    fs::write(lab.path("id/diff/a"), "a").unwrap();
    fs::write(lab.path("id/diff1/b"), "b").unwrap();
    symlink("../id/diff", lab.path("l/ABC")).unwrap();
    let link = lab.path("l/ABC").to_str().unwrap().to_owned();
    silent(fuse_overlayfs(
        &lab,
        &format!("lowerdir={link}:{link}/../diff1"),
    ));
    let read = |name: &str| fs::read_to_string(lab.path("m").join(name)).unwrap();
    assert_eq!((read("a"), read("b")), ("a".into(), "b".into()));
    lab.run("umount m").succeeds();
}

#[test]
fn a_colon_in_a_lower() {
    let lab = Lab::new();
    fs::rename(lab.path("l1"), lab.path("l:1")).unwrap();
    let lower = lab.path(r"l\:1");
    let options = format!(
        "lowerdir={}:{},private",
        lower.display(),
        lab.path("l2").display()
    );
    silent(fuse_overlayfs(&lab, &options));
    assert_eq!(fs::read_to_string(lab.path("m/one")).unwrap(), "1");
    lab.run("umount m").succeeds();
}

/// containers/storage unmounts what it made for the lowers as soon as the program returns.
#[test]
fn layers_may_be_unmounted_at_once() {
    let lab = Lab::new();
    lab.program_as("fuse-overlayfs");
    let script = "
        mkdir t; mount -t tmpfs t t; mkdir t/d; echo lower >t/d/f
        bin/fuse-overlayfs -o lowerdir=t/d,upperdir=u,workdir=w m
        umount -l t; rmdir t
        cat m/f
        echo more >>m/f; cat u/f
        $U umount m";
    let shown = lab.in_user_namespace(script).succeeds();
    assert_eq!(shown, "lower\nlower\nmore\n");
}

/// As podman starts a container anew: the old daemon may not have noticed yet.
#[test]
fn unmounted_and_mounted_again_at_once() {
    let lab = Lab::new();
    let options = layers(&lab);
    for round in 0..100 {
        silent(fuse_overlayfs(&lab, &options));
        fs::write(lab.path("m/round"), round.to_string()).unwrap();
        fs::write(lab.path("m").join(round.to_string()), "").unwrap();
        // A child that another test has just forked holds our descriptors until it execs.
        let end = Instant::now() + LIMIT;
        while let Err(errno) = unmount(lab.path("m"), UnmountFlags::empty()) {
            assert_eq!(errno, rustix::io::Errno::BUSY);
            assert!(Instant::now() < end, "busy for {LIMIT:?}");
        }
    }
    silent(fuse_overlayfs(&lab, &options));
    assert_eq!(fs::read_to_string(lab.path("m/round")).unwrap(), "99");
    assert_eq!(fs::read_dir(lab.path("m")).unwrap().count(), 103);
    lab.run("umount m").succeeds();
    // It is a plain directory now, as containers/storage wants it.
    fs::create_dir(lab.path("m.1")).unwrap();
    fs::rename(lab.path("m.1"), lab.path("m")).unwrap();
}

/// What fuse-overlayfs leaves: `.wh.` files, and a sentinel beside the attribute.
#[test]
fn an_upper_that_fuse_overlayfs_wrote() {
    for read_only in [false, true] {
        let lab = Lab::new();
        fs::create_dir(lab.path("l2/dir")).unwrap();
        fs::write(lab.path("l2/dir/old"), "").unwrap();
        fs::write(lab.path("u/.wh.one"), "").unwrap();
        fs::create_dir(lab.path("u/dir")).unwrap();
        fs::write(lab.path("u/dir/.wh..wh..opq"), "").unwrap();
        fs::write(lab.path("u/dir/new"), "").unwrap();
        let ro = if read_only { ",ro" } else { "" };
        silent(fuse_overlayfs(&lab, &format!("{}{ro}", layers(&lab))));
        assert_eq!(names(&lab.path("m")), ["dir", "two"]);
        assert_eq!(names(&lab.path("m/dir")), ["new"]);
        if !read_only {
            fs::remove_file(lab.path("m/two")).unwrap();
            assert!(lab.path("u/.wh.two").is_file());
            fs::write(lab.path("m/one"), "again").unwrap();
        }
        lab.run("umount m").succeeds();
        if !read_only {
            // It stays so, under our own name too.
            lab.run("--lower l1:l2 --upper u --work w m").succeeds();
            assert_eq!(names(&lab.path("m")), ["dir", "one"]);
            lab.run("umount m").succeeds();
        }
    }
}

#[test]
fn wh_names_are_plain_in_an_upper_of_ours() {
    let lab = Lab::new();
    let options = layers(&lab);
    silent(fuse_overlayfs(&lab, &options));
    fs::write(lab.path("m/.wh.one"), "plain").unwrap();
    fs::remove_file(lab.path("m/two")).unwrap();
    assert!(
        fs::symlink_metadata(lab.path("u/two"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
    lab.run("umount m").succeeds();
    silent(fuse_overlayfs(&lab, &options));
    assert_eq!(names(&lab.path("m")), [".wh.one", "one"]);
    lab.run("umount m").succeeds();
    // Under our own name the same of an upper that nobody recorded.
    let lab = Lab::new();
    fs::write(lab.path("u/.wh.one"), "plain").unwrap();
    lab.run("--lower l1:l2 --upper u --work w m").succeeds();
    assert_eq!(names(&lab.path("m")), [".wh.one", "one", "two"]);
    lab.run("umount m").succeeds();
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn fsync_0_leaves_no_mark() {
    let lab = Lab::new();
    let options = layers(&lab);
    silent(fuse_overlayfs(&lab, &format!("{options},fsync=0")));
    assert!(lab.run("inspect m").succeeds().contains("fsync=0"));
    lab.run("umount m").succeeds();
    silent(fuse_overlayfs(&lab, &format!("{options},fsync=0,volatile")));
    lab.run("umount m").succeeds();
    fuse_overlayfs(&lab, &options).fails(1, &["volatile"]);
    // As containers/storage does before each mount.
    fs::remove_dir_all(lab.path("w/work/incompat/volatile")).unwrap();
    silent(fuse_overlayfs(&lab, &options));
    lab.run("umount m").succeeds();
}

#[test]
fn the_variables_of_fuse_overlayfs() {
    let lab = Lab::new();
    let mut command = lab.command(lab.program_as("fuse-overlayfs"), "-o");
    command
        .arg(format!("{},frobnicate", layers(&lab)))
        .arg(lab.path("m"))
        .env("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "")
        .env("FUSE_OVERLAYFS_NO_PASSTHROUGH", "1")
        .env("FUSE_OVERLAYFS_DEBUG_LOG", lab.path("log"));
    silent(outcome(command));
    fs::remove_file(lab.path("m/one")).unwrap();
    assert_eq!(names(&lab.path("u")), [".wh.one"]);
    lab.run("umount m").succeeds();
    let log = fs::read_to_string(lab.path("log")).unwrap();
    assert!(
        log.contains("serving") && log.contains("frobnicate"),
        "{log}"
    );
}

#[test]
fn the_version_is_told() {
    let lab = Lab::new();
    for option in ["-V", "--version"] {
        let command = lab.command(lab.program_as("fuse-overlayfs"), option);
        let version = format!("fuse-overlayfs: unionmount {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(outcome(command).succeeds(), version);
    }
}

#[test]
fn sigusr1_writes_the_statistics() {
    let lab = Lab::new();
    lab.run("--lower l1 --log-file log m").succeeds();
    fs::read(lab.path("m/one")).unwrap();
    let daemon = rustix::process::Pid::from_raw(lab.daemon().try_into().unwrap()).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::USR1).unwrap();
    let deadline = Instant::now() + LIMIT;
    while !fs::read_to_string(lab.path("log"))
        .unwrap()
        .contains("copy-ups")
    {
        assert!(Instant::now() < deadline, "no statistics");
        std::thread::sleep(Duration::from_millis(5));
    }
    let log = fs::read_to_string(lab.path("log")).unwrap();
    assert!(log.contains("REQUEST") && log.contains("lookup"), "{log}");
    fs::read(lab.path("m/one")).unwrap();
    lab.run("umount m").succeeds();
}

/// `-d` stays in the foreground and tells what it does.
#[test]
fn debugging_stays_in_the_foreground() {
    let lab = Lab::new();
    let mut command = lab.command(lab.program_as("fuse-overlayfs"), "-d -o lowerdir=l1 m");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    while lab.mounted("m").is_none() {
        assert!(Instant::now() < deadline, "not mounted");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.try_wait().unwrap(), None);
    lab.run("umount m").succeeds();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("serving"), "{said}");
}

/// It knows none, and may be given the upper back.
#[test]
fn no_redirect_is_written_for_fuse_overlayfs() {
    let lab = Lab::new();
    fs::create_dir(lab.path("l1/dir")).unwrap();
    let rename = || fs::rename(lab.path("m/dir"), lab.path("m/other"));
    let dirs = layers(&lab);
    silent(fuse_overlayfs(&lab, &dirs));
    assert_eq!(
        rename().unwrap_err().raw_os_error(),
        Some(rustix::io::Errno::XDEV.raw_os_error())
    );
    lab.run("umount m").succeeds();
    silent(fuse_overlayfs(&lab, &format!("{dirs},redirect_dir=on")));
    rename().unwrap();
    lab.run("umount m").succeeds();
}
