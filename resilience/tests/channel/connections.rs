//! The channel's own connections, over real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fusebox::channel::Channel;
use fusebox::discovery::Endpoint;
use futures::future::join_all;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tower::Service as _;

use crate::fleet;
use crate::servers::{channel, dead, fusebox};

/// A server that sends back what it gets.
struct Echo {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: watch::Sender<usize>,
    /// Connections of an earlier number are asked to end.
    ended: watch::Sender<usize>,
}

impl Echo {
    async fn new() -> Self {
        Self::serving(100).await
    }

    /// So many streams at once, which it says a little late if it is one: after a client could have begun more.
    async fn serving(streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (open, ended) = (watch::Sender::new(0), watch::Sender::new(0));
        let echo =
            Self { address, accepted: Arc::clone(&accepted), open: open.clone(), ended: ended.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = accepted.fetch_add(1, Ordering::SeqCst) + 1;
                stream.set_nodelay(true).unwrap();
                open.send_modify(|open| *open += 1);
                let (open, mut ended) = (open.clone(), ended.subscribe());
                tokio::spawn(async move {
                    if streams == 1 {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let io = TokioIo::new(stream);
                    let mut settings = http2::Builder::new(TokioExecutor::new());
                    settings.max_concurrent_streams(streams);
                    let mut served = std::pin::pin!(settings.serve_connection(io, service_fn(back)));
                    let ended = async { ended.wait_for(|ended| *ended >= number).await.is_ok() };
                    let asked = tokio::select! {
                        _ = &mut served => false,
                        asked = ended => asked,
                    };
                    if asked {
                        served.as_mut().graceful_shutdown();
                        let _ = served.await;
                    }
                    open.send_modify(|open| *open -= 1);
                });
            }
        });
        echo
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Asks all connections to end, as a server does that is stopped.
    fn end(&self) {
        self.ended.send_replace(self.accepted());
    }
}

async fn back(request: Request<Incoming>) -> Result<Response<Incoming>, Infallible> {
    let header = |name| request.headers().get(name).cloned();
    let (agent, timeout) = (header("user-agent"), header("grpc-timeout"));
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let mut response = Response::new(request.into_body());
    let headers = response.headers_mut();
    headers.insert("saw-host", host.parse().unwrap());
    headers.extend(agent.map(|agent| (http::HeaderName::from_static("saw-agent"), agent)));
    headers.extend(timeout.map(|timeout| (http::HeaderName::from_static("saw-timeout"), timeout)));
    Ok(response)
}

/// So many bytes, in pieces that come when they are asked for.
fn long(pieces: usize) -> Body {
    let piece =
        |n| Ok::<_, tonic::Status>(Frame::data(Bytes::from(vec![u8::try_from(n % 251).unwrap(); 1 << 14])));
    Body::new(StreamBody::new(futures::stream::iter((0..pieces).map(piece))))
}

async fn echoed(channel: &Channel, body: Body) -> Result<Bytes, String> {
    let request = Request::post("/echo").body(body).unwrap();
    let response = channel.clone().call(request).await.map_err(|error| format!("{error:?}"))?;
    let (status, body) = (response.status(), response.into_body());
    let body = body.collect().await.map_err(|status| status.to_string())?.to_bytes();
    if status.is_success() { Ok(body) } else { Err(format!("{status}: {body:?}")) }
}

#[tokio::test]
async fn all_calls_share_one_connection_also_those_that_wait_for_it() {
    let (fusebox, echo) = (fusebox(), Echo::new().await);
    let channel = channel(&fusebox, &[echo.address]);
    let calls = join_all((0..50).map(|n| echoed(&channel, Body::new(n.to_string())))).await;
    for (n, answer) in calls.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), n.to_string());
    }
    assert_eq!(echo.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_is_stopped_and_started_costs_no_call() {
    let (fusebox, echo) = (fusebox(), Echo::new().await);
    let channel = channel(&fusebox, &[echo.address]);
    let calls = join_all((0..4).map(|_| async {
        for n in 0..500 {
            if n % 50 == 25 {
                echo.end();
            }
            // Other calls go on while this one has its answer: a connection that ends is never idle.
            assert_eq!(echoed(&channel, Body::new(n.to_string())).await.unwrap(), n.to_string(), "call {n}");
        }
    }));
    calls.await;
    assert!(echo.accepted() > 10, "connections: {}", echo.accepted());
}

/// A client that does not wait for the server's first words would send a hundred.
#[tokio::test]
async fn a_server_that_takes_one_stream_at_a_time_refuses_none() {
    let (fusebox, echo) = (fusebox(), Echo::serving(1).await);
    let channel = channel(&fusebox, &[echo.address]);
    for answer in join_all((0..20).map(|_| echoed(&channel, Body::new("many".to_owned())))).await {
        assert_eq!(answer.unwrap(), "many");
    }
    assert_eq!(echo.accepted(), 1);
}

/// What was never sent is no call that somebody cancelled: that would count as nobody's failure.
#[tokio::test]
async fn who_ends_every_connection_at_once_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let (fusebox, mut codes) = (fusebox(), Vec::new());
    for _ in 0..20 {
        let request = Request::post("/echo").body(Body::empty()).unwrap();
        let error = channel(&fusebox, &[address]).call(request).await.map(drop).unwrap_err();
        codes.push(tonic::Status::from_error(error).code());
    }
    assert!(codes.iter().all(|code| *code != tonic::Code::Cancelled), "{codes:?}");
}

