//! A generated gRPC client under a command: a callee that hangs is given up, then not asked any more.
//!
//! Run it: `cargo run -p fusebox --example tonic_client`

use std::error::Error;
use std::time::Duration;

use axum::Router;
use fusebox::{Fusebox, PolicyBuilder};
use tokio::net::TcpListener;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Layer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = PolicyBuilder::new()
        .command("check", |command| {
            command.timeout(Duration::from_millis(100)).circuit_breaker(|breaker| {
                breaker.request_volume_threshold(3).sleep_window(Duration::from_secs(1))
            })
        })
        .build()?;
    let fusebox = Fusebox::fixed(policy);

    // One server answers, the other takes requests and never does.
    let (_reporter, health) = tonic_health::server::health_reporter();
    let good = tonic::service::Routes::new(health).into_axum_router();
    let hung = Router::new().fallback(std::future::pending::<()>);
    for (name, server, calls) in [("A server that answers", good, 2), ("A server that hangs", hung, 5)] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(axum::serve(listener, server).into_future());
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        // The layer reads the status of each response, trailers included, and tells the callee the deadline.
        let mut client = HealthClient::new(fusebox.command("check").http_layer().layer(channel));
        println!("{name}:");
        for _ in 0..calls {
            match client.check(HealthCheckRequest::default()).await {
                Ok(answer) => println!("  {:?}", answer.into_inner().status()),
                Err(status) => {
                    let reason = status.metadata().get("fusebox-reason");
                    let reason = reason.and_then(|reason| reason.to_str().ok()).unwrap_or("of the callee");
                    println!("  {:?} [fusebox-reason: {reason}] {}", status.code(), status.message());
                }
            }
        }
    }
    println!("At half of at least three calls the breaker opened: the last ones had their answer at once.");
    Ok(())
}
