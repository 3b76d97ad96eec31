//! The three ways to write a deletion differ on disk only: the same operations, the same view.

use crate::kit::{Lab, Look, Res, Snapshot, Subject, snapshot, sys};

const LAYERS: [&str; 2] = [
    "f a 1a\nd b\nf b/a 1ba\nd b/c\nf b/c/d x\nl c t\nd d\nd e\nf e/a hard\nh e/b e/a\nw b/b",
    "f b/b 2bb\nf b/c/a 2bca\nd c/a\nf d/a 2da\nf d/b/c 2dbc\nd e/c\nf f 2f\nd g\nd h\nf h/a ha",
];
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const DIALECTS: [&str; 3] = ["chardev", "xattr", "file"];

#[derive(Clone, Debug)]
enum Step {
    Append(String),
    Truncate(String),
    Mkdir(String, u32),
    Unlink(String),
    Rmdir(String),
    RemoveTree(String),
    Rename(String, String),
    Exchange(String, String),
    RenameNoReplace(String, String),
    Link(String, String),
    Symlink(String),
    Chmod(String, u32),
}

fn path(random: &mut fastrand::Rng) -> String {
    let depth = [1, 1, 1, 2, 2, 3][random.usize(0..6)];
    let names: Vec<&str> = (0..depth).map(|_| NAMES[random.usize(0..8)]).collect();
    names.join("/")
}

fn step(random: &mut fastrand::Rng) -> Step {
    let (one, two) = (path(random), path(random));
    let mode = [0o700, 0o755, 0o555][random.usize(0..3)];
    match random.usize(0..18) {
        0 | 1 => Step::Append(one),
        2 => Step::Truncate(one),
        3..=5 => Step::Mkdir(one, mode),
        6 | 7 => Step::Unlink(one),
        8 => Step::Rmdir(one),
        9 => Step::RemoveTree(one),
        10..=12 => Step::Rename(one, two),
        13 => Step::Exchange(one, two),
        14 => Step::RenameNoReplace(one, two),
        15 => Step::Link(one, two),
        16 => Step::Symlink(one),
        _ => Step::Chmod(one, mode),
    }
}

fn apply(lab: &Lab, step: &Step) -> Res<()> {
    let rename = |one: &String, two: &String, flags| sys::rename2(lab.at(one), lab.at(two), flags);
    match step {
        Step::Append(p) => {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_NOFOLLOW;
            let fd = sys::open(lab.at(p), flags, 0o644)?;
            sys::write(&fd, b"+").map(drop)
        }
        Step::Truncate(p) => {
            let flags = libc::O_WRONLY | libc::O_TRUNC | libc::O_NOFOLLOW;
            sys::open(lab.at(p), flags, 0).map(drop)
        }
        Step::Mkdir(p, mode) => sys::mkdir(lab.at(p), *mode),
        Step::Unlink(p) => sys::unlink(lab.at(p)),
        Step::Rmdir(p) => sys::rmdir(lab.at(p)),
        Step::RemoveTree(p) => sys::remove_tree(lab.at(p)),
        Step::Rename(one, two) => rename(one, two, 0),
        Step::Exchange(one, two) => rename(one, two, libc::RENAME_EXCHANGE),
        Step::RenameNoReplace(one, two) => rename(one, two, libc::RENAME_NOREPLACE),
        Step::Link(one, two) => sys::link(lab.at(one), lab.at(two)),
        Step::Symlink(p) => sys::symlink("target", lab.at(p)),
        Step::Chmod(p, mode) => match sys::lstat(lab.at(p))?.kind() {
            libc::S_IFLNK => Ok(()),
            _ => sys::chmod(lab.at(p), *mode),
        },
    }
}

/// The tree without times.
#[track_caller]
fn view(lab: &Lab) -> Snapshot {
    let reading = lab.read(Look {
        since: Some(0),
        ..Look::default()
    });
    assert!(
        reading.faults.is_empty(),
        "{:?}: {:#?}",
        lab.subject(),
        reading.faults
    );
    reading.snapshot
}

