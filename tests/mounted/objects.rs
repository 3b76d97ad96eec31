//! Making objects of every type, and removing them again.

use crate::both;
use crate::kit::sys;

const LOWER: &str = "d d mode=0755\nf d/f text\nl d/l f\np d/p\ns d/s\nc d/c 1:3\nb d/b 240:1\nd e";

#[test]
fn files_are_created_with_their_mode_and_owner() {
    both(&[LOWER], |lab| {
        let at = lab.at("d/new");
        let fd = sys::open(&at, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o640).unwrap();
        sys::write(&fd, b"hello").unwrap();
        let st = sys::fstat(&fd).unwrap();
        assert_eq!(
            (st.mode, st.uid, st.gid, st.size),
            (libc::S_IFREG | 0o640, 0, 0, 5)
        );
        fails!(sys::open(&at, libc::O_CREAT | libc::O_EXCL, 0o600), EEXIST);
        fails!(
            sys::open(lab.at("d/f"), libc::O_CREAT | libc::O_EXCL, 0o600),
            EEXIST
        );
        fails!(sys::open(lab.at("d/f/x"), libc::O_CREAT, 0o600), ENOTDIR);
        fails!(sys::open(lab.at("no/x"), libc::O_CREAT, 0o600), ENOENT);
        fails!(
            sys::open(lab.at("d"), libc::O_CREAT | libc::O_WRONLY, 0o600),
            EISDIR
        );
        assert_eq!(sys::text(at), "hello");
    });
}

#[test]
fn directories_are_made_and_removed() {
    both(&[LOWER], |lab| {
        sys::mkdir(lab.at("d/new"), 0o750).unwrap();
        sys::mkdir(lab.at("d/new/sub"), 0o700).unwrap();
        assert_eq!(sys::lstat(lab.at("d/new")).unwrap().perm(), 0o750);
        fails!(sys::mkdir(lab.at("d/new"), 0o700), EEXIST);
        fails!(sys::mkdir(lab.at("d/f"), 0o700), EEXIST);
        fails!(sys::rmdir(lab.at("d/new")), ENOTEMPTY);
        fails!(sys::rmdir(lab.at("d")), ENOTEMPTY);
        fails!(sys::rmdir(lab.at("d/f")), ENOTDIR);
        fails!(sys::unlink(lab.at("e")), EISDIR);
        sys::rmdir(lab.at("d/new/sub")).unwrap();
        sys::rmdir(lab.at("d/new")).unwrap();
        sys::rmdir(lab.at("e")).unwrap();
        fails!(sys::rmdir(lab.at("e")), ENOENT);
        fails!(sys::lstat(lab.at("d/new")), ENOENT);
    });
}

#[test]
fn special_files_keep_type_mode_and_number() {
    both(&[LOWER], |lab| {
        let kinds = [
            (libc::S_IFIFO | 0o600, (0, 0)),
            (libc::S_IFSOCK | 0o600, (0, 0)),
            (libc::S_IFREG | 0o600, (0, 0)),
            (libc::S_IFCHR | 0o640, (4, 70_000)),
            (libc::S_IFBLK | 0o600, (240, 9)),
        ];
        for (n, (mode, (major, minor))) in kinds.into_iter().enumerate() {
            let at = lab.at(format!("d/new{n}"));
            sys::mknod(&at, mode, sys::makedev(major, minor)).unwrap();
            let st = sys::lstat(&at).unwrap();
            assert_eq!((st.mode, st.rdev), (mode, sys::makedev(major, minor)));
            fails!(sys::mknod(&at, mode, 0), EEXIST);
        }
        assert_eq!(sys::lstat(lab.at("d/c")).unwrap().rdev, sys::makedev(1, 3));
        assert_eq!(
            sys::lstat(lab.at("d/b")).unwrap().rdev,
            sys::makedev(240, 1)
        );
    });
}

#[test]
fn a_whiteout_cannot_be_made_by_mknod() {
    both(&[LOWER], |lab| {
        fails!(sys::mknod(lab.at("d/f"), libc::S_IFCHR | 0o600, 0), EEXIST);
        fails!(
            sys::mknod(lab.at("d/zero"), libc::S_IFCHR | 0o600, 0),
            EPERM
        );
        fails!(sys::lstat(lab.at("d/zero")), ENOENT);
        sys::mknod(lab.at("d/block-zero"), libc::S_IFBLK | 0o600, 0).unwrap();
    });
}

#[test]
fn symlinks_hold_any_target() {
    both(&[LOWER], |lab| {
        let long = "x/".repeat(2000);
        for (n, target) in ["f", "nowhere", "/etc", "../../..", &long]
            .into_iter()
            .enumerate()
        {
            let at = lab.at(format!("e/l{n}"));
            sys::symlink(target, &at).unwrap();
            assert_eq!(sys::readlink(&at).unwrap(), target.as_bytes());
            assert_eq!(sys::lstat(&at).unwrap().size, target.len() as u64);
        }
        assert_eq!(sys::readlink(lab.at("d/l")).unwrap(), b"f");
        fails!(sys::readlink(lab.at("d/f")), EINVAL);
        fails!(sys::symlink("x", lab.at("d/l")), EEXIST);
        assert_eq!(sys::stat(lab.at("d/l")).unwrap().size, 4);
    });
}

#[test]
fn every_type_is_linked_and_unlinked() {
    both(&[LOWER], |lab| {
        for name in ["f", "l", "p", "s", "c", "b"] {
            let (old, new) = (lab.at("d").join(name), lab.at("e").join(name));
            sys::link(&old, &new).unwrap();
            let (a, b) = (sys::lstat(&old).unwrap(), sys::lstat(&new).unwrap());
            assert_eq!((a.ino, a.nlink, a.mode), (b.ino, 2, b.mode), "{name}");
            fails!(sys::link(&old, &new), EEXIST);
            sys::unlink(&old).unwrap();
            fails!(sys::lstat(&old), ENOENT);
            assert_eq!(sys::lstat(&new).unwrap().nlink, 1, "{name}");
        }
        fails!(sys::link(lab.at("d"), lab.at("e/d")), EPERM);
        fails!(sys::link(lab.at("d/none"), lab.at("e/none")), ENOENT);
        assert_eq!(lab.ls("d"), [""; 0]);
    });
}

#[test]
fn a_fifo_and_a_socket_work() {
    both(&[LOWER], |lab| {
        let both_ends = sys::open(lab.at("d/p"), libc::O_RDWR | libc::O_NONBLOCK, 0).unwrap();
        sys::write(&both_ends, b"through").unwrap();
        let mut data = [0; 7];
        std::io::Read::read_exact(&mut std::fs::File::from(both_ends), &mut data).unwrap();
        assert_eq!(&data, b"through");
        let listener = std::os::unix::net::UnixListener::bind(lab.at("e/socket")).unwrap();
        std::os::unix::net::UnixStream::connect(lab.at("e/socket")).unwrap();
        drop(listener);
    });
}

#[test]
fn a_device_node_is_opened() {
    both(&[LOWER], |lab| {
        let null = sys::open(lab.at("d/c"), libc::O_RDWR, 0).unwrap();
        assert_eq!(sys::write(&null, b"gone").unwrap(), 4);
        assert_eq!(sys::pread(&null, 0, 10).unwrap(), b"");
    });
}
