//! The layer and the service it makes.

use std::task::{Context, Poll};

use bytes::Bytes;
use fusebox_policy::policy::ErrorClasses;
use http::{Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::answer::Answer;
use super::body::{Answered, HttpBody};
use super::future::HttpFuture;
use super::methods::{MethodState, Methods};
use super::protocol::{Protocol, Said};
use crate::clock::{Now, exact};
use crate::command::state::{CommandState, Refused};
use crate::deadline::{self, Due};
use crate::flight::{Flight, Times};
use crate::outcome::Outcome;

/// Puts every request over HTTP, gRPC included, under its policy; made by
/// [`Fusebox::server_layer`](crate::Fusebox::server_layer) for requests that are served, and by
/// [`Command::http_layer`](crate::Command::http_layer) for those that are sent.
///
/// Works in `tonic::transport::Server::builder().layer(..)` and `axum::Router::layer(..)`, and around
/// any service of HTTP requests whose response bodies are made of `Bytes`. Copies share their limits, so
/// one port may be served by several routers.
#[derive(Clone, Copy, Debug)]
pub struct HttpLayer {
    side: Side,
}

/// A service under policy; see [`HttpLayer`].
///
/// It is ready when its inner service is: a request that policy refuses has its answer at once, and
/// leaves the inner service ready.
#[derive(Clone, Copy, Debug)]
pub struct HttpService<S> {
    inner: S,
    side: Side,
}

/// Which side of the wire a layer is on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// Each request has the policy of its method.
    Server(&'static Methods),
    /// Each request has the policy of one command.
    Client(&'static CommandState),
}

/// Whom a request is counted for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Method(&'static MethodState),
    Command(&'static CommandState),
}

impl Target {
    /// What the policy answers in place of an answer of the layer.
    pub(super) fn fallback(self, protocol: Protocol, answer: Answer) -> Option<Response<Answered>> {
        match self {
            Self::Method(method) => method.fallback(protocol, answer),
            Self::Command(_) => None,
        }
    }

    /// How a response is counted that says this and nothing more.
    pub(super) fn outcome(self, said: Said) -> Outcome {
        match self {
            Self::Command(command) if said != Said::Success => said.outcome(Some(&command.policy().errors)),
            _ => said.outcome(None::<&ErrorClasses>),
        }
    }
}

impl HttpLayer {
    pub(crate) const fn new(side: Side) -> Self {
        Self { side }
    }
}

impl<S> Layer<S> for HttpLayer {
    type Service = HttpService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpService { inner, side: self.side }
    }
}

impl<S, B, R> Service<Request<B>> for HttpService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<HttpBody<R>>;
    type Error = S::Error;
    type Future = HttpFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let protocol = Protocol::of(request.headers());
        let (target, flight) = match self.side {
            Side::Server(methods) => serve(methods, protocol, &request),
            Side::Client(command) => (Target::Command(command), send(command, protocol, &mut request)),
        };
        match flight {
            Err(answer) => HttpFuture::answered(answer, protocol, target),
            Ok(mut flight) => {
                let head_only = request.method() == http::Method::HEAD;
                let inner = &mut self.inner;
                let work = flight.run(|| inner.call(request));
                HttpFuture::started(work, flight, protocol, target, head_only)
            }
        }
    }
}

/// Asks for a request that is served.
fn serve<B>(
    methods: &'static Methods,
    protocol: Protocol,
    request: &Request<B>,
) -> (Target, Result<Flight, Answer>) {
    let method = methods.find(request.method().as_str(), request.uri().path());
    let circuit = &method.circuit;
    // To any other protocol the header means nothing: a browser may send it along.
    let caller = protocol.is_grpc().then(|| deadline::grpc_timeout(request.headers())).flatten();
    // Exactly from now: tonic's own timer for it would answer Cancelled. That is set after ours and
    // polled after us, so that ours is always the first to be seen.
    let due = caller.map(from_now);
    let timeout_ms = circuit.fuse.timeout_ms().unwrap_or(0);
    let times = Times { timeout_ms, enclosing: due.unwrap_or(Now::NEVER) };
    let flight = circuit.begin(circuit.clock().now(), times).map_err(Answer::Refused);
    (Target::Method(method), flight)
}

fn from_now(timeout: std::time::Duration) -> Now {
    exact().plus(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
}

/// Asks for a request that is sent, and tells its deadline.
fn send<B>(
    command: &'static CommandState,
    protocol: Protocol,
    request: &mut Request<B>,
) -> Result<Flight, Answer> {
    // A deadline that was set by hand is one too. Exactly from now: tonic's own timer for it answers
    // Cancelled. It is set after ours.
    let asked = protocol.is_grpc().then(|| deadline::grpc_timeout(request.headers())).flatten();
    let due = asked.map_or(Now::NEVER, from_now);
    let flight =
        deadline::within(Due::at(due), || command.begin(command.opening())).map_err(
            |refused| match refused {
                Refused::By(refusal) => Answer::Refused(refusal),
                Refused::TooLate => Answer::Timeout,
            },
        )?;
    if protocol.is_grpc() {
        deadline::within(flight.deadline(), || deadline::set_grpc_timeout(request.headers_mut()));
    }
    Ok(flight)
}
