//! A breaker shared by threads: one word for the state, changed by compare-and-swap, and what it judges
//! by.
//!
//! The policy is an argument, so that a reload replaces it and the state stays.

use std::time::Duration;

use fusebox_policy::policy::{BreakerMode, BreakerPolicy};

use super::reason::Reason;
use super::state::{Admission, Decision, Effect, Phase, State, Verdict};
use super::streak::Streak;
use super::window::{Counts, Entry, Window};
use crate::clock::{Now, Tick};
use crate::slot::Slot;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// The shared state of one breaker.
///
/// # Guarantees
/// - Each change of state is one compare-and-swap of the whole state: of threads that race, one wins
///   and the others decide anew. So no more probes pass than the policy allows.
/// - A mode other than Enforce freezes the state: it overrides the verdict and moves nothing, except
///   that a probe's slot is always freed.
#[derive(Debug)]
pub(crate) struct Gate {
    state: AtomicU64,
    /// The next outcome is judged, whatever it is: the window held failures but not enough calls to
    /// judge by, or the policy has changed.
    watchful: AtomicBool,
    streak: Streak,
    window: Window,
    pub(crate) transitions: Transitions,
}

/// How often a breaker changed, and how many outcomes came too late to matter.
#[derive(Debug, Default)]
pub(crate) struct Transitions {
    pub(crate) opened: AtomicU64,
    pub(crate) half_opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) stale: AtomicU64,
}

/// A change of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) state: State,
    pub(crate) at: Tick,
    pub(crate) reason: Reason,
}

/// How an admitted call ended, in a breaker's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    /// It took as long as the policy's slow calls. Counts only with a verdict.
    pub(crate) slow: bool,
}

impl Gate {
    /// A closed breaker with a window of this length.
    pub(crate) fn new(window: Duration, slots: usize) -> Self {
        Self {
            state: AtomicU64::new(State::START.to_word()),
            watchful: AtomicBool::new(false),
            streak: Streak::default(),
            window: Window::new(window, slots),
            transitions: Transitions::default(),
        }
    }

    /// Asks for one call under [`BreakerMode::Enforce`]: the generation, if the breaker is closed. The
    /// fast path of [`admit`](Self::admit), which needs no policy.
    #[inline]
    pub(crate) fn pass(&self) -> Option<u32> {
        State::closed_word(self.state.load(Ordering::Acquire))
    }

    /// How long it has been open, in milliseconds; None: it is not.
    pub(crate) fn slept(&self, now: Tick) -> Option<u64> {
        match self.state().phase {
            Phase::Open { since } => Some(now.since(since)),
            Phase::Closed | Phase::HalfOpen { .. } => None,
        }
    }

    /// Asks for one call. `Ok(None)`: it passes and is not counted. `Err`: it is refused, and asking
    /// again is of use after the given time. The second value is the change this made, if any.
    pub(crate) fn admit(
        &self,
        policy: Option<&BreakerPolicy>,
        now: Tick,
    ) -> (Result<Option<Admission>, Duration>, Option<Change>) {
        let Some(policy) = policy else { return (Ok(None), None) };
        match policy.mode {
            BreakerMode::Disabled => return (Ok(None), None),
            BreakerMode::ForcedOpen => return (Err(policy.sleep_window_ms.get()), None),
            BreakerMode::ForcedClosed => return (Ok(Some(self.state().admission(false))), None),
            BreakerMode::Enforce => {}
        }
        let mut state = self.state();
        loop {
            match state.admit(policy, now) {
                Decision::Refuse(retry_after) => return (Err(retry_after), None),
                Decision::Admit(next, admission) => match self.swap(state, next) {
                    Ok(()) => {
                        let reason = match next.phase {
                            Phase::HalfOpen { .. } => Reason::Slept,
                            _ => Reason::Probed(policy.half_open_probes.get()),
                        };
                        return (Ok(Some(admission)), self.note(state, next, now, reason));
                    }
                    Err(seen) => state = seen,
                },
            }
        }
    }

    /// Takes a success in time of a call that was admitted by a closed breaker under
    /// [`BreakerMode::Enforce`]. False: it takes [`settle`](Self::settle).
    #[inline]
    pub(crate) fn succeed(&self, generation: u32, now: Now, slot: Slot) -> bool {
        let state = self.state.load(Ordering::Acquire);
        if state != State::closed(generation).to_word() || self.watchful.load(Ordering::Relaxed) {
            return false;
        }
        self.window.record_good(generation, now, slot);
        self.streak.end();
        true
    }

