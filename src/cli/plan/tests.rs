//! Tables: command line in, plan or complaint out.

use std::time::Duration;

use super::*;
use crate::cli::args::Cli;
use clap::Parser;

fn typed(line: &str) -> Result<Plan, Failure> {
    let words = std::iter::once("unionmount").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|e| Failure::Usage(e.to_string()))?;
    plan(cli.mount, Personality::Plain, Environment::default())
}

fn mounted(line: &str) -> MountPlan {
    match typed(line) {
        Ok(Plan::Mount(plan)) => *plan,
        other => panic!("{line}: {other:?}"),
    }
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

#[test]
fn layers() {
    type Row<'a> = (&'a str, &'a [&'a str], Option<(&'a str, &'a str)>);
    let table: &[Row<'_>] = &[
        ("--lower a /m", &["a"], None),
        ("--lower a:b --lower c /m", &["a", "b", "c"], None),
        (r"--lower a\:b:c /m", &["a:b", "c"], None),
        ("--lower a --upper u --work w /m", &["a"], Some(("u", "w"))),
        (
            r"--lower a --upper u\:1 --work w:2 /m",
            &["a"],
            Some(("u:1", "w:2")),
        ),
        (
            "-o lowerdir=a:b,upperdir=u,workdir=w /m",
            &["a", "b"],
            Some(("u", "w")),
        ),
        (
            "/m -o lowerdir=a -o upperdir=u -o workdir=w",
            &["a"],
            Some(("u", "w")),
        ),
        (r"-o lowerdir=a\,b:c\:d,ro /m", &["a,b", "c:d"], None),
        ("-o lowerdir=a,lowerdir+=b:c /m", &["a", "b:c"], None),
        ("-o lowerdir=x,lowerdir=a /m", &["a"], None),
        ("src /m -o lowerdir=a", &["a"], None),
    ];
    for (line, lowers, upper) in table {
        let config = mounted(line).config;
        assert_eq!(config.lowers, paths(lowers), "{line}");
        let got = config.upper.map(|u| (u.upper, u.work));
        assert_eq!(got, upper.map(|(u, w)| (u.into(), w.into())), "{line}");
    }
}

