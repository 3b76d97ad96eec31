//! renameat2 by table: every kind of object over every other with every flag, and names that are in
//! each other's way. Kernel overlayfs runs the same cases; each errno and the trees must be the same.

use std::path::{Path, PathBuf};

use crate::kit::{Errno, Lab, Subject, sys};
use crate::snapshot;

/// One kind of object: what the lower has of it, and what is done to it through the union before.
struct Kind {
    name: &'static str,
    /// Lines for the lower; `@` is the path of the object.
    lower: &'static str,
    made: fn(&Path),
}

fn nothing(_: &Path) {}

const KINDS: [Kind; 18] = [
    Kind {
        name: "missing",
        lower: "",
        made: nothing,
    },
    Kind {
        name: "lower file",
        lower: "f @ low",
        made: nothing,
    },
    Kind {
        name: "lower symlink",
        lower: "l @ target",
        made: nothing,
    },
    Kind {
        name: "lower fifo",
        lower: "p @",
        made: nothing,
    },
    Kind {
        name: "lower link",
        lower: "f @ low\nh @.2 @",
        made: nothing,
    },
    Kind {
        name: "lower directory",
        lower: "d @\nf @/in in",
        made: nothing,
    },
    Kind {
        name: "lower empty directory",
        lower: "d @",
        made: nothing,
    },
    Kind {
        name: "copied file",
        lower: "f @ low",
        made: |at| sys::append(at, b"!").unwrap(),
    },
    Kind {
        name: "merged directory",
        lower: "d @\nf @/in in",
        made: |at| sys::put(at.join("new"), b"new").unwrap(),
    },
    Kind {
        name: "emptied directory",
        lower: "d @\nf @/in in",
        made: |at| sys::unlink(at.join("in")).unwrap(),
    },
    Kind {
        name: "deleted file",
        lower: "f @ low",
        made: |at| sys::unlink(at).unwrap(),
    },
    Kind {
        name: "deleted directory",
        lower: "d @\nf @/in in",
        made: |at| sys::remove_tree(at).unwrap(),
    },
    Kind {
        name: "new file",
        lower: "",
        made: |at| sys::put(at, b"new").unwrap(),
    },
    Kind {
        name: "new symlink",
        lower: "",
        made: |at| sys::symlink("x", at).unwrap(),
    },
    Kind {
        name: "new empty directory",
        lower: "",
        made: |at| sys::mkdir(at, 0o755).unwrap(),
    },
    Kind {
        name: "new directory",
        lower: "",
        made: |at| {
            sys::mkdir(at, 0o755).unwrap();
            sys::put(at.join("new"), b"new").unwrap();
        },
    },
    Kind {
        name: "opaque directory",
        lower: "d @\nf @/in in",
        made: |at| {
            sys::remove_tree(at).unwrap();
            sys::mkdir(at, 0o755).unwrap();
            sys::put(at.join("new"), b"new").unwrap();
        },
    },
    Kind {
        name: "new file over a directory",
        lower: "d @\nf @/in in",
        made: |at| {
            sys::remove_tree(at).unwrap();
            sys::put(at, b"new").unwrap();
        },
    },
];

const FLAGS: [u32; 3] = [0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE];

/// Who is compared: both rename directories that have a part in a lower, or both do not.
type Pair = [Subject; 2];

fn with_redirects() -> Pair {
    [Subject::Kernel, Subject::with(&[])]
}

fn without_redirects() -> Pair {
    [
        Subject::KernelWithoutRedirects,
        Subject::with(&["--redirect-dir", "off"]),
    ]
}

struct Case<'a> {
    from: &'a Kind,
    to: &'a Kind,
    flags: u32,
}

impl Case<'_> {
    fn title(&self) -> String {
        format!(
            "{} to {} with flags {}",
            self.from.name, self.to.name, self.flags
        )
    }
}

fn cases(flags: &[u32]) -> Vec<Case<'_>> {
    let mut all = Vec::new();
    for from in &KINDS {
        for to in &KINDS {
            all.extend(flags.iter().map(|&flags| Case { from, to, flags }));
        }
    }
    all
}

