//! Health, readiness and metrics over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::readiness::Readiness;

#[derive(Clone)]
struct Shared {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
}

/// Serves until the process ends. The port is bound when this returns.
pub async fn start(at: SocketAddr, readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {at} (--listen): {error}"))?;
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Shared { readiness, metrics });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the admin server ended");
        }
    });
    Ok(())
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    match shared.readiness.missing().join(", ") {
        missing if missing.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
        missing => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {missing}\n")),
    }
}

async fn scrape(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shared.metrics.encode())
}
