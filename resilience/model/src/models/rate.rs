//! The rate limit.

use std::sync::Arc;

use loom::thread;

use super::join;
use crate::clock::Now;
use crate::explore::{Bound, Witness, explore};
use crate::rate::{Pace, Rate};

const SECOND: u64 = 1_000_000_000;
/// Not the start of time: a bucket can be full in its past.
const START: Now = Now(100 * SECOND);

fn at(per_second: u32, burst: u32) -> Rate {
    let rate = Rate::default();
    rate.reload(Some(Pace::new(per_second, burst, 1)), Now(0));
    rate
}

fn takes(rate: &Rate, now: Now, times: usize) -> usize {
    (0..times).filter(|_| rate.take(now, 0).is_ok()).count()
}

/// Three calls at one moment, of a burst of two.
pub fn a_burst_is_taken_by_racing_calls_exactly_once() {
    explore("a_burst_is_taken_by_racing_calls_exactly_once", Bound::of(3, 5), || {
        let rate = Arc::new(at(1, 2));
        let threads = [(); 2].map(|()| {
            let rate = Arc::clone(&rate);
            thread::spawn(move || takes(&rate, START, 1))
        });
        let mine = takes(&rate, START, 1);
        let taken = mine + join(threads).iter().sum::<usize>();
        assert_eq!(taken, 2, "a burst, no more and no less");
        let later = Now(START.0 + SECOND);
        assert_eq!(takes(&rate, later, 2), 1, "who was refused took nothing");
    });
}

/// Two threads that see the same moment a second apart, and a slack of a second, each with two calls at one
/// call a second.
pub fn threads_that_see_time_out_of_order_take_no_more_than_the_slack_adds() {
    explore(
        "threads_that_see_time_out_of_order_take_no_more_than_the_slack_adds",
        Bound::short_of(3),
        || {
            let rate = Arc::new(at(1, 1));
            let clocks = [START, Now(START.0 + SECOND)];
            let threads = clocks.map(|now| {
                let rate = Arc::clone(&rate);
                thread::spawn(move || (0..2).filter(|_| rate.take(now, SECOND).is_ok()).count())
            });
            let [late, right] = join(threads);
            assert!(
                late.max(right) <= 2,
                "{late} and {right}: in no time, one of the burst and one of the slack"
            );
            assert!(
                (1..=3).contains(&(late + right)),
                "{late} and {right}: and one of the second between them"
            );
        },
    );
}

/// Calls race with a reload from one pace to another; each is a rate a second and a burst. At one moment,
/// so that nothing is refilled: how many can be taken before, during and after it.
fn reload(name: &str, old: (u32, u32), new: (u32, u32)) {
    explore(&format!("{name} {old:?} {new:?}"), Bound::of(3, 5), move || {
        let rate = Arc::new(at(old.0, old.1));
        let before = takes(&rate, START, 1);
        let racing = {
            let rate = Arc::clone(&rate);
            thread::spawn(move || takes(&rate, START, 5))
        };
        rate.reload(Some(Pace::new(new.0, new.1, 1)), START);
        let taken = before + racing.join().unwrap() + takes(&rate, START, 8);
        let bursts = 2 * old.1.max(new.1) as usize;
        assert!(taken <= bursts + 1, "{taken} were taken from {old:?} to {new:?}");
        // Whatever happened, after as long as either burst takes it is over.
        let full = Now(START.0 + SECOND * u64::from(new.1.max(old.1)));
        assert_eq!(takes(&rate, full, 8), new.1 as usize, "from {old:?} to {new:?}");
    });
}

/// A thread with five calls, and a reload to a longer, a shorter, or the same interval.
pub fn calls_that_race_with_a_reload_take_at_most_another_burst() {
    for (old, new) in [((1000, 2), (1, 3)), ((1, 2), (1000, 3)), ((1000, 3), (1, 2)), ((1, 3), (2, 2))] {
        reload("calls_that_race_with_a_reload_take_at_most_another_burst", old, new);
    }
}

/// A limit where there was none: a thread that has seen it takes its burst together with all others, and
/// nothing of it is forgotten.
pub fn the_first_rate_counts_every_call_from_the_first_that_finds_it() {
    let found = Witness::default();
    let seen = found.clone();
    explore("the_first_rate_counts_every_call_from_the_first_that_finds_it", Bound::NONE, move || {
        let rate = Arc::new(Rate::default());
        let racing = {
            let (rate, seen) = (Arc::clone(&rate), seen.clone());
            thread::spawn(move || {
                let found = rate.pace().is_some();
                seen.of(found);
                if found { takes(&rate, START, 3) } else { 0 }
            })
        };
        rate.reload(Some(Pace::new(1, 2, 1)), START);
        assert_eq!(racing.join().unwrap() + takes(&rate, START, 3), 2);
    });
    assert!(found.was_seen());
}
