//! One call under a command's policy.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::error::CommandError;
use super::fallback::OrFallback;
use super::state::{CommandState, Refusal};
use crate::classify::{Class, Classifier};
use crate::deadline;
use crate::flight::Flight;
use crate::outcome::Outcome;
use crate::timed::{Elapsed, Timed};

pin_project! {
    /// A call under policy; made by [`Command::call`](super::Command::call). Dropped at any point, it
    /// cancels the work and gives back its permit and probe slot. Polled after its end it stays
    /// pending.
    #[must_use = "nothing is called before it is awaited"]
    pub struct Call<F, Fut, C> {
        command: Arc<CommandState>,
        class: C,
        start: Option<F>,
        // Before `flight`: the work ends before its permit is free.
        #[pin]
        work: Option<Timed<Fut>>,
        flight: Option<Flight<CommandState>>,
    }
}

/// An answer, or why there is none and whose fault that is.
type Classified<T, E> = Result<T, (CommandError<E>, Class)>;

impl<F, Fut, C> Call<F, Fut, C> {
    pub(super) const fn new(command: Arc<CommandState>, start: F, class: C) -> Self {
        Self { command, class, start: Some(start), work: None, flight: None }
    }

    /// Whether policy lets a fallback run.
    pub(super) fn fallback_enabled(&self) -> bool {
        self.command.fallback_enabled()
    }

    /// Counts a fallback.
    pub(super) fn count_fallback(&self) {
        self.command.fallbacks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl<F, Fut, C, T, E> Call<F, Fut, C>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    /// Answers with the value of `f` where the call gave none: breaker open, limit full, timeout or
    /// failure. Not for an error of class [`Class::Client`], and not where the policy has switched
    /// fallbacks off.
    pub fn or_fallback<G>(self, f: G) -> OrFallback<F, Fut, C, G>
    where
        G: FnOnce(&CommandError<E>) -> T,
    {
        OrFallback::new(self, f)
    }

    pub(super) fn poll_classified(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Classified<T, E>> {
        let mut this = self.project();
        if let Some(start) = this.start.take() {
            let mut flight = match admit(this.command) {
                Ok(flight) => flight,
                Err(error) => return Poll::Ready(Err((error, Class::Failure))),
            };
            let deadline = flight.deadline();
            let future = flight.run(|| deadline::within(deadline, start));
            this.work.set(Some(Timed::new(future, deadline)));
            *this.flight = Some(flight);
        }
        let (Some(work), Some(flight)) = (this.work.as_mut().as_pin_mut(), this.flight.as_mut()) else {
            return Poll::Pending;
        };
        let Poll::Ready(result) = flight.run(|| work.poll(cx)) else { return Poll::Pending };
        let (outcome, answer) = match result {
            Ok(Ok(value)) => (Outcome::Success, Ok(value)),
            // The work is polled before our timer. What it says from the deadline on is the deadline's
            // doing: tonic's own timer for the `grpc-timeout` that we send fires in the same
            // millisecond as ours, and calls it CANCELLED.
            Ok(Err(_)) if flight.is_overdue(Instant::now()) => overdue(flight),
            Ok(Err(error)) => {
                let class = this.class.class(&error);
                let outcome = match class {
                    Class::Failure => Outcome::Failure,
                    Class::Client => Outcome::ClientError,
                };
                (outcome, Err((CommandError::Failed(error), class)))
            }
            Err(Elapsed) => overdue(flight),
        };
        this.work.set(None);
        if let Some(flight) = this.flight.take() {
            flight.settle(outcome);
        }
        Poll::Ready(answer)
    }
}

fn overdue<T, E>(flight: &Flight<CommandState>) -> (Outcome, Classified<T, E>) {
    (Outcome::Timeout, Err((CommandError::Timeout(flight.limit()), Class::Failure)))
}

fn admit<E>(command: &Arc<CommandState>) -> Result<Flight<CommandState>, CommandError<E>> {
    let (now, enclosing) = (Instant::now(), deadline::current());
    if enclosing.is_some_and(|deadline| deadline <= now) {
        // The request is lost already; that says nothing about the callee.
        command.tally.count(Outcome::Timeout);
        return Err(CommandError::Timeout(Duration::ZERO));
    }
    command.begin(now, enclosing).map_err(|refusal| match refusal {
        Refusal::Open(retry_after) => CommandError::Open { retry_after },
        Refusal::Limit => CommandError::Rejected,
    })
}

impl<F, Fut, C, T, E> Future for Call<F, Fut, C>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    type Output = Result<T, CommandError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_classified(cx).map(|answer| answer.map_err(|(error, _)| error))
    }
}

impl<F, Fut, C> std::fmt::Debug for Call<F, Fut, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("command", &self.command.name).finish_non_exhaustive()
    }
}
