//! Whether a thread looks out for the next request for a moment before it sleeps.
//!
//! To wake a thread takes longer than most requests, above all on a virtual machine whose idle CPUs
//! halt: 25 microseconds and more. A process that goes through files one by one, as tar and rm do,
//! sends the next request a few microseconds after the reply. Where requests come like that, the
//! thread stays awake for the next one; where they do not, it would only keep a CPU from others.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

/// How long to look out.
const LONGEST: Duration = Duration::from_micros(50);

/// A request that comes so soon after the last turn would have been seen: what there is of it above
/// [`LONGEST`] is the time that waking up takes.
const SOON: Duration = Duration::from_micros(100);

/// All requests came soon.
const ALWAYS: u32 = 1 << 16;

/// From so many on it pays.
const OFTEN: u32 = ALWAYS / 4 * 3;

/// Having looked out in vain counts as much as so many times with success.
const VAIN: u32 = 4;

/// How many successes count.
const LUCK: u32 = 16;

/// How long not to try again, at least and at most.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(10)..Duration::from_secs(1);

/// How soon requests came lately. Updates may be lost; the next one is as good.
#[derive(Debug)]
pub(super) struct Linger {
    start: Instant,
    /// When the last turn ended, in nanoseconds since `start`.
    ended: AtomicU64,
    /// Moving average: how many requests came soon, of [`ALWAYS`].
    soon: AtomicU32,
    /// Successes, less [`VAIN`] for each failure. On a busy machine requests come soon, but not while
    /// this thread looks out: the caller waits for its CPU.
    luck: AtomicU32,
    /// Not before this time, in nanoseconds since `start`.
    not_before: AtomicU64,
    /// How long to wait after the next misfortune, in nanoseconds.
    pause: AtomicU64,
}

impl Linger {
    pub(super) fn new() -> Linger {
        Linger {
            start: Instant::now(),
            ended: AtomicU64::new(0),
            soon: AtomicU32::new(0),
            luck: AtomicU32::new(VAIN),
            not_before: AtomicU64::new(0),
            pause: AtomicU64::new(nanos(PAUSE.start)),
        }
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// A request was read.
    pub(super) fn note_request(&self) {
        self.note_gap(self.now().saturating_sub(self.ended.load(Relaxed)));
    }

    fn note_gap(&self, gap: u64) {
        let now = if gap <= nanos(SOON) { ALWAYS } else { 0 };
        let before = self.soon.load(Relaxed);
        self.soon.store(before - before / 8 + now / 8, Relaxed);
    }

    /// Whether the next request may be expected soon, and was not waited for in vain lately.
    fn pays(&self, now: u64) -> bool {
        self.soon.load(Relaxed) >= OFTEN && now >= self.not_before.load(Relaxed)
    }

    /// A turn ends: looks out until `is_there`, if the next request may be expected soon.
    pub(super) fn look_out(&self, alone: bool, is_there: impl Fn() -> bool) {
        let ended = self.now();
        self.ended.store(ended, Relaxed);
        if !alone || !self.pays(ended) {
            return;
        }
        while !is_there() {
            let now = self.now();
            if now - ended > nanos(LONGEST) {
                return self.note_failure(now);
            }
        }
        self.note_success();
    }

    fn note_success(&self) {
        let luck = self.luck.load(Relaxed);
        if luck < LUCK {
            self.luck.store(luck + 1, Relaxed);
        } else {
            self.pause.store(nanos(PAUSE.start), Relaxed);
        }
    }

    fn note_failure(&self, now: u64) {
        match self.luck.load(Relaxed).checked_sub(VAIN) {
            Some(luck) => self.luck.store(luck, Relaxed),
            None => {
                let pause = self.pause.load(Relaxed);
                self.not_before.store(now + pause, Relaxed);
                self.pause.store((2 * pause).min(nanos(PAUSE.end)), Relaxed);
                self.luck.store(VAIN, Relaxed);
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// How often it looks, if nothing comes.
    fn looks(linger: &Linger, alone: bool) -> u32 {
        let looks = Cell::new(0);
        linger.look_out(alone, || {
            looks.set(looks.get() + 1);
            false
        });
        looks.get()
    }

    fn after(gaps: impl IntoIterator<Item = u64>) -> Linger {
        let linger = Linger::new();
        for gap in gaps {
            linger.note_gap(gap * 1000);
        }
        linger
    }

    #[test]
    fn looks_out_only_where_requests_come_one_upon_the_other() {
        assert_eq!(looks(&Linger::new(), true), 0);
        assert_eq!(looks(&after([5; 8]), true), 0, "not sure yet");
        assert!(looks(&after([5; 12]), true) > 0);
        assert_eq!(looks(&after([5; 12]), false), 0, "others wait already");
        assert_eq!(looks(&after([5, 500].repeat(50)), true), 0);
        let linger = after([5; 100]);
        for _ in 0..4 {
            linger.note_gap(1_000_000);
        }
        assert_eq!(looks(&linger, true), 0, "that is over");
    }

    #[test]
    fn gives_up_where_it_is_in_vain() {
        let linger = after([5; 100]);
        for _ in 0..LUCK {
            linger.look_out(true, || true);
        }
        for _ in 0..(LUCK / VAIN + 1) {
            assert!(linger.pays(0), "once is no sign");
            linger.note_failure(0);
        }
        let pause = nanos(PAUSE.start);
        assert!(!linger.pays(pause - 1) && linger.pays(pause), "tries again");
        for _ in 0..=1 {
            linger.note_failure(pause);
        }
        assert!(
            !linger.pays(3 * pause - 1) && linger.pays(3 * pause),
            "but later each time"
        );
    }
}
