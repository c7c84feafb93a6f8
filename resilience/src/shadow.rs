//! A candidate for a policy: it decides on the same calls and counts what it would have done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::breaker::Verdict;
use crate::breaker::state::Phase;
use crate::clock::{Clock, Now};
use crate::fuse::{Fuse, Refusal, Settled, Terms, Ticket};
use crate::slot::slots;

/// A fuse that never refuses anybody.
///
/// It sees every call that the active policy is asked for, and the outcomes of those that the active
/// policy let pass. A call that it would have refused itself does not count in its window: there it
/// would not have been made.
///
/// # Caveats
/// It sees the world under the active policy. A longer timeout than the active one is never seen to be
/// met: what timed out, timed out. And the load that it would have kept away was there all the same.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) fuse: Fuse,
    pub(crate) counts: Counts,
}

/// What a candidate would have done, since it was first declared.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) limited: AtomicU64,
    pub(crate) rate_limited: AtomicU64,
    pub(crate) timed_out: AtomicU64,
}

impl Shadow {
    pub(crate) fn new(terms: Terms, instances: u32, clock: &'static Clock) -> Self {
        Self { fuse: Fuse::new(terms, instances, clock, slots()), counts: Counts::default() }
    }

    /// Puts other terms in force, keeping the state.
    pub(crate) fn reload(&self, terms: Terms, instances: u32) {
        self.fuse.reload(terms, instances);
    }

    /// Whether it would have let a call pass.
    pub(crate) fn admit(&self, now: Now) -> Option<Ticket> {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        let (admitted, change) = self.fuse.admit(now);
        self.note(change);
        let refused = match admitted {
            Ok(ticket) => return Some(ticket),
            Err(Refusal::Open(_)) => &self.counts.refused,
            Err(Refusal::Limit) => &self.counts.limited,
            Err(Refusal::Rate(_)) => &self.counts.rate_limited,
        };
        refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Takes the end of a call that it would have let pass.
    pub(crate) fn settle(&self, ticket: Ticket, settled: Settled, now: Now) {
        // Whatever it was in the end: after the candidate's timeout it would not have been there any more.
        let timed_out = !ticket.is_answered() && self.is_late(settled.took);
        if timed_out {
            self.counts.timed_out.fetch_add(1, Ordering::Relaxed);
        }
        let verdict = if timed_out { Verdict::Bad } else { settled.verdict };
        self.note(self.fuse.settle(ticket, Settled { verdict, ..settled }, now));
    }

    /// Decides a probe that has an answer and goes on.
    pub(crate) fn decide(&self, ticket: &mut Ticket, settled: Settled, now: Now) {
        let verdict = if self.is_late(settled.took) { Verdict::Bad } else { settled.verdict };
        self.note(self.fuse.decide(ticket, Settled { verdict, ..settled }, now));
    }

    /// The call that it would have let pass has an answer after so many nanoseconds; what follows, like a
    /// body, may take as long as it likes.
    pub(crate) fn answered(&self, ticket: &mut Ticket, took: u64) {
        if !self.is_late(took) {
            ticket.answer();
        }
    }

    fn is_late(&self, took: u64) -> bool {
        self.fuse.timeout_ms().is_some_and(|millis| took / 1_000_000 >= u64::from(millis))
    }

    fn note(&self, change: Option<crate::breaker::Change>) {
        if change.is_some_and(|change| matches!(change.state.phase, Phase::Open { .. })) {
            self.counts.opened.fetch_add(1, Ordering::Relaxed);
        }
    }
}
