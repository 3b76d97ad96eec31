//! Metadata-only copies (the kernel's metacopy): whose data is read, when it is copied, and that each
//! side understands what the other has written.

use std::path::Path;

use crate::kit::{Errno, Lab, Layers, Scratch, Subject, capability, plant, sys};
use crate::snapshot;

/// The kernel's overlayfs, writing such copies.
fn kernel() -> Subject {
    Subject::KernelWith("metacopy=on,redirect_dir=on,index=on,xino=on".to_owned())
}

/// The same where there is no upper.
fn kernel_read_only() -> Subject {
    Subject::KernelWith("metacopy=on,redirect_dir=on".to_owned())
}

fn ours() -> Subject {
    Subject::ours(&["--metacopy", "on"])
}

fn is_metacopy(path: impl AsRef<Path>) -> bool {
    sys::getxattr(path, "trusted.overlay.metacopy").is_ok()
}

/// Whether the tests are about this program at all.
fn skip() -> bool {
    !Subject::default().is_ours()
}

/// Asserts that the kernel and we show the same tree on these layers, and returns to ours.
#[track_caller]
fn same_on_both(lab: &mut Lab, kernel: &Subject, ours: &Subject) {
    lab.remount_as(kernel);
    let reading = |lab: &Lab| {
        let look = crate::Look {
            dir_mtime: true,
            skip_ghosts: true,
            ..crate::Look::default()
        };
        lab.read(look).snapshot
    };
    let theirs = reading(lab);
    lab.remount_as(ours);
    snapshot::assert_same("the kernel (<) and ours (>)", &theirs, &reading(lab));
}

const FILES: &str = "f d/plain mode=0640 pattern=300000 user.a=1\nf d/other text\nf big size=5000000 at=0:x at=4000000:y";

#[test]
fn what_the_kernel_leaves_is_read_and_completed() {
    if skip() {
        return;
    }
    let lower = format!("{FILES}\nf linked together\nh linked2 linked\nf gone gone");
    let mut lab = Lab::new().lower(&lower).upper("").mount_as(&kernel());
    sys::chmod(lab.at("d/plain"), 0o600).unwrap();
    sys::lchown(lab.at("big"), 7, 8).unwrap();
    sys::chmod(lab.at("linked2"), 0o600).unwrap();
    sys::chmod(lab.at("d/other"), 0o600).unwrap();
    sys::rename(lab.at("d/other"), lab.at("d/moved")).unwrap();
    sys::rename(lab.at("d/moved"), lab.at("moved")).unwrap();
    sys::rename(lab.at("linked"), lab.at("d/linked")).unwrap();
    for name in ["d/plain", "big", "linked2", "moved", "d/linked"] {
        assert!(is_metacopy(lab.in_upper(name)), "{name}");
    }
    for ours in [Subject::default(), ours()] {
        same_on_both(&mut lab, &kernel(), &ours);
        assert_eq!(sys::text(lab.at("moved")), "text");
        assert_eq!(sys::text(lab.at("linked2")), "together");
    }
    // A change of the data brings it, through any name.
    sys::append(lab.at("d/plain"), b"more").unwrap();
    sys::overwrite(lab.at("d/linked"), 0, b"TO").unwrap();
    sys::truncate(lab.at("big"), 4_000_001).unwrap();
    sys::append(lab.at("moved"), b"!").unwrap();
    for name in ["d/plain", "big", "linked2", "moved", "d/linked"] {
        assert!(!is_metacopy(lab.in_upper(name)), "{name}");
    }
    assert_eq!(sys::text(lab.at("linked2")), "TOgether");
    assert_eq!(sys::text(lab.at("moved")), "text!");
    assert_eq!(sys::get(lab.at("big")).unwrap().last(), Some(&b'y'));
    same_on_both(&mut lab, &kernel(), &ours());
}

