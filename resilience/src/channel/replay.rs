//! A request's body that can be sent again.
//!
//! An attempt gets the body lent: what it has sent is kept beside, up to a limit, and when the attempt drops
//! the body it goes back. So a body that is short or was not begun can be sent to another endpoint, and a long
//! stream is never held in memory.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

/// The most that is kept of one body.
const MAX_KEPT: usize = 64 << 10;

/// A body between two attempts.
#[derive(Debug)]
pub(super) struct Parcel {
    rest: Body,
    /// Whether what was sent may be sent again; else the body comes back only if nothing was.
    again: bool,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    size: usize,
    /// The rest has come to its end.
    ended: bool,
}

/// A body with an attempt.
#[derive(Debug)]
pub(super) struct Lent {
    /// None: it was sent on and cannot be kept.
    parcel: Option<Parcel>,
    /// The rest of one that cannot be kept.
    lost: Option<Body>,
    /// How much of what was kept is sent.
    sent: usize,
    sent_trailers: bool,
    back: Option<oneshot::Sender<Parcel>>,
}

impl Parcel {
    /// A body of which nothing was sent.
    pub(super) const fn new(rest: Body, again: bool) -> Self {
        Self { rest, again, kept: Vec::new(), trailers: None, size: 0, ended: false }
    }

    /// The body for one attempt, and where it comes back to, if it does, once that attempt is over.
    pub(super) fn lend(self) -> (Body, oneshot::Receiver<Self>) {
        let (back, comes_back) = oneshot::channel();
        let lent = Lent { parcel: Some(self), lost: None, sent: 0, sent_trailers: false, back: Some(back) };
        (Body::new(lent), comes_back)
    }
}

impl Lent {
    /// Keeps what is sent on, or gives up keeping.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(parcel) = self.parcel.as_mut().filter(|parcel| parcel.again) else { return self.give_up() };
        if let Some(data) = frame.data_ref() {
            parcel.size += data.remaining();
            parcel.kept.push(data.clone());
            self.sent += 1;
        } else if let Some(trailers) = frame.trailers_ref() {
            parcel.trailers = Some(trailers.clone());
            self.sent_trailers = true;
        }
        if parcel.size > MAX_KEPT {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.lost = self.parcel.take().map(|parcel| parcel.rest);
        self.back = None;
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(parcel) = &mut this.parcel else {
            let rest = this.lost.as_mut();
            return rest.map_or(Poll::Ready(None), |rest| Pin::new(rest).poll_frame(cx));
        };
        if let Some(data) = parcel.kept.get(this.sent) {
            this.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if let (Some(trailers), false) = (&parcel.trailers, this.sent_trailers) {
            this.sent_trailers = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if parcel.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut parcel.rest).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => parcel.ended = true,
            // It was cut: no attempt can have it whole.
            Poll::Ready(Some(Err(_))) => this.give_up(),
            Poll::Ready(Some(Ok(frame))) => this.keep(frame),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match (&self.parcel, &self.lost) {
            (Some(parcel), _) => {
                let all = self.sent == parcel.kept.len() && (parcel.trailers.is_none() || self.sent_trailers);
                all && (parcel.ended || parcel.rest.is_end_stream())
            }
            (None, Some(rest)) => rest.is_end_stream(),
            (None, None) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.parcel, &self.lost) {
            (Some(parcel), _) => {
                let kept = parcel.kept.iter().skip(self.sent).map(|data| data.len() as u64).sum::<u64>();
                let rest = if parcel.ended { SizeHint::with_exact(0) } else { parcel.rest.size_hint() };
                let mut hint = SizeHint::new();
                hint.set_lower(kept + rest.lower());
                if let Some(upper) = rest.upper() {
                    hint.set_upper(kept + upper);
                }
                hint
            }
            (None, Some(rest)) => rest.size_hint(),
            (None, None) => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(parcel), Some(back)) = (self.parcel.take(), self.back.take()) {
            // Nobody waits for it if the attempt was the last.
            let _ = back.send(parcel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body::Body as _;

    use super::*;

    /// A body that gives these frames.
    struct Frames(VecDeque<Result<Frame<Bytes>, Status>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn body(frames: impl IntoIterator<Item = Result<Frame<Bytes>, Status>>) -> Parcel {
        Parcel::new(Body::new(Frames(frames.into_iter().collect())), true)
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    async fn next(body: &mut Body) -> String {
        match std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => "end".to_owned(),
            Some(Err(error)) => error.message().to_owned(),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => String::from_utf8_lossy(&data).into_owned(),
                Err(trailers) => format!("trailers {}", trailers.trailers_ref().unwrap().len()),
            },
        }
    }

    #[tokio::test]
    async fn what_was_sent_is_sent_again_wherever_the_attempt_broke_off() {
        let trailers = HeaderMap::from_iter([("a".parse().unwrap(), "b".parse().unwrap())]);
        let whole = ["one", "two", "trailers 1", "end"];
        let mut parcel = body([Ok(data("one")), Ok(data("two")), Ok(Frame::trailers(trailers))]);
        for sent in [0, 1, 2, 4, 3, 4] {
            let (mut body, back) = parcel.lend();
            for expected in &whole[..sent] {
                assert_eq!(next(&mut body).await, *expected);
            }
            drop(body);
            parcel = back.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once_and_not_kept() {
        let large = || Ok(Frame::data(Bytes::from(vec![b'x'; MAX_KEPT / 2 + 1])));
        let (mut body, back) = body([large(), large(), Ok(data("end of it"))]).lend();
        for length in [MAX_KEPT / 2 + 1, MAX_KEPT / 2 + 1, 9, 3] {
            assert_eq!(next(&mut body).await.len(), length);
        }
        drop(body);
        assert!(back.await.is_err());
    }

    #[tokio::test]
    async fn what_may_not_be_sent_again_comes_back_only_if_nothing_was_sent() {
        let body = Body::new(Frames([Ok(data("one")), Ok(data("two"))].into()));
        let (unread, back) = Parcel::new(body, false).lend();
        drop(unread);
        let (mut body, back) = back.await.unwrap().lend();
        assert_eq!(
            [next(&mut body).await, next(&mut body).await, next(&mut body).await],
            ["one", "two", "end"]
        );
        drop(body);
        assert!(back.await.is_err());
    }

    #[tokio::test]
    async fn a_body_that_broke_off_is_not_sent_again() {
        let (mut body, back) = body([Ok(data("one")), Err(Status::internal("cut"))]).lend();
        assert_eq!([next(&mut body).await, next(&mut body).await], ["one", "cut"]);
        drop(body);
        assert!(back.await.is_err());
    }
}
