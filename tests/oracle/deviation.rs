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
pub const DEVIATIONS: &[Deviation] = &[Deviation {
    why: "removing an ACL that is not there: ENODATA or nothing, in the kernel as the layer has it",
    applies: |op, kernel, subject| {
        let Op::RemoveXattr { name, .. } = op else {
            return false;
        };
        let harmless =
            |outcome: &Outcome| matches!(outcome, Ok(_) | Err(crate::kit::Errno(libc::ENODATA)));
        name.starts_with("system.posix_acl_") && harmless(kernel) && harmless(subject)
    },
}];
