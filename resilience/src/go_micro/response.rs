//! The way back: the head of a response, then its trailers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::error::Caller;

pin_project! {
    /// The response of a [`GoMicroService`](super::GoMicroService).
    #[derive(Debug)]
    pub struct GoMicroFuture<F> {
        #[pin]
        inner: Option<F>,
        caller: Option<Caller>,
        // The head of an answer of ours.
        refused: Option<HeaderMap>,
    }
}

pin_project! {
    /// A body whose trailers go-micro understands, if it is the caller.
    #[derive(Debug)]
    pub struct GoMicroBody<R> {
        // None: there is none.
        #[pin]
        inner: Option<R>,
        caller: Option<Caller>,
    }
}

impl<F> GoMicroFuture<F> {
    pub(super) const fn new(inner: F, caller: Option<Caller>) -> Self {
        Self { inner: Some(inner), caller, refused: None }
    }

    /// An answer without the service.
    pub(super) const fn refused(head: HeaderMap) -> Self {
        Self { inner: None, caller: None, refused: Some(head) }
    }
}

impl<F, R, E> Future for GoMicroFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<GoMicroBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(head) = this.refused.take() {
            let mut response = Response::new(GoMicroBody { inner: None, caller: None });
            *response.headers_mut() = head;
            return Poll::Ready(Ok(response));
        }
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Pending };
        let response = ready!(inner.poll(cx));
        let caller = this.caller.take();
        Poll::Ready(response.map(|mut response| {
            if let Some(caller) = &caller {
                caller.explain(response.headers_mut());
            }
            response.map(|inner| GoMicroBody { inner: Some(inner), caller })
        }))
    }
}

impl<R: Body<Data = Bytes>> Body for GoMicroBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let mut frame = ready!(inner.poll_frame(cx));
        if let (Some(caller), Some(Ok(frame))) = (this.caller, &mut frame)
            && let Some(trailers) = frame.trailers_mut()
        {
            caller.explain(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
