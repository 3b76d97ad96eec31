//! The request budget: how many requests the kernel sends for what a program does, by the daemon's
//! own count; first time and again. One test for each row of the table in docs/SEMANTICS.md.

use std::collections::BTreeMap;
use std::process::Command;

use crate::kit::{Lab, Subject, sys};

/// Requests by operation so far.
fn requests(lab: &Lab) -> BTreeMap<String, u64> {
    let stats = lab.control("stats");
    let ops = stats["requests"].as_array().unwrap().iter();
    ops.map(|op| {
        (
            op["op"].as_str().unwrap().to_owned(),
            op["count"].as_u64().unwrap(),
        )
    })
    .collect()
}

/// What `work` sends, less what a question sends by itself (the control request, and what the
/// kernel wants to know of the root for it), and less FORGETs, which nobody waits for.
fn sent(lab: &Lab, work: impl FnOnce()) -> BTreeMap<String, u64> {
    let first = requests(lab);
    let second = requests(lab);
    work();
    let third = requests(lab);
    let count = |map: &BTreeMap<String, u64>, op: &String| map.get(op).copied().unwrap_or(0);
    let mut sent = BTreeMap::new();
    for op in third.keys().filter(|op| *op != "forget") {
        let own = count(&second, op) - count(&first, op);
        let all = count(&third, op) - count(&second, op);
        // A question may itself be answered from a cache that the work dropped or filled.
        if all > own {
            sent.insert(op.clone(), all - own);
        }
    }
    sent
}

/// Asserts that `work` sends exactly these requests: `"lookup 2, read 1"`, or nothing.
#[track_caller]
fn expect(lab: &Lab, what: &str, want: &str, work: impl FnOnce()) {
    let sent = sent(lab, work);
    let sent: Vec<String> = sent.iter().map(|(op, n)| format!("{op} {n}")).collect();
    let mut want: Vec<&str> = want.split(", ").filter(|one| !one.is_empty()).collect();
    want.sort_unstable();
    assert_eq!(sent, want, "{what}");
}

fn lab(arguments: &[&str]) -> Option<Lab> {
    let subject = Subject::with(arguments);
    let names: String = (0..1000).map(|n| format!("f many/n{n} x\n")).collect();
    let top = format!("f d/e/f text\nf d/e/g text\nl d/l e/f\nf d/old old\n{names}");
    let lab = Lab::new()
        .lower(&top)
        .lower("f d/e/low l\nf many/low l")
        .upper("f up u\nd w\nf w/up u");
    subject.is_ours().then(|| lab.mount_as(&subject))
}

/// The kernel has seen `dir`, and knows that opendir, open, create and flush are not wanted.
fn warm(lab: &Lab, dir: &str) {
    sys::list(lab.at(dir)).unwrap();
    let file = lab.at(dir).join("warm");
    sys::put(&file, b"x").unwrap();
    sys::unlink(&file).unwrap();
    sys::lstat(lab.at(dir)).unwrap();
}

#[test]
fn stat_and_access() {
    let Some(lab) = lab(&[]) else { return };
    let stat = |path: &str| assert!(sys::stat(lab.at(path)).is_ok());
    let lstat = |path: &str| assert!(sys::lstat(lab.at(path)).is_ok());
    let access = |path: &str| sys::access(lab.at(path), libc::R_OK).unwrap();
    expect(&lab, "stat", "lookup 3", || stat("d/e/f"));
    expect(&lab, "lstat beside it", "lookup 1", || lstat("d/e/low"));
    expect(&lab, "access", "lookup 2", || access("many/n5"));
    for path in ["d", "d/e", "d/e/f", "d/e/low", "many/n5"] {
        expect(&lab, &format!("{path} again"), "", || {
            stat(path);
            lstat(path);
            access(path);
        });
    }
}

#[test]
fn a_missing_name() {
    let Some(lab) = lab(&[]) else { return };
    warm(&lab, "w");
    let missing = |path: &str| fails!(sys::lstat(lab.at(path)), ENOENT);
    expect(&lab, "first", "lookup 2", || missing("d/none"));
    expect(&lab, "in what is not there", "lookup 1", || {
        missing("d/no/x")
    });
    expect(&lab, "in the upper", "lookup 1", || missing("w/none"));
    expect(&lab, "again", "", || {
        for _ in 0..10 {
            missing("d/none");
            missing("d/no/x");
            missing("w/none");
        }
    });
    // The kernel knows that the name is free: it need not ask before it makes the file.
    expect(&lab, "until it is created", "mknod 1, getattr 1", || {
        let flags = libc::O_CREAT | libc::O_WRONLY;
        drop(sys::open(lab.at("w/none"), flags, 0o644).unwrap());
        assert!(sys::exists(lab.at("w/none")));
        sys::lstat(lab.at("w")).unwrap();
    });
}

