//! A connection to one endpoint.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::BoxError;
use super::direct::Direct;
use crate::causes;
use crate::clock::Now;
use crate::deadline::{self, Due};
use crate::layer::protocol::Protocol;

/// A connection to one endpoint.
pub(super) enum Link {
    /// Ours.
    Direct(Direct),
    /// A client of the caller's own, or tonic's as the caller has set it up.
    Own(Own),
}

type Own = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// What is put on a request when it is sent: until when its answer is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) protocol: Protocol,
    pub(super) due: Now,
}

impl Stamp {
    pub(super) fn put<B>(self, request: &mut Request<B>) {
        if self.protocol.is_grpc() {
            deadline::within(Due::at(self.due), || deadline::set_grpc_timeout(request.headers_mut()));
        }
    }
}

/// Why there is no answer.
pub(super) enum Broken {
    /// There was no connection: nobody has seen the request.
    Unsent(BoxError),
    /// It may have been seen.
    Sent(BoxError),
}

impl Link {
    /// Sends what is in `slot`, with `stamp` put on it, once there is a connection. If nobody has seen it, it
    /// may be there again.
    pub(super) async fn send(
        &self,
        slot: &mut Option<Request<Body>>,
        stamp: Stamp,
    ) -> Result<Response<Served>, Broken> {
        match self {
            Self::Direct(direct) => Ok(direct.send(slot, stamp).await?.map(Served::Direct)),
            // Boxed: a call of ours does not carry the room for it along.
            Self::Own(own) => Box::pin(own_send(own.clone(), slot, stamp)).await,
        }
    }
}

async fn own_send(
    mut own: Own,
    slot: &mut Option<Request<Body>>,
    stamp: Stamp,
) -> Result<Response<Served>, Broken> {
    let broken =
        |error: BoxError| if is_connect(&*error) { Broken::Unsent(error) } else { Broken::Sent(error) };
    let ready = own.ready().await.map_err(broken)?;
    let Some(mut request) = slot.take() else { return Err(Broken::Sent("nothing to send".into())) };
    stamp.put(&mut request);
    Ok(tower::Service::call(ready, request).await.map_err(broken)?.map(Served::Own))
}

/// Whether an error says that there was no connection to send the request on.
fn is_connect(error: &(dyn Error + 'static)) -> bool {
    causes::of(error).any(<dyn Error>::is::<tonic::ConnectError>)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// The body of an answer, as its connection gives it.
pub(super) enum Served {
    Direct(Incoming),
    Own(Body),
}

impl http_body::Body for Served {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Direct(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                frame.map_err(|error| Status::from_error(error.into()))
            }
            Self::Own(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Direct(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Direct(body) => body.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}
