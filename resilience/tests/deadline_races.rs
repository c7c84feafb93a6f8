//! design.md §8 (b): deadline races, in real time, over a real tonic server and client with a layer on
//! each side.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::calls::{OUTCOMES, free, ms};
use common::{metric, policy};
use fusebox::{CommandError, Fusebox, Policy, deadline};
use fusebox_policy::policy::{CommandPolicy, ServerPolicy};
use futures::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::Layer;
use tower::util::MapRequestLayer;

const CALLS: u64 = 10_000;
const AT_ONCE: usize = 128;
const TIMEOUT: u64 = 40;

/// A store that takes as many microseconds as the request's name says.
struct Store;

#[tonic::async_trait]
impl Health for Store {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let micros = request.into_inner().service.parse().unwrap();
        sleep(Duration::from_micros(micros)).await;
        Ok(tonic::Response::new(HealthCheckResponse::default()))
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Ok(tonic::Response::new(tokio_stream::empty()))
    }
}

/// Over how many connections: of one on which 1,024 answers came after their callers had left, h2 takes
/// leave by itself (GOAWAY, `too_many_internal_resets`), and what is in flight on it fails.
const CONNECTIONS: usize = 20;

/// A server, its clients, and how many requests reached it.
async fn start(fusebox: &Fusebox) -> (Vec<Channel>, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let reached = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&reached);
    let count = move |request: http::Request<tonic::body::Body>| {
        counter.fetch_add(1, Ordering::Relaxed);
        request
    };
    let server = Server::builder()
        .layer(MapRequestLayer::new(count))
        .layer(fusebox.server_layer())
        .add_service(HealthServer::new(Store))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let endpoint = Endpoint::from_shared(url).unwrap();
    let channels = futures::future::try_join_all((0..CONNECTIONS).map(|_| endpoint.connect())).await.unwrap();
    (channels, reached)
}

fn both_sides() -> Policy {
    let millis = Some(TIMEOUT.try_into().unwrap());
    let mut policy = policy(CommandPolicy { timeout_ms: millis, ..free() });
    policy.inbound.default = ServerPolicy { timeout_ms: millis, ..ServerPolicy::default() };
    policy
}

/// A request to a store whose latency is around the timeout, a fifth of them far below.
fn request(n: u64) -> tonic::Request<HealthCheckRequest> {
    let around = TIMEOUT * 1000 - 4000 + n * 37 % 8000;
    let micros = if n.is_multiple_of(5) { 1000 } else { around };
    tonic::Request::new(HealthCheckRequest { service: micros.to_string() })
}

/// Each connection has requests of every kind.
fn of<T: Clone>(clients: &[T], n: u64) -> T {
    clients[usize::try_from(n).unwrap() / 20 % clients.len()].clone()
}

/// How often requests of the server, or calls of the client, ended so.
fn ends(fusebox: &Fusebox, family: &str) -> [u64; 8] {
    OUTCOMES.map(|outcome| {
        let served = family.starts_with("server");
        if served && outcome == "open" {
            0
        } else {
            metric(fusebox, &format!("{family},outcome=\"{outcome}\"}}"))
        }
    })
}

const CLIENT: &str = "command_calls_total{command=\"c\"";
const SERVER: &str = "server_requests_total{method=\"default\"";

/// What both sides counted, against what callers saw: so many answers.
async fn assert_both_sides(fusebox: &Fusebox, reached: &AtomicU64, calls: u64, answers: u64) {
    let [success, failure, timeouts, client_error, cancelled, refused @ ..] = ends(fusebox, CLIENT);
    assert_eq!((success, timeouts), (answers, calls - answers), "as the callers saw it");
    assert_eq!((failure, client_error, cancelled, refused), (0, 0, 0, [0; 3]));
    // The server sees the end of a request a little after its client.
    let settled = async {
        while metric(fusebox, "server_in_flight{method=\"default\"}") > 0
            || ends(fusebox, SERVER).iter().sum::<u64>() < reached.load(Ordering::Relaxed)
        {
            sleep(ms(1)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), settled).await.is_ok(), "{}", fusebox.registry_text());
    let [success, failure, timeouts, client_error, cancelled, refused @ ..] = ends(fusebox, SERVER);
    let reached = reached.load(Ordering::Relaxed);
    assert_eq!(success + timeouts + cancelled, reached, "each that reached it once");
    assert!(reached <= calls && success >= answers, "{success} served, {answers} in time");
    assert_eq!((failure, client_error, refused), (0, 0, [0; 3]));
    assert!(answers > 0 && timeouts > 0, "there was a race: {answers} answers of {calls}");
    println!("client: {answers} answers; server: {success} served, {timeouts} timed out, {cancelled} left");
}

