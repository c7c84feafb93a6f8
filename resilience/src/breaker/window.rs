//! A rolling window of ten buckets, shared by threads without a lock, without a clock.
//!
//! A counter carries the stamp of what it counts. A counter with an older stamp is overwritten by the
//! first outcome that needs its place, and one with another stamp is not read: so nothing ever has to
//! be reset, neither by time nor when the breaker closes. Each thread counts for itself.

use std::time::Duration;

use super::slices::{BUCKETS, Slices};
use super::stamp::{Counter, Stamp};
use crate::clock::{Now, Tick};
use crate::shard::Shards;
use crate::slot::{Slot, Write};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a window holds of one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) good: u64,
    pub(crate) bad: u64,
    /// Those of either that took long.
    pub(crate) slow: u64,
}

impl Counts {
    /// All counted calls.
    pub(crate) const fn volume(self) -> u64 {
        self.good + self.bad
    }

    /// Of each the larger.
    fn max(self, other: Self) -> Self {
        Self {
            good: self.good.max(other.good),
            bad: self.bad.max(other.bad),
            slow: self.slow.max(other.slow),
        }
    }

    /// Whether `part` is at least `percent` of the volume: in integers, inclusive.
    pub(crate) const fn reach(self, part: u64, percent: u64) -> bool {
        self.volume() > 0 && part * 100 >= percent * self.volume()
    }
}

/// One outcome that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) bad: bool,
    pub(crate) slow: bool,
}

/// Counts of good, bad and slow outcomes over the last ten slices of time.
///
/// # Guarantees
/// - An outcome is read in exactly the window of its generation, or not at all if it came later than
///   the window is long.
/// - No outcome is lost, but for one that another thread counts at the very instant the window is
///   [resized](Self::resize).
#[derive(Debug)]
pub(crate) struct Window {
    slices: AtomicU64,
    shards: Shards<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The slices that the owner of this ring has counted by: it clears it when they have changed.
    seen: AtomicU64,
    here: Here,
    buckets: [Bucket; BUCKETS],
}

/// Where the owner of a ring has counted last: for as long as a slice lasts it need not look again.
#[derive(Debug, Default)]
struct Here {
    /// The first moment of the next slice, in nanoseconds.
    until: AtomicU64,
    stamp: AtomicU64,
    bucket: AtomicUsize,
}

#[derive(Debug, Default)]
struct Bucket {
    good: AtomicU64,
    bad: AtomicU64,
    slow: AtomicU64,
}

impl Window {
    /// An empty window of this length, which is rounded down to ten whole milliseconds.
    pub(crate) fn new(length: Duration, slots: usize) -> Self {
        Self { slices: AtomicU64::new(Slices::of(length).to_word()), shards: Shards::new(slots) }
    }

    /// Counts one outcome of a generation. One older than what its bucket holds is dropped.
    pub(crate) fn record(&self, generation: u32, entry: Entry, now: Tick) {
        let slot = Slot::mine();
        let (stamp, bucket) = self.place_now(generation, now, slot);
        Counter::at(if entry.bad { &bucket.bad } else { &bucket.good }).count(stamp, slot.write);
        if entry.slow {
            Counter::at(&bucket.slow).count(stamp, slot.write);
        }
    }

    /// Counts a good outcome in time, on the thread that has this slot.
    #[inline]
    pub(crate) fn record_good(&self, generation: u32, now: Now, slot: Slot) {
        let ring = self.shards.at(slot);
        let same_slices = ring.seen.load(Ordering::Relaxed) == self.slices.load(Ordering::Acquire);
        let stamp = Stamp::from_word(ring.here.stamp.load(Ordering::Relaxed));
        if slot.write == Write::Alone
            && same_slices
            && now.0 < ring.here.until.load(Ordering::Relaxed)
            && stamp.is_of(generation)
            && let Some(bucket) = ring.buckets.get(ring.here.bucket.load(Ordering::Relaxed))
        {
            Counter::at(&bucket.good).count_alone(stamp);
        } else {
            self.record(generation, Entry::default(), now.tick());
        }
    }

