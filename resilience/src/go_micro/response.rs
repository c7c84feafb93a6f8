//! The way back: the head of a response, then its trailers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::error::Caller;

pin_project! {
    /// The response of a [`GoMicroService`](super::GoMicroService).
    #[derive(Debug)]
    pub struct GoMicroFuture<F> {
        #[pin]
        inner: F,
        caller: Option<Caller>,
    }
}

pin_project! {
    /// A body whose trailers go-micro understands, if it is the caller.
    #[derive(Debug)]
    pub struct GoMicroBody<R> {
        #[pin]
        inner: R,
        caller: Option<Caller>,
    }
}

impl<F> GoMicroFuture<F> {
    pub(super) const fn new(inner: F, caller: Option<Caller>) -> Self {
        Self { inner, caller }
    }
}

impl<F, R, E> Future for GoMicroFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<GoMicroBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx));
        let caller = this.caller.take();
        Poll::Ready(response.map(|mut response| {
            if let Some(caller) = &caller {
                caller.explain(response.headers_mut());
            }
            response.map(|inner| GoMicroBody { inner, caller })
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
        let mut frame = ready!(this.inner.poll_frame(cx));
        if let (Some(caller), Some(Ok(frame))) = (this.caller, &mut frame)
            && let Some(trailers) = frame.trailers_mut()
        {
            caller.explain(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
