//! Serving a router on a port until the process closes, and what every port offers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use fusebox::Fusebox;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::lifecycle::{self, Life, Phase};

/// Names the instance that answered.
pub const INSTANCE: HeaderName = HeaderName::from_static("x-instance");

/// A listener, or an error that names the address.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// Serves HTTP/1.1 and cleartext HTTP/2 until [`Phase::Closing`], then lets what is in flight finish.
async fn serve(listener: TcpListener, router: Router, life: Life) {
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let closing = async move { life.reached(Phase::Closing).await };
    // Never an error: accept is retried and a connection's errors end the connection.
    let _ = axum::serve(listener, router).with_graceful_shutdown(closing).await;
}

/// `/healthz` is the process, `/readyz` whether requests are welcome.
pub(crate) fn health(life: Life) -> Router {
    let ready = async |State(life): State<Life>| match life.phase() {
        Phase::Ready => (StatusCode::OK, "ready"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "waiting for the first policy"),
        Phase::Draining | Phase::Closing => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
    };
    Router::new().route("/healthz", get(async || "ok")).route("/readyz", get(ready)).with_state(life)
}

/// `/metrics` in Prometheus' text format and `/hystrix.stream` for the Hystrix dashboard, beside
/// [`health`].
pub(crate) fn admin(life: Life, fusebox: Fusebox) -> Router {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let (metrics, watched) = (fusebox.clone(), life.clone());
    let metrics = get(async move || ([(header::CONTENT_TYPE, TEXT)], metrics.registry_text()));
    let stream = get(async move || {
        // Without an end, an open dashboard would hold up the shutdown for the whole grace.
        let closing = async move { watched.reached(Phase::Closing).await };
        fusebox.hystrix_stream().map(|stream| stream.until(closing))
    });
    health(life).route("/metrics", metrics).route("/hystrix.stream", stream)
}

/// Puts the instance's name into every answer of the router.
pub(crate) fn name_instance(router: Router, instance: &str) -> anyhow::Result<Router> {
    async fn named(State(name): State<HeaderValue>, request: Request, next: Next) -> Response {
        let mut response = next.run(request).await;
        response.headers_mut().insert(INSTANCE, name);
        response
    }
    let name =
        HeaderValue::from_str(instance).with_context(|| format!("the instance's name {instance:?}"))?;
    Ok(router.layer(middleware::from_fn_with_state(name, named)))
}

/// Serves all of them until everything in flight has finished, at most `grace` after [`Phase::Closing`].
pub(crate) async fn serve_all<const N: usize>(
    servers: [(TcpListener, Router); N],
    life: &Life,
    grace: Duration,
) {
    let mut running = JoinSet::new();
    for (listener, router) in servers {
        running.spawn(serve(listener, router, life.clone()));
    }
    let all = async { while running.join_next().await.is_some() {} };
    if !lifecycle::until_closed(all, life, grace).await {
        tracing::warn!(?grace, "requests were still in flight at the end of the grace");
    }
}
