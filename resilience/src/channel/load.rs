//! How slow an endpoint is: a peak-sensitive moving average of its latencies, in one word.
//!
//! A latency above the average replaces it, one below draws it down, within seconds (Finagle's Peak EWMA). A
//! failure counts as many times what was known: an endpoint that fails at once must not look fast. What is not
//! called is forgotten: after a while it is worth a try.

use std::time::Duration;

use crate::clock::Tick;
use crate::sync::atomic::{AtomicU64, Ordering};

/// After so long a third (1/e) of what was known is left.
const DECAY: Duration = Duration::from_secs(2);
/// As how many times the average a failure counts. Enough to call another one next time, and no more: it is the
/// breaker that ejects, and it must see a few failures for that.
const PENALTY: f32 = 2.0;
/// In microseconds: differences below it are none, and what is above it is no worse.
const LEAST: f32 = 50.0;
const MOST: f32 = 60e6;

/// The average: microseconds as an `f32` in the upper half, the tick of the last change in the lower (which
/// wraps after 49 days). Zero: nothing is known.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

impl Latency {
    /// The average in microseconds, as far as it is remembered; None: there was no call yet.
    pub(super) fn get(&self, now: Tick) -> Option<f32> {
        let (micros, age) = unpack(self.0.load(Ordering::Relaxed), now)?;
        Some((micros * left(age)).max(LEAST))
    }

    /// An answer after so many nanoseconds.
    pub(super) fn record(&self, nanos: u64, now: Tick) {
        self.change(now, |known, age| {
            let (known, sample) = (known.unwrap_or_default(), micros(nanos));
            if sample >= known { sample } else { sample + (known - sample) * left(age) }
        });
    }

    /// A failure after so many nanoseconds.
    pub(super) fn fail(&self, nanos: u64, now: Tick) {
        self.change(now, |known, age| {
            let known = known.map_or(LEAST, |known| (known * left(age)).max(LEAST));
            (known * PENALTY).max(micros(nanos))
        });
    }

    fn change(&self, now: Tick, change: impl Fn(Option<f32>, u32) -> f32) {
        let set = |word| {
            let (known, age) = unpack(word, now).map_or((None, 0), |(micros, age)| (Some(micros), age));
            let micros = change(known, age).clamp(LEAST, MOST);
            Some(u64::from(micros.to_bits()) << 32 | u64::from(low(now)))
        };
        // The closure always gives a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
    }
}

#[allow(clippy::cast_possible_truncation)] // the lower half is meant
const fn low(tick: Tick) -> u32 {
    tick.0 as u32
}

fn unpack(word: u64, now: Tick) -> Option<(f32, u32)> {
    let micros = f32::from_bits(u32::try_from(word >> 32).ok()?);
    // Another thread may have read a later time than ours.
    let age = low(now).wrapping_sub(low(Tick(word)));
    (word != 0).then_some((micros, if age > u32::MAX / 2 { 0 } else { age }))
}

/// The part that is left of what was known, after so many milliseconds.
#[allow(clippy::cast_precision_loss)] // a minute is exact
fn left(age: u32) -> f32 {
    (-(age as f32) / (DECAY.as_millis() as f32)).exp()
}

#[allow(clippy::cast_precision_loss)] // seven digits will do
fn micros(nanos: u64) -> f32 {
    nanos as f32 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    #[test]
    #[allow(clippy::float_cmp)] // exact by construction
    fn peaks_count_at_once_and_are_forgotten_in_seconds() {
        let latency = Latency::default();
        assert_eq!(latency.get(Tick(0)), None);
        latency.record(2 * MILLI, Tick(0));
        assert_eq!(latency.get(Tick(0)), Some(2000.0));
        latency.record(100 * MILLI, Tick(1));
        assert_eq!(latency.get(Tick(1)), Some(100_000.0), "a peak");
        latency.record(2 * MILLI, Tick(1));
        assert_eq!(
            latency.get(Tick(1)),
            Some(100_000.0),
            "one good answer takes nothing back at that instant"
        );
        latency.record(2 * MILLI, Tick(2001));
        let third = latency.get(Tick(2001)).unwrap();
        assert!((38_000.0..39_000.0).contains(&third), "{third}");
        assert!(latency.get(Tick(6001)).unwrap() < 6_000.0, "not called it is forgotten");
        assert_eq!(latency.get(Tick(1_000_000)), Some(LEAST));
        assert!(latency.get(Tick(2000)).unwrap() >= third, "a thread that is behind");
    }

    #[test]
    #[allow(clippy::float_cmp)]
    fn who_fails_fast_is_not_fast() {
        let latency = Latency::default();
        latency.record(MILLI, Tick(0));
        latency.fail(10, Tick(0));
        assert_eq!(latency.get(Tick(0)), Some(2000.0));
        (0..20).for_each(|_| latency.fail(10, Tick(0)));
        assert_eq!(latency.get(Tick(0)), Some(MOST));
        let fresh = Latency::default();
        fresh.fail(500 * MILLI, Tick(7));
        assert_eq!(fresh.get(Tick(7)), Some(500_000.0), "a timeout took as long as it took");
    }
}
