//! A call with an answer for when it has none.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::error::CommandError;
use super::running::Classified;
use super::state::{CommandState, FallbackPermit};
use crate::classify::Class;

/// What a fallback stands in for.
pub trait Attempt {
    /// The answer.
    type Answer;
    /// The error of the call itself.
    type Error;

    #[doc(hidden)]
    fn command(&self) -> &'static CommandState;

    /// Whether the policy that it began under lets a fallback stand in.
    #[doc(hidden)]
    fn may_fall_back(&self) -> bool;

    #[doc(hidden)]
    fn poll_classified(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Classified<Self::Answer, Self::Error>>;
}

pin_project! {
    /// A call with a fallback; made by [`Call::or_fallback`](super::Call::or_fallback).
    #[must_use = "nothing is called before it is awaited"]
    pub struct OrFallback<A, G> {
        #[pin]
        call: A,
        fallback: Option<G>,
    }
}

impl<A, G> OrFallback<A, G> {
    pub(super) const fn new(call: A, fallback: G) -> Self {
        Self { call, fallback: Some(fallback) }
    }
}

impl<A, G> Future for OrFallback<A, G>
where
    A: Attempt,
    G: FnOnce(&CommandError<A::Error>) -> A::Answer,
{
    type Output = Result<A::Answer, CommandError<A::Error>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        this.call.as_mut().poll_classified(cx).map(|answer| {
            answer.or_else(|(error, class)| match this.fallback.take() {
                Some(fallback) if class == Class::Failure && this.call.may_fall_back() => {
                    this.call.command().fell_back();
                    Ok(fallback(&error))
                }
                _ => Err(error),
            })
        })
    }
}

impl<A: std::fmt::Debug, G> std::fmt::Debug for OrFallback<A, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrFallback").field("call", &self.call).finish_non_exhaustive()
    }
}

pin_project! {
    /// A call with a fallback to be waited for; made by
    /// [`Call::or_fallback_async`](super::Call::or_fallback_async).
    #[must_use = "nothing is called before it is awaited"]
    pub struct OrFallbackAsync<A, G, Fall> {
        #[pin]
        call: A,
        fallback: Option<G>,
        // Before its permit: it ends before that is free.
        #[pin]
        falling: Option<Fall>,
        permit: Option<FallbackPermit>,
    }
}

impl<A, G, Fall> OrFallbackAsync<A, G, Fall> {
    pub(super) const fn new(call: A, fallback: G) -> Self {
        Self { call, fallback: Some(fallback), falling: None, permit: None }
    }
}

impl<A, G, Fall> Future for OrFallbackAsync<A, G, Fall>
where
    A: Attempt,
    G: FnOnce(CommandError<A::Error>) -> Fall,
    Fall: Future<Output = Result<A::Answer, CommandError<A::Error>>>,
{
    type Output = Result<A::Answer, CommandError<A::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.falling.is_none() {
            let Poll::Ready(answer) = this.call.as_mut().poll_classified(cx) else { return Poll::Pending };
            let (error, class) = match answer {
                Ok(answer) => return Poll::Ready(Ok(answer)),
                Err(failed) => failed,
            };
            let wanted = class == Class::Failure && this.call.may_fall_back();
            let Some(permit) = wanted.then(|| this.call.command().fallback_permit()).flatten() else {
                return Poll::Ready(Err(error));
            };
            let Some(fallback) = this.fallback.take() else { return Poll::Ready(Err(error)) };
            *this.permit = Some(permit);
            this.falling.set(Some(fallback(error)));
        }
        let Some(falling) = this.falling.as_mut().as_pin_mut() else { return Poll::Pending };
        let Poll::Ready(answer) = falling.poll(cx) else { return Poll::Pending };
        if answer.is_err() {
            this.call.command().fallbacks.failed.fetch_add(1, Ordering::Relaxed);
        }
        this.falling.set(None);
        *this.permit = None;
        Poll::Ready(answer)
    }
}

impl<A: std::fmt::Debug, G, Fall> std::fmt::Debug for OrFallbackAsync<A, G, Fall> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrFallbackAsync").field("call", &self.call).finish_non_exhaustive()
    }
}