    fn place_now(&self, generation: u32, now: Tick, slot: Slot) -> (Stamp, &Bucket) {
        let slices = self.slices();
        let ring = self.shards.at(slot);
        if ring.seen.load(Ordering::Relaxed) != slices.to_word() && slot.write == Write::Alone {
            ring.begin(slices);
        }
        let epoch = slices.epoch(now);
        let (stamp, bucket) = Self::place(slices, generation, epoch, ring);
        if slot.write == Write::Alone {
            let next = slices.last_moment(epoch).0 + 1;
            ring.here.until.store(next * 1_000_000, Ordering::Relaxed);
            ring.here.stamp.store(stamp.to_word(), Ordering::Relaxed);
            ring.here.bucket.store(index(epoch), Ordering::Relaxed);
        }
        (stamp, bucket)
    }

    /// What the window holds of a generation at `now`.
    pub(crate) fn counts(&self, generation: u32, now: Tick) -> Counts {
        let slices = self.slices();
        self.rings(slices).flat_map(|ring| Self::read(slices, generation, now, ring)).fold(
            Counts::default(),
            |sum, (_, counts)| Counts {
                good: sum.good + counts.good,
                bad: sum.bad + counts.bad,
                slow: sum.slow + counts.slow,
            },
        )
    }

    /// Gives the window another length and keeps its counts: each bucket's go to the bucket that holds
    /// its last moment, or nowhere if that is out of the new window. Not to be called by two threads at
    /// once.
    pub(crate) fn resize(&self, length: Duration, generation: u32, now: Tick) {
        let old = self.slices();
        let new = old.resized(length);
        if new.same_length(old) {
            return;
        }
        // An owner that finds the new length clears its ring at once: so it is read before as well. What it
        // has counted only grows until then.
        let before = self.held(old, generation, now);
        // From here on outcomes have new stamps: they are counted beside what is carried over.
        self.slices.store(new.to_word(), Ordering::Release);
        let held = before.into_iter().zip(self.held(old, generation, now));
        let held: Vec<_> = held.map(|((epoch, before), (_, after))| (epoch, before.max(after))).collect();
        // What others write alone is theirs: it all goes where everybody may write.
        let shared = self.shards.shared();
        shared.counters().for_each(|counter| counter.clear_unless(new.incarnation()));
        for (epoch, counts) in held {
            let last = old.last_moment(epoch).min(now);
            if new.epoch(now) - new.epoch(last) >= BUCKETS as u64 {
                continue;
            }
            let (stamp, bucket) = Self::place(new, generation, new.epoch(last), shared);
            Counter::at(&bucket.good).add(stamp, counts.good);
            Counter::at(&bucket.bad).add(stamp, counts.bad);
            Counter::at(&bucket.slow).add(stamp, counts.slow);
        }
    }

    /// The rings that count by these slices.
    fn rings(&self, slices: Slices) -> impl Iterator<Item = &Ring> {
        self.shards.iter().filter(move |ring| self.counts_by(slices, ring))
    }

    fn counts_by(&self, slices: Slices, ring: &Ring) -> bool {
        std::ptr::eq(ring, self.shards.shared()) || ring.seen.load(Ordering::Acquire) == slices.to_word()
    }

    /// What each ring holds of each of the last ten slices: always of every ring, so that two readings can
    /// be compared.
    fn held(&self, slices: Slices, generation: u32, now: Tick) -> Vec<(u64, Counts)> {
        let held = self.shards.iter().flat_map(|ring| {
            let counts = self.counts_by(slices, ring);
            Self::read(slices, generation, now, ring)
                .map(move |(epoch, held)| (epoch, if counts { held } else { Counts::default() }))
        });
        held.collect()
    }

    #[inline]
    fn slices(&self) -> Slices {
        Slices::from_word(self.slices.load(Ordering::Acquire))
    }

    /// What a ring holds of each of the last ten slices.
    fn read(
        slices: Slices,
        generation: u32,
        now: Tick,
        ring: &Ring,
    ) -> impl Iterator<Item = (u64, Counts)> + '_ {
        let last = slices.epoch(now);
        (last.saturating_sub(BUCKETS as u64 - 1)..=last).map(move |epoch| {
            let (stamp, bucket) = Self::place(slices, generation, epoch, ring);
            let read = |word: &AtomicU64| Counter::at(word).of(stamp);
            (epoch, Counts { good: read(&bucket.good), bad: read(&bucket.bad), slow: read(&bucket.slow) })
        })
    }

    const fn place(slices: Slices, generation: u32, epoch: u64, ring: &Ring) -> (Stamp, &Bucket) {
        let stamp = Stamp::new(slices.incarnation(), epoch, generation);
        (stamp, &ring.buckets[index(epoch)])
    }
}

#[allow(clippy::cast_possible_truncation)] // below BUCKETS
const fn index(epoch: u64) -> usize {
    (epoch % BUCKETS as u64) as usize
}

