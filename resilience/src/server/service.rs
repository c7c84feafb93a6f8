//! The layer and the service it makes.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::answer::Answer;
use super::body::ServerBody;
use super::future::ServerFuture;
use super::methods::{MethodState, Rule};
use super::protocol::Protocol;
use crate::deadline;
use crate::flight::Flight;
use crate::fusebox::Shared;
use crate::outcome::Outcome;

/// Puts every request to a service under its policy; made by
/// [`Fusebox::server_layer`](crate::Fusebox::server_layer).
///
/// Works in `tonic::transport::Server::builder().layer(..)` and `axum::Router::layer(..)`, around
/// any service of HTTP requests whose response bodies are made of `Bytes`. Clones share their
/// limits, so one port may be served by several routers.
#[derive(Clone, Debug)]
pub struct ServerLayer {
    shared: Arc<Shared>,
}

/// A service under policy; see [`ServerLayer`].
#[derive(Clone, Debug)]
pub struct ServerService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl ServerLayer {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = ServerService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ServerService { inner, shared: Arc::clone(&self.shared) }
    }
}

impl<S, B, R> Service<Request<B>> for ServerService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<ServerBody<R>>;
    type Error = S::Error;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let protocol = Protocol::of(request.headers());
        let rule = self.shared.methods.rule(request.method().as_str(), request.uri().path());
        // To any other protocol the header means nothing: a browser may send it along.
        let caller = match &protocol {
            Protocol::Grpc(_) => deadline::grpc_timeout(request.headers()),
            Protocol::Http => None,
        };
        match admit(&rule, caller, Instant::now()) {
            None => {
                rule.method.tally.count(Outcome::Rejected);
                ServerFuture::answered(Answer::Limit, protocol)
            }
            Some(mut flight) => {
                let head_only = request.method() == http::Method::HEAD;
                let deadline = flight.deadline();
                let inner = &mut self.inner;
                let work = flight.run(|| deadline::within(deadline, || inner.call(request)));
                ServerFuture::started(work, flight, protocol, head_only)
            }
        }
    }
}

/// `caller`: the timeout that the caller asks for.
fn admit(rule: &Rule, caller: Option<Duration>, now: Instant) -> Option<Flight<MethodState>> {
    let limit = rule.policy.max_concurrent_requests.map(fusebox_policy::policy::Limit::get);
    if !rule.method.in_flight.acquire(limit) {
        return None;
    }
    let policy = rule.policy.timeout_ms.map(fusebox_policy::policy::Millis::get);
    // tonic's own timer for the caller's would answer Cancelled. It is set after ours and polled after
    // us, so that ours is always the first to be seen.
    let timeout = [policy, caller].into_iter().flatten().min();
    // A deadline too far away to be told is none.
    let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
    Some(Flight::new(Arc::clone(&rule.method), (), now, deadline))
}
