//! Where a union differs from POSIX or from kernel overlayfs on purpose, or because FUSE cannot do
//! it: docs/SEMANTICS.md lists these and names the tests.

use crate::kit::{Lab, Subject, sys};
use crate::{both, ours};

/// The true number would take a listing of all layers.
#[test]
fn merged_directories_have_one_link() {
    both(&["d d\nd d/a\nd only\nd only/x", "d d/b"], |lab| {
        assert_eq!(sys::lstat(lab.at("d")).unwrap().nlink, 1);
        assert_eq!(sys::lstat(lab.at("only")).unwrap().nlink, 3);
        sys::mkdir(lab.at("only/y"), 0o755).unwrap();
        assert_eq!(sys::lstat(lab.at("only")).unwrap().nlink, 1);
    });
}

/// Neither in the view nor on the lower, where the daemon may avoid it.
#[test]
fn reading_a_lower_file_moves_no_access_time() {
    ours(&["f f text"], |lab| {
        let real = lab.lower_dir(0).join("f");
        let before = sys::lstat(&real).unwrap().atime;
        for _ in 0..3 {
            assert_eq!(sys::text(lab.at("f")), "text");
            assert_eq!(sys::lstat(lab.at("f")).unwrap().atime, before);
            assert_eq!(sys::lstat(&real).unwrap().atime, before);
            sys::drop_caches();
        }
    });
}

/// Kernel overlayfs copies up when a file is opened for writing; we when it is written.
#[test]
fn opening_for_writing_copies_nothing() {
    ours(&["f f text"], |lab| {
        let fd = sys::open(lab.at("f"), libc::O_RDWR, 0).unwrap();
        assert!(!sys::exists(lab.in_upper("f")));
        assert_eq!(sys::pread(&fd, 0, 9).unwrap(), b"text");
        sys::pwrite(&fd, 0, b"T").unwrap();
        assert_eq!(sys::text(lab.in_upper("f")), "Text");
    });
}

/// A change to what is there already is none: nothing is copied, ctime stays.
#[test]
fn setting_what_is_set_copies_nothing() {
    ours(&["f f text mode=0644 uid=7 gid=8"], |lab| {
        let before = sys::lstat(lab.at("f")).unwrap();
        sys::chmod(lab.at("f"), 0o644).unwrap();
        sys::lchown(lab.at("f"), 7, 8).unwrap();
        sys::utimens(lab.at("f"), before.atime, before.mtime).unwrap();
        assert!(!sys::exists(lab.in_upper("f")));
        assert_eq!(sys::lstat(lab.at("f")).unwrap().ctime, before.ctime);
    });
}

#[test]
fn unnamed_temporary_files_are_refused() {
    ours(&["d d"], |lab| {
        let flags = libc::O_TMPFILE | libc::O_RDWR;
        fails!(sys::open(lab.at("d"), flags, 0o600), EOPNOTSUPP);
    });
}

#[test]
fn sharing_blocks_by_ioctl_is_refused() {
    ours(&["f f text"], |lab| {
        sys::put(lab.at("new"), b"").unwrap();
        let from = sys::open(lab.at("f"), libc::O_RDONLY, 0).unwrap();
        let to = sys::open(lab.at("new"), libc::O_RDWR, 0).unwrap();
        let cloned = rustix::fs::ioctl_ficlone(&to, &from);
        assert_eq!(cloned, Err(rustix::io::Errno::OPNOTSUPP));
    });
}

#[test]
fn collapsing_and_inserting_is_refused() {
    ours(&["f f pattern=20000"], |lab| {
        let fd = sys::open(lab.at("f"), libc::O_RDWR, 0).unwrap();
        for mode in [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE] {
            fails!(sys::fallocate(&fd, mode, 4096, 4096), EOPNOTSUPP);
        }
    });
}

#[test]
fn there_is_no_time_of_birth() {
    ours(&["f f text"], |lab| {
        let has = |path: &std::path::Path| std::fs::metadata(path).unwrap().created().is_ok();
        assert!(!has(&lab.at("f")));
        sys::put(lab.at("new"), b"").unwrap();
        assert!(!has(&lab.at("new")));
    });
}

