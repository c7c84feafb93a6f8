//! Health, readiness and metrics over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::leader::Leadership;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::readiness::Readiness;

#[derive(Clone)]
struct Shared {
    readiness: Arc<Readiness>,
    leadership: Option<Arc<Leadership>>,
    metrics: Arc<Metrics>,
}

/// Serves until the process ends. The port is bound when this returns. `leadership` is of those that have one.
pub async fn start(
    at: SocketAddr,
    readiness: Arc<Readiness>,
    leadership: Option<Arc<Leadership>>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {at} (--listen): {error}"))?;
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Shared { readiness, leadership, metrics });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the admin server ended");
        }
    });
    Ok(())
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    match shared.readiness.missing().join(", ") {
        // A standby is ready to take over: a rollout need not wait for it to lead.
        missing if missing.is_empty() => {
            let told = shared.leadership.map(|leadership| format!(": {}", leadership.told()));
            (StatusCode::OK, format!("ready{}\n", told.unwrap_or_default()))
        }
        missing => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {missing}\n")),
    }
}

async fn scrape(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shared.metrics.encode())
}