/// Constant time: nothing of ten gibibytes is copied. (Not a lab, which reads whole layers.)
#[test]
fn a_change_of_attributes_copies_no_data() {
    if skip() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = ["lower", "upper", "work", "mnt"].map(|name| scratch.path().join(name));
    let [lower, upper, work, mnt] = &dirs;
    let ten_gib = 10_u64 << 30;
    plant(
        lower,
        &format!("f f size={ten_gib} at=5000000000:data\nf g size={ten_gib}\nf h size={ten_gib}"),
    );
    for dir in [upper, work, mnt] {
        sys::mkdir(dir, 0o755).unwrap();
    }
    let layers = Layers {
        lowers: std::slice::from_ref(lower),
        upper: Some((upper, work)),
        mnt,
    };
    let read = || {
        let fd = sys::open(mnt.join("f"), libc::O_RDONLY, 0).unwrap();
        assert_eq!(sys::pread(&fd, 5_000_000_000, 4).unwrap(), b"data");
        let data = sys::lseek(&fd, 0, libc::SEEK_DATA).unwrap();
        assert!((1..=5_000_000_000).contains(&data), "{data}");
    };
    for (first, subject) in [(true, ours()), (false, ours()), (false, kernel())] {
        subject.mount(&layers).unwrap();
        let outcome = std::panic::catch_unwind(|| {
            if first {
                change_attributes(lower, upper, mnt);
            }
            read();
        });
        subject.umount(mnt, &[]).unwrap();
        outcome.unwrap();
    }
}

fn change_attributes(lower: &Path, upper: &Path, mnt: &Path) {
    let ten_gib = 10_u64 << 30;
    sys::chmod(mnt.join("h"), 0o600).unwrap(); // whatever the first change of all takes
    let f = mnt.join("f");
    let start = std::time::Instant::now();
    sys::chmod(&f, 0o600).unwrap();
    let took = start.elapsed();
    println!("the first chmod of 10 GiB: {took:?}");
    assert!(took < std::time::Duration::from_millis(100), "{took:?}");
    sys::lchown(&f, 5, 6).unwrap();
    sys::setxattr(&f, "user.a", b"1", 0).unwrap();
    sys::set_mtime(&f, (5, 5)).unwrap();
    sys::link(mnt.join("g"), mnt.join("linked")).unwrap();
    sys::rename(mnt.join("g"), mnt.join("renamed")).unwrap();
    for name in ["f", "linked", "renamed"] {
        let real = sys::lstat(upper.join(name)).unwrap();
        assert!(real.blocks <= 16 && is_metacopy(upper.join(name)), "{name}");
        assert_eq!(sys::lstat(mnt.join(name)).unwrap().size, ten_gib);
    }
    let shown = sys::lstat(&f).unwrap();
    let blocks = sys::lstat(lower.join("f")).unwrap().blocks;
    assert_eq!((shown.blocks, shown.perm(), shown.uid), (blocks, 0o600, 5));
}

#[test]
fn data_follows_with_the_first_change_of_it() {
    if skip() {
        return;
    }
    type Change = fn(&Path) -> Result<(), Errno>;
    let changes: [(&str, Change, Vec<u8>); 6] = [
        ("write", |f| sys::overwrite(f, 1, b"X"), b"tXxt".to_vec()),
        ("append", |f| sys::append(f, b"!"), b"text!".to_vec()),
        ("cut", |f| sys::truncate(f, 2), b"te".to_vec()),
        ("empty", |f| sys::truncate(f, 0), b"".to_vec()),
        ("lengthen", |f| sys::truncate(f, 6), b"text\0\0".to_vec()),
        (
            "fallocate",
            |f| {
                let fd = sys::open(f, libc::O_RDWR, 0)?;
                let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                sys::fallocate(&fd, punch, 0, 1)
            },
            b"\0ext".to_vec(),
        ),
    ];
    for (what, change, want) in changes {
        for again in [false, true] {
            let mut lab = Lab::new()
                .lower("f f text\nh g f")
                .upper("")
                .mount_as(&ours());
            sys::setxattr(lab.at("f"), "user.a", b"1", 0).unwrap();
            assert!(is_metacopy(lab.in_upper("f")), "{what}");
            if again {
                lab.remount(); // it is found, not made
            }
            let reader = sys::open(lab.at("g"), libc::O_RDONLY, 0).unwrap();
            assert_eq!(sys::pread(&reader, 0, 10).unwrap(), b"text");
            change(&lab.at("f")).unwrap();
            drop(reader);
            for _ in 0..2 {
                assert_eq!(sys::get(lab.at("f")).unwrap(), want, "{what}");
                assert_eq!(sys::get(lab.at("g")).unwrap(), want, "{what}");
                assert!(!is_metacopy(lab.in_upper("f")), "{what}");
                assert_eq!(sys::getxattr(lab.at("g"), "user.a").unwrap(), b"1");
                if lab.subject().is_ours() {
                    lab.remount_as(&kernel());
                }
            }
        }
    }
}