/// As on ext4; kernel overlayfs answers ENODATA for a lower file.
#[test]
fn removing_a_list_that_is_not_there_succeeds() {
    ours(&["f f text"], |lab| {
        sys::removexattr(lab.at("f"), "system.posix_acl_access").unwrap();
        assert!(!sys::exists(lab.in_upper("f")));
        sys::put(lab.at("new"), b"").unwrap();
        sys::removexattr(lab.at("new"), "system.posix_acl_access").unwrap();
    });
}

/// The kernel escapes those of the namespace in use only; here both are read, so both are escaped.
#[test]
fn both_namespaces_are_escaped_and_that_of_fuse_overlayfs_is_refused() {
    ours(&["f f text"], |lab| {
        for (name, disk) in [
            ("trusted.overlay.x", "trusted.overlay.overlay.x"),
            ("user.overlay.x", "user.overlay.overlay.x"),
        ] {
            sys::setxattr(lab.at("f"), name, b"1", 0).unwrap();
            assert_eq!(sys::getxattr(lab.in_upper("f"), disk).unwrap(), b"1");
            assert!(
                sys::listxattr(lab.at("f"))
                    .unwrap()
                    .contains(&name.as_bytes().to_vec())
            );
        }
        fails!(
            sys::setxattr(lab.at("f"), "user.fuseoverlayfs.x", b"1", 0),
            EPERM
        );
    });
}

#[test]
fn control_attributes_are_not_listed_and_cannot_be_set() {
    ours(&["f f text"], |lab| {
        assert!(sys::getxattr(lab.mnt(), "unionmount.inspect@0").is_ok());
        assert!(sys::listxattr(lab.mnt()).unwrap().is_empty());
        fails!(
            sys::setxattr(lab.mnt(), "unionmount.inspect@0", b"1", 0),
            EPERM
        );
        sys::as_user(1000, 1000, || {
            fails!(sys::getxattr(lab.mnt(), "unionmount.inspect@0"), EPERM)
        });
    });
}

/// Of a filesystem that holds so many: ext4 has no room for them.
#[test]
fn markers_among_many_attributes_are_noticed() {
    if !Subject::default().is_ours() {
        return;
    }
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    sys::chmod(memory.path(), 0o755).unwrap();
    let lower = memory.path().join("lower");
    crate::kit::plant(
        &lower,
        "d moved trusted.overlay.redirect=/old\nf copy size=4 trusted.overlay.metacopy=\n\
         d d\nf f text",
    );
    for name in ["moved", "copy", "d", "f"] {
        for n in 0..100 {
            let attribute = format!("trusted.{n}.{}", "x".repeat(80));
            sys::setxattr(lower.join(name), &attribute, b"", 0).unwrap();
        }
    }
    let lab = Lab::new()
        .lower_at(&lower)
        .lower("f old/f text\nf copy text");
    let lab = lab.upper("").mount();
    assert_eq!(sys::text(lab.at("moved/f")), "text");
    assert_eq!(sys::text(lab.at("copy")), "text");
    assert_eq!(sys::text(lab.at("f")), "text");
    assert!(sys::names(lab.at("d")).is_empty());
}

/// The longest name must leave room for `.wh.`.
#[test]
fn names_are_shorter_where_deletions_are_files() {
    if !Subject::default().is_ours() {
        return;
    }
    let lab = Lab::new().lower("d d").upper("");
    let lab = lab.mount_as(&Subject::ours(&["--whiteout", "file"]));
    assert_eq!(sys::statvfs(lab.mnt()).unwrap().f_namemax, 251);
    sys::put(lab.at("n".repeat(251)), b"").unwrap();
    fails!(sys::put(lab.at("n".repeat(252)), b""), ENAMETOOLONG);
    fails!(sys::put(lab.at(".wh.d"), b""), EPERM);
}