/// Runs all cases, each in a directory of its own; `from` and `to` are the directories of the two
/// names in it.
fn compare(pair: Pair, flags: &[u32], [from, to]: [&str; 2]) {
    let cases = cases(flags);
    let at = |n: usize, dir: &str, name: &str| format!("c{n}/{dir}/{name}");
    let mut lower = String::new();
    for (n, case) in cases.iter().enumerate() {
        lower += &format!("d c{n}/{from}\nd c{n}/{to}\n");
        lower += &case.from.lower.replace('@', &at(n, from, "s"));
        lower += "\n";
        lower += &case.to.lower.replace('@', &at(n, to, "t"));
        lower += "\n";
    }
    let [kernel, ours] = pair.map(|subject| {
        let mut lab = Lab::new().lower(&lower).upper("").mount_as(&subject);
        let mut answers = Vec::new();
        for (n, case) in cases.iter().enumerate() {
            let [s, t] = [lab.at(at(n, from, "s")), lab.at(at(n, to, "t"))];
            (case.from.made)(&s);
            (case.to.made)(&t);
            answers.push(sys::rename2(&s, &t, case.flags));
        }
        let tree = lab.timeless_tree();
        if !subject.is_kernel() {
            lab.remount();
            snapshot::assert_same(
                "ours before and after a remount",
                &tree,
                &lab.timeless_tree(),
            );
            lab.remount_as(&Subject::Kernel);
            snapshot::assert_same(
                "ours and the kernel on our upper",
                &tree,
                &lab.timeless_tree(),
            );
        }
        (answers, tree)
    });
    let wrong: Vec<String> = cases
        .iter()
        .zip(kernel.0.iter().zip(&ours.0))
        .filter(|(_, (kernel, ours))| kernel != ours)
        .map(|(case, (kernel, ours))| format!("{}: kernel {kernel:?}, ours {ours:?}", case.title()))
        .collect();
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
    assert!(kernel.0.iter().any(Result::is_ok));
    snapshot::assert_same("kernel and ours", &kernel.1, &ours.1);
}

#[test]
fn every_kind_over_every_other_in_one_directory() {
    compare(with_redirects(), &FLAGS, ["d", "d"]);
}

#[test]
fn every_kind_over_every_other_across_directories() {
    compare(with_redirects(), &[0, libc::RENAME_EXCHANGE], ["a", "b"]);
}

#[test]
fn every_kind_over_every_other_without_redirects() {
    compare(without_redirects(), &FLAGS, ["a", "b"]);
}

/// Names that the rules of paths, of ancestors, of rights decide.
#[test]
fn names_in_each_others_way() {
    type Make = fn(&Lab) -> (PathBuf, PathBuf);
    let cases: [(&str, Make); 22] = [
        ("into itself", |l| (l.at("new"), l.at("new/sub/x"))),
        ("onto its child", |l| (l.at("new"), l.at("new/sub"))),
        ("child onto parent", |l| (l.at("new/sub"), l.at("new"))),
        ("grandchild onto ancestor", |l| {
            (l.at("new/sub/f"), l.at("new"))
        }),
        ("lower into itself", |l| (l.at("low"), l.at("low/d/x"))),
        ("lower child onto parent", |l| (l.at("low/d"), l.at("low"))),
        ("itself", |l| (l.at("new"), l.at("new"))),
        ("file itself", |l| (l.at("f"), l.at("f"))),
        ("dot", |l| (l.at("new/."), l.at("x"))),
        ("to dot", |l| (l.at("f"), l.at("new/."))),
        ("dot dot", |l| (l.at("new/sub/.."), l.at("x"))),
        ("root", |l| (l.mnt(), l.at("x"))),
        ("to root", |l| (l.at("new"), l.mnt())),
        ("file with slash", |l| (l.at("f/"), l.at("x"))),
        ("file to slash", |l| (l.at("f"), l.at("x/"))),
        ("directory to slash", |l| (l.at("new/sub"), l.at("x/"))),
        ("below a file", |l| (l.at("f"), l.at("low/g/x"))),
        ("below nothing", |l| (l.at("f"), l.at("none/x"))),
        ("long name", |l| (l.at("f"), l.at("y".repeat(256)))),
        ("other filesystem", |l| (l.at("f"), l.aside("x"))),
        ("mountpoint", |l| (l.at("mp"), l.at("x"))),
        ("onto mountpoint", |l| (l.at("new/sub"), l.at("mp"))),
    ];
    for (what, make) in cases {
        for flags in FLAGS {
            let [kernel, ours] = with_redirects().map(|subject| {
                let lab = Lab::new()
                    .lower("d low\nd low/d\nf low/g g\nf f f\nd mp\nd e")
                    .upper("")
                    .mount_as(&subject);
                sys::mkdir(lab.at("new"), 0o755).unwrap();
                sys::mkdir(lab.at("new/sub"), 0o755).unwrap();
                sys::put(lab.at("new/sub/f"), b"deep").unwrap();
                let mounted = what.contains("mountpoint");
                if mounted {
                    sys::mount("tmpfs", lab.at("mp"), "tmpfs", 0, "".as_ref()).unwrap();
                }
                let (from, to) = make(&lab);
                let answer = sys::rename2(&from, &to, flags);
                if mounted {
                    sys::umount(lab.at("mp"), 0).unwrap();
                }
                (answer, lab.timeless_tree())
            });
            assert_eq!(kernel.0, ours.0, "{what}, flags {flags}: kernel, ours");
            snapshot::assert_same(what, &kernel.1, &ours.1);
        }
    }
}

