//! How long a request may take, as far as one can tell beforehand: whether the thread that read it
//! may run it, or hands it to another. Handing over costs more than most requests do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Copying more than this takes long, however fast the disk is.
const SMALL: u64 = 1 << 20;

/// Work that took longer than this lately, on average, is handed over.
const QUICK_NS: u64 = 500_000;

/// What a request weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Some system calls.
    Light,
    /// It depends on how fast the disk is.
    Unsure(Disk),
    /// Seconds, perhaps.
    Heavy,
}

/// What the speed of unsure work depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// Small copies, with what makes them safe.
    Copy,
    /// Waiting for what was written.
    Sync,
}

impl Weight {
    /// Of a request that has to copy so many bytes first, if any at all.
    pub(super) fn of_copy(bytes: Option<u64>) -> Weight {
        match bytes {
            None => Weight::Light,
            Some(0..=SMALL) => Weight::Unsure(Disk::Copy),
            Some(_) => Weight::Heavy,
        }
    }

    /// Of two things to be done in one request.
    pub(super) fn and(self, other: Weight) -> Weight {
        match (self, other) {
            (Weight::Light, other) => other,
            (Weight::Heavy, _) | (_, Weight::Heavy) => Weight::Heavy,
            (unsure, _) => unsure,
        }
    }
}

/// How long unsure work took lately.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    copy: Gauge,
    sync: Gauge,
}

/// A moving average, in nanoseconds. Updates may be lost; the next one is as good.
#[derive(Debug)]
struct Gauge(AtomicU64);

impl Default for Gauge {
    /// Slow until it was seen.
    fn default() -> Gauge {
        Gauge(AtomicU64::new(QUICK_NS + 1))
    }
}

impl Gauges {
    fn of(&self, disk: Disk) -> &Gauge {
        match disk {
            Disk::Copy => &self.copy,
            Disk::Sync => &self.sync,
        }
    }

    /// Whether the thread that has read the request may run it.
    pub(super) fn run_here(&self, weight: Weight) -> bool {
        match weight {
            Weight::Light => true,
            Weight::Heavy => false,
            Weight::Unsure(disk) => self.of(disk).0.load(Ordering::Relaxed) <= QUICK_NS,
        }
    }

    /// Runs `job` and notes how long it took.
    pub(super) fn measure(&self, weight: Weight, job: impl FnOnce()) {
        let Weight::Unsure(disk) = weight else {
            return job();
        };
        let start = Instant::now();
        job();
        self.of(disk).note(start.elapsed());
    }
}

impl Gauge {
    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 8);
        let before = self.0.load(Ordering::Relaxed);
        self.0
            .store(before - before / 8 + took / 8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_work_is_handed_over_until_it_is_quick_again() {
        let gauges = Gauges::default();
        let weight = Weight::of_copy(Some(5));
        assert!(!gauges.run_here(weight), "nothing is known yet");
        gauges.copy.note(Duration::from_micros(100));
        gauges.sync.note(Duration::from_micros(100));
        assert!(gauges.run_here(weight));
        for _ in 0..10 {
            gauges.copy.note(Duration::from_millis(5));
        }
        assert!(!gauges.run_here(weight));
        assert!(gauges.run_here(Weight::Unsure(Disk::Sync)));
        for _ in 0..40 {
            gauges.copy.note(Duration::from_micros(100));
        }
        assert!(gauges.run_here(weight));
    }

    #[test]
    fn weights_add_up() {
        let unsure = Weight::Unsure(Disk::Copy);
        assert_eq!(Weight::of_copy(None), Weight::Light);
        assert_eq!(Weight::of_copy(Some(SMALL + 1)), Weight::Heavy);
        assert_eq!(Weight::Light.and(unsure), unsure);
        assert_eq!(unsure.and(Weight::Heavy), Weight::Heavy);
        assert_eq!(unsure.and(Weight::Light), unsure);
    }
}
