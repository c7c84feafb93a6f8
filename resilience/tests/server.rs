//! The server layer around a real tonic service and a real axum router on one port, over TCP.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::routing::get;
use common::metric;
use fusebox::{CommandError, Fusebox, Policy, deadline};
use fusebox_policy::policy::{Inbound, MethodMatch, MethodPolicy, ServerPolicy};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Status;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::{Layer, ServiceExt};

/// A service that behaves as the request's name says.
#[derive(Clone, Default)]
struct Named {
    /// How many handlers are running.
    alive: Arc<AtomicU32>,
    /// Ends a stream called `told`.
    told: Arc<tokio::sync::Notify>,
}

struct Alive(Arc<AtomicU32>);

impl Named {
    fn enter(&self) -> Alive {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Alive(Arc::clone(&self.alive))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving as i32 }
}

#[tonic::async_trait]
impl Health for Named {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let _alive = self.enter();
        match request.into_inner().service.as_str() {
            "slow" => std::future::pending().await,
            "missing" => Err(Status::not_found("missing")),
            "broken" => Err(Status::internal("broken")),
            "open" => Err(CommandError::<Status>::Open { retry_after: Duration::from_secs(1) }.into()),
            "deadline" => {
                let left = deadline::remaining().ok_or_else(|| Status::internal("no deadline"))?;
                let mut outbound = HeaderMap::new();
                deadline::set_grpc_timeout(&mut outbound);
                let header = outbound["grpc-timeout"].to_str().unwrap_or_default().to_owned();
                Err(Status::not_found(format!("{} {header}", left.as_millis())))
            }
            _ => Ok(tonic::Response::new(serving())),
        }
    }

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        let _ = sender.send(Ok(serving())).await;
        match request.into_inner().service.as_str() {
            "broken" => {
                let _ = sender.send(Err(Status::internal("broken"))).await;
            }
            "told" => {
                let told = Arc::clone(&self.told);
                tokio::spawn(async move {
                    told.notified().await;
                    drop(sender);
                });
            }
            _ => {}
        }
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }
}

struct World {
    fusebox: Fusebox,
    service: Named,
    address: SocketAddr,
    grpc: Client<HttpConnector, Full<Bytes>>,
    http: Client<HttpConnector, Full<Bytes>>,
}

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";

fn server(millis: Option<u64>, limit: Option<u64>) -> ServerPolicy {
    ServerPolicy {
        timeout_ms: millis.map(|millis| millis.try_into().unwrap()),
        max_concurrent_requests: limit.map(|limit| limit.try_into().unwrap()),
        ..ServerPolicy::default()
    }
}

fn inbound(default: ServerPolicy, check: ServerPolicy, watch: ServerPolicy, users: ServerPolicy) -> Policy {
    let grpc = |method: &str, policy| MethodPolicy {
        matches: MethodMatch::Grpc { service: "grpc.health.v1.Health".into(), method: Some(method.into()) },
        policy,
    };
    let users = MethodPolicy {
        matches: MethodMatch::Http { method: Some("GET".into()), path_prefix: "/users".into() },
        policy: users,
    };
    let methods = vec![grpc("Check", check), grpc("Watch", watch), users];
    Policy { inbound: Inbound { default, methods }, ..Policy::compiled_in() }
}

fn all(policy: &ServerPolicy) -> Policy {
    inbound(policy.clone(), policy.clone(), policy.clone(), policy.clone())
}

