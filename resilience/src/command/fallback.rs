//! A call with an answer for when it has none.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::call::Call;
use super::error::CommandError;
use crate::classify::{Class, Classifier};

pin_project! {
    /// A call with a fallback; made by [`Call::or_fallback`].
    #[must_use = "nothing is called before it is awaited"]
    pub struct OrFallback<F, Fut, C, G> {
        #[pin]
        call: Call<F, Fut, C>,
        fallback: Option<G>,
    }
}

impl<F, Fut, C, G> OrFallback<F, Fut, C, G> {
    pub(super) const fn new(call: Call<F, Fut, C>, fallback: G) -> Self {
        Self { call, fallback: Some(fallback) }
    }
}

impl<F, Fut, C, G, T, E> Future for OrFallback<F, Fut, C, G>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Classifier<E>,
    G: FnOnce(&CommandError<E>) -> T,
{
    type Output = Result<T, CommandError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        this.call.as_mut().poll_classified(cx).map(|answer| {
            answer.or_else(|(error, class)| match this.fallback.take() {
                Some(fallback) if class == Class::Failure && this.call.fallback_enabled() => {
                    this.call.count_fallback();
                    Ok(fallback(&error))
                }
                _ => Err(error),
            })
        })
    }
}

impl<F, Fut, C, G> std::fmt::Debug for OrFallback<F, Fut, C, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrFallback").field("call", &self.call).finish_non_exhaustive()
    }
}
