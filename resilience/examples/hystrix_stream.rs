//! The Hystrix stream over HTTP, for the Hystrix dashboard and Turbine.
//!
//! Run it: `cargo run -p fusebox --example hystrix_stream`. It serves the stream, reads three events of it
//! and ends. With an address it goes on until you end it, for a dashboard to look at:
//! `cargo run -p fusebox --example hystrix_stream 127.0.0.1:8080`, then
//! `curl -N http://127.0.0.1:8080/hystrix.stream`.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use fusebox::{Fusebox, PolicyBuilder};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Calls that take 1 to 40 ms, one in ten of which fails.
async fn traffic(fusebox: Fusebox) {
    let find_user = fusebox.command("find_user");
    for n in 0_u64.. {
        let call = find_user.call(async || {
            sleep(Duration::from_millis(1 + n * 7 % 40)).await;
            if n % 10 == 3 { Err(io::Error::other("no answer")) } else { Ok(()) }
        });
        let _ = call.or_fallback(|_| ()).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = PolicyBuilder::new()
        .command("find_user", |command| {
            command
                .timeout(Duration::from_millis(250))
                .max_concurrent_requests(100)
                .circuit_breaker(|breaker| breaker.error_percent_threshold(25))
        })
        .build()?;
    let fusebox = Fusebox::fixed(policy);
    tokio::spawn(traffic(fusebox.clone()));

    let wanted = std::env::args().nth(1);
    let address: SocketAddr = wanted.as_deref().unwrap_or("127.0.0.1:0").parse()?;
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}/hystrix.stream", listener.local_addr()?);
    let router = Router::new().route("/hystrix.stream", get(async move || fusebox.hystrix_stream()));
    let server = axum::serve(listener, router).into_future();
    println!("serving {url}");
    if wanted.is_some() {
        return Ok(server.await?);
    }
    tokio::spawn(server);

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut stream = client.get(url.parse()?).await?.into_body();
    for second in 0..4 {
        let Some(frame) = stream.frame().await else { break };
        let Ok(events) = frame?.into_data() else { continue };
        let events = String::from_utf8_lossy(&events).into_owned();
        let events = events.split_terminator("\n\n").filter_map(|event| event.strip_prefix("data: "));
        for event in events.map(serde_json::from_str::<Value>) {
            let event = event?;
            let show = |fields: &[&str]| {
                let fields = fields.iter().map(|field| format!("{field} {}", event[field]));
                println!("{second} s {}: {}", event["type"], fields.collect::<Vec<_>>().join(", "));
            };
            if event["type"] == "HystrixCommand" {
                show(&["requestCount", "errorPercentage", "rollingCountFallbackSuccess", "latencyExecute"]);
            } else {
                show(&["currentActiveCount", "currentPoolSize", "rollingCountThreadsExecuted"]);
            }
        }
    }
    Ok(())
}