impl World {
    async fn start(policy: Policy) -> Self {
        let fusebox = Fusebox::fixed(policy);
        let service = Named::default();
        let (slow, told) = (service.clone(), service.clone());
        let router = axum::Router::new()
            .route("/users/ada", get(|| async { "Ada" }))
            .route("/users/none", get(|| async { StatusCode::NOT_FOUND }))
            .route("/users/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
            .route(
                "/users/slow",
                get(move || async move {
                    let _alive = slow.enter();
                    std::future::pending::<&str>().await
                }),
            )
            .route(
                "/users/stream",
                get(move || async move {
                    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
                    let _ = sender.send(Ok("a".into())).await;
                    tokio::spawn(async move {
                        told.told.notified().await;
                        drop(sender);
                    });
                    Body::from_stream(ReceiverStream::new(receiver))
                }),
            );
        let both = tonic::service::Routes::from(router).add_service(HealthServer::new(service.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .accept_http1(true)
            .layer(fusebox.server_layer())
            .add_routes(both)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let builder = || Client::builder(TokioExecutor::new());
        let grpc = builder().http2_only(true).build_http();
        Self { fusebox, service, address, grpc, http: builder().build_http() }
    }

    /// Calls a gRPC method with a name, to the head of the response.
    async fn call(&self, method: &str, name: &str, timeout: Option<&str>) -> Response<Incoming> {
        let mut message = vec![0, 0, 0, 0, u8::try_from(name.len() + 2).unwrap(), 0x0a];
        message.push(u8::try_from(name.len()).unwrap());
        message.extend(name.as_bytes());
        let mut request = Request::post(format!("http://{}/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        self.grpc.request(request.body(Full::from(message)).unwrap()).await.unwrap()
    }

    /// To its end; the status and reason, wherever they are.
    async fn status(&self, method: &str, name: &str, timeout: Option<&str>) -> (String, String, String) {
        let (head, body) = self.call(method, name, timeout).await.into_parts();
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers["content-type"], "application/grpc");
        let mut headers = head.headers;
        headers.extend(body.collect().await.unwrap().trailers().cloned().unwrap_or_default());
        let get = |name| headers.get(name).map(|v: &http::HeaderValue| v.to_str().unwrap().to_owned());
        let get = |name| get(name).unwrap_or_default();
        (get("grpc-status"), get("fusebox-reason"), get("grpc-message"))
    }

    async fn get(&self, path: &str) -> Response<Incoming> {
        let request = Request::get(format!("http://{}{path}", self.address)).body(Full::default()).unwrap();
        self.http.request(request).await.unwrap()
    }

    fn count(&self, method: &str, outcome: &str) -> u64 {
        metric(&self.fusebox, &format!("server_requests_total{{method=\"{method}\",outcome=\"{outcome}\"}}"))
    }

    fn in_flight(&self, method: &str) -> u64 {
        metric(&self.fusebox, &format!("server_in_flight{{method=\"{method}\"}}"))
    }

    /// The server sees the end of a request a little after its client.
    async fn until(&self, what: &str, done: impl Fn() -> bool) {
        let waited = timeout(Duration::from_secs(10), async {
            while !done() {
                sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}\n{}", self.fusebox.registry_text());
    }
}

fn strings(status: &str, reason: &str, message: &str) -> (String, String, String) {
    (status.to_owned(), reason.to_owned(), message.to_owned())
}

#[tokio::test]
async fn a_grpc_timeout_is_deadline_exceeded_and_drops_the_handler() {
    let world = World::start(all(&server(Some(50), None))).await;
    let status = world.status(CHECK, "slow", None).await;
    assert_eq!(status, strings("4", "timeout", "no answer within the deadline"));
    assert_eq!(world.service.alive.load(Ordering::SeqCst), 0);
    assert_eq!((world.count(CHECK, "timeout"), world.in_flight(CHECK)), (1, 0));
}

/// tonic's own timer for `grpc-timeout` answers Cancelled.
#[tokio::test]
async fn the_callers_deadline_is_deadline_exceeded_not_cancelled() {
    let world = World::start(all(&server(Some(60), None))).await;
    let calls = (0..3000).map(|n| {
        // Shorter than the policy's, equal, longer.
        let timeout = ["40m", "60m", "80m"][n % 3];
        world.status(CHECK, "slow", Some(timeout))
    });
    for status in futures::future::join_all(calls).await {
        assert_eq!(status, strings("4", "timeout", "no answer within the deadline"));
    }
    assert_eq!((world.count(CHECK, "timeout"), world.count(CHECK, "cancelled")), (3000, 0));
    assert_eq!(world.service.alive.load(Ordering::SeqCst), 0);
}

/// A call that a handler makes ends by the same deadline, and is polled first.
#[tokio::test(start_paused = true)]
async fn what_fails_at_the_deadline_is_a_timeout_and_what_succeeds_is_not() {
    let fusebox = Fusebox::fixed(all(&server(Some(20), None)));
    let answering = |status: u16| {
        tower::service_fn(move |_: Request<Full<Bytes>>| async move {
            sleep(deadline::remaining().unwrap_or_default()).await;
            let response = Response::builder().status(status).body(Full::new(Bytes::new()));
            Ok::<_, Infallible>(response.unwrap())
        })
    };
    for (status, seen) in [(503, 504), (404, 504), (200, 200)] {
        let service = fusebox.server_layer().layer(answering(status));
        let response = service.oneshot(Request::new(Full::default())).await.unwrap();
        assert_eq!(response.status(), seen, "{status}");
    }
    let count = |outcome| {
        common::metric(
            &fusebox,
            &format!("server_requests_total{{method=\"default\",outcome=\"{outcome}\"}}"),
        )
    };
    assert_eq!((count("timeout"), count("success")), (2, 1));
}

#[tokio::test]
async fn the_deadline_is_the_earlier_one_and_travels_on() {
    let world = World::start(all(&server(Some(10_000), None))).await;
    for (timeout, most) in [(None, 10_000), (Some("5S"), 5_000), (Some("90S"), 10_000)] {
        let (_, _, message) = world.status(CHECK, "deadline", timeout).await;
        let (left, header) = message.split_once("%20").unwrap();
        let (left, header): (u64, u64) =
            (left.parse().unwrap(), header.trim_end_matches('u').parse().unwrap());
        assert!((most - 1000..=most).contains(&left), "{timeout:?}: {message}");
        // Each is rounded: the one down, the other up.
        assert!(header / 1000 <= left + 1, "{timeout:?}: {message}");
    }
    let free = World::start(all(&server(None, None))).await;
    let (status, _, message) = free.status(CHECK, "deadline", None).await;
    assert_eq!((status.as_str(), message.as_str()), ("13", "no%20deadline"));
}

/// What is a deadline to gRPC is any header to HTTP. Without tonic's server, which thinks otherwise.
#[tokio::test]
async fn a_grpc_timeout_on_an_http_request_means_nothing() {
    let fusebox = Fusebox::fixed(all(&server(Some(300), None)));
    let router = axum::Router::new().fallback(std::future::pending::<()>).layer(fusebox.server_layer());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/users/slow", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = Request::get(url).header("grpc-timeout", "1m").body(Full::default()).unwrap();
    let started = Instant::now();
    assert_eq!(client.request(request).await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(Instant::now() - started >= Duration::from_millis(300), "the policy's, not the header's");
}

#[tokio::test]
async fn a_full_limit_is_resource_exhausted_for_grpc_and_429_for_http() {
    let world = World::start(all(&server(None, Some(1)))).await;
    let slow = world.call(CHECK, "slow", None);
    tokio::pin!(slow);
    assert!(timeout(Duration::from_millis(200), &mut slow).await.is_err());
    let status = world.status(CHECK, "", None).await;
    assert_eq!(status, strings("8", "limit", "too many requests in flight"));
    assert_eq!(world.status(WATCH, "", None).await.0, "0", "each method has its own limit");

    let stream = world.get("/users/stream").await;
    let refused = world.get("/users/ada").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["fusebox-reason"], "limit");
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"{"error":"too many requests in flight","reason":"limit"}"#);
    assert_eq!((world.count(CHECK, "rejected"), world.count("GET /users", "rejected")), (1, 1));
    drop(stream);
}

#[tokio::test]
async fn an_http_timeout_is_504_with_a_reason() {
    let world = World::start(all(&server(Some(50), None))).await;
    let answer = world.get("/users/slow").await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.headers()["fusebox-reason"], "timeout");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"{"error":"no answer within the deadline","reason":"timeout"}"#);
    assert_eq!(world.service.alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_command_error_of_a_handler_reaches_the_caller_with_its_reason() {
    let world = World::start(all(&server(None, None))).await;
    let (status, reason, _) = world.status(CHECK, "open", None).await;
    assert_eq!((status.as_str(), reason.as_str()), ("14", "open"));
}

#[tokio::test]
async fn outcomes_are_read_at_the_end_of_the_stream() {
    let world = World::start(all(&server(None, None))).await;
    for (method, name, status, outcome) in [
        (CHECK, "", "0", "success"),
        (CHECK, "missing", "5", "client_error"),
        (CHECK, "broken", "13", "failure"),
        (WATCH, "", "0", "success"),
        (WATCH, "broken", "13", "failure"),
    ] {
        assert_eq!(world.status(method, name, None).await.0, status, "{method} {name}");
        world.until(outcome, || world.count(method, outcome) == 1).await;
    }
    for (path, outcome) in [("ada", "success"), ("none", "client_error"), ("broken", "failure")] {
        world.get(&format!("/users/{path}")).await.into_body().collect().await.unwrap();
        world.until(path, || world.count("GET /users", outcome) == 1).await;
    }
    world.get("/nowhere").await.into_body().collect().await.unwrap();
    world.until("the default", || world.count("default", "client_error") == 1).await;
    let totals = [(CHECK, 3), (WATCH, 2), ("GET /users", 3), ("default", 1)];
    let outcomes = ["success", "failure", "timeout", "client_error", "cancelled", "rejected"];
    for (method, total) in totals {
        let sum: u64 = outcomes.iter().map(|outcome| world.count(method, outcome)).sum();
        assert_eq!((sum, world.in_flight(method)), (total, 0), "{method}");
    }
}

#[tokio::test]
async fn a_permit_is_held_until_the_body_ends_or_is_dropped() {
    let world = World::start(all(&server(None, Some(1)))).await;
    for (path, label) in [(Some("/users/stream"), "GET /users"), (None, WATCH)] {
        let open = async || match path {
            Some(path) => world.get(path).await,
            None => world.call(WATCH, "told", None).await,
        };
        let stream = open().await;
        assert_eq!(world.in_flight(label), 1);
        world.service.told.notify_one();
        stream.into_body().collect().await.unwrap();
        world.until("ended", || world.in_flight(label) == 0 && world.count(label, "success") == 1).await;
        drop(open().await);
        world.until("dropped", || world.in_flight(label) == 0 && world.count(label, "cancelled") == 1).await;
        world.service.told.notify_one();
    }
}

/// The deadline is that of the head: a stream goes on, and its client's close is no timeout.
#[tokio::test]
async fn a_stream_outlives_the_timeout_and_its_end_is_what_it_is() {
    let world = World::start(all(&server(Some(100), None))).await;
    for end in ["success", "cancelled"] {
        let (http, grpc) = (world.get("/users/stream").await, world.call(WATCH, "told", Some("100m")).await);
        sleep(Duration::from_millis(150)).await;
        assert_eq!((world.in_flight("GET /users"), world.in_flight(WATCH)), (1, 1), "not cut");
        if end == "success" {
            world.service.told.notify_waiters();
            http.into_body().collect().await.unwrap();
            grpc.into_body().collect().await.unwrap();
        } else {
            drop((http, grpc));
        }
        for label in ["GET /users", WATCH] {
            world.until(end, || world.count(label, end) == 1 && world.in_flight(label) == 0).await;
            assert_eq!(world.count(label, "timeout"), 0);
        }
    }
}

#[tokio::test]
async fn a_caller_that_leaves_is_a_cancellation() {
    let world = World::start(all(&server(Some(60_000), None))).await;
    let left = timeout(Duration::from_millis(200), world.call(CHECK, "slow", None)).await;
    assert!(left.is_err());
    world.until("cancelled", || world.count(CHECK, "cancelled") == 1).await;
    assert_eq!(world.service.alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_reload_changes_limits_and_timeouts_and_keeps_what_is_in_flight() {
    let world = World::start(all(&server(None, None))).await;
    let stream = world.call(WATCH, "told", None).await;
    world.fusebox.apply(&all(&server(Some(30), Some(1))));
    assert_eq!(world.status(WATCH, "", None).await.0, "8", "the one from before counts");
    assert_eq!(world.status(CHECK, "slow", None).await.0, "4");
    world.fusebox.apply(&Policy::compiled_in());
    assert_eq!(world.status(WATCH, "", None).await.0, "0");
    world.fusebox.apply(&all(&server(None, Some(1))));
    assert_eq!(
        world.status(WATCH, "", None).await.0,
        "8",
        "a method out of the policy and back keeps its state"
    );
    drop(stream);
    world.until("dropped", || world.in_flight(WATCH) == 0).await;
    assert_eq!(world.status(WATCH, "", None).await.0, "0");
}

#[tokio::test]
async fn the_first_match_wins_and_the_rest_shares_the_default() {
    let mut policy = all(&server(None, None));
    policy.inbound.default = server(None, Some(1));
    policy.inbound.methods.truncate(1);
    let any = MethodMatch::Http { method: None, path_prefix: "/".into() };
    let world = World::start(policy.clone()).await;
    let stream = world.get("/users/stream").await;
    assert_eq!(world.status(WATCH, "", None).await.0, "8", "one limit for all that matches nothing");
    assert_eq!(world.status(CHECK, "", None).await.0, "0");
    policy.inbound.methods.push(MethodPolicy { matches: any, policy: server(Some(30), None) });
    world.fusebox.apply(&policy);
    assert_eq!(world.get("/users/slow").await.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(world.status(CHECK, "", None).await.0, "0");
    assert_eq!((world.count(CHECK, "success"), world.count("* /", "timeout")), (2, 1));
    drop(stream);
}