/// Rights: sticky directories, directories that cannot be written, a directory that would need a new
/// `..`, a union that is read-only.
#[test]
fn rights_to_rename() {
    let lower = "d sticky mode=01777\nf sticky/mine m uid=1000\nf sticky/theirs t uid=1001\n\
                 d closed mode=0755\nf closed/f f mode=0666\nd open mode=0777\nd mine mode=0755 uid=1000\n\
                 f mine/f f\nd open/d mode=0777 uid=1001";
    let pairs = [
        ("sticky/mine", "sticky/x"),
        ("sticky/theirs", "sticky/x"),
        ("sticky/mine", "sticky/theirs"),
        ("closed/f", "open/x"),
        ("mine/f", "closed/x"),
        ("mine/f", "closed/f"),
        ("mine/f", "open/x"),
        ("mine/none", "closed/x"),
        ("open/new", "mine/new"),
        ("open/foreign", "mine/new"),
    ];
    for (from, to) in pairs {
        for flags in FLAGS {
            let [kernel, ours] = with_redirects().map(|subject| {
                let lab = Lab::new().lower(lower).upper("").mount_as(&subject);
                let (new, foreign) = (lab.at("open/new"), lab.at("open/foreign"));
                sys::as_user(1000, 1000, || sys::mkdir(&new, 0o755).unwrap());
                sys::as_user(1001, 1001, || sys::mkdir(&foreign, 0o755).unwrap());
                let (from, to) = (lab.at(from), lab.at(to));
                let answer = sys::as_user(1000, 1000, || sys::rename2(&from, &to, flags));
                (answer, lab.timeless_tree())
            });
            let what = format!("{from} to {to}, flags {flags}");
            assert_eq!(kernel.0, ours.0, "{what}: kernel, ours");
            snapshot::assert_same(&what, &kernel.1, &ours.1);
        }
    }
    for subject in with_redirects() {
        let lab = Lab::new()
            .lower(lower)
            .lower("f other x")
            .mount_as(&subject);
        for (from, to) in [("closed/f", "x"), ("closed/f", "mine/f")] {
            fails!(sys::rename(lab.at(from), lab.at(to)), EROFS);
        }
        fails!(sys::rename(lab.at("none"), lab.at("x")), EROFS);
    }
}