impl Ring {
    /// Its owner counts by other slices from here on.
    #[cold]
    #[inline(never)]
    fn begin(&self, slices: Slices) {
        self.counters().for_each(|counter| counter.clear());
        // Whoever reads this reads none of what was there before.
        self.seen.store(slices.to_word(), Ordering::Release);
    }

    fn counters(&self) -> impl Iterator<Item = Counter<'_>> {
        let words = self.buckets.iter().flat_map(|bucket| [&bucket.good, &bucket.bad, &bucket.slow]);
        words.map(Counter::at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GOOD: Entry = Entry { bad: false, slow: false };
    const BAD: Entry = Entry { bad: true, slow: false };

    fn counts(good: u64, bad: u64) -> Counts {
        Counts { good, bad, slow: 0 }
    }

    #[test]
    fn a_count_leaves_with_its_bucket() {
        let window = Window::new(SECOND, 2);
        window.record(0, BAD, Tick(99));
        window.record(0, GOOD, Tick(100));
        assert_eq!(window.counts(0, Tick(999)), counts(1, 1));
        assert_eq!(window.counts(0, Tick(1000)), counts(1, 0), "the bucket of 0-99 ms is over");
        assert_eq!(window.counts(0, Tick(1100)), counts(0, 0));
        window.record(0, BAD, Tick(1000));
        assert_eq!(window.counts(0, Tick(1000)), counts(1, 1), "the same bucket, used again");
    }

    #[test]
    fn slow_ones_are_counted_beside_good_and_bad() {
        let window = Window::new(SECOND, 1);
        window.record(0, Entry { bad: true, slow: true }, Tick(0));
        window.record(0, Entry { bad: false, slow: true }, Tick(0));
        window.record(0, GOOD, Tick(0));
        assert_eq!(window.counts(0, Tick(0)), Counts { good: 2, bad: 1, slow: 2 });
    }

    #[test]
    fn a_generation_starts_from_nothing_in_the_middle_of_a_bucket() {
        let window = Window::new(SECOND, 1);
        window.record(0, BAD, Tick(10));
        window.record(2, GOOD, Tick(20));
        window.record(0, BAD, Tick(30));
        assert_eq!(window.counts(2, Tick(30)), counts(1, 0));
        window.record(2, BAD, Tick(40));
        assert_eq!(window.counts(2, Tick(40)), counts(1, 1));
    }

    #[test]
    fn a_longer_window_keeps_every_count_and_a_shorter_one_the_recent() {
        let window = Window::new(10 * SECOND, 1);
        window.record(0, BAD, Tick(500));
        window.record(0, GOOD, Tick(9_500));
        window.resize(100 * SECOND, 0, Tick(9_600));
        assert_eq!(window.counts(0, Tick(9_600)), counts(1, 1));
        let window = Window::new(10 * SECOND, 1);
        window.record(0, BAD, Tick(500));
        window.record(0, GOOD, Tick(9_500));
        window.resize(SECOND, 0, Tick(9_600));
        assert_eq!(window.counts(0, Tick(9_600)), counts(1, 0));
        assert_eq!(window.counts(0, Tick(10_599)), counts(1, 0), "at most a window longer");
        assert_eq!(window.counts(0, Tick(10_600)), counts(0, 0));
    }

    #[test]
    fn however_long_nobody_called_and_however_often_it_was_resized_the_next_call_counts() {
        let day = 24 * 3600 * 1000;
        for resizes in [0, 1, 9, 31, 32, 33, 63, 64, 65] {
            let window = Window::new(SECOND, 1);
            window.record(0, BAD, Tick(0));
            for n in 0..resizes {
                window.resize(SECOND * (2 + n % 2), 0, Tick(0));
            }
            for days in [0, 1, 3, 5, 40, 365] {
                let now = Tick(60_000 + days * day);
                window.record(0, GOOD, now);
                assert_eq!(window.counts(0, now), counts(1, 0), "{resizes} resizes, {days} days");
            }
        }
    }

    #[test]
    fn the_percentage_is_inclusive() {
        assert!(counts(15, 5).reach(5, 25), "exactly 25 %");
        assert!(!counts(16, 5).reach(5, 25), "23.8 %");
        assert!(counts(2, 1).reach(1, 33) && !counts(2, 1).reach(1, 34), "33.3 % is no 34 %");
        assert!(!counts(0, 0).reach(0, 1), "nothing is no share of nothing");
    }
}
