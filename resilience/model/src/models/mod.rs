//! The models, one module a protocol.

use std::sync::Arc;

use fusebox_policy::policy::BreakerPolicy;
use loom::thread;

use crate::breaker::gate::{Ended, Gate};
use crate::breaker::{Change, Verdict};
use crate::clock::{Now, Tick};
use crate::slot::{SLOTS, Slot};

pub mod fuse;
pub mod in_flight;
pub mod judging;
pub mod probes;
pub mod rate;
pub mod slots;
pub mod trip;
pub mod window;

/// A breaker and its policy. One slot of its own for each of two threads; the others share one.
struct Breaker {
    gate: Gate,
    policy: BreakerPolicy,
}

/// The moment that everything happens at, unless said otherwise: at the beginning of time a window has one
/// slice to read, not ten.
const START: Tick = Tick(0);

/// When an open breaker has slept.
const LATER: Tick = Tick(10);

impl Breaker {
    /// Opens at so many calls of which so many percent failed; closes by so many probes.
    fn new(volume: u64, percent: u64, probes: u64) -> Self {
        let policy = BreakerPolicy {
            request_volume_threshold: volume.try_into().unwrap(),
            error_percent_threshold: percent.try_into().unwrap(),
            half_open_probes: probes.try_into().unwrap(),
            sleep_window_ms: 1.try_into().unwrap(),
            rolling_window_ms: 1000.try_into().unwrap(),
            ..BreakerPolicy::default()
        };
        Self { gate: Gate::new(policy.rolling_window_ms.get(), SLOTS), policy }
    }

    /// One that has opened, with so many probes.
    fn opened(probes: u64) -> Self {
        let breaker = Self::new(1, 1, probes);
        assert!(breaker.end(0, Verdict::Bad).is_some());
        breaker
    }

    /// The end of a call that a closed breaker has admitted in this generation.
    fn end(&self, generation: u32, verdict: Verdict) -> Option<Change> {
        let admission = crate::breaker::Admission { generation, probe: false };
        self.settle(admission, verdict, START)
    }

    fn settle(&self, admission: crate::breaker::Admission, verdict: Verdict, at: Tick) -> Option<Change> {
        self.gate.settle(Some(&self.policy), admission, Ended { verdict, slow: false }, at)
    }

    /// A success, as the library takes it: by the fast path if it can.
    fn succeed(&self, generation: u32, at: Tick) -> Option<Change> {
        if self.gate.succeed(generation, Now(at.0 * 1_000_000), Slot::mine()) {
            return None;
        }
        self.settle(crate::breaker::Admission { generation, probe: false }, Verdict::Good, at)
    }

    /// Asks for a call when it has slept: the admission and the change.
    fn ask(&self) -> (Option<crate::breaker::Admission>, Option<Change>) {
        let (admitted, change) = self.gate.admit(Some(&self.policy), LATER);
        (admitted.ok().flatten(), change)
    }

    /// How often it opened, turned half-open and closed.
    fn transitions(&self) -> [u64; 3] {
        let transitions = &self.gate.transitions;
        [&transitions.opened, &transitions.half_opened, &transitions.closed]
            .map(|counter| counter.load(crate::sync::atomic::Ordering::Relaxed))
    }

    fn stale(&self) -> u64 {
        self.gate.transitions.stale.load(crate::sync::atomic::Ordering::Relaxed)
    }
}

/// A thread of a model, with a slot.
fn spawn<T, R: 'static>(
    shared: &Arc<T>,
    slot: Slot,
    part: impl FnOnce(&T) -> R + 'static,
) -> thread::JoinHandle<R>
where
    T: 'static,
{
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        slot.give();
        part(&shared)
    })
}

/// Waits for threads of a model.
fn join<R, const MANY: usize>(threads: [thread::JoinHandle<R>; MANY]) -> [R; MANY] {
    threads.map(|thread| thread.join().unwrap())
}
