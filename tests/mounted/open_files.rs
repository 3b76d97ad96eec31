//! Open files outlive their names: removed, renamed over, on every layer.

use crate::all_io;
use crate::kit::{Lab, Subject, sys};

const LOWER: &str =
    "f low lower-data mode=0644 user.a=1\nd d\nf d/low lower-data mode=0644\nf other o";

/// Every way to lose the name, on a file of the lower, of the upper, and a copied-up one.
fn with_lost_names(test: impl Fn(&Lab, &std::os::fd::OwnedFd, &str)) {
    all_io(&[LOWER], |lab| {
        for kind in ["lower", "upper", "copied-up", "lower in a directory"] {
            for way in ["unlinked", "renamed over"] {
                let (lab, fd) = lose(lab.subject(), kind, way);
                test(&lab, &fd, &format!("{kind}, {way}"));
            }
        }
    });
}

fn lose(subject: &Subject, kind: &str, way: &str) -> (Lab, std::os::fd::OwnedFd) {
    let lab = Lab::new().lower(LOWER).upper("").mount_as(subject);
    let at = lab.at(match kind {
        "upper" => "new",
        "lower in a directory" => "d/low",
        _ => "low",
    });
    match kind {
        "upper" => {
            sys::put(&at, b"lower-data").unwrap();
            sys::setxattr(&at, "user.a", b"1", 0).unwrap();
        }
        "copied-up" => sys::chmod(&at, 0o640).unwrap(),
        _ => {}
    }
    let fd = sys::open(&at, libc::O_RDWR, 0).unwrap();
    if way == "unlinked" {
        sys::unlink(&at).unwrap();
        fails!(sys::lstat(&at), ENOENT);
    } else {
        sys::put(lab.at("replacement"), b"replacement").unwrap();
        sys::rename(lab.at("replacement"), &at).unwrap();
        assert_eq!(sys::text(&at), "replacement");
    }
    (lab, fd)
}

#[test]
fn reading_and_writing() {
    with_lost_names(|lab, fd, case| {
        assert_eq!(sys::get_fd(fd).unwrap(), b"lower-data", "{case}");
        sys::pwrite(fd, 0, b"LOWER").unwrap();
        sys::pwrite(fd, 100_000, b"far").unwrap();
        assert_eq!(sys::pread(fd, 0, 10).unwrap(), b"LOWER-data", "{case}");
        assert_eq!(sys::pread(fd, 100_000, 10).unwrap(), b"far", "{case}");
        sys::drop_caches();
        assert_eq!(
            sys::pread(fd, 0, 10).unwrap(),
            b"LOWER-data",
            "{case}: without cache"
        );
        sys::fsync(fd).unwrap();
        drop(lab.tree());
    });
}

#[test]
fn attributes() {
    with_lost_names(|_, fd, case| {
        let st = sys::fstat(fd).unwrap();
        assert_eq!((st.nlink, st.size), (0, 10), "{case}");
        sys::fchmod(fd, 0o600).unwrap();
        sys::fchown(fd, 5, 6).unwrap();
        sys::futimens(fd, (1, 1), (2, 2)).unwrap();
        let st = sys::fstat(fd).unwrap();
        assert_eq!(
            (st.perm(), st.uid, st.gid, st.mtime),
            (0o600, 5, 6, (2, 2)),
            "{case}"
        );
        sys::ftruncate(fd, 3).unwrap();
        assert_eq!(sys::get_fd(fd).unwrap(), b"low", "{case}");
        sys::fallocate(fd, 0, 0, 5000).unwrap();
        assert_eq!(sys::fstat(fd).unwrap().size, 5000, "{case}");
    });
}

#[test]
fn xattrs() {
    with_lost_names(|_, fd, case| {
        if !case.contains("directory") {
            assert_eq!(sys::fgetxattr(fd, "user.a").unwrap(), b"1", "{case}");
        }
        sys::fsetxattr(fd, "user.new", b"value", 0).unwrap();
        assert_eq!(sys::fgetxattr(fd, "user.new").unwrap(), b"value", "{case}");
    });
}

