//! One endpoint under policy: its connection, its breaker and limit, and how it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use fusebox_policy::policy::{BreakerMode, BreakerPolicy, CommandPolicy};

use super::link::Link;
use super::load::Latency;
use super::pick::Candidate;
use crate::breaker::state::Phase;
use crate::clock::{Clock, Now, Tick};
use crate::discovery::Endpoint;
use crate::fuse::{Fuse, Refusal, Terms, Ticket};
use crate::slot::slots;

/// Failures in a row that eject an endpoint where the policy names no number: Envoy's (`consecutive_5xx`). It
/// sees a part of the calls only, and would be long in failing before it has failed a volume of them.
const CONSECUTIVE_FAILURES: u64 = 5;
/// For how long a new endpoint is called less, and how much it weighs at least.
const WARM_UP: u64 = 10_000;
const COLD: f32 = 0.1;
/// An endpoint that is ejected again and again is tried after so many sleep windows at most.
const MOST_SLEEPS: u64 = 8;
/// When a half-open endpoint is offered the next probe, in milliseconds.
const NEXT_PROBE: u64 = 100;

/// An endpoint as it is listed, and what stays of it when the list changes.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    pub(super) core: Arc<Core>,
}

/// What an endpoint keeps for as long as it is listed.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) link: Link,
    pub(super) fuse: Fuse,
    pub(super) latency: Latency,
    /// The tick since when it is called.
    called_since: AtomicU64,
    /// Why its breaker is not closed, if it is not. Written by one at a time.
    pub(super) out: ArcSwapOption<Out>,
}

/// A breaker that is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) since: Tick,
    pub(super) why: String,
    /// How often it has opened since it was last closed.
    times: u64,
    /// How often it had opened before.
    before: u64,
}

impl Core {
    /// An endpoint that was never called.
    pub(super) fn new(link: Link, policy: &CommandPolicy, clock: &'static Clock) -> Self {
        Self {
            link,
            // No rate: that is the command's, not each endpoint's.
            fuse: Fuse::new(terms(policy), 1, clock, slots()),
            latency: Latency::default(),
            called_since: AtomicU64::new(clock.now().tick().0),
            out: ArcSwapOption::empty(),
        }
    }

    /// Puts another policy in force, and keeps all states.
    pub(super) fn reload(&self, policy: &CommandPolicy) {
        self.fuse.reload(terms(policy), 1);
    }

    /// Looks at the breaker: what [`out`](Self::out) is now, and whether that is news of an ejection. Not to be
    /// called by two threads at once.
    pub(super) fn look(&self, now: Tick) -> Option<Arc<Out>> {
        let enforced = self.fuse.terms().breaker.is_some();
        let closed = !enforced || self.fuse.gate.state().phase == Phase::Closed;
        let (known, opened) =
            (self.out.load_full(), self.fuse.gate.transitions.opened.load(Ordering::Relaxed));
        let out = match known {
            known if closed => {
                if known.is_some() {
                    self.called_since.store(now.0, Ordering::Relaxed);
                }
                None
            }
            Some(out) => Some(Out { times: opened.saturating_sub(out.before), ..Out::clone(&out) }),
            None => {
                let last = self.fuse.last();
                let before = opened.saturating_sub(1);
                Some(Out { since: last.at, why: last.reason.to_string(), times: 1, before })
            }
        };
        let out = out.map(Arc::new);
        self.out.store(out.clone());
        out
    }

    /// When an endpoint that is not called may be tried again.
    pub(super) fn next_try(&self, out: &Out, now: Tick) -> Tick {
        match self.fuse.gate.state().phase {
            Phase::Open { since } => {
                let sleep =
                    self.fuse.terms().breaker.as_ref().map_or(0, |breaker| breaker.sleep_window_ms.into());
                Tick(since.0 + sleep * out.times.clamp(1, MOST_SLEEPS))
            }
            Phase::HalfOpen { .. } | Phase::Closed => Tick(now.0 + NEXT_PROBE),
        }
    }

    /// Asks for one call. Refused by its breaker, an endpoint that is called all the same answers beside it. The
    /// second value: its breaker has changed.
    pub(super) fn admit(&self, now: Now, aside: bool) -> (Result<Ticket, Refusal>, bool) {
        if let Some(ticket) = self.fuse.pass(now) {
            return (Ok(ticket), false);
        }
        let (admitted, change) = match self.fuse.refuse(now) {
            Some(refusal) => (Err(refusal), None),
            None => self.fuse.admit(now),
        };
        let admitted = match admitted {
            Err(Refusal::Open(_)) if aside => self.fuse.admit_aside(now),
            admitted => admitted,
        };
        (admitted, change.is_some())
    }
}

impl Member {
    /// How it does.
    pub(super) fn candidate(&self, now: Tick) -> Candidate {
        let called = now.since(Tick(self.core.called_since.load(Ordering::Relaxed)));
        #[allow(clippy::cast_precision_loss)] // a few seconds
        let warm = if called < WARM_UP { (called as f32 / WARM_UP as f32).max(COLD) } else { 1.0 };
        Candidate {
            latency: self.core.latency.get(now),
            pending: self.core.fuse.in_flight.count(),
            weight: f32::from(self.endpoint.weight.max(1)) * warm,
        }
    }
}

/// What a command's policy means for one endpoint. A mode that is not Enforce is the command's own: it neither
/// ejects nor learns.
fn terms(policy: &CommandPolicy) -> Terms {
    let mut terms = Terms { rate: None, fallback: false, ..Terms::from(policy) };
    terms.breaker = terms.breaker.filter(|breaker| breaker.mode == BreakerMode::Enforce).map(|breaker| {
        let consecutive_failures = breaker.consecutive_failures.or(CONSECUTIVE_FAILURES.try_into().ok());
        BreakerPolicy { consecutive_failures, ..breaker }
    });
    terms
}
