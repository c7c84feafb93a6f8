//! The one source of time: tokio's clock, as ticks since the process took up its policies.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Whole milliseconds since the [`Clock`] started. Never goes back on one thread; two threads may
/// see each other's ticks out of order by as long as one of them is preempted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u64);

impl Tick {
    /// Milliseconds from `earlier` to here, zero if that is in the future.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Turns tokio's instants into ticks and ticks into wall-clock time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    wall: Timestamp,
}

impl Clock {
    /// A clock whose tick 0 is `start`, which was at `wall`.
    pub(crate) const fn new(start: Instant, wall: Timestamp) -> Self {
        Self { start, wall }
    }

    /// The tick of now.
    pub(crate) fn now(self) -> Tick {
        self.tick(Instant::now())
    }

    /// The tick of an instant.
    pub(crate) fn tick(self, at: Instant) -> Tick {
        Tick(u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX))
    }

    /// When a tick was by the wall clock, as it was set at the start.
    pub(crate) fn timestamp(self, at: Tick) -> Timestamp {
        let passed = SignedDuration::from_millis(i64::try_from(at.0).unwrap_or(i64::MAX));
        self.wall.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}
