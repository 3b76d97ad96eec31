//! Extended attributes by table: every call on every kind of object. Kernel overlayfs runs the same
//! on the same kind of upper, and must give the same answers.

use std::path::Path;

use crate::kit::Mounts;
use crate::kit::{Errno, Lab, Subject, acl, sys};

const LOWER: &str = "user.a=1 user.b=22 trusted.t=3";

/// What is done to an object before.
type Made = fn(&Path);

/// How objects come to be: what the lower has of them, and what is done to them before.
const KINDS: [(&str, &str, Made); 9] = [
    ("lower file", "f @ text ATTRS mode=0644", |_| {}),
    ("lower directory", "d @ ATTRS mode=0755", |_| {}),
    ("lower symlink", "l @ target trusted.t=3", |_| {}),
    ("lower fifo", "p @ trusted.t=3", |_| {}),
    ("lower device", "c @ 1:3 trusted.t=3", |_| {}),
    ("copied file", "f @ text ATTRS mode=0644", |at| {
        sys::append(at, b"!").unwrap()
    }),
    ("copied directory", "d @ ATTRS", |at| {
        sys::put(at.join("x"), b"").unwrap()
    }),
    ("new file", "", |at| {
        sys::put(at, b"").unwrap();
        sys::setxattr(at, "user.a", b"1", 0).unwrap();
    }),
    ("deleted file", "f @ text ATTRS", |at| {
        sys::unlink(at).unwrap()
    }),
];

type Answer = Result<Vec<u8>, Errno>;
type Call = fn(&Path) -> Answer;

fn done(result: Result<(), Errno>) -> Answer {
    result.map(|()| Vec::new())
}

fn size(result: Result<usize, Errno>) -> Answer {
    result.map(|size| size.to_le_bytes().to_vec())
}

fn set(at: &Path, name: &str, size: usize, flags: i32) -> Answer {
    done(sys::setxattr(at, name, &vec![b'v'; size], flags))?;
    sys::getxattr(at, name)
}

fn as_user<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    sys::as_user(1000, 1000, call)
}

const CREATE: i32 = libc::XATTR_CREATE;
const REPLACE: i32 = libc::XATTR_REPLACE;
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const READS: [(&str, Call); 19] = [
    ("get", |at| sys::getxattr(at, "user.a")),
    ("get trusted", |at| sys::getxattr(at, "trusted.t")),
    ("get missing user", |at| sys::getxattr(at, "user.none")),
    ("get missing trusted", |at| {
        sys::getxattr(at, "trusted.none")
    }),
    ("get missing security", |at| {
        sys::getxattr(at, "security.none")
    }),
    ("get system", |at| sys::getxattr(at, "system.none")),
    ("get no namespace", |at| sys::getxattr(at, "nonsense.x")),
    ("get namespace only", |at| sys::getxattr(at, "user.")),
    ("get no name", |at| sys::getxattr(at, "")),
    ("get long name", |at| {
        sys::getxattr(at, format!("user.{}", "x".repeat(251)))
    }),
    ("get marker", |at| {
        sys::getxattr(at, "trusted.overlay.origin")
    }),
    ("get size", |at| size(sys::getxattr_into(at, "user.b", 0))),
    ("get short", |at| size(sys::getxattr_into(at, "user.b", 1))),
    ("get exact", |at| size(sys::getxattr_into(at, "user.b", 2))),
    ("list in the size told", |at| {
        // The kernel counts what it does not show, too.
        let told = sys::listxattr_into(at, 0)?;
        size(sys::listxattr_into(at, told))
    }),
    ("list short", |at| size(sys::listxattr_into(at, 3))),
    ("get list", |at| sys::getxattr(at, ACCESS)),
    ("get default list", |at| sys::getxattr(at, DEFAULT)),
    ("list as user", |at| {
        as_user(|| sys::listxattr(at).map(|names| names.concat()))
    }),
];

