//! The figures over HTTP.

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::lanes::Lanes;

/// Serves `/readyz`, `GET /now` and `POST /take` for ever.
pub async fn run(lanes: Arc<Lanes>) -> anyhow::Result<()> {
    let seen = Arc::clone(&lanes);
    let router = Router::new()
        .route("/readyz", get(async || "ready"))
        .route("/now", get(async move || Json(seen.now())))
        .route("/take", post(async move || Json(lanes.take())));
    let listener = TcpListener::bind("0.0.0.0:8080").await?;
    Ok(axum::serve(listener, router).await?)
}