/// The server takes one stream at a time: the second call waits to be opened, which hyper does not give back, and
/// the third waits behind it as the connection ends.
#[tokio::test]
async fn what_waits_in_a_connection_that_ends_goes_by_a_new_one() {
    let (fusebox, echo) = (fusebox(), Echo::serving(1).await);
    let channel = channel(&fusebox, &[echo.address]);
    let (send, frames) = mpsc::channel(1);
    let body = Body::new(StreamBody::new(ReceiverStream::new(frames)));
    let first = channel.clone().call(Request::post("/echo").body(body).unwrap()).await.unwrap();
    let mut second = std::pin::pin!(echoed(&channel, Body::new("second".to_owned())));
    let mut third = std::pin::pin!(echoed(&channel, Body::new("third".to_owned())));
    assert!(futures::poll!(&mut second).is_pending() && futures::poll!(&mut third).is_pending());
    assert_eq!(echo.accepted(), 1);
    echo.end();
    assert_eq!(third.await.unwrap(), "third");
    assert_eq!(echo.accepted(), 2);
    send.send(Ok::<_, tonic::Status>(Frame::data(Bytes::from_static(b"first")))).await.unwrap();
    drop(send);
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "first");
}

#[tokio::test]
async fn what_could_not_be_sent_is_whole_elsewhere_however_long() {
    let (fusebox, echo) = (fusebox(), Echo::new().await);
    for _ in 0..20 {
        // Each new channel knows of no endpoint that it is dead.
        let channel = channel(&fusebox, &[dead(), dead(), echo.address]);
        let body = echoed(&channel, long(20)).await.unwrap();
        assert_eq!(body.len(), 20 << 14);
        assert!(
            body.chunks(1 << 14)
                .enumerate()
                .all(|(n, piece)| piece.iter().all(|byte| usize::from(*byte) == n))
        );
    }
    let error = echoed(&channel(&fusebox, &[dead()]), Body::empty()).await.unwrap_err();
    assert!(error.contains("refused") && error.contains("127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn both_ways_flow_at_once() {
    let (fusebox, echo) = (fusebox(), Echo::new().await);
    let channel = channel(&fusebox, &[echo.address]);
    let (send, frames) = mpsc::channel(1);
    let body = Body::new(StreamBody::new(ReceiverStream::new(frames)));
    let response = channel.clone().call(Request::post("/echo").body(body).unwrap()).await.unwrap();
    let mut answer = response.into_body();
    for n in 0..10 {
        send.send(Ok::<_, tonic::Status>(Frame::data(Bytes::from(n.to_string())))).await.unwrap();
        let frame = timeout(Duration::from_secs(10), answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), n.to_string());
    }
    drop(send);
    assert!(answer.collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn a_call_says_to_whom_from_whom_and_until_when() {
    let (fusebox, echo) = (fusebox(), Echo::new().await);
    let mut channel = channel(&fusebox, &[echo.address]);
    let mut request = |agent: Option<&str>| {
        let mut request = Request::post("/echo").header("content-type", "application/grpc");
        if let Some(agent) = agent {
            request = request.header("user-agent", agent);
        }
        channel.call(request.body(Body::empty()).unwrap())
    };
    let said = request(None).await.unwrap();
    let header = |name: &str| said.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("saw-host"), echo.address.to_string());
    assert_eq!(header("saw-agent"), concat!("fusebox/", env!("CARGO_PKG_VERSION")));
    let left: u64 = header("saw-timeout").strip_suffix('u').unwrap().parse().unwrap();
    assert!((1..=1_000_000).contains(&left), "{left} of the command's second");
    assert_eq!(request(Some("mine/1")).await.unwrap().headers()["saw-agent"], "mine/1");
}

#[tokio::test]
async fn who_leaves_finishes_what_it_has_and_is_let_go() {
    let (fusebox, echo) = (fusebox(), Echo::new().await);
    let (discovery, mut told) = fleet::manual();
    let channel = fusebox.discover_in(&discovery, "echo").command("c").channel();
    let source = told.recv().await.unwrap();
    source.found(vec![Endpoint::new(echo.address)]);
    channel.ready().await;
    let (send, frames) = mpsc::channel(1);
    let body = Body::new(StreamBody::new(ReceiverStream::new(frames)));
    let response = channel.clone().call(Request::post("/echo").body(body).unwrap()).await.unwrap();
    source.found(Vec::new());
    let gone = async {
        while echoed(&channel, Body::empty()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("it is listed no more");
    send.send(Ok::<_, tonic::Status>(Frame::data(Bytes::from_static(b"late")))).await.unwrap();
    drop(send);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "late");
    let closed = async { echo.open.subscribe().wait_for(|open| *open == 0).await.map(|_| ()) };
    timeout(Duration::from_secs(10), closed).await.expect("its connection ends").unwrap();
}

/// A caller that gives up takes nobody's connection away, nor the one that is being set up.
#[tokio::test]
async fn who_gives_up_ends_its_own_call_alone() {
    let (fusebox, echo) = (fusebox(), Echo::new().await);
    let channel = channel(&fusebox, &[echo.address]);
    let (send, frames) = mpsc::channel(1);
    let body = Body::new(StreamBody::new(ReceiverStream::new(frames)));
    let mut call = channel.clone().call(Request::post("/echo").body(body).unwrap());
    // It has asked for the connection, and waits for it.
    assert!(futures::poll!(&mut call).is_pending());
    drop(call);
    assert_eq!(echoed(&channel, Body::new("next".to_owned())).await.unwrap(), "next");
    assert_eq!(echo.accepted(), 1);
    assert!(send.send(Ok::<_, tonic::Status>(Frame::data(Bytes::new()))).await.is_err(), "its body is gone");
}
