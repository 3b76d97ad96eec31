//! Defects reproduced in fuse-overlayfs 2.0 (features.md section 6), in its numbering: whoever comes
//! from there must find none of them here. 14 (an upper without a workdir) is a matter of the command
//! line and tested there.

use crate::kit::{Lab, Subject, sys};
use crate::{for_all_users, ours};

#[test]
fn d01_copied_up_directories_keep_their_mode_on_disk() {
    ours(
        &["d a mode=0700\nf a/f x\nd b mode=03770\nf b/f x"],
        |lab| {
            for (dir, mode) in [("a", 0o700), ("b", 0o3770)] {
                sys::append(lab.at(dir).join("f"), b"+").unwrap();
                assert_eq!(sys::lstat(lab.at(dir)).unwrap().perm(), mode);
                assert_eq!(
                    sys::lstat(lab.in_upper(dir)).unwrap().perm(),
                    mode,
                    "{dir} on disk"
                );
            }
        },
    );
}

/// Started with one umask, used with others.
#[test]
fn d02_the_daemons_umask_does_not_matter() {
    for daemon in [0o022, 0o077, 0] {
        let lab = Lab::new().lower("d d mode=0777").upper("");
        let lab = sys::with_umask(daemon, move || lab.mount());
        for (umask, dir, file) in [(0o077, 0o700, 0o600), (0, 0o770, 0o666)] {
            let (d, f) = (lab.at(format!("d/d{umask}")), lab.at(format!("d/f{umask}")));
            sys::with_umask(umask, || {
                sys::mkdir(&d, 0o770).unwrap();
                drop(sys::open(&f, libc::O_CREAT | libc::O_WRONLY, 0o666).unwrap());
            });
            let modes = (
                sys::lstat(&d).unwrap().perm(),
                sys::lstat(&f).unwrap().perm(),
            );
            assert_eq!(modes, (dir, file), "daemon {daemon:o}, caller {umask:o}");
        }
    }
}

#[test]
fn d03_a_dot_wh_file_in_a_middle_layer_stops_the_merge() {
    ours(&["f d/top t", "w. d", "f d/low l"], |lab| {
        lab.expect_paths("d d/top")
    });
}

#[test]
fn d04_a_root_directory_made_anew_stays_empty() {
    ours(&["f d/old o"], |lab| {
        sys::remove_tree(lab.at("d")).unwrap();
        sys::mkdir(lab.at("d"), 0o700).unwrap();
        lab.remount();
        lab.expect_paths("d");
    });
}

#[test]
fn d05_stale_temporaries_do_not_leak_into_copies() {
    let lab = Lab::new().lower("f a text\nf b text\nf c text").upper("");
    for n in 0..20 {
        for name in [format!("{n}"), format!("#{n:x}")] {
            for dir in [lab.work_dir(), lab.work_dir().join("work")] {
                std::fs::create_dir_all(&dir).unwrap();
                sys::put(dir.join(&name), &[b'S'; 5000]).unwrap();
            }
        }
    }
    let lab = lab.mount();
    for name in ["a", "b", "c"] {
        sys::overwrite(lab.at(name), 0, b"T").unwrap();
        assert_eq!(sys::text(lab.at(name)), "Text");
    }
}

#[test]
fn d06_open_unlinked_files_work() {
    ours(&["f f text\nf g text"], |lab| {
        sys::link(lab.at("g"), lab.at("g2")).unwrap();
        for name in ["f", "g"] {
            let fd = sys::open(lab.at(name), libc::O_RDWR, 0).unwrap();
            sys::unlink(lab.at(name)).unwrap();
            assert_eq!(sys::fstat(&fd).unwrap().size, 4);
            sys::ftruncate(&fd, 2).unwrap();
            sys::fchmod(&fd, 0o600).unwrap();
            sys::fsetxattr(&fd, "user.x", b"1", 0).unwrap();
            assert_eq!(sys::get_fd(&fd).unwrap(), b"te");
        }
    });
}

/// Until overrides are read, such a layer must at least not show a whiteout as a device.
#[test]
fn d07_no_placeholder_becomes_a_whiteout() {
    let top = "d . user.containers.override_stat=0:0:755\n\
               f dev user.containers.override_stat=0:0:644:block-8-0 size=0";
    ours(&[top, "f dev low"], |lab| {
        let st = sys::lstat(lab.at("dev")).unwrap();
        assert_ne!((st.kind(), st.rdev), (libc::S_IFCHR, 0));
        assert_eq!(st.size, 0, "the lower file shines through");
    });
}

#[test]
fn d08_file_flags_are_no_io_error() {
    ours(&["f f x"], |lab| {
        let fd = sys::open(lab.at("f"), libc::O_RDONLY, 0).unwrap();
        for outcome in [sys::get_flags(&fd).map(drop), sys::set_flags(&fd, 0)] {
            assert_ne!(outcome, Err(crate::kit::Errno(libc::EIO)));
        }
    });
}

#[test]
fn d09_numbers_and_links_survive_a_remount() {
    ours(&["f a x\nh b a\nf c c"], |lab| {
        let ino = |name: &str| sys::lstat(lab.at(name)).unwrap().ino;
        assert_eq!(
            sys::lstat(lab.at("b")).unwrap().nlink,
            2,
            "before a is looked up"
        );
        let before = (ino("a"), ino("c"));
        sys::append(lab.at("a"), b"+").unwrap();
        sys::append(lab.at("c"), b"+").unwrap();
        lab.remount();
        let ino = |name: &str| sys::lstat(lab.at(name)).unwrap().ino;
        assert_eq!((ino("a"), ino("c")), before);
        assert_eq!(
            (ino("b"), sys::lstat(lab.at("b")).unwrap().nlink),
            (before.0, 2)
        );
    });
}

