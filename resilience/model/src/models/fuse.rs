//! Policies that are replaced while calls are in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use fusebox_policy::policy::{BreakerMode, BreakerPolicy, RateLimit, RateScope};

use super::{join, spawn};
use crate::breaker::{Admission, Verdict, gate::Ended};
use crate::clock::{Clock, NOW, Now};
use crate::explore::{Bound, Witness, explore};
use crate::fuse::{Fuse, Refusal, Settled, Terms};
use crate::slot::{SLOTS, Slot};

static CLOCK: Clock = Clock;

fn limit(limit: Option<u64>) -> Terms {
    Terms { limit: limit.map(|limit| limit.try_into().unwrap()), ..Terms::default() }
}

fn breaker(mode: BreakerMode) -> Terms {
    let sleep_window_ms = 1.try_into().unwrap();
    let breaker = BreakerPolicy { mode, sleep_window_ms, ..BreakerPolicy::default() };
    Terms { breaker: Some(breaker), ..Terms::default() }
}

fn fuse(terms: Terms) -> Fuse {
    Fuse::new(terms, 1, &CLOCK, SLOTS)
}

/// A call as a flight makes it: whether it was admitted. `waits`: it is not ready at once. `inside` runs
/// while it is in flight.
fn call(fuse: &Fuse, waits: bool, inside: impl FnOnce()) -> bool {
    let passed = fuse.pass(NOW).or_else(|| match fuse.refuse(NOW) {
        Some(_) => None,
        None => fuse.admit(NOW).0.ok(),
    });
    let Some(mut ticket) = passed else { return false };
    if waits {
        fuse.wait(&mut ticket);
    }
    inside();
    if waits || !fuse.succeed(ticket, NOW, Slot::mine()) {
        fuse.settle(ticket, Settled { verdict: Verdict::Good, took: 0 }, NOW);
    }
    true
}

/// Two calls, one of which waits, beside a reload that sets, lifts or shrinks the limit.
pub fn permits_are_conserved_through_a_reload() {
    for (old, new) in [(Some(1), None), (None, Some(1)), (Some(2), Some(1))] {
        explore("permits_are_conserved_through_a_reload", Bound::of(2, 3), move || {
            let fuse = Arc::new(fuse(limit(old)));
            let threads =
                [false, true].map(|waits| spawn(&fuse, Slot::SHARED, move |fuse| call(fuse, waits, || ())));
            fuse.reload(limit(new), 1);
            join(threads);
            assert_eq!(fuse.in_flight.count(), 0, "from {old:?} to {new:?}");
            let most = new.unwrap_or(1);
            let mut tickets: Vec<_> = (0..most).map(|_| fuse.pass(NOW).unwrap()).collect();
            assert_eq!(fuse.pass(NOW).is_none(), new.is_some(), "all of the new limit is free");
            tickets.drain(..).for_each(|ticket| assert!(fuse.succeed(ticket, NOW, Slot::SHARED)));
        });
    }
}

/// Three calls, and a reload from a limit of two to one of one.
pub fn no_more_are_in_flight_than_the_larger_limit_and_later_than_the_new_one() {
    let name = "no_more_are_in_flight_than_the_larger_limit_and_later_than_the_new_one";
    explore(name, Bound::of(2, 3), || {
        // Not by loom's atomics, so that it takes no step.
        let shared = Arc::new((fuse(limit(Some(2))), AtomicU32::new(0)));
        let calls = |most: u32| {
            move |(fuse, in_flight): &(Fuse, AtomicU32)| {
                call(fuse, false, || {
                    assert!(in_flight.fetch_add(1, SeqCst) < most, "more than {most} are in flight");
                    in_flight.fetch_sub(1, SeqCst);
                })
            }
        };
        let threads = [(); 2].map(|()| spawn(&shared, Slot::SHARED, calls(2)));
        shared.0.reload(limit(Some(1)), 1);
        // Whoever knows of the reload is held to it, with all those from before.
        calls(1)(&shared);
        join(threads);
        assert_eq!(shared.0.in_flight.count(), 0);
    });
}

