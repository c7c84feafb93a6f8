//! A rolling window of ten buckets, shared by threads without a lock, without a clock.
//!
//! A counter carries the stamp of what it counts: the generation of the breaker and the number of
//! its time slice. A counter with an older stamp is overwritten by the first outcome that needs its
//! place, and one with another stamp is not read: so nothing ever has to be reset, neither by time
//! nor when the breaker closes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Tick;

/// How many buckets a window has.
pub(crate) const BUCKETS: usize = 10;

const COUNT_BITS: u32 = 28;
const EPOCH_BITS: u32 = 26;
const GENERATION_BITS: u32 = 10;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;
const EPOCHS: u64 = 1 << EPOCH_BITS;
const GENERATIONS: u64 = 1 << GENERATION_BITS;

/// What a window holds of one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) good: u64,
    pub(crate) bad: u64,
}

impl Counts {
    /// All counted calls.
    pub(crate) const fn volume(self) -> u64 {
        self.good + self.bad
    }

    /// Whether at least `percent` of at least `volume` calls went bad.
    pub(crate) const fn reaches(self, percent: u64, volume: u64) -> bool {
        self.volume() >= volume && self.bad * 100 >= percent * self.volume()
    }
}

/// Counts of good and bad outcomes over the last ten slices of time.
#[derive(Debug)]
pub(crate) struct Window {
    /// Milliseconds of one bucket.
    slice: u64,
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Default)]
struct Bucket {
    good: AtomicU64,
    bad: AtomicU64,
}

impl Window {
    /// An empty window of this length, which is rounded down to ten whole milliseconds.
    pub(crate) fn new(length: Duration) -> Self {
        let slice = u64::try_from(length.as_millis() / BUCKETS as u128).unwrap_or(u64::MAX).max(1);
        Self { slice, buckets: Default::default() }
    }

    /// Counts one outcome of a generation. An outcome older than what its bucket holds is dropped.
    pub(crate) fn record(&self, generation: u32, bad: bool, now: Tick) {
        self.add(generation, bad, now, 1);
    }

    /// What the window holds of a generation at `now`.
    pub(crate) fn counts(&self, generation: u32, now: Tick) -> Counts {
        let mut sum = Counts::default();
        for (_, counts) in self.slices(generation, now) {
            sum.good += counts.good;
            sum.bad += counts.bad;
        }
        sum
    }

    /// A window of another length with the counts of this one: each bucket's go to the bucket that
    /// holds its last moment, or nowhere if that is out of the new window.
    pub(crate) fn resized(&self, length: Duration, generation: u32, now: Tick) -> Self {
        let new = Self::new(length);
        for (epoch, counts) in self.slices(generation, now) {
            let last = Tick(((epoch + 1) * self.slice - 1).min(now.0));
            if now.0 / new.slice - last.0 / new.slice < BUCKETS as u64 {
                new.add(generation, false, last, counts.good);
                new.add(generation, true, last, counts.bad);
            }
        }
        new
    }

    /// Whether it has this length.
    pub(crate) fn has_length(&self, length: Duration) -> bool {
        Self::new(length).slice == self.slice
    }

    fn slices(&self, generation: u32, now: Tick) -> impl Iterator<Item = (u64, Counts)> + '_ {
        let last = now.0 / self.slice;
        (last.saturating_sub(BUCKETS as u64 - 1)..=last).map(move |epoch| {
            let (bucket, stamp) = (self.bucket(epoch), Stamp::new(generation, epoch));
            let read = |counter: &AtomicU64| Counter(counter.load(Ordering::Relaxed)).of(stamp);
            (epoch, Counts { good: read(&bucket.good), bad: read(&bucket.bad) })
        })
    }

    fn add(&self, generation: u32, bad: bool, now: Tick, many: u64) {
        let epoch = now.0 / self.slice;
        let bucket = self.bucket(epoch);
        let counter = if bad { &bucket.bad } else { &bucket.good };
        let stamp = Stamp::new(generation, epoch);
        // An outcome that is too old for its bucket leaves the counter alone.
        let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            Counter(word).plus(stamp, many).map(|counter| counter.0)
        });
    }

    #[allow(clippy::cast_possible_truncation)] // below BUCKETS
    const fn bucket(&self, epoch: u64) -> &Bucket {
        &self.buckets[(epoch % BUCKETS as u64) as usize]
    }
}

/// Which outcomes a counter counts: generation 10 bits, time slice 26 bits, each wrapping.
///
/// A slice of 100 ms, the shortest, comes again after 77 days, a generation after 1024 changes of
/// state: a counter would have to be left alone exactly that long to be taken for a current one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64);