#[test]
fn what_we_leave_the_kernel_reads_and_completes() {
    if skip() {
        return;
    }
    let lower =
        format!("{FILES}\nf linked together\nh linked2 linked\nf e/x x\nf swap1 one\nf swap2 two");
    let mut lab = Lab::new().lower(&lower).upper("").mount_as(&ours());
    sys::chmod(lab.at("d/plain"), 0o600).unwrap();
    sys::lchown(lab.at("big"), 7, 8).unwrap();
    sys::chmod(lab.at("linked2"), 0o600).unwrap();
    sys::rename(lab.at("d/other"), lab.at("d/moved")).unwrap();
    sys::rename(lab.at("d/moved"), lab.at("moved")).unwrap();
    sys::rename(lab.at("linked"), lab.at("d/linked")).unwrap();
    sys::link(lab.at("e/x"), lab.at("x")).unwrap();
    sys::unlink(lab.at("e/x")).unwrap();
    sys::rename2(lab.at("swap1"), lab.at("swap2"), libc::RENAME_EXCHANGE).unwrap();
    let names = [
        "d/plain", "big", "linked2", "moved", "d/linked", "x", "swap1", "swap2",
    ];
    for name in names {
        assert!(is_metacopy(lab.in_upper(name)), "{name}");
    }
    same_on_both(&mut lab, &kernel(), &ours());
    assert_eq!(sys::text(lab.at("swap1")), "two");
    assert_eq!(sys::text(lab.at("x")), "x");
    lab.remount_as(&kernel());
    for name in names {
        sys::append(lab.at(name), b"!").unwrap();
    }
    same_on_both(&mut lab, &kernel(), &ours());
    for name in names {
        assert!(!is_metacopy(lab.in_upper(name)), "{name}");
    }
}

/// A copy of a copy of a copy; redirects of both kinds on the way.
#[test]
fn chains_go_down_layer_by_layer() {
    if skip() {
        return;
    }
    let (top, middle, bottom) = (
        "f f size=4 mode=0600 trusted.overlay.metacopy=\n\
         f r size=4 trusted.overlay.metacopy= trusted.overlay.redirect=s\n\
         f dir/a size=4 trusted.overlay.metacopy= trusted.overlay.redirect=/elsewhere/b",
        "f f size=4 mode=0640 trusted.overlay.metacopy=\n\
         f s size=4 trusted.overlay.metacopy= trusted.overlay.redirect=/deep/er/t\n\
         f elsewhere/b size=4 trusted.overlay.metacopy= trusted.overlay.redirect=c",
        "f f text\nf deep/er/t true\nf elsewhere/c yeah\nf elsewhere/b none\nf r none\nf s none",
    );
    let lab = Lab::new().lower(top).lower(middle).lower(bottom);
    let mut lab = lab.upper("").mount_as(&kernel());
    same_on_both(&mut lab, &kernel(), &ours());
    for (name, want) in [("f", "text"), ("r", "true"), ("dir/a", "yeah")] {
        assert_eq!(sys::text(lab.at(name)), want, "{name}");
    }
    // And one more on top of each; then the data.
    for name in ["f", "r", "dir/a"] {
        sys::chmod(lab.at(name), 0o604).unwrap();
        assert!(is_metacopy(lab.in_upper(name)), "{name}");
    }
    same_on_both(&mut lab, &kernel(), &ours());
    for (name, want) in [("f", "text!"), ("r", "true!"), ("dir/a", "yeah!")] {
        sys::append(lab.at(name), b"!").unwrap();
        assert_eq!(sys::text(lab.at(name)), want, "{name}");
    }
}