#[test]
fn mappings() {
    with_lost_names(|_, fd, case| {
        let mut map = sys::Map::shared(fd, 10).unwrap();
        assert_eq!(map.bytes(), b"lower-data", "{case}");
        map.bytes_mut()[..6].copy_from_slice(b"mapped");
        map.sync().unwrap();
        assert_eq!(sys::get_fd(fd).unwrap(), b"mappeddata", "{case}");
    });
}

/// No descriptor is left, only the mapping.
#[test]
fn a_mapping_outlives_its_descriptor_and_its_name() {
    all_io(&[LOWER], |lab| {
        let fd = sys::open(lab.at("low"), libc::O_RDWR, 0).unwrap();
        let mut map = sys::Map::shared(&fd, 10).unwrap();
        drop(fd);
        map.bytes_mut()[0] = b'L';
        sys::unlink(lab.at("low")).unwrap();
        map.bytes_mut()[1] = b'O';
        map.sync().unwrap();
        sys::drop_caches();
        assert_eq!(map.bytes(), b"LOwer-data");
    });
}

#[test]
fn a_new_file_under_the_old_name_is_another_one() {
    all_io(&[LOWER], |lab| {
        let at = lab.at("low");
        let mut open = Vec::new();
        for n in 0..30_u8 {
            let fd = sys::open(&at, libc::O_RDWR | libc::O_CREAT, 0o644).unwrap();
            sys::pwrite(&fd, 0, &[n; 3]).unwrap();
            sys::unlink(&at).unwrap();
            open.push(fd);
        }
        for (n, fd) in open.iter().enumerate() {
            assert_eq!(sys::pread(fd, 0, 3).unwrap(), [n as u8; 3]);
            assert_eq!(sys::fstat(fd).unwrap().nlink, 0);
        }
        let mut inos: Vec<u64> = open.iter().map(|fd| sys::fstat(fd).unwrap().ino).collect();
        inos.sort_unstable();
        inos.dedup();
        assert_eq!(inos.len(), 30, "two live files with one number");
    });
}

#[test]
fn another_hard_link_keeps_it_all() {
    all_io(&[LOWER], |lab| {
        sys::link(lab.at("low"), lab.at("second")).unwrap();
        let fd = sys::open(lab.at("low"), libc::O_RDWR, 0).unwrap();
        sys::unlink(lab.at("low")).unwrap();
        assert_eq!(sys::fstat(&fd).unwrap().nlink, 1);
        sys::fchmod(&fd, 0o600).unwrap();
        sys::ftruncate(&fd, 5).unwrap();
        assert_eq!(sys::text(lab.at("second")), "lower");
        assert_eq!(sys::lstat(lab.at("second")).unwrap().perm(), 0o600);
    });
}

