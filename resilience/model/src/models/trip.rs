//! A breaker that opens while calls are admitted and end.

use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, Ordering};

use super::{Breaker, LATER, START, join, spawn};
use crate::breaker::Verdict;
use crate::breaker::state::Phase;
use crate::breaker::window::Counts;
use crate::explore::{Bound, Witness, explore};
use crate::slot::Slot;

/// Two failures, each of which is enough.
pub fn a_generation_opens_exactly_once() {
    let stale = Witness::default();
    let seen = stale.clone();
    explore("a_generation_opens_exactly_once", Bound::of(2, 3), move || {
        let breaker = Arc::new(Breaker::new(1, 1, 1));
        let fail = |breaker: &Breaker| {
            let generation = breaker.gate.pass();
            generation.and_then(|generation| breaker.end(generation, Verdict::Bad))
        };
        let threads = [Slot::FIRST, Slot::SECOND].map(|slot| spawn(&breaker, slot, fail));
        let changes = join(threads);
        assert_eq!(changes.iter().flatten().count(), 1, "{changes:?}");
        assert_eq!(breaker.transitions(), [1, 0, 0]);
        assert_eq!(breaker.gate.state().generation, 1);
        assert!(matches!(breaker.gate.state().phase, Phase::Open { .. }));
        seen.of(breaker.stale() == 1);
    });
    assert!(stale.was_seen());
}

/// A call that asks and succeeds while the breaker opens: once it is known to be open, nobody passes; and
/// who passed before is counted in the generation that admitted it, or known to be late.
pub fn whoever_sees_it_open_is_refused_and_whoever_passed_before_is_late() {
    let name = "whoever_sees_it_open_is_refused_and_whoever_passed_before_is_late";
    let late = Witness::default();
    let seen = late.clone();
    explore(name, Bound::short_of(4), move || {
        let shared = Arc::new((Breaker::new(1, 1, 1), AtomicBool::new(false)));
        let opens = spawn(&shared, Slot::FIRST, |(breaker, opened)| {
            assert!(breaker.end(0, Verdict::Bad).is_some());
            opened.store(true, Ordering::Release);
        });
        let (breaker, opened) = &*shared;
        let was_open = opened.load(Ordering::Acquire);
        let passed = breaker.gate.pass();
        assert!(!was_open || passed.is_none(), "it passed an open breaker");
        if let Some(generation) = passed {
            assert_eq!(generation, 0);
            assert_eq!(breaker.succeed(generation, START), None);
        }
        opens.join().unwrap();
        seen.of(breaker.stale() == 1);
        assert!(breaker.stale() <= 1);
        let (probe, _) = breaker.ask();
        assert!(breaker.settle(probe.unwrap(), Verdict::Good, LATER).is_some());
        assert_eq!(breaker.gate.counts(LATER), Counts::default(), "closed again, it starts from nothing");
    });
    assert!(late.was_seen());
}

/// A success, or a failure, of the first generation, as late as can be: beside a thread that opens the
/// breaker, closes it again and counts a success of its own. On slots of their own, or on the one that
/// all share.
pub fn an_outcome_of_an_older_generation_never_counts_in_a_newer_window() {
    let name = "an_outcome_of_an_older_generation_never_counts_in_a_newer_window";
    for (verdict, slots) in [
        (Verdict::Good, [Slot::FIRST, Slot::SECOND]),
        (Verdict::Good, [Slot::SHARED; 2]),
        (Verdict::Bad, [Slot::SHARED; 2]),
    ] {
        explore(name, Bound::of(2, 3), move || {
            let breaker = Arc::new(Breaker::new(1, 100, 1));
            let late = spawn(&breaker, slots[0], move |breaker| match verdict {
                Verdict::Good => breaker.succeed(0, LATER),
                verdict => breaker.end(0, verdict),
            });
            slots[1].give();
            breaker.end(0, Verdict::Bad);
            if breaker.gate.state().generation == 0 {
                // The other's success was counted first: half of two is not enough, and it stays closed.
                late.join().unwrap();
                return;
            }
            let (probe, _) = breaker.ask();
            assert!(breaker.settle(probe.unwrap(), Verdict::Good, LATER).is_some());
            assert_eq!(breaker.gate.pass(), Some(3));
            assert_eq!(breaker.succeed(3, LATER), None);
            assert_eq!(late.join().unwrap().map_or(1, |change| change.state.generation), 1);
            assert_eq!(breaker.gate.counts(LATER), Counts { good: 1, bad: 0, slow: 0 });
            assert_eq!(breaker.transitions(), [1, 1, 1]);
        });
    }
}