/// Names of a data-only layer are reached by an absolute redirect alone, and never shown.
#[test]
fn data_only_layers() {
    if skip() {
        return;
    }
    let lower = "f a size=4 trusted.overlay.metacopy= trusted.overlay.redirect=/blobs/1\n\
                 f d/b size=4 trusted.overlay.metacopy= trusted.overlay.redirect=/blobs/2\n\
                 f top size=4 trusted.overlay.metacopy= trusted.overlay.redirect=/zero/0";
    let lab = Lab::new().lower(lower).lower("f zero/0 zero");
    let lab = lab
        .data("f blobs/1 one.\nf hidden x")
        .data("f blobs/1 none\nf blobs/2 two.");
    let mut lab = lab.mount_as(&kernel_read_only());
    same_on_both(&mut lab, &kernel_read_only(), &Subject::default());
    for (name, want) in [("a", "one."), ("d/b", "two."), ("top", "zero")] {
        assert_eq!(sys::text(lab.at(name)), want, "{name}");
    }
    lab.expect_paths("a d d/b top zero zero/0");
    // Through an upper copy too.
    lab.umount();
    lab = lab.upper("");
    lab.remount_as(&ours());
    sys::chmod(lab.at("a"), 0o640).unwrap();
    sys::rename(lab.at("d/b"), lab.at("c")).unwrap();
    assert!(is_metacopy(lab.in_upper("a")) && is_metacopy(lab.in_upper("c")));
    same_on_both(&mut lab, &kernel(), &ours());
    sys::append(lab.at("c"), b"!").unwrap();
    assert_eq!(sys::text(lab.at("c")), "two.!");
}

/// An error, never zeros and never another file; what is there can still be looked at.
#[test]
fn missing_data_is_an_error() {
    if skip() {
        return;
    }
    let top = "f none size=4 trusted.overlay.metacopy=\n\
               f dir size=4 trusted.overlay.metacopy=\n\
               f link size=4 trusted.overlay.metacopy=\n\
               f deleted size=4 trusted.overlay.metacopy=\n\
               f short size=40 trusted.overlay.metacopy=\n\
               f broken size=4 trusted.overlay.metacopy=x\n\
               f up size=4 trusted.overlay.metacopy= trusted.overlay.redirect=/../../etc/passwd\n\
               f slash size=4 trusted.overlay.metacopy= trusted.overlay.redirect=a/b\n\
               f through size=4 trusted.overlay.metacopy= trusted.overlay.redirect=/link/passwd\n\
               f users size=4 user.overlay.metacopy=\n\
               f last size=4 trusted.overlay.metacopy=\n\
               w. wh\nf wh size=4 trusted.overlay.metacopy=";
    let middle = "w deleted";
    let bottom = "d dir\nl link /etc\nf deleted text\nf short text\nf broken text\nf users text\n\
                  f last size=4 trusted.overlay.metacopy=\nf wh text";
    let lab = Lab::new().lower(top).lower(middle).lower(bottom);
    let lab = lab.upper("").mount();
    for name in [
        "none", "dir", "link", "deleted", "short", "broken", "up", "slash", "through", "users",
        "last", "wh",
    ] {
        assert!(sys::lstat(lab.at(name)).unwrap().size >= 4, "{name}");
        assert_eq!(sys::get(lab.at(name)), Err(Errno(libc::EIO)), "{name}");
        fails!(sys::append(lab.at(name), b"x"), EIO);
        fails!(sys::chmod(lab.at(name), 0o600), EIO);
        fails!(sys::rename(lab.at(name), lab.at("new")), EIO);
        assert!(!sys::exists(lab.in_upper(name)), "{name}");
    }
    assert!(lab.ls("").contains(&"none".to_owned()));
    fails!(sys::truncate(lab.at("last"), 0), EIO);
    // What goes away needs no data.
    sys::unlink(lab.at("none")).unwrap();
}

