//! A future with a deadline, which it also tells to the code it polls.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::deadline;

pin_project! {
    /// Ends with its future or at the deadline, whichever is first; a future that is ready at its
    /// deadline counts as in time. The timer is armed when the future first has to wait: what is
    /// ready at once never costs one.
    pub(crate) struct Timed<F> {
        #[pin]
        future: F,
        deadline: Option<Instant>,
        // Unconstrained: a future that uses up the task's budget must not starve its own timeout.
        #[pin]
        timer: Option<Unconstrained<Sleep>>,
    }
}

/// The deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl<F: Future> Timed<F> {
    /// Runs `future` until `deadline`; None: for ever.
    pub(crate) const fn new(future: F, deadline: Option<Instant>) -> Self {
        Self { future, deadline, timer: None }
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = deadline::within(*this.deadline, || this.future.poll(cx)) {
            return Poll::Ready(Ok(output));
        }
        let Some(deadline) = *this.deadline else { return Poll::Pending };
        if this.timer.is_none() {
            this.timer.set(Some(unconstrained(sleep_until(deadline))));
        }
        match this.timer.as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| Err(Elapsed)),
            None => Poll::Pending,
        }
    }
}