fn mounted(lowers: &[&str], dialect: &str) -> Lab {
    let mut lab = Lab::new();
    for text in lowers {
        lab = lab.lower(text);
    }
    lab.upper("").mount_as(&Subject::ours(&[
        "--whiteout",
        dialect,
        "--redirect-dir",
        "on",
    ]))
}

/// Runs the steps in all three; they agree on each result, and on the tree every so often, before
/// and after a remount.
fn agree(lowers: &[&str], steps: &[Step], every: usize, seed: &str) {
    let mut labs = DIALECTS.map(|dialect| mounted(lowers, dialect));
    for (n, step) in steps.iter().enumerate() {
        let results = labs.each_ref().map(|lab| apply(lab, step));
        let said = format!("{seed}, step {n}: {step:?}: chardev, xattr, file: {results:?}");
        assert!(results.iter().all(|r| *r == results[0]), "{said}");
        if (n + 1) % every != 0 && n + 1 != steps.len() {
            continue;
        }
        let before = labs.each_ref().map(view);
        for lab in &mut labs {
            lab.remount();
        }
        let after = labs.each_ref().map(view);
        for (k, dialect) in DIALECTS.iter().enumerate() {
            let what = format!("{said}\nchardev (<) and {dialect} (>)");
            snapshot::assert_same(&what, &before[0], &before[k]);
            let what = format!("{said}\n{dialect} before and after a remount");
            snapshot::assert_same(&what, &before[k], &after[k]);
        }
    }
}

#[test]
fn random_operations_agree() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let steps: Vec<Step> = (0..250).map(|_| step(&mut random)).collect();
        agree(&LAYERS, &steps, 25, &format!("seed {seed}"));
    }
}

/// What reviews found wrong in one dialect or the other, one by one.
#[test]
fn directories_over_whiteouts_agree() {
    let p = str::to_owned;
    let remade = |name: &str| [Step::RemoveTree(p(name)), Step::Mkdir(p(name), 0o755)];
    let mut cases = vec![
        // An opaque directory twice renamed, over whiteouts and over emptied directories.
        vec![
            Step::RemoveTree(p("b")),
            Step::RemoveTree(p("d")),
            Step::Mkdir(p("new"), 0o755),
            Step::Append(p("new/x")),
            Step::Rename(p("new"), p("b")),
            Step::Rename(p("b"), p("d")),
            Step::Rename(p("d"), p("g")),
            Step::Rename(p("g"), p("other")),
        ],
        vec![
            Step::Unlink(p("h/a")),
            Step::Mkdir(p("new"), 0o755),
            Step::Append(p("new/x")),
            Step::Rename(p("new"), p("h")),
            Step::Unlink(p("h/x")),
            Step::Rmdir(p("h")),
        ],
        vec![
            Step::Rmdir(p("g")),
            Step::Mkdir(p("g"), 0o555),
            Step::Rmdir(p("g")),
            Step::Append(p("g")),
            Step::Unlink(p("g")),
        ],
        vec![
            Step::Rename(p("a"), p("f")),
            Step::Rename(p("e/a"), p("a")),
            Step::Exchange(p("a"), p("f")),
            Step::Link(p("a"), p("h/a")),
            Step::Unlink(p("h/a")),
            Step::Link(p("a"), p("h/a")),
        ],
    ];
    let mut exchange = remade("b").to_vec();
    exchange.extend(remade("d"));
    exchange.extend([
        Step::Append(p("b/in-b")),
        Step::Exchange(p("b"), p("d")),
        Step::Mkdir(p("new"), 0o700),
        Step::Exchange(p("new"), p("d")),
        Step::Exchange(p("new"), p("f")),
        Step::Unlink(p("new")),
        Step::RemoveTree(p("f")),
    ]);
    cases.push(exchange);
    for (n, steps) in cases.iter().enumerate() {
        agree(&LAYERS, steps, 1, &format!("case {n}"));
    }
}