/// What was found: before the client's layer told an error that comes at the deadline from one that comes
/// before, 4,500 to 4,800 of the 10,000 calls were CANCELLED ("Timeout expired") to their caller and
/// failures to the breaker. tonic's channel follows the `grpc-timeout` that we send, or that the caller set
/// by hand, with a timer of its own, and it is polled before ours. On the server, where ours is set and
/// polled first, not one was. Of the calls that timed out, the server has served a part (their answers came
/// too late), timed out a part itself, and seen the others leave: at 95 % of the deadline or later as
/// timeouts, earlier (it had begun later) as cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_calls_around_their_deadline_each_is_an_answer_or_a_timeout() {
    let fusebox = Fusebox::fixed(both_sides());
    let (channels, reached) = start(&fusebox).await;
    let layer = fusebox.command("c").http_layer();
    let clients: Vec<_> =
        channels.into_iter().map(|channel| HealthClient::new(layer.layer(channel))).collect();
    let calls = stream::iter(0..CALLS).map(|n| {
        let (mut client, mut request) = (of(&clients, n), request(n));
        // By the layer alone; by hand as the policy has it, longer, and a little shorter.
        match n / 5 % 4 {
            1 => request.set_timeout(ms(TIMEOUT)),
            2 => request.set_timeout(ms(TIMEOUT + 20)),
            3 => request.set_timeout(ms(TIMEOUT - 1)),
            _ => {}
        }
        async move { client.check(request).await }
    });
    let answers: Vec<_> = calls.buffer_unordered(AT_ONCE).collect().await;
    let mut wrong = std::collections::BTreeMap::<_, u64>::new();
    for status in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        let reason = status.metadata().get("fusebox-reason").map(|reason| reason.to_str().unwrap());
        if (status.code(), reason) != (Code::DeadlineExceeded, Some("timeout")) {
            *wrong.entry(format!("{status:?}")).or_default() += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}\n{:?}", ends(&fusebox, CLIENT));
    let answered = answers.iter().filter(|answer| answer.is_ok()).count() as u64;
    assert_both_sides(&fusebox, &reached, CALLS, answered).await;
}

/// The same by `Command::call` and `set_grpc_timeout`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_with_a_command_around_the_call() {
    let fusebox = Fusebox::fixed(both_sides());
    let (channels, reached) = start(&fusebox).await;
    let clients: Vec<_> = channels.into_iter().map(HealthClient::new).collect();
    let c = fusebox.command("c");
    let calls = stream::iter(0..CALLS / 4).map(|n| {
        let (mut client, mut request) = (of(&clients, n), request(n));
        async move {
            let call = c.call(|| {
                deadline::set_grpc_timeout(request.metadata_mut().as_mut());
                async move { client.check(request).await }
            });
            call.await.map(drop)
        }
    });
    let answers: Vec<_> = calls.buffer_unordered(AT_ONCE).collect().await;
    // The server's DEADLINE_EXCEEDED that comes before our own deadline is a failure of the call: it is
    // told the same deadline a little later than we began, so only its clock can be ahead.
    let wrong: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .filter(|error| !matches!(error, CommandError::Timeout(_)))
        .collect();
    assert!(wrong.is_empty(), "{} like {:?}", wrong.len(), wrong[0]);
    let answered = answers.iter().filter(|answer| answer.is_ok()).count() as u64;
    assert_both_sides(&fusebox, &reached, CALLS / 4, answered).await;
}
