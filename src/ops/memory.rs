//! Gives memory back: when the kernel has forgotten much, and when listings grow over their limit.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Union;

/// Fewer inodes than this are not worth the work: 4 MiB or so.
const WORTH_IT: usize = 16384;

/// The most inodes that were live since memory was given back.
#[derive(Debug, Default)]
pub(super) struct Peak(AtomicUsize);

impl Peak {
    /// Whether so many are left that the memory of the others should be given back.
    fn has_passed(&self, live: usize) -> bool {
        // Relaxed here and below: only one thread asks.
        let peak = self.0.fetch_max(live, Ordering::Relaxed).max(live);
        let passed = live < peak / 2 && peak - live >= WORTH_IT;
        if passed {
            self.0.store(live, Ordering::Relaxed);
        }
        passed
    }
}

impl Union {
    /// To be called once a second. The allocator and the tables would keep for ever what they had
    /// at their largest.
    pub(super) fn tidy_memory(&self) {
        self.evict_indexes();
        if self.peak.has_passed(self.table.len()) {
            self.table.shrink();
            self.indexes.shrink();
            crate::sys::memory::trim();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_for_each_fall() {
        let peak = Peak::default();
        for (live, gives) in [
            (1, false),
            (10_000, false),
            (1, false), // too few
            (100_000, false),
            (60_000, false), // not yet half
            (100_000, false),
            (40_000, true),
            (39_000, false),
            (1, true),
            (1, false),
        ] {
            assert_eq!(peak.has_passed(live), gives, "{live}");
        }
    }
}
