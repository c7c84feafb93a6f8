//! A rate limit in one word: the generic cell rate algorithm (ITU-T I.371), as a virtual schedule.

use std::time::Duration;

use crate::clock::Now;
use crate::sync::atomic::{AtomicU64, Ordering};

const BURST_BITS: u32 = 20;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A rate that can be changed while calls are admitted.
///
/// # Guarantees
/// - In any time `t`, as its callers see time, at most `burst + t / interval` calls are admitted, plus
///   those of one [slack](crate::clock::Clock::slack): never more for threads that race.
/// - A refused call costs nothing.
/// - Calls that race with a [reload](Self::reload) may be admitted by the one pace and counted by the
///   other: of all together, at most twice the larger burst, and one more for each of their threads.
///
/// # Assumptions
/// Time is read by each caller: two threads may see it out of order by the slack.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// The interval between calls and the burst; zero: no limit.
    pace: AtomicU64,
    /// When the bucket will be full again: the "theoretical arrival time" of the algorithm.
    full_at: AtomicU64,
}

/// The terms of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Nanoseconds between calls, at least one.
    interval: u64,
    /// Calls at once, 1 to 1,000,000.
    burst: u64,
}

impl Pace {
    /// So many calls a second, and a burst of so many at once, shared by so many instances. Rounded so
    /// that it is never exceeded, but for a burst of less than one call, which is one.
    pub(crate) fn new(per_second: u32, burst: u32, instances: u32) -> Self {
        let instances = u64::from(instances.max(1));
        let interval = (NANOS_PER_SECOND * instances).div_ceil(u64::from(per_second.max(1)));
        // 40 bits are 18 minutes.
        let interval = interval.min((1 << (64 - BURST_BITS - 4)) - 1);
        Self { interval, burst: (u64::from(burst) / instances).clamp(1, (1 << BURST_BITS) - 1) }
    }

    /// How far ahead of now the bucket may be full after the last call of a burst.
    const fn tolerance(self) -> u64 {
        (self.burst - 1) * self.interval
    }

    const fn to_word(self) -> u64 {
        self.interval << BURST_BITS | self.burst
    }

    const fn from_word(word: u64) -> Option<Self> {
        let pace = Self { interval: word >> BURST_BITS, burst: word & ((1 << BURST_BITS) - 1) };
        if word == 0 { None } else { Some(pace) }
    }
}

impl Rate {
    /// Takes one call, if the rate allows; else says when it will. `slack`: by how many nanoseconds the
    /// time of now may be late.
    #[inline]
    pub(crate) fn take(&self, now: Now, slack: u64) -> Result<(), Duration> {
        // Whoever finds a pace finds what a reload has done before.
        match Pace::from_word(self.pace.load(Ordering::Acquire)) {
            Some(pace) => self.take_at(pace, now, slack),
            None => Ok(()),
        }
    }

    /// When a call would be refused, when it will not be; None: it would be allowed. Takes nothing.
    #[inline]
    pub(crate) fn refuses(&self, now: Now, slack: u64) -> Option<Duration> {
        let pace = Pace::from_word(self.pace.load(Ordering::Acquire))?;
        let ahead = self.full_at.load(Ordering::Relaxed).saturating_sub(now.0);
        (ahead > pace.tolerance() + slack).then(|| Duration::from_nanos(ahead - pace.tolerance()))
    }

