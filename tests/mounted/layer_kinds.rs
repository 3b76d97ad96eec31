//! Layers on filesystems of all kinds: what the union shows, and what comes of work in it, is what a
//! plain directory would show.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kit::{Lab, Mounts, Subject, must, plant, sys};
use crate::work::{self, BASE, Lacks, TOP};

const ALL: Lacks = Lacks {
    xattrs: false,
    links: false,
};

const NO_LINKS: Lacks = Lacks { links: true, ..ALL };

/// A union whose topmost lower is `top`, above a plain directory, with a plain upper.
fn union_over(top: &Path) -> Lab {
    Lab::new().lower_at(top).lower(BASE).upper("").mount()
}

#[track_caller]
fn check_lower(what: &str, top: &Path, lacks: Lacks, kernel_may: bool) {
    work::check(what, &mut union_over(top), lacks, kernel_may);
}

/// The topmost lower as a plain directory, to make an image of.
fn planted(mounts: &Mounts, lacks: Lacks) -> PathBuf {
    let at = mounts.path("planted");
    plant(&at, &work::top(lacks));
    at
}

#[test]
fn a_lower_on_tmpfs() {
    let mut mounts = Mounts::new();
    let top = mounts.mount(&["-t", "tmpfs"], "none", "top");
    plant(&top, TOP);
    check_lower("tmpfs", &top, ALL, true);
}

#[test]
fn a_lower_on_another_ext4() {
    let mut mounts = Mounts::new();
    let top = mounts.format(&["mkfs.ext4", "-q", "-F"], 32, "top");
    sys::rmdir(top.join("lost+found")).unwrap();
    plant(&top, TOP);
    check_lower("ext4", &top, ALL, true);
}

#[test]
fn a_lower_on_xfs() {
    let mut mounts = Mounts::new();
    let top = mounts.format(&["mkfs.xfs", "-q", "-f"], 320, "top");
    plant(&top, TOP);
    check_lower("xfs", &top, ALL, true);
}

#[test]
fn a_lower_on_btrfs() {
    let mut mounts = Mounts::new();
    let top = mounts.format(&["mkfs.btrfs", "-q", "-f"], 128, "top");
    plant(&top, TOP);
    check_lower("btrfs", &top, ALL, true);
}

#[test]
fn a_lower_on_squashfs() {
    let mut mounts = Mounts::new();
    let image = mounts.path("image");
    let tree = planted(&mounts, ALL);
    must(
        Command::new("mksquashfs")
            .arg(tree)
            .arg(&image)
            .args(["-quiet", "-no-progress"]),
    );
    let top = mounts.mount(&["-o", "loop,ro"], image, "top");
    check_lower("squashfs", &top, ALL, true);
}

#[test]
fn a_lower_on_erofs() {
    let mut mounts = Mounts::new();
    let image = mounts.path("image");
    must(
        Command::new("mkfs.erofs")
            .arg(&image)
            .arg(planted(&mounts, ALL)),
    );
    let top = mounts.mount(&["-o", "loop,ro"], image, "top");
    check_lower("erofs", &top, ALL, true);
}

