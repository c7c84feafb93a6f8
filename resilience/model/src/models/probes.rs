//! A half-open breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::{Breaker, LATER, join, spawn};
use crate::breaker::Verdict;
use crate::breaker::state::{Phase, State};
use crate::explore::{Bound, Witness, explore};
use crate::slot::Slot;

/// Three calls ask an open breaker that has slept.
pub fn it_turns_half_open_once_and_no_more_probes_pass_than_the_policy_allows() {
    let name = "it_turns_half_open_once_and_no_more_probes_pass_than_the_policy_allows";
    for probes in [1, 2] {
        explore(name, Bound::of(2, 4), move || {
            let breaker = Arc::new(Breaker::opened(probes));
            let threads = [Slot::FIRST, Slot::SECOND].map(|slot| spawn(&breaker, slot, Breaker::ask));
            let (admitted, changes): (Vec<_>, Vec<_>) =
                std::iter::once(breaker.ask()).chain(join(threads)).unzip();
            assert_eq!(admitted.iter().flatten().count() as u64, probes);
            assert!(admitted.iter().flatten().all(|admission| admission.probe && admission.generation == 2));
            assert_eq!(changes.iter().flatten().count(), 1, "{changes:?}");
            assert_eq!(breaker.transitions(), [1, 1, 0]);
        });
    }
}

/// Three calls ask for one of two probes, and what passes is cancelled.
pub fn a_cancelled_probe_leaves_its_slot_free_and_no_more_are_in_flight_than_the_policy_allows() {
    let name = "a_cancelled_probe_leaves_its_slot_free_and_no_more_are_in_flight_than_the_policy_allows";
    let refused = Witness::default();
    let seen = refused.clone();
    explore(name, Bound::of(2, 3), move || {
        // How many are in flight: not by loom's atomics, so that it takes no step.
        let shared = Arc::new((Breaker::opened(2), AtomicU32::new(0)));
        let probe = |(breaker, in_flight): &(Breaker, AtomicU32)| {
            let Some(probe) = breaker.ask().0 else { return false };
            assert!(in_flight.fetch_add(1, SeqCst) < 2, "a third probe is in flight");
            in_flight.fetch_sub(1, SeqCst);
            assert_eq!(breaker.settle(probe, Verdict::Neither, LATER), None);
            true
        };
        let threads = [Slot::FIRST, Slot::SECOND].map(|slot| spawn(&shared, slot, probe));
        let mine = probe(&shared);
        let others = join(threads);
        seen.of(!mine || others.contains(&false));
        let (breaker, _) = &*shared;
        let free = State { generation: 2, phase: Phase::HalfOpen { in_flight: 0, succeeded: 0 } };
        assert_eq!(breaker.gate.state(), free);
        assert!(breaker.ask().0.is_some() && breaker.ask().0.is_some() && breaker.ask().0.is_none());
    });
    assert!(refused.was_seen());
}

/// Two probes in flight; ends them so, at once. Beside them, calls ask.
fn end(name: &str, verdicts: [Verdict; 2], check: impl Fn(&Breaker, usize) + Send + Sync + 'static) {
    explore(name, Bound::short_of(4), move || {
        let breaker = Arc::new(Breaker::opened(2));
        let probes = [(); 2].map(|()| breaker.ask().0.unwrap());
        let threads = [0, 1].map(|n| {
            let (probe, verdict) = (probes[n], verdicts[n]);
            spawn(&breaker, [Slot::FIRST, Slot::SECOND][n], move |breaker| {
                breaker.settle(probe, verdict, LATER)
            })
        });
        let (admitted, _) = breaker.gate.admit(Some(&breaker.policy), LATER);
        let another = admitted.ok().flatten().is_some_and(|admission| admission.probe);
        assert!(!another || verdicts.contains(&Verdict::Neither), "both are in flight or have succeeded");
        let changes = join(threads);
        check(&breaker, changes.iter().flatten().count());
    });
}

/// Both probes succeed.
pub fn as_many_successes_as_probes_close_it_exactly_once() {
    end("as_many_successes_as_probes_close_it_exactly_once", [Verdict::Good; 2], |breaker, changes| {
        assert_eq!((changes, breaker.transitions()), (1, [1, 1, 1]));
        assert_eq!(breaker.gate.state(), State::closed(3));
    });
}

/// Both probes fail, or one of them: without sleeping, so that it stays open.
pub fn one_failed_probe_opens_it_exactly_once() {
    let name = "one_failed_probe_opens_it_exactly_once";
    for verdicts in [[Verdict::Bad; 2], [Verdict::Bad, Verdict::Good], [Verdict::Bad, Verdict::Neither]] {
        end(name, verdicts, |breaker, changes| {
            assert_eq!((changes, breaker.transitions()), (1, [2, 1, 0]));
            assert_eq!(breaker.gate.state(), State { generation: 3, phase: Phase::Open { since: LATER } });
        });
    }
}
