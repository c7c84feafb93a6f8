//! The one source of time: tokio's clock, read by a ticker once a millisecond.
//!
//! Reading a clock costs more than a whole admission. So a thread of its own reads it and leaves the
//! time where every call finds it; whoever waits anyway, arms a timer or reports, reads it exactly.

mod tick;
mod ticker;

use std::sync::OnceLock;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub(crate) use tick::Tick;
use ticker::Source;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// A moment: nanoseconds since the process first asked for the time, good for five centuries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Now(pub(crate) u64);

impl Now {
    /// The moment that never comes.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// In whole milliseconds.
    pub(crate) const fn tick(self) -> Tick {
        Tick(self.0 / NANOS_PER_MILLI)
    }

    /// As tokio's timers want it; None: never.
    pub(crate) fn instant(self) -> Option<Instant> {
        (self != Self::NEVER).then(|| origin().checked_add(Duration::from_nanos(self.0)))?
    }

    /// Nanoseconds from `earlier` to here, zero if that is in the future.
    #[inline]
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Later by so much; what is too far away never comes.
    pub(crate) const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// From `earlier` to here, zero if that is in the future.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The moment of tokio's clock. With a paused clock it is the paused one of the current runtime.
pub(crate) fn exact() -> Now {
    let passed = Instant::now().saturating_duration_since(origin());
    Now(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX - 1))
}

/// Where moments are counted from: an hour before anybody asked, because the paused clock of a runtime
/// that was built before may stand a little earlier.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    const EARLIER: Duration = Duration::from_hours(1);
    *ORIGIN.get_or_init(|| {
        // The machine's own clock, also where tokio's is paused: every runtime's is ahead of it.
        #[allow(clippy::disallowed_types)]
        let now = std::time::Instant::now();
        Instant::from_std(now.checked_sub(EARLIER).unwrap_or(now))
    })
}

/// How a fusebox reads the time.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The clock itself, if tokio's was paused when the fusebox was made: it is a test, and the ticker
    /// would not know.
    source: Source,
    /// A moment, and what the wall clock said then.
    wall: (Now, Timestamp),
}

impl Clock {
    /// Finds out whether tokio's clock stands still here.
    pub(crate) fn detect(wall: Timestamp) -> Self {
        let source = if stands_still() { Source::exact() } else { Source::ticking() };
        Self { source, wall: (exact(), wall) }
    }

    /// The time of now, at most [`slack`](Self::slack) ago: what a call may afford.
    #[inline]
    pub(crate) fn now(&self) -> Now {
        self.source.now()
    }

    /// How much later it may be than [`now`](Self::now) says, in nanoseconds; more only where the ticker
    /// gets no processor: up to 70 ms were seen with twice as many busy threads as processors.
    #[inline]
    pub(crate) fn slack(&self) -> u64 {
        if self.source.is_exact() { 0 } else { NANOS_PER_MILLI }
    }

    /// When a tick was by the wall clock, as it was set at the start.
    pub(crate) fn timestamp(&self, at: Tick) -> Timestamp {
        let (start, wall) = self.wall;
        let millis = |tick: Tick| i64::try_from(tick.0).unwrap_or(i64::MAX);
        let passed = SignedDuration::from_millis(millis(at).saturating_sub(millis(start.tick())));
        wall.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}

/// Whether tokio's clock stands while the machine's goes on.
#[allow(clippy::disallowed_types)] // the machine's, to compare with
fn stands_still() -> bool {
    let (before, machine) = (Instant::now(), std::time::Instant::now());
    while machine.elapsed() < Duration::from_micros(1) {
        std::hint::spin_loop();
    }
    Instant::now() == before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_paused_clock_time_goes_on_and_is_at_most_the_exact_one() {
        let clock = Clock::detect(Timestamp::UNIX_EPOCH);
        assert!(!clock.source.is_exact());
        let first = clock.now();
        // The first may have been read exactly, a little after the ticker read its own.
        while clock.now() <= first {
            std::thread::yield_now();
        }
        let (cached, exact) = (clock.now(), exact());
        assert!(first < cached && cached <= exact, "{first:?} {cached:?} {exact:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_is_noticed_and_followed() {
        let clock = Clock::detect(Timestamp::UNIX_EPOCH);
        let first = clock.now();
        assert_eq!(clock.now(), first);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now(), first.plus(5 * NANOS_PER_MILLI));
        assert_eq!(clock.timestamp(clock.now().tick()).as_millisecond(), 5);
    }

    #[test]
    fn never_has_no_instant_and_stays_never() {
        assert_eq!(Now::NEVER.instant(), None);
        assert_eq!(Now::NEVER.plus(1), Now::NEVER);
        assert_eq!(exact().plus(u64::MAX), Now::NEVER);
    }
}