#[test]
fn usage_errors() {
    for (line, part) in [
        ("", "MOUNTPOINT"),
        ("/m", "no lower directory"),
        ("--lower a", "MOUNTPOINT"),
        ("--lower a:: /m", "empty directory name"),
        ("--lower a --upper u /m", "--work"),
        ("--lower a --work w /m", "--upper"),
        ("--lower a b /m", "two operands"),
        ("--lower a -o lowerdir=b /m", "both --lower"),
        (
            "--lower a --upper u -o upperdir=v,workdir=w /m",
            "both --upper",
        ),
        ("--lower a -o frobnicate=1 /m", "frobnicate"),
        ("--lower a -o timeout /m", "needs a value"),
        ("--lower a --timeout soon /m", "seconds"),
        ("--lower a --timeout -1 /m", ""),
        ("--lower a --threads 0 /m", "from 1"),
        ("--lower a --cache-size big /m", "K, M, G or T"),
        ("--lower a -o cache_size=1.5G /m", "K, M, G or T"),
        (
            "--lower a -o whiteout=maybe /m",
            "auto, chardev, xattr, file",
        ),
        (
            "--lower a -o redirect_dir=maybe /m",
            "on, off, follow, nofollow",
        ),
        ("--lower a -o writeback=2 /m", "0 or 1"),
        ("--lower a -o uidmapping=0:1 /m", "DISK:SHOWN:COUNT"),
        ("--lower a --gid-map 0:9:5:2:20:2 /m", "overlap"),
        ("--lower a -o squash_to_gid=users /m", "the number"),
        ("--lower a --io direct --writeback /m", "--io direct"),
        ("--lower a --io sideways /m", "sideways"),
        ("--frobnicate /m", "--frobnicate"),
    ] {
        match typed(line) {
            Err(Failure::Usage(message)) => assert!(message.contains(part), "{line}: {message}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn cache_sizes() {
    for (line, want) in [
        ("--lower a /m", Config::CACHE_SIZE),
        ("--lower a --cache-size 16M /m", 16 << 20),
        ("--lower a -o cache_size=1g /m", 1 << 30),
        ("--lower a -o cache_size=1g --cache-size 0 /m", 0),
    ] {
        assert_eq!(mounted(line).config.cache_size, want, "{line}");
    }
}

#[test]
fn owners() {
    let users = |line: &str| mounted(line).config.ids.users.describe();
    let text = |text: &str| Some(text.to_owned());
    for (line, want) in [
        ("--lower a /m", (None, None)),
        (
            "--lower a -o uidmapping=:0:100000:65536 /m",
            (text("0:100000:65536"), None),
        ),
        (
            "--lower a --uid-map 0:5:1:1:9:3 -o squash_to_root /m",
            (text("0:5:1:1:9:3"), Some(0)),
        ),
        (
            "--lower a -o squash_to_uid=7,squash_to_root /m",
            (None, Some(7)),
        ),
        ("--lower a -o squash_to_root=0 /m", (None, None)),
    ] {
        assert_eq!(users(line), want, "{line}");
    }
}

#[test]
fn refused_options() {
    for line in ["--lower a -o move /m", "--lower a -o bind /m"] {
        assert!(matches!(typed(line), Err(Failure::Failed(_))), "{line}");
    }
}

#[test]
fn words_that_only_warn_or_pass() {
    for (options, warnings) in [
        ("", 0),
        (",,", 0),
        ("private", 0),
        ("nodev,suid,context=\"a,b\"", 0),
        ("fsync=0,volatile,writeback=0", 0),
        (
            "xino=on,index=on,userxattr,uuid=null,redirect_dir=off,metacopy=off",
            0,
        ),
        (
            "_netdev,noauto,nofail,x-systemd.requires=/,comment=x,defaults",
            0,
        ),
        ("squash=", usize::MAX),
        ("xattr_permissions=3", usize::MAX),
        ("xattr_permissions", usize::MAX),
        ("stat_override=containers", 0),
        ("redirect_dir=on", 0),
        ("redirect_dir=on,metacopy=on,metacopy=on", 0),
        ("noacl", 0),
        ("acl,acl=off,noacl=0", 0),
        ("xattr_permissions=0", 0),
    ] {
        let line = format!("--lower a -o {options} /m");
        let line = if options.is_empty() {
            "--lower a /m"
        } else {
            &line
        };
        match typed(line) {
            Ok(Plan::Mount(plan)) => assert_eq!(plan.warnings.len(), warnings, "{line}"),
            Err(Failure::Usage(_)) if warnings == usize::MAX => {}
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn flags() {
    let none = MountFlags::empty();
    let ro = MountFlags::RDONLY;
    for (options, set) in [
        ("rw", none),
        ("ro", ro),
        ("ro,rw", none),
        ("rw,ro", ro),
        ("nodev,nosuid,suid", MountFlags::NODEV),
        (
            "noatime,sync",
            MountFlags::NOATIME | MountFlags::SYNCHRONOUS,
        ),
        ("sync=0", none),
    ] {
        let line = format!("--lower a --upper u --work w -o {options} /m");
        let plan = mounted(&line);
        assert_eq!(plan.flags.set, set, "{line}");
        assert_eq!(plan.config.read_only, set.contains(ro), "{line}");
    }
    assert!(mounted("--lower a /m").flags.set.contains(ro));
    assert!(
        mounted("--lower a --upper u --work w --read-only /m")
            .config
            .read_only
    );
}

#[test]
fn settings() {
    let plan = mounted(
        "--lower a --upper u --work w --io direct --threads 3 --timeout 1.5 --whiteout xattr \
         --redirect-dir follow --volatile --allow-other -f --log debug --log-file l /m",
    );
    assert_eq!(plan.serve.io, IoMode::Direct);
    assert_eq!(plan.serve.threads, Some(3));
    assert_eq!(plan.config.redirect_dir, RedirectDir::Follow);
    assert_eq!(plan.serve.timeout, Some(Duration::from_millis(1500)));
    assert!(plan.allow_other && plan.foreground);
    assert_eq!(
        plan.log,
        LogPlan {
            level: LogLevel::Debug,
            file: Some("l".into())
        }
    );
    let upper = plan.config.upper.unwrap();
    assert_eq!(upper.durability, Durability::Volatile);
    assert_eq!(upper.whiteout, WhiteoutChoice::Xattr);

    let plan = mounted("-o lowerdir=a,upperdir=u,workdir=w,timeout=1000000000,fsync=0 /m");
    assert_eq!(plan.serve.timeout, None);
    let upper = plan.config.upper.unwrap();
    assert_eq!(upper.durability, Durability::Unsynced);
    assert!(
        !mounted("--lower a --writeback /m").serve.writeback,
        "a read-only union has no use"
    );
}

#[test]
fn sources() {
    let args = |operands: &[&str], options: &str| MountArgs {
        operands: operands.iter().map(OsString::from).collect(),
        options: vec![options.into()],
        ..MountArgs::default()
    };
    for (who, operands, options, source, fs_type) in [
        (
            Personality::Plain,
            &["/m"][..],
            "",
            "unionmount",
            "fuse.unionmount",
        ),
        (
            Personality::Plain,
            &["/m"],
            ",fsname=a b",
            "a b",
            "fuse.unionmount",
        ),
        (
            Personality::Helper,
            &["data", "/m"],
            "",
            "data",
            "fuse.unionmount",
        ),
        (
            Personality::Helper,
            &["data", "/m"],
            ",fsname=x",
            "x",
            "fuse.unionmount",
        ),
        (
            Personality::FuseOverlayfs,
            &["overlay", "/m"],
            "",
            "fuse-overlayfs",
            "fuse.fuse-overlayfs",
        ),
        (
            Personality::FuseOverlayfs,
            &["/m"],
            "",
            "fuse-overlayfs",
            "fuse.fuse-overlayfs",
        ),
    ] {
        let args = args(operands, &format!("lowerdir=a{options}"));
        match plan(args, who, Environment::default()) {
            Ok(Plan::Mount(plan)) => {
                assert_eq!(
                    (plan.source.to_str(), &*plan.fs_type),
                    (Some(source), fs_type)
                );
                assert_eq!(plan.mountpoint, PathBuf::from("/m"));
            }
            other => panic!("{operands:?}: {other:?}"),
        }
    }
}

#[test]
fn remount_needs_no_layers() {
    match typed("-o remount,ro,user_id=0,allow_other /m") {
        Ok(Plan::Remount(plan)) => {
            assert_eq!(plan.flags.set, MountFlags::RDONLY);
            assert_eq!(plan.mountpoint, PathBuf::from("/m"));
        }
        other => panic!("{other:?}"),
    }
}

fn as_fuse_overlayfs(options: &str, environment: Environment) -> Result<MountPlan, Failure> {
    let args = MountArgs {
        operands: vec!["/m".into()],
        options: vec![options.into()],
        ..MountArgs::default()
    };
    match plan(args, Personality::FuseOverlayfs, environment)? {
        Plan::Mount(plan) => Ok(*plan),
        other => panic!("{options}: {other:?}"),
    }
}

#[test]
fn what_fuse_overlayfs_does_unasked() {
    let (nodev, noatime) = (MountFlags::NODEV, MountFlags::NOATIME);
    for (options, want) in [
        ("", nodev | noatime),
        ("dev,suid", noatime),
        ("relatime", nodev | MountFlags::RELATIME),
        ("nodev,atime,ro", nodev | MountFlags::RDONLY),
    ] {
        let options = format!("lowerdir=a,upperdir=u,workdir=w,{options}");
        let plan = as_fuse_overlayfs(&options, Environment::default()).unwrap();
        assert_eq!(plan.flags.set, want, "{options}");
        assert_eq!(plan.config.upper.unwrap().whiteout, WhiteoutChoice::Found);
    }
    let options = "lowerdir=a,upperdir=u,workdir=w,frobnicate=3,frobnicate=3,ino32_t,private,";
    let plan = as_fuse_overlayfs(options, Environment::default()).unwrap();
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    for options in ["lowerdir=//tar//x/layer:/a", "lowerdir=a,plugins=x"] {
        let refused = as_fuse_overlayfs(options, Environment::default());
        assert!(matches!(refused, Err(Failure::Failed(_))), "{options}");
    }
    assert!(as_fuse_overlayfs("lowerdir=//a/b", Environment::default()).is_ok());
}

#[test]
fn the_environment_of_fuse_overlayfs() {
    let environment = Environment {
        wh_files: true,
        debug_log: Some("log".into()),
    };
    let options = "lowerdir=a,upperdir=u,workdir=w";
    let plan = as_fuse_overlayfs(options, environment.clone()).unwrap();
    let upper = plan.config.upper.unwrap();
    assert_eq!(upper.whiteout, WhiteoutChoice::PreferFile);
    assert_eq!(plan.log.level, LogLevel::Debug);
    assert_eq!(plan.log.file, Some("log".into()));
    // What is said on the command line counts.
    let options = format!("{options},whiteout=xattr,log-file=other");
    let plan = as_fuse_overlayfs(&options, environment).unwrap();
    assert_eq!(plan.config.upper.unwrap().whiteout, WhiteoutChoice::Xattr);
    assert_eq!(plan.log.file, Some("other".into()));
}

#[test]
fn labels_keep_their_commas() {
    let line = "--lower a -o context=\"u:r:t:s0:c1,c2\",fscontext=x,ro /m";
    assert_eq!(
        mounted(line).labels,
        ["context=\"u:r:t:s0:c1,c2\"", "fscontext=\"x\""]
    );
    assert!(matches!(
        typed("--lower a -o context=a\"b /m"),
        Err(Failure::Usage(_))
    ));
}
