//! A concurrency limit that can be resized while calls are in flight.

use crate::sync::atomic::{AtomicU32, Ordering};

/// Counts calls in flight, whether or not there is a limit, so that a limit set later holds for
/// those too.
///
/// # Guarantees
/// - The count never exceeds the limit by an admission under that limit.
/// - A limit that shrinks below the count admits nobody until enough calls have ended; it ends none.
/// - Every refusal is right at the moment of its atomic read: there are no false ones.
#[derive(Debug, Default)]
pub(crate) struct InFlight(AtomicU32);

impl InFlight {
    /// Takes a permit under `limit`; None: without a limit. A permit taken must be
    /// [released](Self::release) once.
    pub(crate) fn acquire(&self, limit: Option<u32>) -> bool {
        let limit = limit.unwrap_or(u32::MAX);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| (taken < limit).then(|| taken + 1))
            .is_ok()
    }

    /// Gives a permit back.
    pub(crate) fn release(&self) {
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a permit was given back twice");
    }

    /// How many permits are taken.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_shrinks_admits_nobody_until_enough_have_ended() {
        let calls = InFlight::default();
        assert!((0..3).all(|_| calls.acquire(Some(3))));
        assert!(!calls.acquire(Some(3)) && !calls.acquire(Some(1)));
        calls.release();
        calls.release();
        assert!(!calls.acquire(Some(1)), "one is still in flight");
        calls.release();
        assert!(calls.acquire(Some(1)));
    }

    #[test]
    fn calls_from_before_there_was_a_limit_count() {
        let calls = InFlight::default();
        assert!(calls.acquire(None) && calls.acquire(None));
        assert!(!calls.acquire(Some(2)) && calls.acquire(Some(3)));
    }

    /// Threads that race for one permit.
    #[test]
    fn permits_are_never_over_issued() {
        let (calls, held) = (InFlight::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..300_000_u32 {
                        if calls.acquire(Some(1)) {
                            assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0, "in round {round}");
                            std::hint::spin_loop();
                            held.fetch_sub(1, Ordering::SeqCst);
                            calls.release();
                        }
                    }
                });
            }
        });
        assert_eq!(calls.count(), 0);
    }
}
