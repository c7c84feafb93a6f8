//! The layer for go-micro around the server layer. What its real client makes of it is in
//! user-service/tests/go_micro.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use axum::routing::any;
use axum::{Extension, Router};
use fusebox::go_micro::GoMicroLayer;
use fusebox::{Fusebox, Policy};
use fusebox_policy::policy::{Inbound, MethodMatch, MethodPolicy, ServerPolicy};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

/// As go-micro's client asks.
fn asked(path: &str) -> http::request::Builder {
    Request::post(path)
        .header("content-type", "application/grpc+proto")
        .header("x-content-type", "application/grpc+proto")
}

fn policy(default: Option<u64>, method: Option<u64>) -> Policy {
    let timeout = |millis: Option<u64>| ServerPolicy {
        timeout_ms: millis.map(|millis| millis.try_into().unwrap()),
        ..ServerPolicy::default()
    };
    let matches = MethodMatch::grpc("user.v1.UserService", "GetUser");
    let methods = vec![MethodPolicy { matches, policy: timeout(method) }];
    Policy { inbound: Inbound { default: timeout(default), methods }, ..Policy::compiled_in() }
}

/// A server whose one method never ends.
fn endless(policy: Policy) -> Router {
    let served = Router::new()
        .route("/user.v1.UserService/GetUser", any(async || sleep(Duration::from_hours(1)).await))
        .layer(Fusebox::fixed(policy).server_layer());
    Router::new().fallback_service(served).layer(GoMicroLayer::new(["user.v1.UserService"]))
}

/// The error go-micro's client reads, out of the head.
fn error(headers: &HeaderMap) -> Value {
    serde_json::from_slice(headers["grpc-message"].as_bytes()).unwrap()
}

async fn ends(server: Router, request: Request<Body>) -> (Duration, Response<Body>) {
    let begun = Instant::now();
    let response = server.oneshot(request).await.unwrap();
    (Instant::now() - begun, response)
}

#[tokio::test(start_paused = true)]
async fn the_policy_of_the_method_holds_by_go_micros_path() {
    let request = asked("/user.service.UserService/GetUser").body(Body::empty()).unwrap();
    let (took, response) = ends(endless(policy(None, Some(30))), request).await;
    assert_eq!(took, Duration::from_millis(30));
    assert_eq!(response.headers()["grpc-status"], "4");
    let expected = json!({
        "id": "fusebox.timeout", "code": 504, "detail": "no answer within the deadline", "status": "Gateway Timeout",
    });
    assert_eq!(error(response.headers()), expected);
}

#[tokio::test(start_paused = true)]
async fn the_header_timeout_is_a_deadline_beside_grpc_timeout_and_the_policys() {
    for (nanos, grpc, of_policy, millis) in [
        ("50000000", None, None, 50),
        ("50000000", Some("20m"), None, 20),
        ("50000000", Some("90m"), None, 50),
        ("50000000", Some("90m"), Some(30), 30),
        ("50000000", None, Some(70), 50),
    ] {
        let mut request = asked("/user.service.UserService/GetUser").header("timeout", nanos);
        if let Some(grpc) = grpc {
            request = request.header("grpc-timeout", grpc);
        }
        let server = endless(policy(None, of_policy));
        let (took, response) = ends(server, request.body(Body::empty()).unwrap()).await;
        assert_eq!(took, Duration::from_millis(millis), "{nanos} {grpc:?} {of_policy:?}");
        assert_eq!(error(response.headers())["code"], 504);
    }
}

#[tokio::test(start_paused = true)]
async fn another_caller_is_answered_as_ever() {
    let plain =
        |path| Request::post(path).header("content-type", "application/grpc").header("timeout", "1000000");
    let request = plain("/user.v1.UserService/GetUser").body(Body::empty()).unwrap();
    let (took, response) = ends(endless(policy(None, Some(30))), request).await;
    assert_eq!(took, Duration::from_millis(30), "to it the header timeout is none");
    assert_eq!(response.headers()["grpc-message"], "no answer within the deadline");
    let request = plain("/user.service.UserService/GetUser").body(Body::empty()).unwrap();
    assert_eq!(ends(endless(policy(None, None)), request).await.1.status(), 404, "and its path is its own");
}

/// A message, then the status in the trailers: what a stream does that breaks off.
async fn broken_off(Extension(message): Extension<&'static str>) -> impl IntoResponse {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("13"));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    let body = Full::new(Bytes::from_static(b"message"))
        .with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
    Response::new(Body::new(body))
}

#[tokio::test]
async fn a_status_in_the_trailers_is_explained_too() {
    let policed = Router::new().fallback(any(broken_off)).layer(Extension("the%20index%20is%20gone"));
    let policed = policed.layer(Fusebox::fixed(policy(None, None)).server_layer());
    let server = Router::new().fallback_service(policed).layer(GoMicroLayer::new(["user.v1.UserService"]));
    let body = async |request: http::request::Builder| {
        let request = request.body(Body::empty()).unwrap();
        server.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap()
    };
    let read = body(asked("/user.service.UserService/List")).await;
    let expected = json!({
        "id": "user.service", "code": 500, "detail": "the index is gone", "status": "Internal Server Error",
    });
    assert_eq!(error(read.trailers().unwrap()), expected);
    assert_eq!(read.to_bytes(), "message");
    let plain = Request::post("/user.v1.UserService/List").header("content-type", "application/grpc");
    assert_eq!(body(plain).await.trailers().unwrap()["grpc-message"], "the%20index%20is%20gone");
}

/// The client was told to; nobody of the service is asked.
#[tokio::test]
async fn json_is_refused_and_the_caller_is_told_what_to_do() {
    let never = Router::new().fallback(async || -> Response<Body> { panic!("it was called") });
    let server = never.layer(GoMicroLayer::new(["user.v1.UserService"]));
    let request = Request::post("/user.service.UserService/GetUser")
        .header("content-type", "application/grpc+json")
        .header("x-content-type", "application/grpc+json")
        .body(Body::empty())
        .unwrap();
    let response = server.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    let error = error(response.headers());
    assert_eq!((&error["id"], &error["code"]), (&json!("user.service"), &json!(501)));
    assert!(error["detail"].as_str().unwrap().contains("application/grpc+proto"), "{error}");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
}