#[test]
fn d10_sigterm_leaves_no_dead_mount() {
    let mut lab = Lab::new().lower("f f x").upper("").mount();
    if lab.subject().is_kernel() {
        return;
    }
    let daemons = lab.daemons().to_vec();
    for &pid in &daemons {
        sys::kill(pid, libc::SIGTERM).unwrap();
    }
    crate::kit::wait_gone(&daemons, std::time::Duration::from_secs(10)).unwrap();
    assert!(!sys::is_mounted(lab.mnt()), "still mounted");
    lab.is_unmounted();
}

#[test]
fn d11_dot_wh_names_neither_vanish_nor_delete() {
    ours(&["f sibling s"], |lab| {
        for make in [0, 1, 2] {
            let at = lab.at(".wh.sibling");
            let made = match make {
                0 => sys::put(&at, b"x"),
                1 => sys::mkdir(&at, 0o700),
                _ => sys::symlink("x", &at),
            };
            lab.remount();
            assert_eq!(
                sys::text(lab.at("sibling")),
                "s",
                "deleted by its neighbour"
            );
            assert_eq!(
                sys::exists(&at),
                made.is_ok(),
                "made, and gone after a remount"
            );
            if made.is_ok() {
                sys::remove_tree(&at).unwrap();
            }
        }
    });
}

#[test]
fn d12_mknod_of_a_whiteout_is_refused() {
    ours(&["f f x"], |lab| {
        fails!(sys::mknod(lab.at("g"), libc::S_IFCHR | 0o600, 0), EPERM);
        fails!(sys::mknod(lab.at("f"), libc::S_IFCHR | 0o600, 0), EEXIST);
        sys::rename(lab.at("f"), lab.at("g")).unwrap();
        assert_eq!(sys::text(lab.at("g")), "x");
    });
}

#[test]
fn d13_one_upper_is_mounted_once() {
    let lab = Lab::new().lower("f f x").upper("").mount();
    let second = lab.aside("second");
    sys::mkdir(&second, 0o755).unwrap();
    let (upper, work) = (lab.upper_dir(), lab.work_dir());
    let layers = crate::kit::Layers {
        lowers: &[lab.lower_dir(0)],
        upper: Some((&upper, &work)),
        mnt: &second,
    };
    if Subject::default().mount(&layers).is_ok() {
        sys::umount(&second, libc::MNT_DETACH).unwrap();
        panic!("a second mount on the same upper was accepted");
    }
}

/// Followed or refused, never silently empty or zeros.
#[test]
fn d15_redirects_metacopies_and_xwhiteouts_are_not_ignored() {
    ours(&["wx gone", "f gone x"], |lab| lab.expect_paths(""));
    let redirected = Lab::new()
        .lower("d new trusted.overlay.redirect=/old\nw old")
        .lower("f old/f text")
        .upper("")
        .mount();
    if let Ok(names) = sys::list(redirected.at("new")) {
        assert_eq!(names.len(), 1, "shown empty of lower content");
    }
    let metacopied = Lab::new()
        .lower("f f size=4 trusted.overlay.metacopy=")
        .lower("f f text")
        .upper("")
        .mount();
    if let Ok(data) = sys::get(metacopied.at("f")) {
        assert_eq!(
            data, b"text",
            "the hole of the metadata copy was shown as data"
        );
    }
}

#[test]
fn d16_an_entry_beats_its_whiteout_in_one_layer() {
    ours(&["f f same\nw. f", "f f low"], |lab| {
        assert_eq!(sys::text(lab.at("f")), "same")
    });
}

#[test]
fn d17_mknod_keeps_private_modes() {
    ours(&["d d"], |lab| {
        for (n, kind) in [libc::S_IFIFO, libc::S_IFREG, libc::S_IFSOCK]
            .into_iter()
            .enumerate()
        {
            let name = format!("d/{n}");
            sys::mknod(lab.at(&name), kind | 0o600, 0).unwrap();
            assert_eq!(sys::lstat(lab.at(&name)).unwrap().perm(), 0o600);
            assert_eq!(
                sys::lstat(lab.in_upper(&name)).unwrap().perm(),
                0o600,
                "on disk"
            );
        }
    });
}

#[test]
fn d18_long_names_commas_and_whiteout_renames() {
    let long = "n".repeat(255);
    ours(&[&format!("f {long} x")], |lab| {
        sys::rename(lab.at(&long), lab.at("m".repeat(255))).unwrap();
        assert_eq!(sys::statvfs(lab.mnt()).unwrap().f_namemax, 255);
        let at = lab.at("m".repeat(255));
        fails!(
            sys::rename2(&at, lab.at("x"), libc::RENAME_WHITEOUT),
            EINVAL
        );
    });
}

/// Not numbered there, but of the same kind: a private file stays private at every step.
#[test]
fn files_of_others_stay_closed() {
    for_all_users(&["f f secret mode=0600"], |lab| {
        let f = lab.at("f");
        sys::append(&f, b"+").unwrap();
        sys::as_user(1000, 1000, || fails!(sys::get(&f), EACCES));
    });
}
