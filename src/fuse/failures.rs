//! Tells of requests that failed: loudly and once where that should not have happened, else for who
//! wants to know.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;

use super::counters::Op;
use crate::error::{Errno, Error};
use crate::ops::Union;

/// So many failures are told loudly, and no more.
const MOST: usize = 1000;

/// What has been told loudly.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashSet<u64>>);

/// Whether, and how, to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Quietly,
    Loudly,
    /// This one, and that no more are told so.
    LoudlyForTheLastTime,
}

impl Failures {
    /// A request on object `ino` (of a name: on its directory) failed.
    pub(super) fn tell(&self, union: &Union, op: Op, ino: u64, e: &Error) {
        let told = self.telling(op, ino, e);
        if told == Telling::Quietly {
            tracing::debug!("{} of {}: {e}", op.name(), union.describe(ino));
            return;
        }
        tracing::warn!("{} of {}: {e}", op.name(), union.describe(ino));
        if told == Telling::LoudlyForTheLastTime {
            tracing::warn!("{MOST} failures were told: from now on only at debug");
        }
    }

    /// A request panicked.
    pub(super) fn tell_of_panic(&self, union: &Union, op: Op, ino: u64) {
        let object = union.describe(ino);
        tracing::error!("{} of {object} panicked: this is a bug", op.name());
    }

    fn telling(&self, op: Op, ino: u64, e: &Error) -> Telling {
        let errno = e.errno();
        if e.context().is_none() && !is_alarming(errno) {
            return Telling::Quietly;
        }
        let mut hasher = DefaultHasher::new();
        (op.name(), errno.raw_os_error()).hash(&mut hasher);
        // A full disk is one failure, whatever is written.
        if !matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::ROFS) {
            ino.hash(&mut hasher);
        }
        let mut told = self.0.lock();
        if told.len() >= MOST || !told.insert(hasher.finish()) {
            return Telling::Quietly;
        }
        match told.len() < MOST {
            true => Telling::Loudly,
            false => Telling::LoudlyForTheLastTime,
        }
    }
}

/// Whether an error is no answer to what was asked, even if nothing is said of it.
fn is_alarming(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::IO | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::STALE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::WhileDoing;

    fn failed(errno: Errno) -> Error {
        Err::<(), _>(errno).while_doing(|| "open").unwrap_err()
    }

    #[test]
    fn what_should_not_have_failed_is_told_once() {
        let failures = Failures::default();
        let tell = |op, ino, errno| failures.telling(op, ino, &failed(errno));
        assert_eq!(tell(Op::Read, 5, Errno::IO), Telling::Loudly);
        assert_eq!(tell(Op::Read, 5, Errno::IO), Telling::Quietly);
        assert_eq!(tell(Op::Read, 6, Errno::IO), Telling::Loudly);
        assert_eq!(tell(Op::Write, 5, Errno::IO), Telling::Loudly);
        assert_eq!(tell(Op::Read, 5, Errno::ACCESS), Telling::Loudly);
        assert_eq!(tell(Op::Write, 5, Errno::NOSPC), Telling::Loudly);
        assert_eq!(tell(Op::Write, 6, Errno::NOSPC), Telling::Quietly);
        let plain = |errno: Errno| failures.telling(Op::Lookup, 1, &errno.into());
        assert_eq!(plain(Errno::NOENT), Telling::Quietly);
        assert_eq!(plain(Errno::MFILE), Telling::Loudly);
        assert_eq!(plain(Errno::STALE), Telling::Loudly);
    }

    #[test]
    fn a_log_is_not_filled() {
        let failures = Failures::default();
        let mut told = (0..3000).map(|ino| failures.telling(Op::Read, ino, &failed(Errno::IO)));
        assert!(
            told.by_ref()
                .take(MOST - 1)
                .all(|how| how == Telling::Loudly)
        );
        assert_eq!(told.next(), Some(Telling::LoudlyForTheLastTime));
        assert!(told.all(|how| how == Telling::Quietly));
    }
}
