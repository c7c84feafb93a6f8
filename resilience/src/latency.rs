//! How long calls took: a histogram that costs nothing where nothing took long.

use std::time::Duration;

use crate::slot::Write;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The unit of the buckets: 25 µs.
const UNIT: u64 = 25_000;
/// Buckets of one doubling.
pub(crate) const PER_OCTAVE: usize = 4;
/// Doublings from 100 µs: the last is at 105 s.
const OCTAVES: usize = 20;
/// How many buckets there are: up to 100 µs, four for each doubling, and what took longer.
pub(crate) const BUCKETS: usize = 1 + OCTAVES * PER_OCTAVE + 1;

/// Durations by bucket; the width of a bucket is a quarter of its lower bound or less.
#[derive(Debug)]
pub(crate) struct Latency {
    buckets: [AtomicU64; BUCKETS],
    /// Nanoseconds of all of them.
    sum: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl Latency {
    /// Counts one call.
    #[cold]
    #[inline(never)]
    pub(crate) fn record(&self, nanos: u64, write: Write) {
        write.add(&self.buckets[bucket(nanos)], 1);
        write.add(&self.sum, nanos);
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Durations {
    pub(crate) buckets: [u64; BUCKETS],
    pub(crate) sum: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: Duration::ZERO }
    }
}

impl Durations {
    /// Adds what a histogram holds.
    pub(crate) fn add(&mut self, latency: &Latency) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&latency.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.sum += Duration::from_nanos(latency.sum.load(Ordering::Relaxed));
    }

    /// Calls of all buckets.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was added since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let buckets = std::array::from_fn(|n| self.buckets[n].saturating_sub(earlier.buckets[n]));
        Self { buckets, sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// The duration that so many percent of the calls did not exceed: the upper bound of its bucket.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let count = self.count();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = ((count as f64 * percent / 100.0).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let found = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= rank
        });
        found.map_or(Duration::ZERO, upper_bound)
    }
}

/// The bucket of a duration.
#[allow(clippy::cast_possible_truncation)] // two bits, and a number below 64
fn bucket(nanos: u64) -> usize {
    let units = nanos / UNIT;
    if units < PER_OCTAVE as u64 {
        return 0;
    }
    let octave = units.ilog2() - 2;
    let quarter = (units >> octave) as usize - PER_OCTAVE;
    (1 + octave as usize * PER_OCTAVE + quarter).min(BUCKETS - 1)
}

/// What every duration in a bucket is below; the last has none, and gives its lower bound.
pub(crate) fn upper_bound(bucket: usize) -> Duration {
    let (octave, quarter) = match bucket.min(BUCKETS - 2).checked_sub(1) {
        None => return Duration::from_nanos(UNIT * PER_OCTAVE as u64),
        Some(n) => (n / PER_OCTAVE, n % PER_OCTAVE),
    };
    Duration::from_nanos((UNIT * (PER_OCTAVE + quarter + 1) as u64) << octave)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_below_the_upper_bound_of_its_bucket_and_not_below_that_of_the_one_before() {
        let mut nanos = 1_u64;
        while nanos < 100_000_000_000 {
            let n = bucket(nanos);
            let took = Duration::from_nanos(nanos);
            assert!(took < upper_bound(n), "{took:?} in {n}");
            assert!(n == 0 || upper_bound(n - 1) <= took, "{took:?} in {n}");
            nanos = nanos * 17 / 16 + 1;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_bound(0), Duration::from_micros(100));
        assert_eq!(upper_bound(4), Duration::from_micros(200), "a doubling is four buckets");
    }

    #[test]
    fn percentiles_are_the_upper_bounds_of_their_buckets() {
        let latency = Latency::default();
        for millis in 1..=100 {
            latency.record(millis * 1_000_000, Write::Shared);
        }
        let mut durations = Durations::default();
        durations.add(&latency);
        assert_eq!((durations.count(), durations.sum), (100, Duration::from_millis(5050)));
        for (percent, millis) in [(0.0, 1.0), (50.0, 50.0), (99.5, 100.0), (100.0, 100.0)] {
            let said = durations.percentile(percent).as_secs_f64() * 1000.0;
            assert!((millis..=millis * 1.25 + 0.1).contains(&said), "{percent} %: {said} ms");
        }
        assert_eq!(Durations::default().percentile(50.0), Duration::ZERO);
        assert_eq!(durations.since(&durations).count(), 0);
    }
}