/// The first stat after a read asks for the access time, once.
#[test]
fn open_read_close() {
    let Some(lab) = lab(&[]) else { return };
    warm(&lab, "w");
    for (path, text) in [("d/e/f", "text"), ("d/e/low", "l"), ("w/up", "u")] {
        let read = || {
            let fd = sys::open(lab.at(path), libc::O_RDONLY, 0).unwrap();
            assert_eq!(sys::fstat(&fd).unwrap().size, text.len() as u64);
            assert_eq!(sys::get_fd(&fd).unwrap(), text.as_bytes());
        };
        sys::lstat(lab.at(path)).unwrap();
        expect(&lab, path, "read 1", read);
        expect(&lab, &format!("{path} next"), "getattr 1", read);
        expect(&lab, &format!("{path} again"), "", || {
            (0..10).for_each(|_| read());
        });
    }
}

/// Each close makes the kernel doubt what it knows of the size; the next stat asks.
#[test]
fn open_read_close_with_writeback() {
    let Some(lab) = lab(&["--writeback"]) else {
        return;
    };
    let read = || {
        let fd = sys::open(lab.at("d/e/f"), libc::O_RDONLY, 0).unwrap();
        assert_eq!(sys::fstat(&fd).unwrap().size, 4);
        assert_eq!(sys::get_fd(&fd).unwrap(), b"text");
    };
    read();
    read();
    expect(&lab, "again", "getattr 10", || (0..10).for_each(|_| read()));
}

#[test]
fn readlink() {
    let Some(lab) = lab(&[]) else { return };
    sys::lstat(lab.at("d/l")).unwrap();
    let readlink = || assert_eq!(sys::readlink(lab.at("d/l")).unwrap(), b"e/f");
    expect(&lab, "first", "readlink 1", readlink);
    expect(&lab, "again", "", readlink);
}

fn list_with_attributes(lab: &Lab, dir: &str) {
    for entry in sys::list(lab.at(dir)).unwrap() {
        let name = std::str::from_utf8(&entry.name).unwrap();
        sys::lstat(lab.at(dir).join(name)).unwrap();
    }
}

/// A cold walk sends a number of requests by directory, not by name: one that fills the kernel's
/// buffer for each that is full, and one that finds the end.
#[test]
fn listing_with_attributes() {
    let Some(lab) = lab(&[]) else { return };
    warm(&lab, "w");
    sys::lstat(lab.at("d/e")).unwrap();
    expect(&lab, "3 names", "readdirplus 2", || {
        list_with_attributes(&lab, "d/e");
    });
    sys::lstat(lab.at("many")).unwrap();
    let cold = sent(&lab, || list_with_attributes(&lab, "many"));
    let buffers = cold.get("readdirplus").copied().unwrap_or(0);
    // An entry takes 152 bytes and its name. Old kernels have buffers of one page.
    let most = 1001 * 160 / 4096 + 3;
    assert!((2..=most).contains(&buffers), "1001 names took {cold:?}");
    assert_eq!(cold.len(), 1, "{cold:?}");
    for dir in ["d/e", "many"] {
        expect(&lab, &format!("{dir} again"), "", || {
            (0..3).for_each(|_| list_with_attributes(&lab, dir));
        });
    }
}

/// The kernel never remembers capabilities of a program: each exec asks for them.
#[test]
fn exec() {
    let Some(lab) = lab(&[]) else { return };
    let program = std::fs::read("/proc/self/exe").unwrap();
    sys::put(lab.at("w/program"), &program).unwrap();
    sys::chmod(lab.at("w/program"), 0o755).unwrap();
    let mut lab = lab;
    lab.remount();
    let run = |arguments: &[&str]| {
        let done = Command::new(lab.at("w/program")).args(arguments).output();
        assert!(done.unwrap().status.success());
    };
    let cold = sent(&lab, || run(&["--help"]));
    let count = |op: &str| cold.get(op).copied().unwrap_or(0);
    assert_eq!((count("lookup"), count("getxattr")), (2, 1), "{cold:?}");
    assert!(count("read") >= 1, "{cold:?}");
    run(&["--help"]);
    expect(&lab, "again", "getxattr 5", || {
        (0..5).for_each(|_| run(&["--help"]));
    });
}