impl Stamp {
    const fn new(generation: u32, epoch: u64) -> Self {
        Self(((generation as u64 % GENERATIONS) << EPOCH_BITS) | (epoch % EPOCHS))
    }

    /// Whether outcomes of this stamp come later than those of `other`, on two circles.
    const fn after(self, other: Self) -> bool {
        let epochs = (self.0 % EPOCHS).wrapping_sub(other.0 % EPOCHS) % EPOCHS;
        let generations = (self.0 >> EPOCH_BITS).wrapping_sub(other.0 >> EPOCH_BITS) % GENERATIONS;
        if epochs == 0 { 0 < generations && generations < GENERATIONS / 2 } else { epochs < EPOCHS / 2 }
    }
}

/// A stamp and how many outcomes of it there were, at most 268 million.
#[derive(Clone, Copy)]
struct Counter(u64);

impl Counter {
    const fn stamp(self) -> Stamp {
        Stamp(self.0 >> COUNT_BITS)
    }

    const fn of(self, stamp: Stamp) -> u64 {
        if self.stamp().0 == stamp.0 { self.0 & MAX_COUNT } else { 0 }
    }

    fn plus(self, stamp: Stamp, many: u64) -> Option<Self> {
        let count = if self.stamp() == stamp {
            self.0 & MAX_COUNT
        } else if stamp.after(self.stamp()) || self.0 & MAX_COUNT == 0 {
            0
        } else {
            return None;
        };
        Some(Self((stamp.0 << COUNT_BITS) | (count + many).min(MAX_COUNT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counts(good: u64, bad: u64) -> Counts {
        Counts { good, bad }
    }

    #[test]
    fn a_count_leaves_with_its_bucket() {
        let window = Window::new(SECOND);
        window.record(0, true, Tick(99));
        window.record(0, false, Tick(100));
        assert_eq!(window.counts(0, Tick(999)), counts(1, 1));
        assert_eq!(window.counts(0, Tick(1000)), counts(1, 0), "the bucket of 0-99 ms is over");
        assert_eq!(window.counts(0, Tick(1100)), counts(0, 0));
        window.record(0, true, Tick(1000));
        assert_eq!(window.counts(0, Tick(1000)), counts(1, 1), "the same bucket, used again");
    }

    #[test]
    fn a_generation_starts_from_nothing_in_the_middle_of_a_bucket() {
        let window = Window::new(SECOND);
        window.record(0, true, Tick(10));
        window.record(2, false, Tick(20));
        window.record(0, true, Tick(30));
        assert_eq!(window.counts(2, Tick(30)), counts(1, 0));
        window.record(2, true, Tick(40));
        assert_eq!(window.counts(2, Tick(40)), counts(1, 1));
    }

    #[test]
    fn a_longer_window_keeps_every_count_and_a_shorter_one_the_recent() {
        let window = Window::new(10 * SECOND);
        window.record(0, true, Tick(500));
        window.record(0, false, Tick(9_500));
        let longer = window.resized(100 * SECOND, 0, Tick(9_600));
        assert_eq!(longer.counts(0, Tick(9_600)), counts(1, 1));
        let shorter = window.resized(SECOND, 0, Tick(9_600));
        assert_eq!(shorter.counts(0, Tick(9_600)), counts(1, 0));
        assert_eq!(shorter.counts(0, Tick(10_599)), counts(1, 0), "at most a window longer");
        assert_eq!(shorter.counts(0, Tick(10_600)), counts(0, 0));
    }

    #[test]
    fn the_percentage_is_inclusive_and_not_judged_below_the_volume() {
        assert!(counts(15, 5).reaches(25, 20), "exactly 25 %");
        assert!(!counts(16, 5).reaches(25, 20), "23.8 %");
        assert!(!counts(0, 19).reaches(25, 20), "19 calls");
        assert!(counts(2, 1).reaches(33, 1) && !counts(2, 1).reaches(34, 1), "33.3 % is no 34 %");
    }

    #[test]
    fn counts_saturate_instead_of_touching_their_stamp() {
        let counter = Counter(0).plus(Stamp::new(3, 7), MAX_COUNT).and_then(|c| c.plus(Stamp::new(3, 7), 5));
        assert_eq!(counter.map(|c| c.of(Stamp::new(3, 7))), Some(MAX_COUNT));
    }

    #[test]
    fn stamps_are_ordered_across_their_wrap() {
        assert!(Stamp::new(0, 0).after(Stamp::new(0, EPOCHS - 1)));
        assert!(Stamp::new(0, 5).after(Stamp::new(1023, 5)) && !Stamp::new(1023, 5).after(Stamp::new(0, 5)));
        assert!(!Stamp::new(9, 4).after(Stamp::new(8, 5)), "time before generation");
    }
}
