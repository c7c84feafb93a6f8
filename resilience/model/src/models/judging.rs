//! Outcomes that complete the volume together.

use std::sync::Arc;

use super::{Breaker, START, join, spawn};
use crate::breaker::Verdict;
use crate::explore::{Bound, Witness, explore};
use crate::slot::Slot;

/// Threads that end calls so, and one success after all of them: by then the breaker is open. Returns
/// whether it ever takes that success.
fn opens(name: &str, volume: u64, percent: u64, threads: [&'static [Verdict]; 2]) -> bool {
    let late = Witness::default();
    let seen = late.clone();
    explore(name, Bound::of(2, 3), move || {
        let breaker = Arc::new(Breaker::new(volume, percent, 1));
        let outcomes = [0, 1].map(|n| {
            spawn(&breaker, [Slot::FIRST, Slot::SECOND][n], move |breaker| {
                for verdict in threads[n] {
                    match verdict {
                        Verdict::Good => breaker.succeed(0, START),
                        verdict => breaker.end(0, *verdict),
                    };
                }
            })
        });
        join(outcomes);
        if let Some(generation) = breaker.gate.pass() {
            seen.of(true);
            let counts = breaker.gate.counts(START);
            assert!(breaker.succeed(generation, START).is_some(), "closed after {counts:?} and a success");
        }
        assert_eq!(breaker.transitions(), [1, 0, 0]);
    });
    late.was_seen()
}

/// Two outcomes, the volume.
pub fn two_outcomes_that_complete_the_volume_open_it_with_the_next_at_the_latest() {
    let name = "two_outcomes_that_complete_the_volume_open_it_with_the_next_at_the_latest";
    assert!(opens(name, 2, 30, [&[Verdict::Bad], &[Verdict::Good]]), "it is never late");
    assert!(!opens(name, 2, 30, [&[Verdict::Bad], &[Verdict::Bad]]), "of two judges one sees both");
}

/// One judge sees the volume but not all failures, the other all failures but not the volume.
pub fn of_two_judges_that_miss_each_other_none_forgets_what_the_other_saw() {
    let name = "of_two_judges_that_miss_each_other_none_forgets_what_the_other_saw";
    opens(name, 3, 40, [&[Verdict::Bad], &[Verdict::Good, Verdict::Good, Verdict::Bad]]);
}

/// A success that is judged because the policy has changed, and finds no failure, beside the first failure.
pub fn a_judge_that_finds_no_failure_does_not_put_off_the_judgement_of_one() {
    let name = "a_judge_that_finds_no_failure_does_not_put_off_the_judgement_of_one";
    explore(name, Bound::of(2, 3), || {
        let breaker = Arc::new(Breaker::new(3, 30, 1));
        breaker.gate.reload(&breaker.policy, START);
        let fails = spawn(&breaker, Slot::FIRST, |breaker| breaker.end(0, Verdict::Bad));
        Slot::SECOND.give();
        assert_eq!(breaker.succeed(0, START), None);
        assert_eq!(fails.join().unwrap(), None);
        assert!(breaker.succeed(0, START).is_some(), "the third outcome completes the volume");
    });
}
