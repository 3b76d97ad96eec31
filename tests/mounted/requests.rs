//! The request budget of design section 3: what is warm sends no request at all, by the daemon's own
//! count.

use std::collections::BTreeMap;

use crate::kit::{Lab, Subject, sys};

/// Requests by operation so far, without those that the question itself sends (the root's own
/// attributes, the control request).
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

/// What `work` sends, less what two questions in a row send by themselves.
fn sent(lab: &Lab, work: impl FnOnce()) -> BTreeMap<String, u64> {
    let first = requests(lab);
    let second = requests(lab);
    work();
    let third = requests(lab);
    let count = |map: &BTreeMap<String, u64>, op: &String| map.get(op).copied().unwrap_or(0);
    let mut sent = BTreeMap::new();
    for op in third.keys() {
        let own = count(&second, op) - count(&first, op);
        let all = count(&third, op) - count(&second, op);
        // A question may itself be answered from a cache that the work dropped or filled.
        if all > own {
            sent.insert(op.clone(), all - own);
        }
    }
    sent
}

fn lab(arguments: &[&str]) -> Option<Lab> {
    let subject = Subject::with(arguments);
    let names: String = (0..1000).map(|n| format!("f many/n{n} x\n")).collect();
    let top = format!("f d/e/f text\nl d/l e/f\n{names}");
    let lab = Lab::new()
        .lower(&top)
        .lower("f d/e/low l\nf many/low l")
        .upper("f up u");
    subject.is_ours().then(|| lab.mount_as(&subject))
}

#[track_caller]
fn expect_silence(lab: &Lab, what: &str, work: impl Fn()) {
    // Twice: reading pages makes the kernel ask for the access time at the next stat, once.
    work();
    work();
    let sent = sent(lab, || {
        for _ in 0..10 {
            work();
        }
    });
    assert!(sent.is_empty(), "{what}, ten times and warm, sent {sent:?}");
}

#[test]
fn warm_stat() {
    let Some(lab) = lab(&[]) else { return };
    for path in ["d/e/f", "d/e/low", "up", "d", "many/n5"] {
        expect_silence(&lab, path, || assert!(sys::exists(lab.at(path))));
        expect_silence(&lab, path, || {
            sys::access(lab.at(path), libc::R_OK).unwrap()
        });
    }
}

#[test]
fn warm_missing_name() {
    let Some(lab) = lab(&[]) else { return };
    for path in ["none", "d/none", "d/e/none/x", "many/none"] {
        expect_silence(&lab, path, || fails!(sys::lstat(lab.at(path)), ENOENT));
    }
}

#[test]
fn warm_open_read_close() {
    let Some(lab) = lab(&[]) else { return };
    for (path, text) in [("d/e/f", "text"), ("d/e/low", "l"), ("up", "u")] {
        expect_silence(&lab, path, || {
            let fd = sys::open(lab.at(path), libc::O_RDONLY, 0).unwrap();
            assert_eq!(sys::fstat(&fd).unwrap().size, text.len() as u64);
            assert_eq!(sys::get_fd(&fd).unwrap(), text.as_bytes());
        });
    }
}

#[test]
fn warm_readlink() {
    let Some(lab) = lab(&[]) else { return };
    expect_silence(&lab, "readlink", || {
        drop(sys::readlink(lab.at("d/l")).unwrap())
    });
}

#[test]
fn warm_listing() {
    let Some(lab) = lab(&[]) else { return };
    for dir in ["many", "d", "d/e"] {
        expect_silence(&lab, dir, || {
            for entry in sys::list(lab.at(dir)).unwrap() {
                let name = std::str::from_utf8(&entry.name).unwrap();
                sys::lstat(lab.at(dir).join(name)).unwrap();
            }
        });
    }
}

/// A cold walk sends a constant number of requests per directory, not per name.
#[test]
fn a_cold_listing_with_attributes() {
    let Some(lab) = lab(&[]) else { return };
    let sent = sent(&lab, || {
        for entry in sys::list(lab.at("many")).unwrap() {
            sys::lstat(
                lab.at("many")
                    .join(std::str::from_utf8(&entry.name).unwrap()),
            )
            .unwrap();
        }
    });
    let all: u64 = sent.values().sum();
    assert!(all <= 60, "1001 names took {sent:?}");
    assert!(sent.get("lookup").copied().unwrap_or(0) <= 2, "{sent:?}");
}

#[test]
fn a_write_is_one_request() {
    let Some(lab) = lab(&[]) else { return };
    sys::put(lab.at("new"), b"x").unwrap();
    let fd = sys::open(lab.at("new"), libc::O_WRONLY, 0).unwrap();
    sys::pwrite(&fd, 0, b"first").unwrap();
    let sent = sent(&lab, || {
        for n in 0..10 {
            sys::pwrite(&fd, n * 5, b"later").unwrap();
        }
    });
    assert_eq!(sent.get("write"), Some(&10), "{sent:?}");
    assert_eq!(
        sent.get("getxattr"),
        None,
        "asked for security.capability: {sent:?}"
    );
    assert_eq!(sent.len(), 1, "{sent:?}");
}

/// Open and close are never told; a handle could not survive the daemon.
#[test]
fn opens_are_never_sent() {
    let Some(lab) = lab(&[]) else { return };
    for path in ["d/e/f", "up", "many/n1"] {
        sys::get(lab.at(path)).unwrap();
        sys::append(lab.at(path), b"+").unwrap();
    }
    sys::list(lab.at("d")).unwrap();
    let all = requests(&lab);
    for op in ["open", "opendir", "flush", "create"] {
        assert!(all.get(op).copied().unwrap_or(0) <= 1, "{op}: {all:?}");
    }
    for op in ["release", "releasedir"] {
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