#[test]
fn a_removed_working_directory() {
    all_io(&[LOWER], |lab| {
        let old = sys::open(lab.at("d"), libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        let through = std::path::PathBuf::from(format!("/proc/self/fd/{}", fd_number(&old)));
        sys::remove_tree(lab.at("d")).unwrap();
        sys::mkdir(lab.at("d"), 0o755).unwrap();
        fails!(sys::put(through.join("x"), b"x"), ENOENT);
        fails!(sys::mkdir(through.join("x"), 0o755), ENOENT);
        fails!(sys::lstat(through.join("low")), ENOENT);
        assert!(sys::fstat(&old).unwrap().is_dir());
        assert_eq!(lab.ls("d"), [""; 0]);
    });
}

fn fd_number(fd: &impl std::os::fd::AsRawFd) -> i32 {
    fd.as_raw_fd()
}

/// More than any daemon would keep descriptors for.
#[test]
fn thousands_of_open_and_unlinked_files() {
    const COUNT: usize = 5000;
    sys::raise_descriptor_limit();
    let lower: String = (0..COUNT / 2)
        .map(|n| format!("f d/{n} low{n}\n"))
        .collect();
    let lab = Lab::new().lower(&lower).upper("").mount();
    for n in COUNT / 2..COUNT {
        sys::put(lab.at(format!("d/{n}")), format!("low{n}").as_bytes()).unwrap();
    }
    let open = |n: usize| sys::open(lab.at(format!("d/{n}")), libc::O_RDWR, 0).unwrap();
    let fds: Vec<_> = (0..COUNT).map(open).collect();
    sys::remove_tree(lab.at("d")).unwrap();
    sys::drop_caches();
    for (n, fd) in fds.iter().enumerate() {
        assert_eq!(sys::get_fd(fd).unwrap(), format!("low{n}").as_bytes());
        sys::pwrite(fd, 0, b"LOW").unwrap();
        assert_eq!(sys::fstat(fd).unwrap().nlink, 0, "{n}");
    }
    for (n, fd) in fds.iter().enumerate() {
        assert_eq!(sys::get_fd(fd).unwrap(), format!("LOW{n}").as_bytes());
    }
    drop(fds);
    assert_eq!(lab.ls(""), [""; 0]);
}

/// A mapping without a descriptor must not cost the daemon one.
#[test]
fn thousands_of_mappings() {
    let lower: String = (0..3000).map(|n| format!("f d/{n} text{n:04}\n")).collect();
    let lab = Lab::new().lower(&lower).upper("").mount();
    let map = |n: usize| {
        let fd = sys::open(lab.at(format!("d/{n}")), libc::O_RDWR, 0).unwrap();
        sys::Map::shared(&fd, 8).unwrap()
    };
    let mut maps: Vec<_> = (0..3000).map(map).collect();
    for map in &mut maps {
        map.bytes_mut()[0] = b'T';
    }
    for (n, map) in maps.iter().enumerate() {
        map.sync().unwrap();
        assert_eq!(map.bytes(), format!("Text{n:04}").as_bytes());
    }
    drop(maps);
    assert_eq!(sys::text(lab.in_upper("d/2999")), "Text2999");
}

/// A directory that was emptied and renamed over lives on as long as it is open.
#[test]
fn a_directory_that_was_renamed_over() {
    let lower = "f merged/x x\nf low/x x\nd empty";
    all_io(&[lower, "f merged/y y"], |lab| {
        sys::put(lab.at("merged/z"), b"z").unwrap();
        for name in ["merged", "low", "empty"] {
            let fd = sys::open(lab.at(name), libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
            let before = sys::fstat(&fd).unwrap();
            for inside in sys::names(lab.at(name)) {
                sys::unlink(lab.at(name).join(inside)).unwrap();
            }
            sys::mkdir(lab.at("new"), 0o700).unwrap();
            sys::put(lab.at("new/in"), b"in").unwrap();
            sys::rename(lab.at("new"), lab.at(name)).unwrap();
            for _ in 0..2 {
                let after = sys::fstat(&fd).unwrap_or_else(|e| panic!("{name}: {e:?}"));
                assert_eq!(after.ino, before.ino, "{name}");
                assert!(after.is_dir(), "{name}");
                // The kernel itself refuses to list what it knows to be removed.
                match sys::list_fd(&fd) {
                    Ok(inside) => assert!(inside.len() <= 2, "{name}: {inside:?}"),
                    Err(errno) => assert_eq!(errno.0, libc::ENOENT, "{name}"),
                }
                let number = fd_number(&fd);
                fails!(sys::lstat(format!("/proc/self/fd/{number}/in")), ENOENT);
                assert!(sys::put(format!("/proc/self/fd/{number}/file"), b"").is_err());
                sys::lseek(&fd, 0, libc::SEEK_SET).unwrap();
                // Again, when what is only remembered for a moment is not remembered any more.
                std::thread::sleep(std::time::Duration::from_millis(20));
                sys::drop_caches();
            }
            assert_eq!(lab.ls(name), ["in"]);
        }
    });
}