/// What is in use moves, and stays what it was to its users.
#[test]
fn what_is_in_use_moves() {
    for subject in with_redirects() {
        let mut lab = Lab::new()
            .lower("f f low\nd low\nf low/x x\nf g g")
            .upper("")
            .mount_as(&subject);
        let open = sys::open(lab.at("f"), libc::O_RDWR, 0).unwrap();
        let over = sys::open(lab.at("g"), libc::O_RDONLY, 0).unwrap();
        sys::rename(lab.at("f"), lab.at("low/f")).unwrap();
        sys::rename(lab.at("low/f"), lab.at("g")).unwrap();
        sys::pwrite(&open, 0, b"LOW").unwrap();
        assert_eq!(sys::text(lab.at("g")), "LOW");
        assert_eq!(sys::get_fd(&over).unwrap(), b"g");
        sys::mkdir(lab.at("cwd"), 0o755).unwrap();
        sys::mkdir(lab.at("cwd/root"), 0o755).unwrap();
        sys::put(lab.at("cwd/root/in"), b"in").unwrap();
        // A shell in the directory, another one that has it as its root.
        let dir = sys::open(lab.at("cwd"), libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        let root = sys::open(lab.at("cwd/root"), libc::O_PATH, 0).unwrap();
        let inside = |fd: &std::os::fd::OwnedFd, name: &str| {
            use std::os::fd::AsRawFd;
            PathBuf::from(format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()))
        };
        let script = "until [ -e ../gate ]; do sleep 0.01; done; readlink /proc/$$/cwd; cat in";
        let child = std::process::Command::new("sh")
            .args(["-ec", script])
            .current_dir(lab.at("cwd/root"))
            .stdout(std::process::Stdio::piped())
            .spawn();
        let child = child.unwrap();
        sys::rename(lab.at("cwd"), lab.at("low/moved")).unwrap();
        sys::put(inside(&dir, "new"), b"new").unwrap();
        sys::put(inside(&root, "../second"), b"2").unwrap();
        sys::rename(lab.at("low/moved"), lab.at("back")).unwrap();
        sys::put(lab.at("back/gate"), b"").unwrap();
        let said = child.wait_with_output().unwrap();
        assert!(said.status.success());
        let where_it_is = lab.at("back/root").display().to_string();
        assert_eq!(
            String::from_utf8_lossy(&said.stdout),
            format!("{where_it_is}\nin")
        );
        assert_eq!(lab.ls("back"), ["gate", "new", "root", "second"]);
        drop((open, over, dir, root));
        lab.expect_same_after_remount();
    }
}

/// The root of a process is moved under it: what it sees is the same.
#[test]
fn the_root_of_a_process_moves() {
    for subject in with_redirects() {
        let lab = Lab::new().lower("d d").upper("").mount_as(&subject);
        sys::mkdir(lab.at("root"), 0o755).unwrap();
        sys::put(lab.at("root/in"), b"in").unwrap();
        let (root, old, new) = (lab.at("root"), lab.at("root"), lab.at("d/new"));
        std::thread::scope(|scope| {
            let (moved, is_moved) = std::sync::mpsc::channel::<()>();
            let (ready, is_ready) = std::sync::mpsc::channel::<()>();
            let inside = scope.spawn(move || {
                sys::in_root(&root, move || {
                    ready.send(()).unwrap();
                    is_moved.recv().unwrap();
                    sys::put("/made", b"made").unwrap();
                    (sys::text("/in"), sys::exists("/../new"))
                })
            });
            is_ready.recv().unwrap();
            sys::rename(&old, &new).unwrap();
            moved.send(()).unwrap();
            assert_eq!(inside.join().unwrap(), ("in".to_owned(), false));
        });
        assert_eq!(lab.ls("d/new"), ["in", "made"]);
    }
}

/// Flags that only filesystems of their own have, and those that exclude each other.
#[test]
fn other_flags_are_answered_as_the_kernel_does() {
    let (noreplace, exchange) = (libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE);
    let whiteout = libc::RENAME_WHITEOUT;
    let flags = [
        whiteout,
        whiteout | noreplace,
        whiteout | exchange,
        noreplace | exchange,
        1 << 3,
    ];
    let lower = "f a a\nf b b\nd d\nf d/x x\nf gone g";
    let [kernel, ours] = with_redirects().map(|subject| {
        let lab = Lab::new().lower(lower).upper("").mount_as(&subject);
        sys::unlink(lab.at("gone")).unwrap();
        let mut answers = Vec::new();
        for flags in flags {
            for from in ["a", "d", "gone", "none"] {
                for to in ["b", "d", "gone", "none"] {
                    let answer = sys::rename2(lab.at(from), lab.at(to), flags);
                    answers.push((flags, from, to, answer));
                }
            }
        }
        answers
    });
    assert_eq!(kernel, ours);
    assert_eq!(kernel[3].3, Err(Errno(libc::EINVAL)));
}
