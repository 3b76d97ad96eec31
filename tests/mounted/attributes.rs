//! Mode, owner, times, file flags, filesystem figures; umask and sgid directories.

use crate::kit::{Errno, sys};
use crate::{all_io, both, for_all_users};

const LOWER: &str = "f f text mode=0644\nd d mode=0755\nl l f\np p\nd sgid mode=02775 gid=7";

#[test]
fn chmod_of_every_type() {
    both(&[LOWER], |lab| {
        sys::put(lab.at("new"), b"").unwrap();
        for name in ["f", "d", "p", "new", "sgid", ""] {
            let at = lab.at(name);
            for mode in [0o000, 0o4711, 0o2750, 0o1777, 0o644] {
                sys::chmod(&at, mode).unwrap();
                assert_eq!(sys::lstat(&at).unwrap().perm(), mode, "{name:?}");
            }
            sys::chmod(&at, 0o755).unwrap();
        }
        sys::chmod(lab.at("l"), 0o600).unwrap();
        assert_eq!(sys::lstat(lab.at("f")).unwrap().perm(), 0o600);
        fails!(sys::chmod(lab.at("none"), 0o600), ENOENT);
    });
}

#[test]
fn chown_of_every_type() {
    both(&[LOWER], |lab| {
        sys::symlink("x", lab.at("new")).unwrap();
        for name in ["f", "d", "l", "p", "new", ""] {
            let at = lab.at(name);
            sys::lchown(&at, 1234, u32::MAX).unwrap();
            sys::lchown(&at, u32::MAX, 100_000).unwrap();
            let st = sys::lstat(&at).unwrap();
            assert_eq!((st.uid, st.gid), (1234, 100_000), "{name:?}");
        }
    });
}

#[test]
fn times_have_nanoseconds_and_a_past() {
    all_io(&[LOWER], |lab| {
        sys::put(lab.at("new"), b"").unwrap();
        let times = [
            (0, 0),
            (1, 999_999_999),
            (-1, 500_000_000),
            (-1, 0),
            (-1_000_000_000, 123_456_789),
            (4_000_000_000, 1),
        ];
        for name in ["f", "d", "l", "p", "new"] {
            let at = lab.at(name);
            for time in times {
                sys::utimens(&at, time, time).unwrap();
                let st = sys::lstat(&at).unwrap();
                assert_eq!((st.mtime, st.atime), (time, time), "{name}");
            }
            sys::utimens(&at, (7, 7), (0, libc::UTIME_OMIT)).unwrap();
            let st = sys::lstat(&at).unwrap();
            assert_eq!((st.atime, st.mtime), ((7, 7), times[5]));
            let before = std::time::SystemTime::now();
            sys::utimens(&at, (0, libc::UTIME_OMIT), (0, libc::UTIME_NOW)).unwrap();
            let now = before
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs() as i64;
            assert!((sys::lstat(&at).unwrap().mtime.0 - now).abs() < 5, "{name}");
            sys::utimens(&at, (0, 0), (-3, 250_000_000)).unwrap();
        }
        lab.remount();
        assert_eq!(sys::lstat(lab.at("f")).unwrap().mtime, (-3, 250_000_000));
    });
}

/// As tar, cp -p and rsync do: times set last must be the times that stay.
#[test]
fn times_set_after_writing_stay() {
    all_io(&[LOWER], |lab| {
        for name in ["f", "new"] {
            let fd = sys::open(lab.at(name), libc::O_RDWR | libc::O_CREAT, 0o644).unwrap();
            sys::pwrite(&fd, 0, b"data").unwrap();
            sys::futimens(&fd, (5, 5), (6, 6)).unwrap();
            drop(fd);
            assert_eq!(sys::lstat(lab.at(name)).unwrap().mtime, (6, 6), "{name}");
        }
        sys::drop_caches();
        assert_eq!(sys::lstat(lab.at("new")).unwrap().mtime, (6, 6));
    });
}

#[test]
fn changes_move_the_times() {
    all_io(&[LOWER], |lab| {
        let recent = |name: &str| sys::lstat(lab.at(name)).unwrap().mtime.0 > 1_600_000_000;
        for (file, dir) in [("d/a", "d"), ("sgid/a", "sgid")] {
            sys::put(lab.at(file), b"x").unwrap();
            assert!(recent(dir), "{dir}: its mtime at a new name");
            sys::set_mtime(lab.at(dir), (5, 0)).unwrap();
            sys::set_mtime(lab.at(file), (5, 0)).unwrap();
            assert!(!recent(dir) && !recent(file));
            sys::append(lab.at(file), b"y").unwrap();
            assert!(recent(file), "{file}: its mtime at a write");
            assert!(!recent(dir), "{dir}: its mtime at a write to a file in it");
            let before = sys::lstat(lab.at(file)).unwrap().ctime;
            std::thread::sleep(std::time::Duration::from_millis(20));
            sys::chmod(lab.at(file), 0o600).unwrap();
            assert!(
                sys::lstat(lab.at(file)).unwrap().ctime > before,
                "{file}: ctime at chmod"
            );
            sys::unlink(lab.at(file)).unwrap();
            assert!(recent(dir), "{dir}: its mtime at a removal");
        }
    });
}

#[test]
fn nothing_is_copied_up_for_no_change() {
    both(&[LOWER], |lab| {
        let fd = sys::open(lab.at("f"), libc::O_RDONLY, 0).unwrap();
        assert_eq!(sys::pread(&fd, 0, 9).unwrap(), b"text");
        sys::access(lab.at("f"), libc::R_OK | libc::W_OK).unwrap();
        assert_eq!(lab.ls(""), ["d", "f", "l", "p", "sgid"]);
        assert!(!lab.in_upper("f").exists());
    });
}