/// A lower may hold what another dialect would read as a deletion.
#[test]
fn a_lower_directory_named_like_a_deletion_is_hidden() {
    for dialect in DIALECTS {
        let lab = mounted(
            &[
                "f .wh.foo/x x\nf foo f\nf .wh.bar\nf d/.wh.dir/x x",
                "f bar b",
            ],
            dialect,
        );
        lab.expect_paths("d foo");
        for name in [".wh.foo", ".wh.foo/x", "d/.wh.dir"] {
            fails!(sys::lstat(lab.at(name)), ENOENT);
        }
        sys::rmdir(lab.at("d")).unwrap();
        lab.expect_paths("foo");
    }
}

#[test]
fn no_call_makes_a_name_that_is_a_deletion() {
    let lab = mounted(&["f f text\nd d\nf gone g"], "file");
    sys::chmod(lab.at("d"), 0o700).unwrap();
    for name in [".wh.gone", "d/.wh.x", ".wh..wh..opq"] {
        let at = lab.at(name);
        let flags = libc::O_CREAT | libc::O_WRONLY;
        let attempts = [
            sys::open(&at, flags, 0o600).map(drop),
            sys::open(&at, flags | libc::O_EXCL, 0o600).map(drop),
            sys::mkdir(&at, 0o700),
            sys::mknod(&at, libc::S_IFIFO | 0o600, 0),
            sys::mknod(&at, libc::S_IFREG | 0o600, 0),
            sys::symlink("x", &at),
            sys::link(lab.at("f"), &at),
            sys::rename(lab.at("f"), &at),
            sys::rename2(lab.at("f"), &at, libc::RENAME_NOREPLACE),
        ];
        for (n, attempt) in attempts.iter().enumerate() {
            assert!(attempt.is_err(), "{name}: attempt {n} worked");
        }
        assert!(sys::rename2(lab.at("f"), &at, libc::RENAME_EXCHANGE).is_err());
        fails!(sys::lstat(&at), ENOENT);
    }
    lab.expect_paths("d f gone");
    for dir in ["", "d"] {
        let inside = sys::names(lab.in_upper(dir));
        assert!(
            inside.iter().all(|name| name == "d"),
            "the upper's /{dir}: {inside:?}"
        );
    }
}

/// Left by a crash, or by another program, beside the file that it would hide.
#[test]
fn a_leftover_deletion_beside_a_file_is_in_nobodys_way() {
    for mode in [0o644, 0] {
        let mut lab = mounted(&["f f low\nf d/f low\nf g low"], "file");
        for name in ["f", "d/f", "g"] {
            sys::append(lab.at(name), b"+up").unwrap();
        }
        lab.umount();
        for name in [".wh.f", "d/.wh.f", ".wh.g"] {
            sys::put(lab.in_upper(name), b"").unwrap();
            sys::chmod(lab.in_upper(name), mode).unwrap();
        }
        lab.remount();
        assert_eq!(sys::text(lab.at("f")), "low+up");
        sys::unlink(lab.at("f")).unwrap();
        sys::remove_tree(lab.at("d")).unwrap();
        sys::rename(lab.at("g"), lab.at("moved")).unwrap();
        lab.expect_paths("moved");
        lab.remount();
        lab.expect_paths("moved");
    }
}

/// Names with `.wh.` mean one thing or the other for the whole life of an upper.
#[test]
fn an_upper_keeps_the_meaning_of_its_names() {
    for (first, then) in [
        ("chardev", "file"),
        ("xattr", "file"),
        ("file", "chardev"),
        ("file", "xattr"),
    ] {
        let mut lab = mounted(&["f f text\nf g text"], first);
        sys::unlink(lab.at("f")).unwrap();
        lab.umount();
        let why = lab
            .try_mount_as(&Subject::ours(&["--whiteout", then]))
            .expect_err(&format!("{then} after {first} was accepted"));
        for word in ["exit status: 1", "whiteout", "use --whiteout"] {
            assert!(why.contains(word), "{then} after {first}: {why}");
        }
        lab.remount_as(&Subject::ours(&["--whiteout", "auto"]));
        lab.expect_paths("g");
        sys::unlink(lab.at("g")).unwrap();
        lab.remount_as(&Subject::ours(&["--whiteout", first]));
        lab.expect_paths("");
    }
}