/// Layers are not to change under a mount: by default nobody looks again. `--timeout 0` does for
/// the contents of files.
#[test]
fn changes_behind_the_mount() {
    for (arguments, seen) in [(&[][..], "old"), (&["--timeout", "0"], "new")] {
        let subject = Subject::with(arguments);
        if !subject.is_ours() {
            return;
        }
        let mut lab = Lab::new().lower("f f old").upper("").mount_as(&subject);
        assert_eq!(sys::text(lab.at("f")), "old");
        let real = lab.lower_dir(0).join("f");
        let before = sys::lstat(&real).unwrap();
        sys::overwrite(&real, 0, b"new").unwrap();
        assert_eq!(sys::text(lab.at("f")), seen, "{arguments:?}");
        lab.umount();
        // The end of the test expects the layer as it was.
        sys::overwrite(&real, 0, b"old").unwrap();
        sys::utimens(&real, before.atime, before.mtime).unwrap();
    }
}

/// Flags of chattr(1) stay with the object that has them; kernel overlayfs keeps two of them.
#[test]
fn file_flags_are_not_copied_up() {
    const NODUMP: u32 = 0x40;
    ours(&["f f text"], |lab| {
        let real = sys::open(lab.lower_dir(0).join("f"), libc::O_RDONLY, 0).unwrap();
        if sys::set_flags(&real, NODUMP).is_err() {
            eprintln!("this filesystem has no flags");
            return;
        }
        let fd = sys::open(lab.at("f"), libc::O_RDWR, 0).unwrap();
        assert_eq!(sys::get_flags(&fd).unwrap() & NODUMP, NODUMP);
        sys::pwrite(&fd, 0, b"T").unwrap();
        assert_eq!(sys::get_flags(&fd).unwrap() & NODUMP, 0);
    });
}

/// A write error of write-through comes from write(2) itself.
#[test]
fn a_full_upper_refuses_the_write() {
    let scratch = crate::kit::Scratch::new();
    let small = scratch.path().join("small");
    sys::mkdir(&small, 0o755).unwrap();
    let size = std::ffi::OsStr::new("size=1m");
    sys::mount("tmpfs", &small, "tmpfs", 0, size).unwrap();
    let outcome = std::panic::catch_unwind(|| {
        for (arguments, at_write) in [(&[][..], true), (&["--writeback"], false)] {
            let subject = Subject::with(arguments);
            if subject.is_ours() {
                fill(&small, &subject, at_write);
            }
        }
    });
    sys::umount(&small, 0).unwrap();
    outcome.unwrap();
}

fn fill(small: &std::path::Path, subject: &Subject, at_write: bool) {
    let dirs = ["lower", "upper", "work", "mnt"].map(|name| small.join(name));
    for dir in &dirs {
        sys::mkdir(dir, 0o755).unwrap();
    }
    let [lower, upper, work, mnt] = &dirs;
    let layers = crate::kit::Layers {
        lowers: std::slice::from_ref(lower),
        upper: Some((upper, work)),
        mnt,
    };
    subject.mount(&layers).unwrap();
    let outcome = std::panic::catch_unwind(|| {
        let flags = libc::O_CREAT | libc::O_WRONLY;
        let fd = sys::open(mnt.join("f"), flags, 0o600).unwrap();
        let block = vec![1; 64 << 10];
        let written = (0..32).try_for_each(|n| {
            let at = n * block.len() as u64;
            sys::pwrite(&fd, at, &block).map(|len| assert!(at_write || len == block.len()))
        });
        if at_write {
            assert_eq!(written, Err(crate::kit::Errno(libc::ENOSPC)));
        } else {
            written.unwrap();
            fails!(sys::fsync(&fd), ENOSPC);
        }
    });
    subject.umount(mnt, &[]).unwrap();
    for dir in &dirs {
        std::fs::remove_dir_all(dir).unwrap();
    }
    outcome.unwrap();
}

/// No lock is ever passed on.
#[test]
fn locks_are_the_kernels() {
    ours(&["f f text"], |lab| {
        let fd = sys::open(lab.at("f"), libc::O_RDWR, 0).unwrap();
        let other = sys::open(lab.at("f"), libc::O_RDWR, 0).unwrap();
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(&fd, exclusive).unwrap();
        assert!(rustix::fs::flock(&other, exclusive).is_err());
        assert!(!sys::exists(lab.in_upper("f")));
    });
}
