//! HTTP and gRPC on one port under one layer: each refusal is told in the caller's own protocol.
//!
//! Run it: `cargo run -p fusebox --example server`

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use fusebox::{Fusebox, MethodMatch, PolicyBuilder};
use futures::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Asks for all paths at once and shows the answers.
async fn show(server: SocketAddr, paths: &[&str]) -> Result<(), Box<dyn Error>> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let answers = join_all(paths.iter().map(async |path| {
        let answer = client.get(format!("http://{server}{path}").parse()?).await?;
        let (status, reason) = (answer.status(), answer.headers().get("fusebox-reason").cloned());
        let body = answer.into_body().collect().await?.to_bytes();
        Ok::<_, Box<dyn Error>>((status, reason, body))
    }));
    for (path, answer) in paths.iter().zip(answers.await) {
        let (status, reason, body) = answer?;
        let reason = reason.as_ref().and_then(|reason| reason.to_str().ok());
        let reason = reason.map(|reason| format!(" [fusebox-reason: {reason}]")).unwrap_or_default();
        println!("  GET {path}: {status}{reason} {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = PolicyBuilder::new()
        .default_method(|method| method.timeout(Duration::from_millis(200)))
        .method(MethodMatch::http("GET", "/reports"), |method| method.max_concurrent_requests(1))
        .method(MethodMatch::http("GET", "/advice"), |method| {
            method.fallback_body("application/json", r#"{"advice":"none today"}"#)
        })
        .method(MethodMatch::grpc("grpc.health.v1.Health", "Check"), |method| {
            method.rate_limit(|rate| rate.requests_per_second(1).burst(1))
        })
        .build()?;
    let fusebox = Fusebox::fixed(policy);

    let never = || get(async || std::future::pending::<&str>().await);
    let http = Router::new()
        .route("/users/ada", get(async || "Ada"))
        .route("/slow", never())
        .route("/advice", never())
        .route(
            "/reports",
            get(async || {
                tokio::time::sleep(Duration::from_millis(50)).await;
                "a report"
            }),
        );
    let (_reporter, health) = tonic_health::server::health_reporter();
    let both = tonic::service::Routes::from(http).add_service(health).into_axum_router();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, both.layer(fusebox.server_layer())).into_future());

    println!("An answer:");
    show(address, &["/users/ada"]).await?;
    println!("After 200 ms the work is cancelled, and the caller told:");
    show(address, &["/slow"]).await?;
    println!("The policy itself may have an answer:");
    show(address, &["/advice"]).await?;
    println!("Two reports at once, of which one is allowed:");
    show(address, &["/reports", "/reports"]).await?;

    println!("The same in gRPC, here by a rate of one check a second:");
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let mut client = HealthClient::new(channel);
    for _ in 0..2 {
        match client.check(HealthCheckRequest::default()).await {
            Ok(answer) => println!("  Check: {:?}", answer.into_inner().status()),
            Err(status) => {
                let reason = status.metadata().get("fusebox-reason").and_then(|reason| reason.to_str().ok());
                let reason = reason.unwrap_or_default();
                println!("  Check: {:?} [fusebox-reason: {reason}] {}", status.code(), status.message());
            }
        }
    }
    Ok(())
}
