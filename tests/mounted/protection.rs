//! Immutable and append-only objects (chattr +i, +a): what kernel overlayfs permits is permitted, and the
//! one keeps what the other has set.

use std::path::{Path, PathBuf};

use crate::kit::{Lab, Res, Subject, sys};

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;

fn flags(path: &Path) -> u32 {
    let fd = sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0).unwrap();
    sys::get_flags(&fd).unwrap() & (IMMUTABLE | APPEND)
}

fn protect(path: &Path, bits: u32) -> Res<()> {
    let fd = sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0)?;
    let rest = sys::get_flags(&fd)? & !(IMMUTABLE | APPEND);
    sys::set_flags(&fd, rest | bits)
}

/// A lab whose lower and upper lose their flags before they are removed.
struct Protected {
    lab: Lab,
}

impl Protected {
    fn new(subject: &Subject) -> Protected {
        let text =
            "f f a\nf g a\nd d\nf d/x x\nd di\nf di/y y\nd da\nf da/z z\nf im i\nf ap a\nf free f";
        let lab = Lab::new().lower(text).upper("f own o");
        let lower = lab.lower_dir(0);
        for (name, bits) in [
            ("di", IMMUTABLE),
            ("da", APPEND),
            ("im", IMMUTABLE),
            ("ap", APPEND),
        ] {
            protect(&lower.join(name), bits).unwrap();
        }
        let mut protected = Protected { lab };
        protected.lab.remount_as(subject);
        protected
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        self.lab.umount();
        for root in [self.lab.lower_dir(0), self.lab.upper_dir()] {
            for name in ["f", "g", "d", "di", "da", "im", "ap", "own"] {
                protect(&root.join(name), 0).ok(); // what is not there needs none
            }
        }
    }
}

/// What is tried: on files, then on directories.
fn attempts(at: impl Fn(&str) -> PathBuf) -> Vec<(String, Res<()>)> {
    let mut all = Vec::new();
    for name in ["f", "g", "im", "ap", "own", "free"] {
        let path = at(name);
        let mut note = |what: &str, result| all.push((format!("{what} {name}"), result));
        note("append", sys::append(&path, b"+"));
        note("overwrite", sys::overwrite(&path, 0, b"-"));
        note("truncate", sys::truncate(&path, 1));
        note("chmod", sys::chmod(&path, 0o640));
        note("chown", sys::lchown(&path, 3, 3));
        note("times", sys::utimens(&path, (900, 0), (1000, 0)));
        note(
            "set an attribute of",
            sys::setxattr(&path, "user.x", b"1", 0),
        );
        note("link", sys::link(&path, at("linked")));
        note("rename", sys::rename(&path, at("renamed")));
        sys::rename(at("renamed"), &path).ok();
        sys::unlink(at("linked")).ok();
        note("put something over", {
            sys::put(at("new"), b"n").unwrap();
            sys::rename(at("new"), at(name))
        });
        sys::unlink(at("new")).ok();
        note("unlink", sys::unlink(&path));
    }
    for (dir, child) in [("d", "x"), ("di", "y"), ("da", "z")] {
        let path = at(dir);
        let mut note = |what: &str, result| all.push((format!("{what} {dir}"), result));
        note("change a file in", sys::append(path.join(child), b"+"));
        note("create in", sys::put(path.join("new"), b"n"));
        note("make a directory in", sys::mkdir(path.join("sub"), 0o755));
        note("link into", sys::link(path.join(child), path.join("other")));
        note(
            "move within",
            sys::rename(path.join(child), path.join("moved")),
        );
        note("remove from", sys::unlink(path.join(child)));
        note("chmod", sys::chmod(&path, 0o750));
        note("rename", sys::rename(&path, at("renamed")));
    }
    all
}

/// What is refused, and why.
fn refusals(lab: &Lab) -> Vec<(String, Res<()>)> {
    let mut all = attempts(|name| lab.at(name));
    all.retain(|(_, result)| result.is_err());
    all
}

#[test]
fn the_flags_of_a_lower_forbid_what_they_do_in_the_kernel() {
    let [kernel, ours] = [Subject::Kernel, Subject::default()].map(|subject| {
        let protected = Protected::new(&subject);
        refusals(&protected.lab)
    });
    assert!(kernel.len() > 20, "{kernel:?}");
    assert_eq!(kernel, ours);
}

#[test]
fn flags_that_are_set_forbid_what_they_do_in_the_kernel() {
    let [kernel, ours] = [Subject::Kernel, Subject::default()].map(|subject| {
        let protected = Protected::new(&subject);
        let at = |name: &str| protected.lab.at(name);
        for (name, bits) in [
            ("f", IMMUTABLE),
            ("g", APPEND),
            ("d", IMMUTABLE),
            ("own", IMMUTABLE),
        ] {
            protect(&at(name), bits).unwrap();
            assert_eq!(flags(&at(name)), bits, "{subject:?}: {name}");
        }
        let refused = refusals(&protected.lab);
        for name in ["f", "g", "d", "own", "im", "di"] {
            protect(&at(name), 0).unwrap();
            assert_eq!(flags(&at(name)), 0, "{subject:?}: {name}");
        }
        (refused, refusals(&protected.lab))
    });
    assert_eq!(kernel, ours);
}

/// A copy keeps them, and the other of the two finds them.
#[test]
fn copies_keep_the_flags_for_both() {
    for subjects in [
        [Subject::Kernel, Subject::default()],
        [Subject::default(), Subject::Kernel],
        [Subject::default(), Subject::default()],
    ] {
        let [first, second] = &subjects;
        let mut protected = Protected::new(first);
        let lab = &mut protected.lab;
        protect(&lab.at("f"), IMMUTABLE).unwrap();
        protect(&lab.at("g"), APPEND).unwrap();
        protect(&lab.at("d"), IMMUTABLE).unwrap();
        sys::append(lab.at("ap"), b"+").unwrap();
        sys::append(lab.at("di/y"), b"+").unwrap();
        lab.remount_as(second);
        for (name, bits) in [
            ("f", IMMUTABLE),
            ("g", APPEND),
            ("d", IMMUTABLE),
            ("di", IMMUTABLE),
            ("im", IMMUTABLE),
            ("ap", APPEND),
            ("own", 0),
        ] {
            assert_eq!(flags(&lab.at(name)), bits, "{subjects:?}: {name}");
        }
        crate::fails!(sys::append(lab.at("f"), b"+"), EPERM);
        crate::fails!(sys::put(lab.at("di/new"), b"+"), EPERM);
        crate::fails!(sys::put(lab.at("d/new"), b"+"), EPERM);
        crate::fails!(sys::truncate(lab.at("ap"), 0), EPERM);
        sys::append(lab.at("ap"), b"+").unwrap();
        sys::append(lab.at("d/x"), b"+").unwrap();
        protect(&lab.at("f"), 0).unwrap();
        protect(&lab.at("di"), 0).unwrap();
        lab.remount_as(first);
        assert_eq!(sys::text(lab.at("ap")), "a++", "{subjects:?}");
        sys::append(lab.at("f"), b"+").unwrap();
        sys::put(lab.at("di/new"), b"+").unwrap();
    }
}
