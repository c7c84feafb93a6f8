//! Whole milliseconds, as breakers count time.

/// Whole milliseconds since the process first asked for the time. It may go back by one after the clock
/// was read exactly; two threads may see each other's ticks out of order by as long as one of them is
/// preempted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u64);

impl Tick {
    /// Milliseconds from `earlier` to here, zero if that is in the future.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