    fn take_at(&self, pace: Pace, now: Now, slack: u64) -> Result<(), Duration> {
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let from = full_at.max(now.0);
            (from - now.0 <= pace.tolerance() + slack).then(|| from.saturating_add(pace.interval))
        });
        taken.map(drop).map_err(|full_at| {
            Duration::from_nanos(full_at.saturating_sub(now.0).saturating_sub(pace.tolerance()))
        })
    }

    /// Puts another pace in force; None: no limit. Calls that were taken stay taken: as many of the new
    /// burst are missing as were missing of the old. Not to be called by two threads at once.
    pub(crate) fn reload(&self, pace: Option<Pace>, now: Now) {
        let word = pace.map_or(0, Pace::to_word);
        let (Some(old), Some(new)) = (self.pace(), pace) else {
            // First, or it would forget what is taken by a pace that comes.
            self.full_at.store(0, Ordering::Relaxed);
            self.pace.store(word, Ordering::Release);
            return;
        };
        self.pace.store(word, Ordering::Release);
        let rescale = |full_at: u64| {
            let ahead = u128::from(full_at.saturating_sub(now.0)) * u128::from(new.interval)
                / u128::from(old.interval);
            let most = new.tolerance() + new.interval;
            Some(now.0 + u64::try_from(ahead).map_or(most, |ahead| ahead.min(most)))
        };
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rescale);
    }

    /// The pace in force; None: no limit.
    pub(crate) fn pace(&self) -> Option<Pace> {
        Pace::from_word(self.pace.load(Ordering::Relaxed))
    }

    /// The pace in force as calls a second, rounded; None: no limit.
    pub(crate) fn per_second(&self) -> Option<u64> {
        let pace = self.pace()?;
        Some((NANOS_PER_SECOND + pace.interval / 2) / pace.interval)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(per_second: u32, burst: u32) -> Rate {
        let rate = Rate::default();
        rate.reload(Some(Pace::new(per_second, burst, 1)), Now(0));
        rate
    }

    fn burst(rate: &Rate, now: Now) -> usize {
        (0..2000).take_while(|_| rate.take(now, 0).is_ok()).count()
    }

    const SECOND: u64 = NANOS_PER_SECOND;

    #[test]
    fn a_burst_then_one_by_one() {
        let rate = at(10, 3);
        assert_eq!(burst(&rate, Now(SECOND)), 3);
        assert_eq!(rate.take(Now(SECOND), 0), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(Now(SECOND + 99_999_999), 0), Err(Duration::from_nanos(1)));
        assert_eq!(burst(&rate, Now(SECOND + 100_000_000)), 1);
        assert_eq!(burst(&rate, Now(10 * SECOND)), 3, "no more than a burst is saved up");
    }

    #[test]
    fn it_refuses_exactly_when_it_gives_none_and_for_as_long() {
        for (taken, slack, late) in
            [(1, 0, 0), (3, 0, 0), (3, 0, 99), (3, 0, 100), (3, 50, 49), (3, 50, 50), (3, 100, 0)]
        {
            let rate = at(10, 3);
            assert_eq!((0..taken).filter(|_| rate.take(Now(SECOND), 0).is_ok()).count(), taken);
            let (now, slack) = (Now(SECOND + late * 1_000_000), slack * 1_000_000);
            let refuses = rate.refuses(now, slack);
            assert_eq!(refuses, rate.take(now, slack).err(), "{taken} taken, {late} ms later, slack {slack}");
        }
        assert_eq!(Rate::default().refuses(Now(0), 0), None);
    }

    #[test]
    fn without_a_pace_there_is_no_limit() {
        let rate = Rate::default();
        assert!((0..1000).all(|_| rate.take(Now(0), 0).is_ok()));
        assert_eq!(rate.per_second(), None);
    }

    #[test]
    fn a_reload_keeps_what_was_taken_counted_in_calls() {
        let rate = at(1, 60);
        assert_eq!(burst(&rate, Now(SECOND)), 60);
        rate.reload(Some(Pace::new(1000, 10, 1)), Now(SECOND));
        assert_eq!(burst(&rate, Now(SECOND)), 0, "the burst was spent");
        assert_eq!(
            burst(&rate, Now(SECOND + 10_000_000)),
            10,
            "and does not have to be waited for in minutes"
        );
        let rate = at(1000, 10);
        assert_eq!((0..4).filter(|_| rate.take(Now(SECOND), 0).is_ok()).count(), 4);
        rate.reload(Some(Pace::new(1, 60, 1)), Now(SECOND));
        assert_eq!(burst(&rate, Now(SECOND)), 56);
        rate.reload(None, Now(SECOND));
        assert!(rate.take(Now(SECOND), 0).is_ok());
    }

    #[test]
    fn shared_by_instances_it_is_divided() {
        let rate = Rate::default();
        rate.reload(Some(Pace::new(100, 50, 4)), Now(0));
        assert_eq!((rate.per_second(), burst(&rate, Now(SECOND))), (Some(25), 12));
        assert_eq!(Pace::new(1, 1, 5000).interval, (1 << 40) - 1, "no slower than one in 18 minutes");
    }

    proptest! {
        /// Against the definition: over every stretch of time at most a burst and what the rate adds.
        #[test]
        fn no_stretch_of_time_admits_more(
            per_second in 1..2000_u32,
            most in 1..50_u32,
            waits in prop::collection::vec(0..20_000_000_u64, 1..300),
        ) {
            let (rate, mut now, mut taken) = (at(per_second, most), 0, Vec::new());
            for wait in waits {
                now += wait;
                if rate.take(Now(now), 0).is_ok() {
                    taken.push(now);
                }
            }
            for (n, from) in taken.iter().enumerate() {
                for (m, to) in taken.iter().enumerate().skip(n) {
                    let allowed = u64::from(most) + (to - from) * u64::from(per_second) / SECOND;
                    prop_assert!((m - n + 1) as u64 <= allowed, "{} from {from} to {to}", m - n + 1);
                }
            }
        }
    }
}
