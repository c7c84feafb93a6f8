//! A breaker shared by threads: one word for the state, changed by compare-and-swap, and a log of
//! the last change for people.
//!
//! The policy and the window are arguments, so that a reload replaces them and the state stays.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fusebox_policy::policy::{BreakerMode, BreakerPolicy};

use super::state::{Admission, Decision, Effect, Phase, State, Verdict};
use super::window::Window;
use crate::clock::Tick;

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
    last: ArcSwap<Change>,
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

/// The last change of a breaker.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) state: State,
    pub(crate) at: Tick,
    /// Why, for a person.
    pub(crate) reason: Cow<'static, str>,
}

impl Gate {
    /// A closed breaker.
    pub(crate) fn new(now: Tick) -> Self {
        let change = Change { state: State::START, at: now, reason: "started".into() };
        Self {
            state: AtomicU64::new(State::START.to_word()),
            last: ArcSwap::from_pointee(change),
            transitions: Transitions::default(),
        }
    }

    /// Asks for one call. `Ok(None)`: it passes and is not counted. `Err`: it is refused, and asking
    /// again is of use after the given time. The second value is the change this made, if any.
    pub(crate) fn admit(
        &self,
        policy: Option<&BreakerPolicy>,
        now: Tick,
    ) -> (Result<Option<Admission>, Duration>, Option<Arc<Change>>) {
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
                        let reason = || match next.phase {
                            Phase::HalfOpen { .. } => "the sleep window is over".into(),
                            _ => "enough probes have succeeded already".into(),
                        };
                        return (Ok(Some(admission)), self.note(state, next, now, reason));
                    }
                    Err(seen) => state = seen,
                },
            }
        }
    }

    /// Takes the end of an admitted call. Returns the change this made, if any.
    pub(crate) fn settle(
        &self,
        policy: Option<&BreakerPolicy>,
        window: &Window,
        admission: Admission,
        verdict: Verdict,
        now: Tick,
    ) -> Option<Arc<Change>> {
        let mode = policy.map_or(BreakerMode::Disabled, |policy| policy.mode);
        let probes = policy.map_or(1, |policy| policy.half_open_probes.get());
        // A frozen state takes back the probe's slot and learns nothing from it.
        let frozen = mode != BreakerMode::Enforce && admission.probe;
        let effective = if frozen { Verdict::Neither } else { verdict };
        let mut state = self.state();
        loop {
            match state.settle(admission, effective, probes, now) {
                Effect::Stale => {
                    self.transitions.stale.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                Effect::Nothing => return None,
                Effect::Count if mode == BreakerMode::Disabled => return None,
                Effect::Count => {
                    window.record(state.generation, effective == Verdict::Bad, now);
                    return policy.and_then(|policy| self.judge(state, policy, window, now));
                }
                Effect::Become(next) => match self.swap(state, next) {
                    Ok(()) => {
                        let reason = || match next.phase {
                            Phase::Closed => format!("{probes} of {probes} probes succeeded").into(),
                            _ => "a probe failed".into(),
                        };
                        return self.note(state, next, now, reason);
                    }
                    Err(seen) => state = seen,
                },
            }
        }
    }

    /// The state of now. An open breaker turns half-open only when a call asks.
    pub(crate) fn state(&self) -> State {
        State::from_word(self.state.load(Ordering::Acquire))
    }

    /// The last change and its reason. For an instant it may be older than the state.
    pub(crate) fn last(&self) -> Arc<Change> {
        self.last.load_full()
    }

    fn judge(&self, state: State, policy: &BreakerPolicy, window: &Window, now: Tick) -> Option<Arc<Change>> {
        let counts = window.counts(state.generation, now);
        let percent = u64::from(policy.error_percent_threshold.get());
        let volume = u64::from(policy.request_volume_threshold.get());
        if policy.mode != BreakerMode::Enforce || !counts.reaches(percent, volume) {
            return None;
        }
        let next = state.trip(now);
        // A closed breaker changes only by opening: who loses here finds it open.
        self.swap(state, next).ok()?;
        let reason =
            || format!("{} % errors of {} calls", counts.bad * 100 / counts.volume(), counts.volume()).into();
        self.note(state, next, now, reason)
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

    fn note(
        &self,
        from: State,
        to: State,
        at: Tick,
        reason: impl FnOnce() -> Cow<'static, str>,
    ) -> Option<Arc<Change>> {
        if from.generation == to.generation {
            return None;
        }
        let counter = match to.phase {
            Phase::Closed => &self.transitions.closed,
            Phase::Open { .. } => &self.transitions.opened,
            Phase::HalfOpen { .. } => &self.transitions.half_opened,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let change = Arc::new(Change { state: to, at, reason: reason() });
        self.last.rcu(|last| if last.state.before(to) { Arc::clone(&change) } else { Arc::clone(last) });
        Some(change)
    }
}
