//! Time as the models say it is: nothing here reads a clock.

#[path = "../../src/clock/tick.rs"]
mod tick;

pub(crate) use tick::Tick;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// A moment, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Now(pub(crate) u64);

impl Now {
    /// In whole milliseconds.
    pub(crate) const fn tick(self) -> Tick {
        Tick(self.0 / NANOS_PER_MILLI)
    }
}

/// The moment of now. In the first slice of time, so that a window has that one to read, not ten.
pub(crate) const NOW: Now = Now(5 * NANOS_PER_MILLI);

/// Always the same.
pub(crate) const fn exact() -> Now {
    NOW
}

/// A clock that stands still.
#[derive(Debug)]
pub(crate) struct Clock;

impl Clock {
    /// Always the same.
    #[allow(clippy::unused_self)] // as the library's
    pub(crate) const fn now(&self) -> Now {
        NOW
    }

    /// It is exact.
    #[allow(clippy::unused_self)]
    pub(crate) const fn slack(&self) -> u64 {
        0
    }
}
