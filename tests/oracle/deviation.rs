//! The differences from kernel overlayfs that are meant.

use crate::kit::operation::{Op, Outcome};

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