    /// Takes the end of an admitted call. Returns the change this made, if any.
    pub(crate) fn settle(
        &self,
        policy: Option<&BreakerPolicy>,
        admission: Admission,
        ended: Ended,
        now: Tick,
    ) -> Option<Change> {
        let mode = policy.map_or(BreakerMode::Disabled, |policy| policy.mode);
        let probes = policy.map_or(1, |policy| policy.half_open_probes.get());
        // A frozen state takes back the probe's slot and learns nothing from it.
        let frozen = mode != BreakerMode::Enforce && admission.probe;
        // A backend that answers slowly has not recovered.
        let slow_probe = admission.probe && ended.slow && ended.verdict == Verdict::Good;
        let verdict = match ended.verdict {
            _ if frozen => Verdict::Neither,
            Verdict::Good if slow_probe => Verdict::Bad,
            verdict => verdict,
        };
        let mut state = self.state();
        loop {
            match state.settle(admission, verdict, probes, now) {
                Effect::Stale => {
                    self.transitions.stale.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                Effect::Nothing => return None,
                Effect::Count if mode == BreakerMode::Disabled => return None,
                Effect::Count => {
                    let entry = Entry { bad: verdict == Verdict::Bad, slow: ended.slow };
                    return policy.and_then(|policy| self.count(state, policy, entry, now));
                }
                Effect::Become(next) => match self.swap(state, next) {
                    Ok(()) => {
                        let reason = match next.phase {
                            Phase::Closed => Reason::Probed(probes),
                            _ if slow_probe => Reason::ProbeSlow,
                            _ => Reason::ProbeFailed,
                        };
                        return self.note(state, next, now, reason);
                    }
                    Err(seen) => state = seen,
                },
            }
        }
    }

    /// Takes over another policy at `now`: the window gets its length, and the next outcome is judged by
    /// it. Not to be called by two threads at once.
    pub(crate) fn reload(&self, policy: &BreakerPolicy, now: Tick) {
        self.window.resize(policy.rolling_window_ms.get(), self.state().generation, now);
        self.watchful.store(true, Ordering::Relaxed);
    }

    /// The state of now. An open breaker turns half-open only when a call asks.
    #[inline]
    pub(crate) fn state(&self) -> State {
        State::from_word(self.state.load(Ordering::Acquire))
    }

    /// What the window holds of the state of now.
    pub(crate) fn counts(&self, now: Tick) -> Counts {
        self.window.counts(self.state().generation, now)
    }

    /// Counts an outcome and judges, where it can have made a difference: a success can open a breaker
    /// only by completing the volume.
    fn count(&self, state: State, policy: &BreakerPolicy, entry: Entry, now: Tick) -> Option<Change> {
        self.window.record(state.generation, entry, now);
        let in_a_row = if entry.bad {
            self.streak.fail(state.generation)
        } else {
            self.streak.end();
            0
        };
        if policy.mode != BreakerMode::Enforce || !(entry.bad || entry.slow || self.is_watchful()) {
            return None;
        }
        // Of two threads that count and judge at once, one at least sees what the other has counted.
        fence(Ordering::SeqCst);
        let mut counts = self.window.counts(state.generation, now);
        let unclear = |counts: Counts| {
            counts.volume() < u64::from(policy.request_volume_threshold.get()) && counts.bad + counts.slow > 0
        };
        // Every call reads it: it is written only to change it.
        if self.is_watchful() && !unclear(counts) {
            self.watchful.store(false, Ordering::Relaxed);
            // Somebody may have counted a failure since, and have found it set: so this looks again.
            fence(Ordering::SeqCst);
            counts = self.window.counts(state.generation, now);
        }
        if unclear(counts) && !self.is_watchful() {
            self.watchful.store(true, Ordering::Relaxed);
        }
        let reason = Reason::to_open(policy, counts, in_a_row)?;
        let next = state.trip(now);
        // A closed breaker changes only by opening: who loses here finds it open.
        self.swap(state, next).ok()?;
        self.note(state, next, now, reason)
    }

    fn is_watchful(&self) -> bool {
        self.watchful.load(Ordering::Relaxed)
    }

    fn swap(&self, from: State, to: State) -> Result<(), State> {
        if from == to {
            return Ok(());
        }
        self.state
            .compare_exchange(from.to_word(), to.to_word(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(State::from_word)
    }

    fn note(&self, from: State, to: State, at: Tick, reason: Reason) -> Option<Change> {
        if from.generation == to.generation {
            return None;
        }
        let counter = match to.phase {
            Phase::Closed => &self.transitions.closed,
            Phase::Open { .. } => &self.transitions.opened,
            Phase::HalfOpen { .. } => &self.transitions.half_opened,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Some(Change { state: to, at, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_tells_why() {
        let policy = BreakerPolicy {
            request_volume_threshold: 1.try_into().unwrap(),
            sleep_window_ms: 1.try_into().unwrap(),
            ..BreakerPolicy::default()
        };
        let gate = Gate::new(policy.rolling_window_ms.get(), 2);
        let probe = |now, verdict, slow| {
            let (admitted, change) = gate.admit(Some(&policy), Tick(now));
            let settled =
                gate.settle(Some(&policy), admitted.unwrap().unwrap(), Ended { verdict, slow }, Tick(now));
            [change, settled].map(|change| change.map(|change| change.reason))
        };
        let failed = Reason::Errors { percent: 100, volume: 1 };
        assert_eq!(probe(0, Verdict::Bad, false), [None, Some(failed)]);
        assert_eq!(probe(1, Verdict::Bad, true), [Some(Reason::Slept), Some(Reason::ProbeFailed)]);
        assert_eq!(probe(2, Verdict::Good, true), [Some(Reason::Slept), Some(Reason::ProbeSlow)]);
        assert_eq!(probe(3, Verdict::Good, false), [Some(Reason::Slept), Some(Reason::Probed(1))]);
    }
}
