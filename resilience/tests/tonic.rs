//! A command around a real tonic channel, over TCP.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;

use std::time::Duration;

use common::{command, metric, outcomes, policy};
use fusebox::{CommandError, Fusebox, deadline};
use fusebox_policy::policy::CommandPolicy;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Layer;

/// A connection to a server that takes every request and never answers.
async fn hung() -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let never = axum::Router::new().fallback(std::future::pending::<()>);
    tokio::spawn(axum::serve(listener, never).into_future());
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// tonic follows the `grpc-timeout` that we send with a timer of its own, which is polled before ours
/// and answers CANCELLED: a client error, for which no breaker opens and no fallback runs.
#[tokio::test]
async fn a_hung_grpc_callee_is_a_timeout_and_gets_a_fallback() {
    let fusebox = Fusebox::fixed(policy(CommandPolicy { circuit_breaker: None, ..command() }));
    let (c, channel) = (fusebox.command("c"), hung().await);
    let check = || {
        let mut client = HealthClient::new(channel.clone());
        async move {
            let mut request = tonic::Request::new(HealthCheckRequest::default());
            deadline::set_grpc_timeout(request.metadata_mut().as_mut());
            client.check(request).await.map(drop)
        }
    };
    let calls = (0..300).map(async |n| {
        // So that deadlines lie everywhere within a millisecond.
        tokio::time::sleep(Duration::from_micros(n * 137)).await;
        match n % 2 {
            0 => c.call(check).await,
            _ => c.call(check).or_fallback(|_| ()).await,
        }
    });
    for (n, answer) in futures::future::join_all(calls).await.into_iter().enumerate() {
        match n % 2 {
            0 => assert!(matches!(answer, Err(CommandError::Timeout(_))), "{answer:?}"),
            _ => assert!(answer.is_ok(), "{answer:?}"),
        }
    }
    assert_eq!(outcomes(&fusebox, "timeout"), 300);
    assert_eq!(metric(&fusebox, "command_fallbacks_total{command=\"c\"}"), 150);
}

/// The same around the channel, where nobody but the layer can tell.
#[tokio::test]
async fn a_hung_grpc_callee_is_a_timeout_around_the_channel_too() {
    let fusebox = Fusebox::fixed(policy(CommandPolicy { circuit_breaker: None, ..command() }));
    let channel = fusebox.command("c").http_layer().layer(hung().await);
    let calls = (0..300).map(async |n| {
        tokio::time::sleep(Duration::from_micros(n * 137)).await;
        HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await
    });
    for answer in futures::future::join_all(calls).await {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
        assert_eq!(status.metadata().get("fusebox-reason").unwrap(), "timeout");
    }
    assert_eq!(outcomes(&fusebox, "timeout"), 300);
}