/// In an upper too, where nothing is done to what cannot be followed.
#[test]
fn an_upper_copy_without_data_is_left_alone() {
    if skip() {
        return;
    }
    let lab = Lab::new().lower("f plain p");
    let lab = lab.upper("f copy size=7 trusted.overlay.metacopy=").mount();
    let look = crate::Look {
        dir_mtime: true,
        ..crate::Look::default()
    };
    let before = snapshot::read(&lab.upper_dir(), look).snapshot;
    let copy = lab.at("copy");
    for (what, result) in [
        ("read", sys::get(&copy).map(drop)),
        ("append", sys::append(&copy, b"x")),
        ("overwrite", sys::overwrite(&copy, 0, b"x")),
        ("truncate", sys::truncate(&copy, 3)),
        ("lengthen", sys::truncate(&copy, 30)),
    ] {
        assert_eq!(result, Err(Errno(libc::EIO)), "{what}");
        let after = snapshot::read(&lab.upper_dir(), look).snapshot;
        snapshot::assert_same(what, &before, &after);
    }
}

/// As the kernel with `userxattr`: such a marker is not followed, but into data-only layers.
#[test]
fn markers_that_any_user_can_write() {
    if skip() {
        return;
    }
    let below = "f b size=4 user.overlay.metacopy= user.overlay.redirect=/blob";
    let mut lab = Lab::new().lower(below).data("f blob data").mount();
    assert_eq!(sys::text(lab.at("b")), "data");
    lab.remount_as(&Subject::KernelWith("userxattr".to_owned()));
    assert_eq!(sys::text(lab.at("b")), "data");
    let lab = Lab::new().lower("f f size=4 user.overlay.metacopy=");
    let mut lab = lab.lower("f f text").mount();
    fails!(sys::get(lab.at("f")), EIO);
    lab.remount_as(&ours());
    assert_eq!(sys::text(lab.at("f")), "text");
}

/// This kernel may know no fs-verity: what can be said of data without it.
#[test]
fn digests_are_checked() {
    if skip() {
        return;
    }
    let digest = "\\x00\\x24\\x00\\x01".to_owned() + &"\\x07".repeat(32);
    let top = format!(
        "f with size=4 trusted.overlay.metacopy={digest}\nf without size=4 trusted.overlay.metacopy="
    );
    let lab = Lab::new()
        .lower(&top)
        .lower("f with text\nf without text\nf plain text");
    let mut lab = lab.upper("");
    for (mode, with, without) in [
        ("off", true, true),
        ("on", false, true),
        ("require", false, false),
    ] {
        lab = lab.mount_as(&Subject::ours(&["--verity", mode]));
        for (name, works) in [("with", with), ("without", without)] {
            let read = sys::get(lab.at(name));
            assert_eq!(
                read == Ok(b"text".to_vec()),
                works,
                "{mode} {name}: {read:?}"
            );
            assert!(works || read == Err(Errno(libc::EIO)), "{mode} {name}");
        }
        assert_eq!(sys::text(lab.at("plain")), "text");
        lab.umount();
    }
    // A copy of attributes would have no digest: the data comes along.
    lab = lab.mount_as(&Subject::ours(&["--verity", "require"]));
    sys::chmod(lab.at("plain"), 0o600).unwrap();
    assert!(!is_metacopy(lab.in_upper("plain")));
    assert_eq!(sys::text(lab.at("plain")), "text");
}

/// Writing takes capabilities, setuid and times away; bringing data must not.
#[test]
fn bringing_data_keeps_everything_else() {
    if skip() {
        return;
    }
    let lab = Lab::new().lower("f f mode=0755 pattern=200000").upper("");
    let lab = lab.mount_as(&ours());
    sys::chmod(lab.at("f"), 0o4755).unwrap();
    sys::setxattr(lab.at("f"), "security.capability", &capability(10), 0).unwrap();
    sys::set_mtime(lab.at("f"), (77, 7)).unwrap();
    let before = sys::lstat(lab.at("f")).unwrap();
    assert!(is_metacopy(lab.in_upper("f")));
    // Allocating beyond the end changes nothing that shows.
    let fd = sys::open(lab.at("f"), libc::O_RDWR, 0).unwrap();
    fails!(sys::fallocate(&fd, 0x77, 0, 1), EOPNOTSUPP);
    sys::truncate(lab.at("f"), 200_000).unwrap();
    assert!(!is_metacopy(lab.in_upper("f")));
    let after = sys::lstat(lab.at("f")).unwrap();
    assert_eq!((before.mode, before.size), (after.mode, after.size));
}