/// A call that asks while the breaker is forced open and gets a limit and a timeout.
pub fn whoever_sees_the_new_word_sees_the_new_terms() {
    let new = Witness::default();
    let seen = new.clone();
    explore("whoever_sees_the_new_word_sees_the_new_terms", Bound::NONE, move || {
        let fuse = Arc::new(fuse(breaker(BreakerMode::Enforce)));
        let asks = {
            let seen = seen.clone();
            spawn(&fuse, Slot::SHARED, move |fuse| {
                if fuse.timeout_ms() == Some(7) {
                    seen.of(true);
                    assert!(fuse.pass(NOW).is_none(), "the word says that it is not easy");
                    assert!(matches!(fuse.admit(NOW).0, Err(Refusal::Open(_))));
                }
            })
        };
        let timeout = Some(7.try_into().unwrap());
        fuse.reload(Terms { timeout, ..breaker(BreakerMode::ForcedOpen) }, 1);
        asks.join().unwrap();
    });
    assert!(new.was_seen());
}

/// A probe that is cancelled, succeeds, or is refused by the rate, while the breaker's mode changes to one
/// that freezes it.
pub fn a_probe_gives_its_slot_back_whatever_becomes_of_the_policy() {
    let name = "a_probe_gives_its_slot_back_whatever_becomes_of_the_policy";
    for mode in [BreakerMode::ForcedClosed, BreakerMode::Disabled] {
        explore(name, Bound::of(3, 4), move || {
            let rate = RateLimit {
                requests_per_second: 1.try_into().unwrap(),
                burst: 1.try_into().unwrap(),
                scope: RateScope::Instance,
            };
            let terms = Terms { rate: Some(rate), ..breaker(BreakerMode::Enforce) };
            let fuse = Arc::new(fuse(terms.clone()));
            let open = BreakerPolicy {
                request_volume_threshold: 1.try_into().unwrap(),
                ..terms.breaker.clone().unwrap()
            };
            let ended = Ended { verdict: Verdict::Bad, slow: false };
            let admission = Admission { generation: 0, probe: false };
            assert!(fuse.gate.settle(Some(&open), admission, ended, Now(0).tick()).is_some());
            let probe = spawn(&fuse, Slot::SHARED, |fuse| {
                for _ in 0..2 {
                    // The second is refused by the rate.
                    if let Ok(ticket) = fuse.admit(NOW).0 {
                        fuse.settle(ticket, Settled { verdict: Verdict::Neither, took: 0 }, NOW);
                    }
                }
            });
            fuse.reload(breaker(mode), 1);
            probe.join().unwrap();
            fuse.reload(breaker(BreakerMode::Enforce), 1);
            let (again, _) = fuse.admit(NOW);
            assert!(again.is_ok(), "{:?}", fuse.gate.state());
            assert!(matches!(fuse.admit(NOW).0, Err(Refusal::Open(_))), "it is the only probe");
        });
    }
}

/// A success beside a reload to a volume that is complete with it; a failure came before. The next outcome
/// is judged by the new policy, if that one was not.
pub fn the_next_outcome_after_a_reload_is_judged_by_the_new_policy() {
    explore("the_next_outcome_after_a_reload_is_judged_by_the_new_policy", Bound::of(2, 3), || {
        let judge = |volume: u64| BreakerPolicy {
            request_volume_threshold: volume.try_into().unwrap(),
            error_percent_threshold: 30.try_into().unwrap(),
            ..BreakerPolicy::default()
        };
        let terms = |volume| Terms { breaker: Some(judge(volume)), ..Terms::default() };
        let fuse = Arc::new(fuse(terms(100)));
        let failed = Settled { verdict: Verdict::Bad, took: 0 };
        assert_eq!(fuse.settle(fuse.pass(NOW).unwrap(), failed, NOW), None);
        let other = spawn(&fuse, Slot::FIRST, |fuse| call(fuse, false, || ()));
        fuse.reload(terms(2), 1);
        assert!(other.join().unwrap());
        // The last of three, if it is admitted at all.
        call(&fuse, false, || ());
        assert!(fuse.pass(NOW).is_none(), "{:?}", fuse.gate.counts(NOW.tick()));
    });
}
