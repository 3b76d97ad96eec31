//! The differences from kernel overlayfs that are meant.

use crate::kit::operation::{Op, Outcome};
use crate::kit::snapshot::Snapshot;

/// A difference that is meant; it must not leave the two trees different.
pub struct Deviation {
    pub why: &'static str,
    /// Given the operation, the kernel's answer and the subject's.
    pub applies: fn(&Op, &Outcome, &Outcome) -> bool,
}

/// Every deviation from kernel overlayfs that the oracle accepts. Others lie in `generate.rs` (see
/// `owner`), `layers.rs` (xattr whiteouts), `tests/kit/apply.rs` and
/// `run.rs`: names that the kernel lists but does not find (whiteouts in directories that are not
/// merged, formats.md 1.5) are skipped on its side.
pub const DEVIATIONS: &[Deviation] = &[
    Deviation {
        why: "removing an ACL that is not there: ENODATA or nothing, in the kernel as the layer has it",
        applies: |op, kernel, subject| {
            let Op::RemoveXattr { name, .. } = op else {
                return false;
            };
            let harmless = |outcome: &Outcome| {
                matches!(outcome, Ok(_) | Err(crate::kit::Errno(libc::ENODATA)))
            };
            name.starts_with("system.posix_acl_") && harmless(kernel) && harmless(subject)
        },
    },
    Deviation {
        why: "a lower file that was removed: the kernel cannot always copy it up any more",
        applies: |op, kernel, subject| {
            let changes = matches!(
                op,
                Op::FdChown { .. }
                    | Op::FdChmod { .. }
                    | Op::FdUtimens { .. }
                    | Op::FdSetXattr { .. }
            );
            let gone = [libc::ENOENT, libc::EEXIST].map(|errno| Err(crate::kit::Errno(errno)));
            changes && gone.contains(kernel) && subject.is_ok()
        },
    },
    Deviation {
        why: "a lower file that was removed: the kernel tells the link count of its layer",
        applies: |op, kernel, subject| {
            let (Op::FdStat { .. }, Ok(kernel), Ok(subject)) = (op, kernel, subject) else {
                return false;
            };
            // What could not be changed above differs too.
            let count = |outcome: &str| outcome.split(' ').rev().nth(2).map(str::to_owned);
            count(kernel).as_deref() == Some("1") && count(subject).as_deref() == Some("0")
        },
    },
];

/// Kernel overlayfs gives a metadata-only copy the time of the copying when it gets its data, for which
/// an open for writing is enough. Here it keeps its time until it is written.
pub fn differs_by_time(op: &Op, kernel: &Outcome, subject: &Outcome) -> bool {
    let (Op::Stat { .. } | Op::FdStat { .. }, Ok(kernel), Ok(subject)) = (op, kernel, subject)
    else {
        return false;
    };
    // See `tell`: "None" is a time of this run, "Some((SECONDS, NANOSECONDS))" another one.
    let split = |text: &str| match text.split_once("None") {
        Some((before, behind)) => Some((true, before.to_owned(), behind.to_owned())),
        None => {
            let (before, rest) = text.split_once("Some((")?;
            let (_, behind) = rest.split_once("))")?;
            Some((false, before.to_owned(), behind.to_owned()))
        }
    };
    match (split(kernel), split(subject)) {
        (Some(a), Some(b)) => a.0 != b.0 && (a.1, a.2) == (b.1, b.2),
        _ => false,
    }
}

/// The same of whole trees: a file with a time of this run on one side has it on the other too. So has a
/// directory: now and then the kernel leaves the time of a copy-up in one whose names did not change.
pub fn forgive_times(left: &mut Snapshot, right: &mut Snapshot) {
    for (path, a) in &mut left.entries {
        let Some(b) = right.entries.get_mut(path) else {
            continue;
        };
        let kind = a.mode & libc::S_IFMT;
        let may_differ = kind == libc::S_IFREG || kind == libc::S_IFDIR;
        if may_differ && (a.mtime == "now") != (b.mtime == "now") {
            a.mtime = "now".to_owned();
            b.mtime = "now".to_owned();
        }
    }
}
