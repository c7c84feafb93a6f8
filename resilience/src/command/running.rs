//! A call that was admitted.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::error::CommandError;
use super::state::CommandState;
use crate::classify::{Class, Classifier};
use crate::flight::Flight;
use crate::outcome::Outcome;
use crate::timed::{Elapsed, Timed};

pin_project! {
    /// Work in flight, up to its answer and its outcome.
    pub(super) struct Running<Fut> {
        // Before `flight`: the work ends before its permit is free.
        #[pin]
        work: Option<Timed<Fut>>,
        flight: Flight,
    }
}

/// An answer, or why there is none and whose fault that is.
pub(super) type Classified<T, E> = Result<T, (CommandError<E>, Class)>;

impl<Fut, T, E> Running<Fut>
where
    Fut: Future<Output = Result<T, E>>,
{
    /// Starts the work, whose code runs within the flight from the beginning.
    #[inline]
    pub(super) fn start(mut flight: Flight, start: impl FnOnce() -> Fut) -> Self {
        let work = Some(Timed::new(flight.run(start)));
        Self { work, flight }
    }

    /// After its end it stays pending.
    #[inline]
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        command: &CommandState,
        classifier: &impl Classifier<E>,
    ) -> Poll<Classified<T, E>> {
        let mut this = self.project();
        let Some(work) = this.work.as_mut().as_pin_mut() else { return Poll::Pending };
        let flight = this.flight;
        let Poll::Ready(result) = work.poll_in(cx, flight) else { return Poll::Pending };
        let (outcome, answer) = match result {
            Ok(Ok(value)) => {
                this.work.set(None);
                flight.succeed();
                return Poll::Ready(Ok(value));
            }
            // The work is polled before our timer. What it says from the deadline on is the deadline's
            // doing: tonic's own timer for the `grpc-timeout` that we send fires in the same
            // millisecond as ours, and calls it CANCELLED.
            Ok(Err(_)) if flight.is_overdue() => overdue(flight),
            Ok(Err(error)) => {
                let class = command.class(classifier, &error);
                let outcome = match class {
                    Class::Failure => Outcome::Failure,
                    Class::Client => Outcome::ClientError,
                };
                (outcome, Err((CommandError::Failed(error), class)))
            }
            Err(Elapsed) => overdue(flight),
        };
        this.work.set(None);
        flight.settle(outcome);
        Poll::Ready(answer)
    }
}

#[cold]
#[inline(never)]
fn overdue<T, E>(flight: &Flight) -> (Outcome, Classified<T, E>) {
    (Outcome::Timeout, Err((CommandError::Timeout(flight.limit()), Class::Failure)))
}
