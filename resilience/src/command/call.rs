//! One call under a command's policy.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::fallback::{Attempt, OrFallback, OrFallbackAsync};
use super::running::{Classified, Running};
use super::state::CommandState;
use super::{Command, CommandError};
use crate::classify::{Class, Classifier};

pin_project! {
    /// A call under policy; made by [`Command::call`](super::Command::call). Dropped at any point, it
    /// cancels the work and gives back its permit and probe slot. Polled after its end it stays
    /// pending.
    #[must_use = "nothing is called before it is awaited"]
    pub struct Call<F, Fut, C> {
        command: Command,
        classifier: C,
        start: Option<F>,
        // Of the policy that it began under.
        fallback: bool,
        #[pin]
        running: Option<Running<Fut>>,
    }
}

impl<F, Fut, C> Call<F, Fut, C> {
    pub(super) const fn new(command: Command, start: F, classifier: C) -> Self {
        Self { command, classifier, start: Some(start), fallback: false, running: None }
    }
}

impl<F, Fut, C, T, E> Call<F, Fut, C>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    /// Answers with the value of `f` where the call gave none: breaker open, limit full, rate used up,
    /// timeout or failure. Not for an error of class [`Class::Client`], and not where the policy has
    /// switched fallbacks off.
    pub fn or_fallback<G>(self, f: G) -> OrFallback<Self, G>
    where
        G: FnOnce(&CommandError<E>) -> T,
    {
        OrFallback::new(self, f)
    }

    /// [`or_fallback`](Self::or_fallback) with a value that has to be waited for, like one from a cache.
    /// Of those at most `fallback.maxConcurrentRequests` run at once, else the call's own error is the
    /// answer: a fallback that hangs must not do what the call was kept from doing. It has no deadline
    /// but that of the request it is part of, if it looks at it.
    pub fn or_fallback_async<G, Fall>(self, f: G) -> OrFallbackAsync<Self, G, Fall>
    where
        G: FnOnce(CommandError<E>) -> Fall,
        Fall: Future<Output = Result<T, CommandError<E>>>,
    {
        OrFallbackAsync::new(self, f)
    }
}

impl<F, Fut, C, T, E> Attempt for Call<F, Fut, C>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    type Answer = T;
    type Error = E;

    fn command(&self) -> &'static CommandState {
        self.command.state
    }

    fn may_fall_back(&self) -> bool {
        self.fallback
    }

    #[inline]
    fn poll_classified(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Classified<T, E>> {
        let mut this = self.project();
        let command = this.command.state;
        if let Some(start) = this.start.take() {
            let opening = command.opening();
            *this.fallback = opening.fallback;
            match command.begin(opening) {
                Ok(flight) => this.running.set(Some(Running::start(flight, start))),
                Err(refused) => return Poll::Ready(Err((refused.into(), Class::Failure))),
            }
        }
        match this.running.as_mut().as_pin_mut() {
            Some(running) => running.poll(cx, command, this.classifier),
            None => Poll::Pending,
        }
    }
}

impl<F, Fut, C, T, E> Future for Call<F, Fut, C>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
{
    type Output = Result<T, CommandError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_classified(cx).map(|answer| answer.map_err(|(error, _)| error))
    }
}

impl<F, Fut, C> std::fmt::Debug for Call<F, Fut, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("command", &self.command.name()).finish_non_exhaustive()
    }
}
