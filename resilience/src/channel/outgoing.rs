//! A request on its way: as it is, or with what another attempt needs kept back.

use http::request::Parts;
use http::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tonic::body::Body;

use super::link::{Broken, Link, Served, Stamp};
use super::replay::Parcel;
use crate::clock::{Now, exact};

/// How many nanoseconds a body may take to come back from an attempt that is over. One that waits in a connection where
/// no further stream fits does not.
const COMES_BACK: u64 = 100_000_000;

/// A request on its way.
pub(super) struct Outgoing {
    /// To be sent next.
    request: Option<Request<Body>>,
    kept: Option<Box<Kept>>,
}

/// What another attempt needs.
struct Kept {
    parts: Parts,
    comes_back: oneshot::Receiver<Parcel>,
}

impl Outgoing {
    /// One that is sent once, if its connection does not give it back.
    pub(super) const fn once(request: Request<Body>) -> Self {
        Self { request: Some(request), kept: None }
    }

    /// One that can be sent again if its body came back; `whatever_was_sent`, or only if nothing was.
    pub(super) fn kept(request: Request<Body>, whatever_was_sent: bool) -> Self {
        let (parts, body) = request.into_parts();
        Self::lent(parts, Parcel::new(body, whatever_was_sent))
    }

    fn lent(parts: Parts, parcel: Parcel) -> Self {
        let (body, comes_back) = parcel.lend();
        let request = Request::from_parts(parts.clone(), body);
        Self { request: Some(request), kept: Some(Box::new(Kept { parts, comes_back })) }
    }

    /// One attempt over `link`, with `stamp` put on it when it is sent.
    pub(super) fn send<'a>(
        &'a mut self,
        link: &'a Link,
        stamp: Stamp,
    ) -> impl Future<Output = Result<Response<Served>, Broken>> + 'a {
        link.send(&mut self.request, stamp)
    }

    /// Whether it can be sent once more, now that an attempt is over; known by `due`.
    pub(super) async fn again(&mut self, due: Now) -> bool {
        let Some(kept) = self.kept.take() else { return self.request.is_some() };
        // What was not sent at all gives its body back.
        drop(self.request.take());
        let until = exact().plus(COMES_BACK).min(due);
        let Some(until) = until.instant() else { return false };
        match timeout_at(until, kept.comes_back).await {
            Ok(Ok(parcel)) => {
                *self = Self::lent(kept.parts, parcel);
                true
            }
            _ => false,
        }
    }
}