/// Readers see the whole file at any moment while its data is copied, and its times stand still.
#[test]
fn readers_while_data_is_brought() {
    if skip() {
        return;
    }
    let size: u64 = 48 << 20;
    let lab = Lab::new().lower(&format!("f f pattern={size}")).upper("");
    let lab = lab.mount_as(&Subject::ours(&["--metacopy", "on", "--timeout", "0"]));
    let want = sys::get(lab.lower_dir(0).join("f")).unwrap();
    sys::chmod(lab.at("f"), 0o600).unwrap();
    sys::set_mtime(lab.at("f"), (5, 5)).unwrap();
    assert!(is_metacopy(lab.in_upper("f")));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..3_u64 {
            let (lab, want, done) = (&lab, &want, &done);
            scope.spawn(move || {
                let fd = sys::open(lab.at("f"), libc::O_RDONLY, 0).unwrap();
                let mut at = n * 1_000_003;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    at = (at + 7_654_321) % (size - 70_000);
                    let got = sys::pread(&fd, at, 65536).unwrap();
                    assert!(got == want[at as usize..][..65536], "at {at}");
                    if is_metacopy(lab.in_upper("f")) {
                        let seen = sys::fstat(&fd).unwrap();
                        // Unless the write came between.
                        assert!(seen.mtime == (5, 5) || !is_metacopy(lab.in_upper("f")));
                    }
                }
            });
        }
        let fd = sys::open(lab.at("f"), libc::O_RDWR, 0).unwrap();
        sys::pwrite(&fd, size - 1, b"X").unwrap();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(!is_metacopy(lab.in_upper("f")));
    let mut want = want;
    *want.last_mut().unwrap() = b'X';
    assert!(sys::get(lab.at("f")).unwrap() == want);
}

/// Runs our program on a lab's layers.
fn run(arguments: &[&std::ffi::OsStr]) -> (bool, String, String) {
    let done = std::process::Command::new(crate::kit::program())
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.success(), text(done.stdout), text(done.stderr))
}

/// An upper of metadata-only copies of all kinds, changed by `subject`.
fn full_of_copies(subject: &Subject) -> (Lab, crate::kit::Snapshot) {
    let lower = format!("{FILES}\nf linked together\nh linked2 linked\nf e/x x\nf e/untouched u");
    let mut lab = Lab::new().lower(&lower).upper("").mount_as(subject);
    sys::chmod(lab.at("d/plain"), 0o600).unwrap();
    sys::set_mtime(lab.at("big"), (5, 5)).unwrap();
    sys::chmod(lab.at("linked2"), 0o600).unwrap();
    sys::rename(lab.at("linked"), lab.at("d/linked")).unwrap();
    sys::rename(lab.at("d/other"), lab.at("moved")).unwrap();
    sys::link(lab.at("e/x"), lab.at("x")).unwrap();
    sys::put(lab.at("new"), b"new").unwrap();
    let look = crate::Look {
        skip_ghosts: true,
        ..crate::Look::default()
    };
    let tree = lab.read(look).snapshot;
    lab.remount();
    (lab, tree)
}

/// The upper alone has the data of everything that was changed.
fn assert_stands_alone(lab: &Lab) {
    for (name, want) in [
        ("linked2", "together"),
        ("d/linked", "together"),
        ("moved", "text"),
        ("e/x", "x"),
        ("x", "x"),
        ("new", "new"),
    ] {
        assert_eq!(sys::text(lab.in_upper(name)), want, "{name}");
    }
    for name in ["d/plain", "big", "linked2", "d/linked", "moved", "e/x", "x"] {
        assert!(!is_metacopy(lab.in_upper(name)), "{name}");
        let redirect = sys::getxattr(lab.in_upper(name), "trusted.overlay.redirect");
        assert!(redirect.is_err(), "{name}");
    }
    assert!(!sys::exists(lab.in_upper("e/untouched")));
    let big = sys::lstat(lab.in_upper("big")).unwrap();
    assert_eq!((big.mtime, big.size), ((5, 5), 5_000_000));
    assert!(big.blocks * 512 < big.size, "holes stay holes");
}

