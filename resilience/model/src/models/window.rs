//! The counters of a window.

use std::sync::Arc;
use std::time::Duration;

use super::{join, spawn};
use crate::breaker::Window;
use crate::breaker::window::{Counts, Entry};
use crate::clock::{Now, Tick};
use crate::explore::{Bound, Witness, explore};
use crate::slot::{SLOTS, Slot};

const SECOND: Duration = Duration::from_secs(1);
const GOOD: Entry = Entry { bad: false, slow: false };
const BAD: Entry = Entry { bad: true, slow: true };
const OLD: Tick = Tick(0);
/// The same bucket, a window later.
const NEW: Tick = Tick(1000);

/// As the library does: a success that is not slow may take the short way.
fn record(window: &Window, entry: Entry, at: Tick, times: usize) {
    for _ in 0..times {
        if entry == GOOD {
            window.record_good(0, Now(at.0 * 1_000_000), Slot::mine());
        } else {
            window.record(0, entry, at);
        }
    }
}

fn counts(good: u64, bad: u64) -> Counts {
    Counts { good, bad, slow: bad }
}

/// Two threads that count each for itself, and a reader.
pub fn a_reader_sees_a_count_only_grow_and_in_the_end_all_of_it() {
    let sums = [(); 4].map(|()| Witness::default());
    let seen = sums.clone();
    explore("a_reader_sees_a_count_only_grow_and_in_the_end_all_of_it", Bound::of(2, 3), move || {
        let window = Arc::new(Window::new(SECOND, SLOTS));
        let owners = [(Slot::FIRST, 2), (Slot::SECOND, 1)]
            .map(|(slot, times)| spawn(&window, slot, move |window| record(window, GOOD, OLD, times)));
        let reads = [(); 2].map(|()| window.counts(0, OLD));
        assert!(reads[0].good <= reads[1].good && reads[1].good <= 3, "{reads:?}");
        (0..).zip(&seen).for_each(|(sum, seen)| seen.of(reads[1].good == sum));
        join(owners);
        assert_eq!(window.counts(0, OLD), counts(3, 0));
    });
    assert!(sums.iter().all(Witness::was_seen), "{sums:?}");
}

/// Two threads that share a counter.
pub fn writers_that_share_a_counter_lose_nothing() {
    explore("writers_that_share_a_counter_lose_nothing", Bound::of(4, 6), || {
        let window = Arc::new(Window::new(SECOND, SLOTS));
        let other = spawn(&window, Slot::SHARED, |window| record(window, GOOD, OLD, 2));
        record(&window, GOOD, OLD, 2);
        other.join().unwrap();
        assert_eq!(window.counts(0, OLD), counts(4, 0));
    });
}

/// A shared bucket that holds an older slice is taken over by two threads, beside one that is late for it.
pub fn the_first_outcomes_of_a_slice_replace_an_older_one_and_lose_nothing() {
    let name = "the_first_outcomes_of_a_slice_replace_an_older_one_and_lose_nothing";
    explore(name, Bound::of(3, 4), || {
        let window = Arc::new(Window::new(SECOND, SLOTS));
        record(&window, BAD, OLD, 1);
        let late = spawn(&window, Slot::SHARED, |window| record(window, GOOD, OLD, 1));
        let new = spawn(&window, Slot::SHARED, |window| record(window, GOOD, NEW, 1));
        record(&window, GOOD, NEW, 1);
        join([late, new]);
        assert_eq!(window.counts(0, NEW), counts(2, 0));
    });
}

/// A thread that counts for itself while the window is resized, and one that does on the shared counters.
pub fn a_resize_keeps_all_that_was_counted_before_and_doubles_nothing() {
    let name = "a_resize_keeps_all_that_was_counted_before_and_doubles_nothing";
    for slot in [Slot::FIRST, Slot::SHARED] {
        let missed = Witness::default();
        let seen = missed.clone();
        explore(name, Bound::of(2, 3), move || {
            let window = Arc::new(Window::new(SECOND, SLOTS));
            let before = spawn(&window, slot, |window| record(window, GOOD, OLD, 2));
            before.join().unwrap();
            let owner = spawn(&window, slot, |window| {
                record(window, GOOD, OLD, 1);
                record(window, BAD, OLD, 1);
            });
            window.resize(2 * SECOND, 0, OLD);
            owner.join().unwrap();
            let Counts { good, bad, slow } = window.counts(0, OLD);
            assert!((2..=3).contains(&good) && bad <= 1 && slow <= 1, "{good} good, {bad} bad");
            seen.of(good == 2 || bad == 0);
            // Whoever counts after it, is counted.
            join([spawn(&window, slot, |window| record(window, GOOD, OLD, 1))]);
            assert_eq!(window.counts(0, OLD).good, good + 1);
        });
        assert!(missed.was_seen(), "what is counted at that very instant can be missed");
    }
}
