//! Real tonic servers on loopback: one is dead or fails, beside a round robin of plain channels.

use std::net::SocketAddr;
use std::time::Duration;

use fusebox::Fusebox;
use fusebox::channel::Channel;
use fusebox::discovery::Discovery;
use fusebox_policy::policy::CommandPolicy;
use http::Response;
use tokio::net::{TcpListener, TcpSocket};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::common::{breaker, policy};

/// A server that answers.
pub async fn healthy() -> SocketAddr {
    let (_reporter, health) = tonic_health::server::health_reporter();
    serve(tonic::service::Routes::new(health).into_axum_router()).await
}

async fn serve(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

async fn failing() -> SocketAddr {
    let fail = async || {
        Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "13")
            .body(axum::body::Body::empty())
            .unwrap()
    };
    serve(axum::Router::new().fallback(fail)).await
}

/// An address where nobody listens, and nobody will: the port stays taken.
pub fn dead() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// Long for a machine that is busy.
pub const TIMEOUT: Duration = Duration::from_secs(1);

pub fn fusebox() -> Fusebox {
    let command = CommandPolicy {
        timeout_ms: Some(u64::try_from(TIMEOUT.as_millis()).unwrap().try_into().unwrap()),
        circuit_breaker: Some(breaker()),
        ..CommandPolicy::default()
    };
    Fusebox::fixed(policy(command))
}

pub fn channel(fusebox: &Fusebox, addresses: &[SocketAddr]) -> Channel {
    let discovery = Discovery::fixed(addresses.iter().copied());
    fusebox.discover_in(&discovery, "health").command("c").channel()
}

/// How many of so many calls fail: over the channel, then in turn over plain connections.
pub async fn compare(fusebox: &Fusebox, addresses: &[SocketAddr], count: usize) -> (usize, usize) {
    let ours = channel(fusebox, addresses);
    let connect =
        |address: &SocketAddr| Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let theirs: Vec<_> = addresses.iter().map(connect).collect();
    let mut failed = (0, 0);
    for _ in 0..count {
        let checked = HealthClient::new(ours.clone()).check(HealthCheckRequest::default()).await;
        failed.0 += usize::from(checked.is_err());
    }
    for n in 0..count {
        let mut client = HealthClient::new(theirs[n % theirs.len()].clone());
        let checked = tokio::time::timeout(TIMEOUT, client.check(HealthCheckRequest::default())).await;
        failed.1 += usize::from(!matches!(checked, Ok(Ok(_))));
    }
    failed
}

#[tokio::test]
async fn a_dead_server_costs_no_call_and_a_failing_one_few() {
    let fusebox = fusebox();
    let (a, b) = (healthy().await, healthy().await);
    assert_eq!(compare(&fusebox, &[a, b], 100).await, (0, 0), "all are well");
    assert_eq!(compare(&fusebox, &[a, b, dead()], 300).await, (0, 100));
    let (ours, theirs) = compare(&fusebox, &[a, b, failing().await], 300).await;
    assert_eq!(theirs, 100);
    assert!(ours * 5 <= theirs, "{ours} of 300 calls failed, {theirs} without ejection");
}
