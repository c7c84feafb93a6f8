//! A future with the deadline of its flight.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Sleep, sleep_until};

use crate::flight::Flight;

pin_project! {
    /// Ends with its future or at the deadline, whichever is first; a future that is ready at its
    /// deadline counts as in time. The timer is armed when the future first has to wait: what is
    /// ready at once never costs one.
    pub(crate) struct Timed<F> {
        #[pin]
        future: F,
        armed: bool,
        // Unconstrained: a future that uses up the task's budget must not starve its own timeout.
        #[pin]
        timer: Option<Unconstrained<Sleep>>,
    }
}

/// The deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl<F: Future> Timed<F> {
    pub(crate) const fn new(future: F) -> Self {
        Self { future, armed: false, timer: None }
    }

    /// Polls the future within its flight.
    #[inline]
    pub(crate) fn poll_in(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        flight: &mut Flight,
    ) -> Poll<Result<F::Output, Elapsed>> {
        let mut this = self.project();
        if let Poll::Ready(output) = flight.run(|| this.future.poll(cx)) {
            return Poll::Ready(Ok(output));
        }
        if !*this.armed {
            *this.armed = true;
            flight.wait();
            this.timer.set(flight.due().instant().map(sleep_until).map(unconstrained));
        }
        match this.timer.as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| Err(Elapsed)),
            None => Poll::Pending,
        }
    }
}
