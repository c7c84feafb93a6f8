//! Slots that are returned and taken again.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{join, spawn};
use crate::breaker::Window;
use crate::clock::NOW;
use crate::explore::{Bound, Witness, explore};
use crate::shard::Shards;
use crate::slot::{Flag, SLOTS, Slot};

/// One slot, and what its threads count.
struct Counted {
    slot: Flag,
    shards: Shards<AtomicU64>,
    window: Window,
}

impl Counted {
    fn new() -> Self {
        Self {
            slot: Flag(AtomicBool::new(false)),
            shards: Shards::new(SLOTS),
            window: Window::new(Duration::from_secs(1), SLOTS),
        }
    }

    /// What a thread does from its first count to its end: whether it got the slot.
    fn live(&self, part: impl Fn(&Self)) -> bool {
        let taken = self.slot.take();
        Slot::give(if taken { Slot::FIRST } else { Slot::SHARED });
        part(self);
        if taken {
            self.slot.give_back();
        }
        taken
    }
}

/// Runs three threads that count so, and checks what is counted in the end.
fn hand_over(name: &str, part: fn(&Counted), check: fn(&Counted)) {
    let handed_over = Witness::default();
    let seen = handed_over.clone();
    explore(name, Bound::of(3, 4), move || {
        let counted = Arc::new(Counted::new());
        let threads = [(); 2].map(|()| spawn(&counted, Slot::SHARED, move |counted| counted.live(part)));
        let mine = counted.live(part);
        let others = join(threads);
        seen.of(mine && others == [true; 2]);
        check(&counted);
    });
    assert!(handed_over.was_seen());
}

/// A counter, two counts each.
pub fn a_counter_that_is_handed_over_loses_nothing() {
    let count = |counted: &Counted| {
        for _ in 0..2 {
            let slot = Slot::mine();
            slot.write.add(counted.shards.at(slot), 1);
        }
    };
    hand_over("a_counter_that_is_handed_over_loses_nothing", count, |counted| {
        assert_eq!(counted.shards.iter().map(|counter| counter.load(Ordering::Relaxed)).sum::<u64>(), 6);
    });
}

/// A window, two successes each, the second by what the first has left behind.
pub fn a_window_that_is_handed_over_loses_nothing() {
    let count = |counted: &Counted| (0..2).for_each(|_| counted.window.record_good(0, NOW, Slot::mine()));
    hand_over("a_window_that_is_handed_over_loses_nothing", count, |counted| {
        assert_eq!(counted.window.counts(0, NOW.tick()).good, 6);
    });
}
