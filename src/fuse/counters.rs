//! Counts requests by operation, with their latency.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ops::{OpStats, Stats};

/// Buckets of the latency histogram: four an octave of nanoseconds.
const BUCKETS: usize = 4 * 40;

/// An operation of the FUSE protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Op {
    Lookup,
    Forget,
    Getattr,
    Setattr,
    Readlink,
    Mknod,
    Mkdir,
    Unlink,
    Rmdir,
    Symlink,
    Rename,
    Link,
    Open,
    Read,
    Write,
    Statfs,
    Fsync,
    Setxattr,
    Getxattr,
    Listxattr,
    Removexattr,
    Flush,
    Opendir,
    Readdir,
    Readdirplus,
    Fsyncdir,
    Access,
    Create,
    Ioctl,
    Fallocate,
    Lseek,
    CopyFileRange,
}

/// Names of all operations, in the order of [`Op`].
const NAMES: [&str; 32] = [
    "lookup",
    "forget",
    "getattr",
    "setattr",
    "readlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "open",
    "read",
    "write",
    "statfs",
    "fsync",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "flush",
    "opendir",
    "readdir",
    "readdirplus",
    "fsyncdir",
    "access",
    "create",
    "ioctl",
    "fallocate",
    "lseek",
    "copy_file_range",
];

impl Op {
    /// Its name, in lower case.
    pub(super) fn name(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or("unknown")
    }
}

#[derive(Debug)]
struct Counter {
    count: AtomicU64,
    errors: AtomicU64,
    max_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// See the module.
#[derive(Debug)]
pub(super) struct Counters {
    ops: Vec<Counter>,
    panics: AtomicU64,
}

impl Counters {
    pub(super) fn new() -> Counters {
        let counter = || Counter {
            count: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        };
        Counters {
            ops: NAMES.iter().map(|_| counter()).collect(),
            panics: AtomicU64::new(0),
        }
    }

    /// Counts one request.
    pub(super) fn count(&self, op: Op, took: Duration, failed: bool) {
        let Some(counter) = self.ops.get(op as usize) else {
            return;
        };
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Relaxed throughout: nothing is derived from one counter about another.
        counter.count.fetch_add(1, Ordering::Relaxed);
        counter
            .errors
            .fetch_add(u64::from(failed), Ordering::Relaxed);
        counter.max_ns.fetch_max(ns, Ordering::Relaxed);
        if let Some(bucket) = counter.buckets.get(bucket(ns)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// `stats` of the union, with what is counted here.
    pub(super) fn complete(&self, mut stats: Stats) -> Stats {
        stats.requests = self.report();
        stats.panics = self.panics.load(Ordering::Relaxed);
        stats
    }

    /// The operations that came at least once.
    fn report(&self) -> Vec<OpStats> {
        let report = |(name, counter): (&&str, &Counter)| {
            let count = counter.count.load(Ordering::Relaxed);
            let max_ns = counter.max_ns.load(Ordering::Relaxed);
            (count > 0).then(|| OpStats {
                op: (*name).to_owned(),
                count,
                errors: counter.errors.load(Ordering::Relaxed),
                p50_us: counter.quantile(count, 50).min(max_ns) / 1000,
                p99_us: counter.quantile(count, 99).min(max_ns) / 1000,
                max_us: max_ns / 1000,
            })
        };
        NAMES.iter().zip(&self.ops).filter_map(report).collect()
    }
}

impl Counter {
    /// An upper bound of the latency, in nanoseconds, of `percent` of all requests.
    fn quantile(&self, count: u64, percent: u64) -> u64 {
        let wanted = (count * percent).div_ceil(100);
        let mut seen = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Ordering::Relaxed);
            if seen >= wanted {
                return upper_bound(i);
            }
        }
        u64::MAX
    }
}

/// The bucket of a latency: its octave and the two bits below the highest.
fn bucket(ns: u64) -> usize {
    let ns = ns.max(4);
    let octave = 63 - ns.leading_zeros();
    let quarter = (ns >> (octave - 2)) & 3;
    ((octave as usize - 2) * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The largest latency of a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / 4, bucket as u64 % 4);
    ((4 + quarter + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_bound_what_they_hold() {
        let mut last = 0;
        for ns in [
            0,
            4,
            5,
            7,
            8,
            9,
            100,
            1_000,
            10_000,
            1_000_000,
            5_000_000_000,
        ] {
            let b = bucket(ns);
            assert!(b >= last);
            assert!(upper_bound(b) >= ns, "{ns}");
            assert!(upper_bound(b) <= ns.max(4) * 5 / 4 + 4, "{ns}");
            last = b;
        }
    }

    #[test]
    fn names_match_operations() {
        assert_eq!(Op::Lookup.name(), "lookup");
        assert_eq!(Op::CopyFileRange.name(), "copy_file_range");
        assert_eq!(Op::Opendir.name(), "opendir");
    }

    #[test]
    fn quantiles() {
        let counters = Counters::new();
        for us in 1..=100u64 {
            counters.count(Op::Read, Duration::from_micros(us), us == 1);
        }
        let report = counters.report();
        assert_eq!(report.len(), 1);
        assert_eq!(
            (report[0].count, report[0].errors, report[0].max_us),
            (100, 1, 100)
        );
        assert!(
            (45..=65).contains(&report[0].p50_us),
            "{}",
            report[0].p50_us
        );
        assert!(
            (95..=100).contains(&report[0].p99_us),
            "{}",
            report[0].p99_us
        );
    }
}
