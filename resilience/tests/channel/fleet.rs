//! Endpoints in memory whose every behaviour the test sets, in virtual time.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fusebox::channel::{BoxError, Channel, Discover};
use fusebox::discovery::{Discovery, Endpoint, Following, Source, Teller};
use fusebox::{Fusebox, Policy};
use fusebox_policy::policy::CommandPolicy;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tower::Service;

use crate::common;

/// What an endpoint does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Answer,
    /// INTERNAL.
    Fail,
    /// `NOT_FOUND`.
    NotFound,
    /// Never answers.
    Hang,
    /// Cannot be connected to.
    Refuse,
    /// Never becomes ready.
    NotReady,
    /// Answers with its head, and a body that never ends.
    Stream,
}

const ALL: [Does; 7] =
    [Does::Answer, Does::Fail, Does::NotFound, Does::Hang, Does::Refuse, Does::NotReady, Does::Stream];

/// One endpoint.
#[derive(Debug, Default)]
pub struct Server {
    does: AtomicU8,
    /// How long an answer takes, in milliseconds.
    pub takes: AtomicU64,
    pub calls: AtomicUsize,
    /// Calls of a connection that was not asked whether it is ready.
    pub unready: AtomicUsize,
    pub in_flight: AtomicUsize,
    /// Bytes of whole request bodies.
    pub bytes: AtomicUsize,
    /// Connections that exist.
    pub links: AtomicUsize,
    /// The last `grpc-timeout`, in milliseconds.
    pub told: AtomicU64,
}

impl Server {
    pub fn now(&self, does: Does) {
        let place = ALL.iter().position(|one| *one == does).unwrap();
        self.does.store(u8::try_from(place).unwrap(), Ordering::SeqCst);
    }

