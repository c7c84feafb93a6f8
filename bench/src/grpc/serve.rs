//! The servers of B10: a hello on one core, raw or under a library's policies.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use fusebox::Fusebox;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tower::ServiceBuilder;
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_ratelimiter::RateLimiterLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

use super::hello::Hello;

/// What stands before the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Tonic,
    Fusebox,
    TowerResilience,
}

/// How a server stands in the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As `serve` is asked for it.
    pub name: &'static str,
    pub subject: &'static str,
    pub package: &'static str,
    pub window: &'static str,
}

/// All of them, the bare one first.
pub const ALL: [Entry; 3] = [
    Entry { name: "tonic", subject: "baseline", package: "tonic", window: "none (raw tonic)" },
    Entry {
        name: "fusebox",
        subject: "fusebox",
        package: "fusebox",
        window: "none (limit, timeout, rate, metrics)",
    },
    Entry {
        name: "tower-resilience",
        subject: "tower-resilience",
        package: "tower-resilience-bulkhead",
        window: "none (limit, timeout, rate)",
    },
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What stands before the handler
    kind: Kind,
    /// Microseconds of CPU that each call takes
    #[arg(long, default_value_t = 0)]
    busy_us: u64,
    /// Calls at once
    #[arg(long, default_value_t = 100_000)]
    limit: usize,
}

type Error = tower::BoxError;

/// Serves until it is killed.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        let hello = Hello { busy: Duration::from_micros(args.busy_us) };
        let incoming = TcpListenerStream::new(listener);
        let served = match args.kind {
            Kind::Tonic => Server::builder().add_service(hello).serve_with_incoming(incoming).await,
            Kind::Fusebox => {
                let policy = json!({
                    "inbound": {"default": {
                        "timeoutMs": 1000, "maxConcurrentRequests": args.limit,
                        "rateLimit": {"requestsPerSecond": 1_000_000_000, "burst": 1_000_000},
                    }},
                    "outbound": {"default": {}},
                });
                let layer = Fusebox::fixed(serde_json::from_value(policy)?).server_layer();
                Server::builder().layer(layer).add_service(hello).serve_with_incoming(incoming).await
            }
            Kind::TowerResilience => {
                // What our server layer has: a breaker is for callers.
                let (bulkhead, rate) = (
                    BulkheadLayer::builder().max_concurrent_calls(args.limit).reject_when_full().build()?,
                    RateLimiterLayer::builder()
                        .limit_for_period(1_000_000_000)
                        .refresh_period(Duration::from_secs(1))
                        .timeout_duration(Duration::ZERO)
                        .build()?,
                );
                let time = TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(1)).build();
                let stack = ServiceBuilder::new()
                    .map_err(|error| Error::from(format!("{error}")))
                    .layer(bulkhead)
                    .layer(rate)
                    .layer(time);
                Server::builder().layer(stack).add_service(hello).serve_with_incoming(incoming).await
            }
        };
        served.context("the server ended")?;
        bail!("the server ended")
    })
}