#[test]
fn an_upper_is_completed_before_it_is_unmounted() {
    if skip() {
        return;
    }
    let (mut lab, before) = full_of_copies(&ours());
    // No further ones are made meanwhile, and what is open does not matter.
    let open = sys::open(lab.at("moved"), libc::O_RDONLY, 0).unwrap();
    let mnt = lab.mnt();
    let umount = [
        "umount".as_ref(),
        "--complete".as_ref(),
        "--json".as_ref(),
        mnt.as_os_str(),
    ];
    let (worked, _, stderr) = run(&umount);
    assert!(!worked && stderr.contains("busy"), "{stderr}");
    assert_stands_alone(&lab);
    sys::chmod(lab.at("e/untouched"), 0o600).unwrap();
    assert!(!is_metacopy(lab.in_upper("e/untouched")));
    sys::chmod(lab.at("e/untouched"), 0o644).unwrap();
    assert_eq!(sys::pread(&open, 0, 10).unwrap(), b"text");
    drop(open);
    let (worked, stdout, stderr) = run(&umount);
    assert!(worked, "{stderr}");
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&answer["done"], &answer["files"]),
        (&true.into(), &0.into())
    );
    lab.is_unmounted();
    sys::unlink(lab.in_upper("e/untouched")).unwrap();
    expect_kernel_sees(&mut lab, &before);
}

/// Asserts what kernel overlayfs shows of an upper that was completed.
fn expect_kernel_sees(lab: &mut Lab, wanted: &snapshot::Snapshot) {
    lab.remount_as(&kernel());
    let look = crate::Look {
        skip_ghosts: true,
        ..crate::Look::default()
    };
    snapshot::assert_same("before and after", wanted, &lab.read(look).snapshot);
}

/// As a tool, on what the kernel has left too.
#[test]
fn an_upper_that_is_not_mounted_is_completed() {
    if skip() {
        return;
    }
    for (subject, with_work) in [(ours(), true), (kernel(), false), (kernel(), true)] {
        let (mut lab, before) = full_of_copies(&subject);
        let (upper, work, lower) = (lab.upper_dir(), lab.work_dir(), lab.lower_dir(0));
        let mut command = vec![
            "complete".as_ref(),
            upper.as_os_str(),
            "--lower".as_ref(),
            lower.as_os_str(),
            "--json".as_ref(),
        ];
        if with_work {
            command.extend(["--work".as_ref(), work.as_os_str()]);
        }
        if subject.is_ours() {
            let (worked, _, stderr) = run(&command);
            assert!(!worked && stderr.contains("in use"), "{stderr}");
        }
        lab.umount();
        let (worked, stdout, stderr) = run(&command);
        assert!(worked, "{stderr}");
        let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        // Hard links are one file.
        assert_eq!(answer["files"], 5, "{stdout}");
        assert_stands_alone(&lab);
        let around = sys::names(upper.parent().unwrap());
        assert!(
            !around.iter().any(|name| name.starts_with(".unionmount")),
            "{around:?}"
        );
        expect_kernel_sees(&mut lab, &before);
    }
}

#[test]
fn what_cannot_be_completed_is_told() {
    if skip() {
        return;
    }
    let mut lab = Lab::new().lower("f f text");
    lab = lab
        .upper("f f size=4 trusted.overlay.metacopy=\nf d/lost size=4 trusted.overlay.metacopy=");
    lab = lab.mount();
    let mnt = lab.mnt();
    let (worked, stdout, stderr) =
        run(&["umount".as_ref(), "--complete".as_ref(), mnt.as_os_str()]);
    assert!(!worked && stdout.contains("1 metadata-only"), "{stdout}");
    assert!(
        stderr.contains("\"/d/lost\"") && stderr.contains("1 metadata-only"),
        "{stderr}"
    );
    assert!(sys::is_mounted(&mnt));
    assert_eq!(sys::text(lab.in_upper("f")), "text");
    lab.umount();
}