#[test]
fn statfs_tells_of_the_upper() {
    both(&[LOWER], |lab| {
        let (ours, real) = (
            sys::statvfs(lab.at("f")).unwrap(),
            sys::statvfs(lab.upper_dir()).unwrap(),
        );
        assert_eq!((ours.f_blocks, ours.f_files), (real.f_blocks, real.f_files));
        assert_eq!((ours.f_bsize, ours.f_namemax), (real.f_bsize, 255));
    });
}

/// lsattr and chattr, and every program that asks first whether a file is immutable.
#[test]
fn file_flags_never_fail_with_eio() {
    both(&[LOWER], |lab| {
        sys::put(lab.at("new"), b"x").unwrap();
        for name in ["f", "new", "d"] {
            let fd = sys::open(lab.at(name), libc::O_RDONLY, 0).unwrap();
            match sys::get_flags(&fd) {
                Ok(flags) => match sys::set_flags(&fd, flags) {
                    Ok(()) | Err(Errno(libc::ENOTTY | libc::EOPNOTSUPP)) => {}
                    other => panic!("{name}: FS_IOC_SETFLAGS: {other:?}"),
                },
                Err(Errno(libc::ENOTTY)) => {}
                other => panic!("{name}: FS_IOC_GETFLAGS: {other:?}"),
            }
        }
    });
}

#[test]
fn the_umask_is_the_callers() {
    both(&[LOWER], |lab| {
        for (umask, dir, file) in [
            (0o077, 0o700, 0o600),
            (0, 0o777, 0o666),
            (0o027, 0o750, 0o640),
        ] {
            let name = |kind: &str| lab.at(format!("d/{kind}{umask:o}"));
            let (d, f, p, f2) = (name("d"), name("f"), name("p"), name("g"));
            sys::with_umask(umask, || {
                sys::mkdir(&d, 0o777).unwrap();
                drop(sys::open(&f, libc::O_CREAT | libc::O_WRONLY, 0o666).unwrap());
                sys::mknod(&p, libc::S_IFIFO | 0o666, 0).unwrap();
                sys::mknod(&f2, libc::S_IFREG | 0o666, 0).unwrap();
            });
            for (at, mode) in [(d, dir), (f, file), (p, file), (f2, file)] {
                assert_eq!(sys::lstat(&at).unwrap().perm(), mode, "{}", at.display());
            }
        }
    });
}

#[test]
fn sgid_directories_hand_their_group_down() {
    for_all_users(
        &["d sgid mode=02777 gid=7\nd plain mode=0777 gid=7"],
        |lab| {
            let at = |name: &str| lab.at(name);
            let (sub, file, other) = (at("sgid/sub"), at("sgid/file"), at("plain/file"));
            sys::as_user(1000, 1000, || {
                sys::mkdir(&sub, 0o755).unwrap();
                drop(sys::open(&file, libc::O_CREAT | libc::O_WRONLY, 0o644).unwrap());
                drop(sys::open(&other, libc::O_CREAT | libc::O_WRONLY, 0o644).unwrap());
            });
            let st = |path: &std::path::Path| sys::lstat(path).unwrap();
            assert_eq!(
                (st(&sub).uid, st(&sub).gid, st(&sub).perm()),
                (1000, 7, 0o2755)
            );
            assert_eq!(
                (st(&file).uid, st(&file).gid, st(&file).perm()),
                (1000, 7, 0o644)
            );
            assert_eq!((st(&other).uid, st(&other).gid), (1000, 1000));
        },
    );
}

#[test]
fn permissions_are_checked_for_other_users() {
    let lower = "f secret s mode=0600\nf open o mode=0644\nd closed mode=0700\nf closed/f f\n\
                 f mine m uid=1000 mode=0600\nd ours mode=0777";
    for_all_users(&[lower], |lab| {
        let at = |name: &str| lab.at(name);
        let (secret, open, closed, mine) = (at("secret"), at("open"), at("closed/f"), at("mine"));
        let new = at("ours/new");
        sys::as_user(1000, 1000, || {
            fails!(sys::get(&secret), EACCES);
            assert_eq!(sys::text(&open), "o");
            fails!(sys::append(&open, b"x"), EACCES);
            fails!(sys::lstat(&closed), EACCES);
            fails!(sys::chmod(&open, 0o777), EPERM);
            fails!(sys::lchown(&mine, 0, u32::MAX), EPERM);
            fails!(sys::access(&secret, libc::R_OK), EACCES);
            sys::append(&mine, b"ore").unwrap();
            sys::chmod(&mine, 0o640).unwrap();
            sys::put(&new, b"n").unwrap();
            sys::chmod(&new, 0).unwrap();
            fails!(sys::get(&new), EACCES);
        });
        assert_eq!(sys::text(&mine), "more");
        let st = sys::lstat(&mine).unwrap();
        assert_eq!((st.uid, st.gid, st.perm()), (1000, 0, 0o640));
        assert_eq!(sys::lstat(&new).unwrap().uid, 1000);
    });
}

/// As tar and git do: the mode forbids writing, the descriptor of the creation does not.
#[test]
fn a_file_created_read_only_is_written() {
    for_all_users(&["d d mode=0777"], |lab| {
        let at = lab.at("d/f");
        sys::as_user(1000, 1000, || {
            for mode in [0o444, 0o000] {
                let fd = sys::open(&at, libc::O_CREAT | libc::O_RDWR, mode).unwrap();
                sys::write(&fd, b"written").unwrap();
                sys::pwrite(&fd, 100_000, b"later").unwrap();
                sys::ftruncate(&fd, 7).unwrap();
                assert_eq!(sys::get_fd(&fd).unwrap(), b"written");
                drop(fd);
                sys::unlink(&at).unwrap();
            }
        });
    });
}
