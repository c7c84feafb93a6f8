//! The concurrency limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::sync::atomic::{self, Ordering};
use loom::thread;

use super::join;
use crate::explore::{Bound, Witness, explore};
use crate::limit::InFlight;

/// Permits, and how many are held: not by loom's atomics, so that it changes in the same step as the
/// permit is taken.
#[derive(Default)]
struct Held {
    calls: InFlight,
    held: AtomicU32,
}

impl Held {
    /// A call under a limit: whether it was admitted.
    fn call(&self, limit: u32) -> bool {
        let admitted = self.calls.acquire(Some(limit));
        if admitted {
            let held = self.held.fetch_add(1, SeqCst) + 1;
            assert!(held <= limit, "{held} held under a limit of {limit}");
            self.held.fetch_sub(1, SeqCst);
            self.calls.release();
        }
        admitted
    }
}

/// Three calls under a limit of two.
pub fn no_more_than_the_limit_are_admitted() {
    let refused = Witness::default();
    let seen = refused.clone();
    explore("no_more_than_the_limit_are_admitted", Bound::of(2, 4), move || {
        let calls = Arc::new(Held::default());
        let threads = [(); 2].map(|()| {
            let calls = Arc::clone(&calls);
            thread::spawn(move || calls.call(2))
        });
        let mine = calls.call(2);
        let others = join(threads);
        seen.of(!mine || others.contains(&false));
        assert_eq!(calls.calls.count(), 0, "all was given back");
    });
    assert!(refused.was_seen());
}

/// Two calls, one after the other, on each of two threads, and a limit that shrinks from two to one.
pub fn under_a_limit_that_shrinks_no_more_than_the_new_one_are_admitted_by_it() {
    explore(
        "under_a_limit_that_shrinks_no_more_than_the_new_one_are_admitted_by_it",
        Bound::of(2, 3),
        || {
            let calls = Arc::new((Held::default(), atomic::AtomicU32::new(2)));
            let threads = [(); 2].map(|()| {
                let calls = Arc::clone(&calls);
                thread::spawn(move || {
                    for _ in 0..2 {
                        calls.0.call(calls.1.load(Ordering::Acquire));
                    }
                })
            });
            calls.1.store(1, Ordering::Release);
            join(threads);
            assert_eq!(calls.0.calls.count(), 0, "all was given back");
            assert!(calls.0.call(1), "and all can be taken again");
        },
    );
}

/// As many threads as the limit, each with two calls, one after the other.
pub fn nobody_is_refused_where_a_permit_is_free_throughout() {
    explore("nobody_is_refused_where_a_permit_is_free_throughout", Bound::of(4, 6), || {
        let calls = Arc::new(Held::default());
        let other = {
            let calls = Arc::clone(&calls);
            thread::spawn(move || assert!(calls.call(2) && calls.call(2)))
        };
        assert!(calls.call(2) && calls.call(2));
        other.join().unwrap();
        assert!(calls.call(1), "what is given back is free");
    });
}