/// A kernel overlay with `upper`, over nothing.
fn overlay(mounts: &mut Mounts, upper: &Path) -> PathBuf {
    let (none, work) = (mounts.dir("none"), mounts.dir("w"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        none.display(),
        upper.display(),
        work.display()
    );
    mounts.mount(&["-t", "overlay", "-o", &options], "overlay", "top")
}

#[test]
fn a_lower_that_is_a_kernel_overlay() {
    let mut mounts = Mounts::new();
    let tree = planted(&mounts, NO_LINKS);
    let top = overlay(&mut mounts, &tree);
    check_lower("overlay", &top, NO_LINKS, false);
}

#[test]
fn a_lower_that_is_another_union() {
    let mut below = Lab::new().lower("d merged\nf merged/gone x").upper(TOP);
    below = below.mount();
    sys::unlink(below.at("merged/gone")).unwrap();
    sys::set_mtime(below.at("merged"), (1001, 0)).unwrap();
    check_lower("union", &below.mnt(), ALL, false);
}

/// A FUSE filesystem without extended attributes and without file handles.
#[test]
fn a_lower_that_is_a_plain_fuse_filesystem() {
    let mut mounts = Mounts::new();
    let lacks = Lacks {
        xattrs: true,
        links: true,
    };
    let (tree, top) = (planted(&mounts, lacks), mounts.dir("top"));
    let words = ["bindfs", "--xattr-none", "-o", "dev,suid"];
    let mut words: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
    words.push(tree.as_ref());
    mounts.run(&words, &top);
    check_lower("bindfs", &top, lacks, false);
}

/// A kernel overlay without `nfs_export` has no file handles, so nothing on disk can tell that two
/// names were one file.
#[test]
fn links_come_apart_at_a_remount_where_there_are_no_file_handles() {
    let mut mounts = Mounts::new();
    let tree = mounts.path("tree");
    plant(&tree, "f a text\nh b a");
    let top = overlay(&mut mounts, &tree);
    let mut lab = Lab::new().lower_at(&top).upper("").mount();
    sys::append(lab.at("a"), b"+").unwrap();
    assert_eq!(sys::text(lab.at("b")), "text+");
    lab.remount();
    assert_eq!(sys::text(lab.at("a")), "text+");
    assert_eq!(sys::text(lab.at("b")), "text");
}

/// An image of squashfs that a FUSE program shows.
#[test]
fn a_lower_that_squashfuse_shows() {
    let mut mounts = Mounts::new();
    let (image, top) = (mounts.path("image"), mounts.dir("top"));
    // It numbers names, not files.
    let lacks = NO_LINKS;
    let tree = planted(&mounts, lacks);
    must(
        Command::new("mksquashfs")
            .arg(tree)
            .arg(&image)
            .args(["-quiet", "-no-progress"]),
    );
    let words: [&std::ffi::OsStr; 4] = [
        "squashfuse".as_ref(),
        "-o".as_ref(),
        "dev,suid,allow_other".as_ref(),
        image.as_ref(),
    ];
    mounts.run(&words, &top);
    check_lower("squashfuse", &top, lacks, false);
}

/// With all layers on the given filesystem.
#[track_caller]
fn check_upper(what: &str, parent: &Path) {
    let mut lab = Lab::within(parent).lower(TOP).lower(BASE).upper("").mount();
    work::check(what, &mut lab, ALL, true);
}

#[test]
fn all_layers_on_tmpfs() {
    let mut mounts = Mounts::new();
    let at = mounts.mount(&["-t", "tmpfs"], "none", "fs");
    check_upper("tmpfs", &at);
}

#[test]
fn all_layers_on_xfs() {
    let mut mounts = Mounts::new();
    let at = mounts.format(&["mkfs.xfs", "-q", "-f"], 320, "fs");
    check_upper("xfs", &at);
}

#[test]
fn all_layers_on_btrfs() {
    let mut mounts = Mounts::new();
    let at = mounts.format(&["mkfs.btrfs", "-q", "-f"], 128, "fs");
    check_upper("btrfs", &at);
}

/// A copy shares the blocks of the lower file: the filesystem gets no fuller.
#[test]
fn copies_share_blocks_where_the_filesystem_can() {
    for (mkfs, megabytes) in [
        (&["mkfs.xfs", "-q", "-f"][..], 320),
        (&["mkfs.btrfs", "-q", "-f"], 256),
    ] {
        let mut mounts = Mounts::new();
        let at = mounts.format(mkfs, megabytes, "fs");
        let lab = Lab::within(&at)
            .lower("f big pattern=50000000")
            .upper("")
            .mount();
        let free = || {
            must(Command::new("sync").arg("-f").arg(&at));
            let space = sys::statvfs(&at).unwrap();
            space.f_bfree * space.f_frsize
        };
        let before = free();
        sys::chmod(lab.at("big"), 0o600).unwrap();
        assert_eq!(sys::lstat(lab.in_upper("big")).unwrap().size, 50_000_000);
        let taken = before.saturating_sub(free());
        assert!(taken < 5_000_000, "{mkfs:?}: the copy took {taken} bytes");
        sys::overwrite(lab.at("big"), 0, b"mine").unwrap();
        let real = sys::get(lab.lower_dir(0).join("big")).unwrap();
        assert_ne!(&real[..4], b"mine", "the lower was written to");
    }
}

/// A mountpoint may cover layers: they were opened before.
#[test]
fn a_mountpoint_over_its_own_layers() {
    if !Subject::default().is_ours() {
        return;
    }
    // The upper itself, a directory in a lower, and the parent of all layers.
    for over in ["upper", "lower0/d", "."] {
        let lab = Lab::new().lower("f d/f text\nf g g").upper("");
        let (lower, upper, work) = (lab.lower_dir(0), lab.upper_dir(), lab.work_dir());
        let mnt = lab.aside(over);
        let layers = crate::kit::Layers {
            lowers: std::slice::from_ref(&lower),
            upper: Some((&upper, &work)),
            mnt: &mnt,
        };
        let subject = Subject::default();
        subject.mount(&layers).unwrap();
        let outcome = std::panic::catch_unwind(|| {
            assert_eq!(sys::names(&mnt), ["d", "g"], "{over}");
            sys::append(mnt.join("d/f"), b"+").unwrap();
            sys::unlink(mnt.join("g")).unwrap();
            sys::mkdir(mnt.join("new"), 0o755).unwrap();
            assert_eq!(sys::text(mnt.join("d/f")), "text+");
        });
        subject.umount(&mnt, &[]).unwrap();
        outcome.unwrap();
        assert_eq!(sys::text(lab.in_upper("d/f")), "text+", "{over}");
        assert_eq!(sys::text(lower.join("d/f")), "text", "{over}");
    }
}

/// As kernel overlayfs: the directory that a mount inside a lower covers is what shows.
#[test]
fn a_mount_inside_a_lower_is_not_shown() {
    for subject in Subject::and_kernel() {
        let mut mounts = Mounts::new();
        let lower = mounts.path("lower");
        plant(&lower, "f d/covered text\nf file under");
        let other = mounts.path("other");
        plant(&other, "f foreign x\nf file over");
        mounts.bind(&other, &lower.join("d"));
        mounts.bind(&other.join("file"), &lower.join("file"));
        let lab = Lab::new().lower_at(&lower).lower("f d/base b").upper("");
        let mut lab = lab.mount_as(&subject);
        lab.expect_paths("d d/base d/covered file");
        assert_eq!(sys::text(lab.at("file")), "under", "{subject:?}");
        sys::append(lab.at("d/covered"), b"+").unwrap();
        sys::append(lab.at("file"), b"+").unwrap();
        lab.remount();
        assert_eq!(sys::text(lab.at("d/covered")), "text+", "{subject:?}");
        assert_eq!(sys::text(lab.at("file")), "under+", "{subject:?}");
        assert_eq!(sys::names(&other), ["file", "foreign"]);
        assert_eq!(sys::text(other.join("file")), "over");
    }
}

/// In a user namespace a mount that came along from outside cannot be looked behind.
#[test]
fn a_mount_that_hides_part_of_a_lower() {
    if !Subject::default().is_ours() {
        return;
    }
    let mut mounts = Mounts::new();
    let (lower, other) = (mounts.path("lower"), mounts.path("other"));
    plant(&lower, "f d/covered text\nf file under\nf plain p");
    plant(&other, "f foreign x\nf file over");
    mounts.bind(&other, &lower.join("d"));
    mounts.bind(&other.join("file"), &lower.join("file"));
    for name in ["u", "w", "m"] {
        mounts.dir(name);
    }
    let script = "
        $U --lower lower --upper u --work w m
        test \"$(echo $(ls m))\" = 'd file plain'
        test -z \"$(ls m/d)\"
        ! cat m/file 2>/dev/null
        echo new >m/d/new
        test \"$(ls m/d)\" = new
        $U umount m";
    let mut command = Command::new("unshare");
    command
        .args(["-Urm", "sh", "-euc", script])
        .env("U", crate::kit::program())
        .current_dir(mounts.path("."));
    must(&mut command);
    assert_eq!(sys::names(&other), ["file", "foreign"]);
}

/// Says no and why, and mounts nothing.
#[track_caller]
fn refused(lower: &Path, upper: &Path, work: &Path, parts: &[&str]) {
    let lab = Lab::new();
    let (lowers, mnt) = ([lower.to_owned()], lab.mnt());
    let layers = crate::kit::Layers {
        lowers: &lowers,
        upper: Some((upper, work)),
        mnt: &mnt,
    };
    let subject = Subject::default();
    let said = match subject.mount(&layers) {
        Err(said) => said,
        Ok(()) => {
            subject.umount(&mnt, &[]).unwrap();
            panic!("an upper on {} was accepted", upper.display());
        }
    };
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn an_upper_on_squashfs_is_refused() {
    if !Subject::default().is_ours() {
        return;
    }
    let mut mounts = Mounts::new();
    let (image, tree) = (mounts.path("image"), mounts.path("tree"));
    plant(&tree, "d upper\nd work");
    must(
        Command::new("mksquashfs")
            .arg(tree)
            .arg(&image)
            .args(["-quiet", "-no-progress"]),
    );
    let at = mounts.mount(&["-o", "loop,ro"], image, "fs");
    let parts = ["upper", "read-only", "writable filesystem"];
    let lower = mounts.dir("lower");
    refused(&lower, &at.join("upper"), &at.join("work"), &parts);
}

/// What is written through one path would change a layer at another.
#[test]
fn layers_that_overlap_through_a_bind_mount_are_refused() {
    if !Subject::default().is_ours() {
        return;
    }
    let mut mounts = Mounts::new();
    let tree = mounts.path("tree");
    plant(&tree, "f lower/sub/f x\nd lower/w\nd other\nd u\nd w");
    let elsewhere = mounts.dir("elsewhere");
    mounts.bind(&tree.join("lower"), &elsewhere);
    let lower = tree.join("lower");
    let parts = ["upper", "is inside lower"];
    refused(&lower, &elsewhere.join("sub"), &elsewhere.join("w"), &parts);
    refused(&elsewhere, &lower.join("sub"), &lower.join("w"), &parts);
    // A sub-directory alone, so that no path leads from one to the other.
    let sub = mounts.dir("sub");
    mounts.bind(&lower.join("sub"), &sub);
    let lab = Lab::new().lower_at(&sub).lower_at(&lower);
    let (lowers, mnt) = ([lab.lower_dir(0), lab.lower_dir(1)], lab.mnt());
    let layers = crate::kit::Layers {
        lowers: &lowers,
        upper: None,
        mnt: &mnt,
    };
    let said = Subject::default().mount(&layers).unwrap_err();
    assert!(said.contains("bind mount"), "{said}");
}

/// fuse2fs knows no flags of rename: directories cannot change places with whiteouts, so deletions are
/// `.wh.` files there, and other forms are refused at once.
#[test]
fn an_upper_that_cannot_exchange_names() {
    if !Subject::default().is_ours() {
        return;
    }
    let mut mounts = Mounts::new();
    let (image, fs) = (mounts.path("image"), mounts.dir("fs"));
    sys::put(&image, b"").unwrap();
    sys::truncate(&image, 32 << 20).unwrap();
    must(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let words: [&std::ffi::OsStr; 3] = ["fuse2fs".as_ref(), image.as_ref(), fs.as_ref()];
    mounts.run_words(&words, &fs);
    for name in ["upper", "work"] {
        sys::mkdir(fs.join(name), 0o755).unwrap();
    }
    let (upper, work) = (fs.join("upper"), fs.join("work"));
    let lab = Lab::new().lower("f d/f text\nf e/g g\nf gone g");
    let (lower, mnt) = (lab.lower_dir(0), lab.mnt());
    let layers = crate::kit::Layers {
        lowers: std::slice::from_ref(&lower),
        upper: Some((&upper, &work)),
        mnt: &mnt,
    };
    let said = Subject::ours(&["--whiteout", "xattr"])
        .mount(&layers)
        .unwrap_err();
    assert!(
        said.contains("exchanging two names") && said.contains("--whiteout file"),
        "{said}"
    );
    let subject = Subject::default();
    for round in 0..2 {
        subject.mount(&layers).unwrap();
        let outcome = std::panic::catch_unwind(|| {
            if round == 0 {
                sys::unlink(mnt.join("gone")).unwrap();
                sys::remove_tree(mnt.join("d")).unwrap();
                // fuse2fs gives a number away again while the object is still held: only once the kernel
                // has let go of it is the next directory another one. (A known limit.)
                std::thread::sleep(std::time::Duration::from_millis(300));
                sys::mkdir(mnt.join("d"), 0o755).unwrap();
                sys::unlink(mnt.join("e/g")).unwrap();
                sys::mkdir(mnt.join("new"), 0o755).unwrap();
                sys::put(mnt.join("new/f"), b"f").unwrap();
                // Over a directory that is empty in the view, and holds a deletion.
                sys::rename(mnt.join("new"), mnt.join("e")).unwrap();
            }
            assert_eq!(sys::names(&mnt), ["d", "e"]);
            assert_eq!(sys::names(mnt.join("d")), [""; 0]);
            assert_eq!(sys::names(mnt.join("e")), ["f"]);
        });
        subject.umount(&mnt, &[]).unwrap();
        outcome.unwrap();
    }
}
