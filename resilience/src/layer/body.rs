//! The body of a response. It holds the request's permit to its end, where the outcome is known.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::protocol::{Protocol, Said};
use super::service::Target;
use crate::flight::Flight;
use crate::outcome::Outcome;

pin_project! {
    /// The body of a response under policy: the service's, or a short one of the layer.
    pub struct HttpBody<R> {
        #[pin]
        served: Option<R>,
        answered: Answered,
        ending: Option<Ending>,
    }
}

/// What is left of an answer of the layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    pub(super) data: Option<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

impl From<Bytes> for Answered {
    fn from(data: Bytes) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()), trailers: None }
    }
}

impl Answered {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        self.data.take().map(Frame::data).or_else(|| self.trailers.take().map(Frame::trailers))
    }
}

/// How a response will be counted.
pub(crate) struct Ending {
    flight: Flight,
    protocol: Protocol,
    target: Target,
    said: Said,
    /// The body broke off.
    broken: bool,
    /// How many bytes the head has promised: a server need not ask again after the last of them.
    left: Option<u64>,
}

impl Ending {
    pub(crate) fn new(
        mut flight: Flight,
        protocol: Protocol,
        target: Target,
        said: Said,
        headers: &HeaderMap,
        head_only: bool,
    ) -> Self {
        // A client that closes a long stream has not waited in vain.
        flight.answered();
        // A gRPC response ends with its trailers, and has no use for a length.
        let length = (!protocol.is_grpc()).then(|| headers.get(CONTENT_LENGTH)).flatten();
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let left = if head_only { Some(0) } else { length };
        Self { flight, protocol, target, said, broken: false, left }
    }

    fn settle(mut self) {
        let unseen = self.said == Said::Nothing && self.protocol.is_web();
        self.flight.settle(match self.said {
            _ if self.broken => Outcome::Failure,
            _ if unseen => Outcome::Success,
            said => self.target.outcome(said),
        });
    }

    /// The body takes its time.
    fn go_on(&mut self) {
        self.flight.hold();
        self.flight.decide(match self.said {
            Said::Nothing => Outcome::Success,
            said => self.target.outcome(said),
        });
    }
}

impl<R> HttpBody<R> {
    /// A short body of the layer.
    pub(super) const fn answered(answered: Answered) -> Self {
        Self { served: None, answered, ending: None }
    }
}

impl<R: Body> HttpBody<R> {
    /// A body of the service.
    pub(super) fn served(body: R, mut ending: Ending) -> Self {
        let mut this = Self { served: None, answered: Answered::default(), ending: None };
        // What knows its length is not asked again after the last byte either.
        if ending.left.is_none() && ending.protocol == Protocol::Http {
            ending.left = body.size_hint().exact();
        }
        if body.is_end_stream() || ending.left == Some(0) {
            ending.settle();
        } else {
            ending.go_on();
            this.ending = Some(ending);
        }
        this.served = Some(body);
        this
    }
}

impl<R: Body<Data = Bytes>> Body for HttpBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let mut this = self.project();
        let Some(mut served) = this.served.as_mut().as_pin_mut() else {
            return Poll::Ready(this.answered.next().map(Ok));
        };
        let polled = match this.ending.as_mut() {
            Some(ending) => ending.flight.run(|| served.as_mut().poll_frame(cx)),
            None => served.as_mut().poll_frame(cx),
        };
        let Poll::Ready(frame) = polled else { return Poll::Pending };
        let Some(mut ending) = this.ending.take() else { return Poll::Ready(frame) };
        let ended = match &frame {
            None => true,
            Some(Err(_)) => {
                ending.broken = true;
                true
            }
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    match ending.protocol.trailers(trailers) {
                        Said::Nothing => {}
                        said => ending.said = said,
                    }
                }
                if let (Some(left), Some(data)) = (ending.left.as_mut(), frame.data_ref()) {
                    *left = left.saturating_sub(data.remaining() as u64);
                }
                frame.is_trailers() || ending.left == Some(0) || served.is_end_stream()
            }
        };
        if ended {
            ending.settle();
        } else {
            *this.ending = Some(ending);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.served {
            Some(served) => served.is_end_stream(),
            None => self.answered.data.is_none() && self.answered.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.served {
            Some(served) => served.size_hint(),
            None => SizeHint::with_exact(self.answered.data.as_ref().map_or(0, |data| data.len() as u64)),
        }
    }
}

impl<R> std::fmt::Debug for HttpBody<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpBody").field("answered", &self.answered).finish_non_exhaustive()
    }
}
