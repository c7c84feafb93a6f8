//! A call or request in flight: whatever becomes of it, it is settled exactly once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::outcome::Outcome;

/// Who admitted a call and learns how it ended.
pub(crate) trait Account {
    /// What the account needs to know of the admission.
    type Ticket: Copy;

    /// Takes back the permit and counts the outcome.
    fn settle(&self, ticket: Self::Ticket, outcome: Outcome, now: Instant);
}

/// One admitted call. Dropped without being settled, it counts as cancelled; with two exceptions:
/// at or after 95 % of its deadline as a timeout, because the caller's own timer may be a little
/// ahead of ours, and while its code runs as a failure, because only a panic does that.
#[derive(Debug)]
pub(crate) struct Flight<A: Account> {
    account: Arc<A>,
    ticket: Option<A::Ticket>,
    started: Instant,
    deadline: Option<Instant>,
    running: bool,
}

impl<A: Account> Flight<A> {
    /// A call that `account` has admitted.
    pub(crate) const fn new(
        account: Arc<A>,
        ticket: A::Ticket,
        started: Instant,
        deadline: Option<Instant>,
    ) -> Self {
        Self { account, ticket: Some(ticket), started, deadline, running: false }
    }

    /// Runs a part of the call's code.
    pub(crate) fn run<R>(&mut self, part: impl FnOnce() -> R) -> R {
        self.running = true;
        let result = part();
        self.running = false;
        result
    }

    /// When the call must have ended.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the call should have ended by `now`.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The deadline was met: what follows, like the body of a response, may take as long as it likes.
    /// Dropped from here on, it is cancelled.
    pub(crate) const fn lift_deadline(&mut self) {
        self.deadline = None;
    }

    /// From admission to deadline.
    pub(crate) fn limit(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline - self.started)
    }

    /// The call has ended.
    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            self.account.settle(ticket, outcome, Instant::now());
        }
    }

    fn unsettled(&self, now: Instant) -> Outcome {
        let passed = now.saturating_duration_since(self.started);
        match self.deadline {
            _ if self.running => Outcome::Failure,
            Some(_) if passed * 100 >= self.limit() * 95 => Outcome::Timeout,
            _ => Outcome::Cancelled,
        }
    }
}

impl<A: Account> Drop for Flight<A> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.end(self.unsettled(Instant::now()));
        }
    }
}