const CHANGES: [(&str, Call); 34] = [
    ("set", |at| set(at, "user.x", 3, 0)),
    ("set empty", |at| set(at, "user.x", 0, 0)),
    ("set again", |at| set(at, "user.a", 3, 0)),
    ("create", |at| set(at, "user.x", 3, CREATE)),
    ("create again", |at| set(at, "user.a", 3, CREATE)),
    ("replace", |at| set(at, "user.a", 3, REPLACE)),
    ("replace missing", |at| set(at, "user.x", 3, REPLACE)),
    ("create and replace", |at| {
        set(at, "user.x", 3, CREATE | REPLACE)
    }),
    ("create and replace again", |at| {
        set(at, "user.a", 3, CREATE | REPLACE)
    }),
    ("unknown flag", |at| set(at, "user.x", 3, 8)),
    ("set trusted", |at| set(at, "trusted.x", 3, 0)),
    ("set trusted again", |at| set(at, "trusted.t", 3, CREATE)),
    ("set security", |at| set(at, "security.x", 3, 0)),
    ("set system", |at| set(at, "system.x", 3, 0)),
    ("set no namespace", |at| set(at, "nonsense.x", 3, 0)),
    ("set namespace only", |at| set(at, "user.", 3, 0)),
    ("set no name", |at| set(at, "", 3, 0)),
    ("set longest name", |at| {
        set(at, &format!("user.{}", "x".repeat(250)), 3, 0)
    }),
    ("set long name", |at| {
        set(at, &format!("user.{}", "x".repeat(251)), 3, 0)
    }),
    ("set 3 KiB", |at| set(at, "user.x", 3000, 0)),
    ("set 64 KiB", |at| set(at, "user.x", 65536, 0)),
    ("set more than 64 KiB", |at| set(at, "user.x", 65537, 0)),
    ("set capability", |at| set(at, "security.capability", 3, 0)),
    ("set list", |at| {
        done(sys::setxattr(at, ACCESS, &acl(6, (1000, 4), 0, 4, 0), 0))
    }),
    ("set default list", |at| {
        done(sys::setxattr(at, DEFAULT, &acl(6, (1000, 4), 0, 4, 0), 0))
    }),
    ("set broken list", |at| set(at, ACCESS, 3, 0)),
    ("set as user", |at| as_user(|| set(at, "user.x", 3, 0))),
    ("set trusted as user", |at| {
        as_user(|| set(at, "trusted.x", 3, 0))
    }),
    ("set list as user", |at| as_user(|| set(at, ACCESS, 3, 0))),
    ("remove", |at| done(sys::removexattr(at, "user.a"))),
    ("remove missing", |at| {
        done(sys::removexattr(at, "user.none"))
    }),
    ("remove trusted", |at| {
        done(sys::removexattr(at, "trusted.t"))
    }),
    ("remove no namespace", |at| {
        done(sys::removexattr(at, "nonsense.x"))
    }),
    ("remove as user", |at| {
        as_user(|| done(sys::removexattr(at, "user.a")))
    }),
];

/// The answers to all calls, each on an object of its own.
fn answers(lab: &Lab, prepared: bool) -> Vec<(String, Answer)> {
    let mut all = Vec::new();
    for (k, (kind, _, made)) in KINDS.iter().enumerate() {
        for (n, (what, call)) in READS.iter().chain(&CHANGES).enumerate() {
            let at = lab.at(format!("o{k}-{n}"));
            if prepared {
                made(&at);
            }
            all.push((format!("{kind}: {what}"), call(&at)));
        }
    }
    all
}

fn lower() -> String {
    let mut text = String::new();
    for (k, (_, lower, _)) in KINDS.iter().enumerate() {
        for n in 0..READS.len() + CHANGES.len() {
            let line = lower.replace('@', &format!("o{k}-{n}"));
            text += &line.replace("ATTRS", LOWER);
            text += "\n";
        }
    }
    text
}

fn compare(lab: impl Fn() -> Lab) {
    let subjects = [Subject::Kernel, Subject::with(&[])];
    let [kernel, ours] = subjects.map(|subject| {
        let lab = lab().lower(&lower()).upper("").mount_as(&subject);
        answers(&lab, true)
    });
    let unlike: Vec<_> = kernel
        .iter()
        .zip(&ours)
        .filter(|((_, kernel), (_, ours))| kernel != ours)
        .map(|((what, kernel), (_, ours))| format!("{what}: kernel {kernel:?}, ours {ours:?}"))
        .collect();
    assert!(unlike.is_empty(), "{} answers: {unlike:#?}", unlike.len());
    let worked = kernel.iter().filter(|(_, answer)| answer.is_ok()).count();
    assert!((100..400).contains(&worked), "{worked} calls worked");
}

#[test]
fn answers_are_the_kernels() {
    compare(Lab::new);
}

#[test]
fn answers_are_the_kernels_on_xfs() {
    let mut mounts = Mounts::new();
    let at = mounts.format(&["mkfs.xfs", "-q"], 320, "xfs");
    compare(|| Lab::within(&at));
}

#[test]
fn answers_are_the_kernels_on_ext4_with_large_attributes() {
    let mut mounts = Mounts::new();
    let at = mounts.format(&["mkfs.ext4", "-q", "-O", "ea_inode"], 64, "ext4");
    compare(|| Lab::within(&at));
}

#[test]
fn answers_of_a_read_only_union_are_the_kernels() {
    let [kernel, ours] = [Subject::Kernel, Subject::with(&[])].map(|subject| {
        let lab = Lab::new()
            .lower(&lower())
            .lower("f other x")
            .mount_as(&subject);
        answers(&lab, false)
    });
    let unlike: Vec<_> = kernel.iter().zip(&ours).filter(|(k, o)| k != o).collect();
    assert!(unlike.is_empty(), "{unlike:#?}");
    let refused = |answer: &Answer| *answer == Err(Errno(libc::EROFS));
    assert!(kernel.iter().any(|(_, answer)| refused(answer)));
}
