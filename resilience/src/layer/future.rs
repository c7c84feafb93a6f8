//! One request on its way to the head of its response.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;

use super::answer::Answer;
use super::body::{Answered, Ending, HttpBody};
use super::protocol::{Protocol, Said};
use super::service::Target;
use crate::flight::Flight;
use crate::outcome::Outcome;
use crate::timed::{Elapsed, Timed};

pin_project! {
    /// The response of a [`HttpService`](super::HttpService). Dropped at any point, it cancels
    /// the work and gives back its permit. Polled after its end it stays pending.
    pub struct HttpFuture<F> {
        // Before `flight`: the work ends before its permit is free.
        #[pin]
        work: Option<Timed<F>>,
        flight: Option<Flight>,
        answer: Option<Answer>,
        protocol: Protocol,
        target: Target,
        head_only: bool,
    }
}

impl<F> HttpFuture<F> {
    /// An answer without work.
    pub(super) fn answered(answer: Answer, protocol: Protocol, target: Target) -> Self {
        Self { work: None, flight: None, answer: Some(answer), protocol, target, head_only: false }
    }
}

impl<F: Future> HttpFuture<F> {
    /// Work that was admitted.
    pub(super) fn started(
        work: F,
        flight: Flight,
        protocol: Protocol,
        target: Target,
        head_only: bool,
    ) -> Self {
        let work = Some(Timed::new(work));
        Self { work, flight: Some(flight), answer: None, protocol, target, head_only }
    }
}

impl<F, R, E> Future for HttpFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: http_body::Body,
{
    type Output = Result<Response<HttpBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let (Some(work), Some(flight)) = (this.work.as_mut().as_pin_mut(), this.flight.as_mut()) {
            let Poll::Ready(result) = work.poll_in(cx, flight) else { return Poll::Pending };
            this.work.set(None);
            let (protocol, target) = (*this.protocol, *this.target);
            let said = match &result {
                Ok(Ok(response)) => protocol.head(response.status(), response.headers()),
                _ => Said::Unknown,
            };
            // A call that the work makes in turn ends by the same deadline, and tells of that; so does tonic's
            // channel, by a timer of its own for the `grpc-timeout` that we send. What fails from the deadline
            // on is the deadline's doing.
            let late = said.is_error() && result.is_ok() && flight.is_overdue();
            let result = if late { Err(Elapsed) } else { result };
            match (result, this.flight.take()) {
                (Ok(Ok(response)), Some(flight)) => {
                    let ending =
                        Ending::new(flight, protocol, target, said, response.headers(), *this.head_only);
                    return Poll::Ready(Ok(response.map(|body| HttpBody::served(body, ending))));
                }
                (Ok(Err(error)), Some(mut flight)) => {
                    flight.settle(Outcome::Failure);
                    return Poll::Ready(Err(error));
                }
                (Err(Elapsed), Some(mut flight)) => {
                    flight.settle(Outcome::Timeout);
                    *this.answer = Some(Answer::Timeout);
                }
                (_, None) => return Poll::Pending,
            }
        }
        let Some(answer) = this.answer.take() else { return Poll::Pending };
        let fallback = this.target.fallback(*this.protocol, answer);
        let response = fallback.unwrap_or_else(|| answer.response(*this.protocol).map(Answered::from));
        Poll::Ready(Ok(response.map(HttpBody::answered)))
    }
}

impl<F> std::fmt::Debug for HttpFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpFuture").field("answer", &self.answer).finish_non_exhaustive()
    }
}