/// A request carries up to 1 MiB. Before the first write to a file the kernel asks for
/// `security.capability`; then it knows that there is none.
#[test]
fn writes() {
    let Some(lab) = lab(&[]) else { return };
    warm(&lab, "w");
    let data = sys::pattern(1, 3 << 20);
    let fd = sys::open(lab.at("w/up"), libc::O_WRONLY, 0).unwrap();
    expect(&lab, "the first one", "getxattr 1, write 1", || {
        sys::pwrite(&fd, 0, b"x").unwrap();
    });
    for (kib, requests) in [(1, 1), (4, 1), (100, 1), (1024, 1), (1028, 2), (3072, 3)] {
        expect(
            &lab,
            &format!("{kib} KiB"),
            &format!("write {requests}"),
            || {
                let count = sys::pwrite(&fd, 0, &data[..kib << 10]).unwrap();
                assert_eq!(count, kib << 10);
            },
        );
    }
    expect(&lab, "ten writes", "write 10", || {
        for n in 0..10 {
            sys::pwrite(&fd, n * 5, b"later").unwrap();
        }
    });
}

/// As root, where the daemon may raise the kernel's readahead (to the size of a request) beyond
/// 128 KiB.
#[test]
fn a_large_file_is_read_in_large_pieces() {
    let Some(lab) = lab(&[]) else { return };
    let size = 32 << 20;
    let data = sys::pattern(2, size);
    sys::put(lab.at("w/large"), &data).unwrap();
    std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    let sent = sent(&lab, || {
        let read = std::fs::read(lab.at("w/large")).unwrap();
        assert!(read == data);
    });
    let reads = sent.get("read").copied().unwrap_or_default();
    // By 128 KiB it would be 256.
    assert!((32..=48).contains(&reads), "{sent:?}");
}

/// What changes a directory makes the kernel ask for the directory's attributes at their next use.
#[test]
fn making_and_removing() {
    let Some(lab) = lab(&[]) else { return };
    warm(&lab, "w");
    let at = |name: &str| lab.at("w").join(name);
    let parent = || assert!(sys::lstat(lab.at("w")).is_ok());
    let each = |what: &str, want: &str, change: &dyn Fn(usize)| {
        let want: Vec<String> = want.split(' ').map(|op| format!("{op} 3")).collect();
        expect(&lab, what, &want.join(", "), || {
            for n in 0..3 {
                change(n);
                parent();
            }
        });
    };
    let name = |what: &str, n: usize| at(&format!("{what}{n}"));
    each(
        "create, write, close",
        "lookup mknod getxattr write getattr",
        &|n| {
            sys::put(name("f", n), b"text").unwrap();
        },
    );
    each("mkdir", "lookup mkdir getattr", &|n| {
        sys::mkdir(name("d", n), 0o755).unwrap();
    });
    each("symlink", "lookup symlink getattr", &|n| {
        sys::symlink("x", name("l", n)).unwrap();
    });
    each("mknod", "lookup mknod getattr", &|n| {
        sys::mknod(name("p", n), libc::S_IFIFO | 0o644, 0).unwrap();
    });
    each("link", "lookup link getattr", &|n| {
        sys::link(name("f", n), name("hard", n)).unwrap();
    });
    each("rename", "lookup rename getattr", &|n| {
        sys::rename(name("f", n), name("new", n)).unwrap();
    });
    each("rename onto a name", "lookup rename getattr", &|n| {
        sys::rename(name("p", n), name("l", n)).unwrap();
    });
    each("unlink", "unlink getattr", &|n| {
        sys::unlink(name("new", n)).unwrap();
    });
    each("rmdir", "rmdir getattr", &|n| {
        sys::rmdir(name("d", n)).unwrap();
    });
}

/// Open and close are never told; a handle could not survive the daemon.
#[test]
fn opens_are_never_sent() {
    let Some(lab) = lab(&[]) else { return };
    for path in ["d/e/f", "up", "many/n1"] {
        sys::get(lab.at(path)).unwrap();
        sys::append(lab.at(path), b"+").unwrap();
        sys::put(lab.at(format!("{path}.new")), b"new").unwrap();
    }
    sys::list(lab.at("d")).unwrap();
    sys::list(lab.at("many")).unwrap();
    let all = requests(&lab);
    // Each is refused once, and the kernel does without from then on.
    for op in ["open", "opendir", "flush", "create"] {
        assert_eq!(all.get(op), Some(&1), "{op}: {all:?}");
    }
    for op in ["release", "releasedir", "access"] {
        assert_eq!(all.get(op), None, "{op}: {all:?}");
    }
}

/// A request that panicked is a bug, whatever it answered.
#[test]
fn nothing_panicked() {
    let Some(lab) = lab(&[]) else { return };
    sys::remove_tree(lab.at("d")).unwrap();
    drop(lab.tree());
    assert_eq!(lab.control("stats")["panics"].as_u64(), Some(0));
}
