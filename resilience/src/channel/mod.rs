//! Calls by name: a channel over the endpoints of a service, each under the caller's own policy.
//!
//! ```no_run
//! # fn f(fusebox: &fusebox::Fusebox) {
//! use fusebox::discovery::Discovery;
//!
//! let discovery = Discovery::dns(); // or Consul, a fixed list, one of yours
//! let channel = fusebox.discover_in(&discovery, "user-service:50051").command("get_user").channel();
//! // UserServiceClient::new(channel.clone())
//! # }
//! ```
//!
//! The channel is what a tonic `Channel` is: a clone is cheap, and a generated client takes it. It is **half of a
//! command's policy**, that of each endpoint: deadline, retries, and for each endpoint a breaker and a concurrency
//! limit. The command as a whole, its breaker, limit, rate and fallback, is put around it, by
//! [`Command::call`](crate::Command::call) or [`Command::http_layer`](crate::Command::http_layer); the deadlines
//! are one and the same then.
//!
//! # Guarantees
//! - No call waits for an endpoint to appear. Where there is none the answer is UNAVAILABLE (503), with the reason
//!   in words and `fusebox-reason: no_endpoint`; only before anything was heard of the service it waits, a second
//!   at most.
//! - Of two endpoints drawn at random the one that is faster for its load is called. A new endpoint, and one
//!   that recovered, is called less for ten seconds.
//! - An endpoint whose breaker is not closed is **ejected**: it is called no more, but for probes. It opens
//!   under the command's policy, or after five failures in a row where that names no number. At most half of
//!   the endpoints are ejected, and none while fewer than a quarter of all are good
//!   ([`Discover::max_ejected_percent`], [`Discover::panic_percent`]).
//! - A request that could not be sent for want of a connection goes to up to two other endpoints. One that is
//!   declared [idempotent](Discover::idempotent) is tried again by the policy's `retry`, elsewhere if possible,
//!   within its budget.
//! - An endpoint that is listed no more has no new calls; those in flight finish.
//! - One connection for each endpoint, set up by the first call. A server that ends it as HTTP/2 asks for, with a first
//!   GOAWAY that names no stream, costs no call, but for one that is being written at that moment.
//! - With the feature `go-micro` an error of a go-micro server, JSON in the message of its status, is a plain status:
//!   its detail is the message, its id the metadata `go-micro-id`.
//!
//! # Caveats
//! - A probe is a call of somebody's: it is one of each sleep window for each ejected endpoint, up to eight times as
//!   long where that keeps failing. A retry spares the caller that.
//! - A peer that keeps its connection and says nothing, like a frozen process, is noticed by the command's timeout; one
//!   that is gone by TCP as well, within 15 seconds.
//! - A server that takes no more streams at once makes calls wait in their connection. If that ends just then, the first
//!   of them fails; the others go by a new one.
//! - A body is sent again only if it came back within 64 KiB: a longer stream is sent once.
//! - Without a `circuitBreaker` in the policy nobody is ejected.
//! - An endpoint's state takes about 400 bytes for each processor.

mod answers;
mod balance;
mod call;
mod choice;
mod direct;
mod discover;
mod driver;
mod flight;
mod link;
mod load;
mod member;
mod options;
mod outgoing;
mod outliers;
mod pick;
mod replay;
mod survey;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tower::Service;

pub use discover::Discover;
pub use outliers::Outlier;

pub(crate) use outliers::Channels;

use crate::discovery::Endpoint;
use crate::layer::protocol::Protocol;
use balance::Balance;
use call::Times;
use direct::Direct;
use link::Link;

/// An error of a connection.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the connection to an endpoint.
enum Connect {
    /// Ours, kept up by this runtime.
    Direct(Handle),
    Own(Box<dyn Fn(&Endpoint) -> Link + Send + Sync>),
}

impl Connect {
    fn link(&self, endpoint: &Endpoint) -> Link {
        match self {
            Self::Direct(runtime) => Link::Direct(Direct::new(endpoint.address, runtime.clone())),
            Self::Own(link) => link(endpoint),
        }
    }

    /// Whether a request that could not be sent comes back.
    const fn gives_back(&self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

/// A channel over the endpoints of a service; made by [`Discover::channel`]. Clones are one and the same.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    balance: Arc<Balance>,
    driving: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Channel {
    fn new(balance: Arc<Balance>, driving: JoinHandle<()>) -> Self {
        Self(Arc::new(Inner { balance, driving }))
    }

    /// Resolves once something was heard of the service, a list or a failure to get one. It may never be: a
    /// process that should start nevertheless puts a time limit around this.
    pub async fn ready(&self) {
        // The sender lives in self.
        let _ = self.0.balance.heard.subscribe().wait_for(|heard| *heard).await;
    }

    /// Why the endpoints in use are those that were heard of last, and not confirmed since: their source fails, or
    /// what it says is doubted. None: they are confirmed, or there are none.
    pub fn unconfirmed(&self) -> Option<String> {
        self.0.balance.unconfirmed()
    }

    /// The endpoints that are ejected just now, those that are so for longest first.
    pub fn outliers(&self) -> Vec<Outlier> {
        self.0.balance.outliers()
    }
}

/// Always ready: a call that goes to nobody has its answer at once.
impl<B> Service<Request<B>> for Channel
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ChannelFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ChannelFuture {
        let protocol = Protocol::of(request.headers());
        // Here, where the deadline of what it is part of is known.
        let times = Times::of(&self.0.balance, protocol, request.headers());
        ChannelFuture(Box::pin(call::call(self.clone(), protocol, request.map(Body::new), times)))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.0.balance).finish()
    }
}

/// The response of a [`Channel`]. Dropped at any point, it cancels the attempt in flight and gives back its
/// permit.
pub struct ChannelFuture(Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>);

impl Future for ChannelFuture {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ChannelFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fusebox;
    use crate::discovery::Discovery;

    /// The most that glibc's fast lists hold: above it each call is slower by more than a field is worth.
    #[tokio::test]
    async fn a_call_is_small() {
        let fusebox = Fusebox::fixed(fusebox_policy::Policy::compiled_in());
        let channel = fusebox.discover_in(&Discovery::fixed([([127, 0, 0, 1], 1).into()]), "user").channel();
        let request = Request::new(Body::empty());
        let times = Times::of(&channel.0.balance, Protocol::of(request.headers()), request.headers());
        let call = call::call(channel, Protocol::of(&http::HeaderMap::new()), request, times);
        assert!(size_of_val(&call) <= 1032, "{}", size_of_val(&call));
    }
}