    fn does(&self) -> Does {
        ALL[usize::from(self.does.load(Ordering::SeqCst))]
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Counted while it lives.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// As tower has it: a clone is not ready because its original was.
pub struct Link {
    server: Arc<Server>,
    at: usize,
    ready: bool,
}

impl Link {
    pub fn of(server: &Arc<Server>, at: usize) -> Self {
        server.links.fetch_add(1, Ordering::SeqCst);
        Self { server: Arc::clone(server), at, ready: false }
    }
}

impl Clone for Link {
    fn clone(&self) -> Self {
        Self::of(&self.server, self.at)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.server.links.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service<Request<Body>> for Link {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.server.does() == Does::NotReady {
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !std::mem::take(&mut self.ready) {
            self.server.unready.fetch_add(1, Ordering::SeqCst);
        }
        let (server, at) = (Arc::clone(&self.server), self.at);
        Box::pin(async move {
            server.calls.fetch_add(1, Ordering::SeqCst);
            let told = request.headers().get("grpc-timeout").map(|told| told.to_str().unwrap().to_owned());
            let told = told.and_then(|told| told.strip_suffix('u')?.parse::<u64>().ok());
            server.told.store(told.unwrap_or_default() / 1000, Ordering::SeqCst);
            let _held = Held::new(&server.in_flight);
            if server.does() == Does::Refuse {
                return Err(tonic::ConnectError("refused".into()).into());
            }
            let body = request.into_body().collect().await?.to_bytes();
            server.bytes.fetch_add(body.len(), Ordering::SeqCst);
            sleep(Duration::from_millis(server.takes.load(Ordering::SeqCst))).await;
            let (status, body) = match server.does() {
                Does::Hang => std::future::pending().await,
                Does::Fail => (Some("13"), Body::empty()),
                Does::NotFound => (Some("5"), Body::empty()),
                Does::Stream => (None, Body::new(Endless)),
                _ => (Some("0"), Body::empty()),
            };
            let mut response = Response::builder().header("server", at.to_string());
            if let Some(status) = status {
                response = response.header("grpc-status", status);
            }
            Ok(response.body(body).unwrap())
        })
    }
}

struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
        Poll::Pending
    }
}

/// A source whose every word is the test's.
#[derive(Debug)]
struct Manual(mpsc::UnboundedSender<Teller>);

impl Source for Manual {
    fn follow(&self, _: &str, told: Teller) -> Following {
        self.0.send(told).unwrap();
        Box::pin(std::future::pending())
    }
}

/// A source of the test's own, and where whoever follows it is told of.
pub fn manual() -> (Discovery, mpsc::UnboundedReceiver<Teller>) {
    let (tellers, told) = mpsc::unbounded_channel();
    (Discovery::new(Manual(tellers)), told)
}

/// A channel over endpoints in memory.
pub struct Fleet {
    pub fusebox: Fusebox,
    pub channel: Channel,
    pub source: Teller,
    pub servers: Vec<Arc<Server>>,
}

pub fn address(n: usize) -> SocketAddr {
    SocketAddr::new([10, 0, 0, 1].into(), u16::try_from(n + 1).unwrap())
}

pub fn endpoint(n: usize) -> Endpoint {
    Endpoint::new(address(n))
}

impl Fleet {
    /// Of so many, of which nothing was heard yet.
    pub fn unheard(count: usize, command: CommandPolicy, set: impl Fn(Discover) -> Discover) -> Self {
        Self::under(count, common::policy(command), set)
    }

    fn under(count: usize, policy: Policy, set: impl Fn(Discover) -> Discover) -> Self {
        let fusebox = Fusebox::fixed(policy);
        let servers: Vec<_> = (0..count).map(|_| Arc::new(Server::default())).collect();
        for server in &servers {
            server.takes.store(1, Ordering::SeqCst);
        }
        let (discovery, mut told) = manual();
        let discover = fusebox.discover_in(&discovery, "user.service").command("c");
        let all = servers.clone();
        let channel = set(discover).channel_over(move |endpoint| {
            let at = usize::from(endpoint.address.port()) - 1;
            Link::of(&all[at], at)
        });
        Self { fusebox, channel, source: told.try_recv().unwrap(), servers }
    }

    /// Of so many, all of which are listed.
    pub async fn new(count: usize, command: CommandPolicy, set: impl Fn(Discover) -> Discover) -> Self {
        let fleet = Self::unheard(count, command, set);
        fleet.list(0..count).await;
        // Warm.
        sleep(Duration::from_secs(10)).await;
        fleet
    }

    /// Lists these, and has that in force.
    pub async fn list(&self, listed: impl IntoIterator<Item = usize>) {
        self.source.found(listed.into_iter().map(endpoint).collect());
        sleep(Duration::from_millis(1)).await;
    }

    pub async fn call(&self) -> Answer {
        call(&self.channel).await
    }

    /// So many calls, one each ten milliseconds.
    pub async fn calls(&self, count: usize) -> Vec<Answer> {
        let mut answers = Vec::new();
        for _ in 0..count {
            answers.push(self.call().await);
            sleep(Duration::from_millis(10)).await;
        }
        answers
    }

    /// Calls until so many are ejected; how many calls that took, and how many of them failed.
    pub async fn until_ejected(&self, count: usize) -> (usize, usize) {
        let (mut made, mut failed) = (0, 0);
        while self.fusebox.outliers().len() != count {
            assert!(made < 10_000, "{:?}", self.fusebox.outliers());
            made += 1;
            failed += bad(&self.calls(1).await);
        }
        (made, failed)
    }

    /// How many calls each got while `work` ran.
    pub async fn shares(&self, work: impl Future) -> Vec<usize> {
        let counts = || self.servers.iter().map(|server| server.calls()).collect::<Vec<_>>();
        let before = counts();
        work.await;
        counts().iter().zip(before).map(|(now, before)| now - before).collect()
    }

    pub fn metric(&self, name: &str) -> u64 {
        common::metric(&self.fusebox, &format!("{name}{{service=\"user.service\",command=\"c\"}}"))
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// gRPC's code; None: an error of the connection.
    pub code: Option<u32>,
    pub reason: Option<String>,
    pub message: String,
    pub from: Option<usize>,
    pub took: Duration,
}

impl Answer {
    pub fn is_good(&self) -> bool {
        self.code == Some(0)
    }
}

pub fn request(body: Body) -> Request<Body> {
    Request::post("/user.v1.UserService/GetUser")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

pub async fn call(channel: &Channel) -> Answer {
    call_with(channel, request(Body::new("hello".to_owned()))).await
}

pub async fn call_with(channel: &Channel, request: Request<Body>) -> Answer {
    let begun = Instant::now();
    let answer = channel.clone().call(request).await;
    let took = Instant::now() - begun;
    match answer {
        Err(error) => Answer { code: None, reason: None, message: error.to_string(), from: None, took },
        Ok(response) => {
            let header =
                |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            Answer {
                code: header("grpc-status").map(|code| code.parse().unwrap()),
                reason: header("fusebox-reason"),
                message: header("grpc-message").unwrap_or_default(),
                from: header("server").map(|at| at.parse().unwrap()),
                took,
            }
        }
    }
}

pub fn bad(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| !answer.is_good()).count()
}
