//! The user service.

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use fusebox::Policy;
use http_body_util::BodyExt as _;
use serde_json::json;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use user_service::proto::GetUserRequest;

use crate::support::{answering, backend, channel, client, get, nobody, open, outbound, serve};

const ADA: &str = r#"{"name":"Ada"}"#;

fn named(name: &str) -> GetUserRequest {
    GetUserRequest { name: name.to_owned() }
}

#[tokio::test]
async fn greets_over_grpc_and_http_on_one_port() {
    let store = answering(StatusCode::OK, ADA).await;
    let service = serve(outbound(json!({})), &store).await;
    let response = client(service.public).get_user(named("ada")).await.unwrap();
    assert_eq!(response.metadata().get("x-instance").unwrap(), "user-0");
    assert!(response.metadata().get("x-fallback").is_none());
    assert_eq!(response.into_inner().msg, "Hello, Ada", "the name is the store's");
    let (status, headers, body) = get(&service.url("/users/ada")).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "msg": "Hello, Ada", "instance": "user-0" })));
    assert_eq!(headers["x-instance"], "user-0");
    assert!(!headers.contains_key("x-fallback"));
}

#[tokio::test]
async fn a_name_that_the_store_does_not_know_is_not_found_and_gets_no_fallback() {
    let store = answering(StatusCode::NOT_FOUND, "").await;
    let service = serve(outbound(json!({})), &store).await;
    let status = client(service.public).get_user(named("nobody")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no user is named nobody"));
    let (status, _, body) = get(&service.url("/users/nobody")).await;
    assert_eq!((status, &body["error"]), (StatusCode::NOT_FOUND, &json!("no user is named nobody")));
}

#[tokio::test]
async fn what_is_no_name_is_refused_without_asking_the_store() {
    let service = serve(outbound(json!({})), &nobody()).await;
    let status = client(service.public).get_user(named("a/b")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("1 to 64 letters"), "{status}");
    for path in ["/users/a%2Fb", "/users/%FF", "/users/%20"] {
        let (status, _, body) = get(&service.url(path)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
    }
}

#[tokio::test]
async fn without_the_store_it_greets_by_the_name_asked_for_and_says_so() {
    for store in [nobody(), answering(StatusCode::INTERNAL_SERVER_ERROR, "").await] {
        let service = serve(outbound(json!({})), &store).await;
        let response = client(service.public).get_user(named("ada")).await.unwrap();
        assert_eq!(response.metadata().get("x-fallback").unwrap(), "true");
        assert_eq!(response.into_inner().msg, "Hello, ada");
        let (status, headers, body) = get(&service.url("/users/ada")).await;
        assert_eq!((status, &body["msg"]), (StatusCode::OK, &json!("Hello, ada")));
        assert_eq!(headers["x-fallback"], "true");
    }
}

#[tokio::test]
async fn a_policy_without_fallback_lets_the_failure_through() {
    let store = answering(StatusCode::INTERNAL_SERVER_ERROR, "").await;
    let service = serve(outbound(json!({ "fallbackEnabled": false })), &store).await;
    let status = client(service.public).get_user(named("ada")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("500"), "{status}");
    assert_eq!(get(&service.url("/users/ada")).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_failure_tells_nothing_of_where_the_store_is_or_what_it_says() {
    let garbage = answering(StatusCode::OK, r#"{"secret":1}"#).await;
    for (store, told) in
        [(nobody(), "the user store gave no answer"), (garbage, "the user store's answer is no user")]
    {
        let service = serve(outbound(json!({ "fallbackEnabled": false })), &store).await;
        let status = client(service.public).get_user(named("ada")).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, told));
        let (status, _, body) = get(&service.url("/users/ada")).await;
        assert_eq!((status, body), (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": told })));
    }
}

#[tokio::test]
async fn a_timeout_of_the_policy_names_its_reason() {
    let (store, mut asks) = backend().await;
    let service = serve(outbound(json!({ "fallbackEnabled": false, "timeoutMs": 50 })), &store).await;
    let status = client(service.public).get_user(named("ada")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.metadata().get("fusebox-reason").unwrap(), "timeout");
    let (status, headers, body) = get(&service.url("/users/ada")).await;
    assert_eq!((status, &body["reason"]), (StatusCode::GATEWAY_TIMEOUT, &json!("timeout")));
    assert_eq!(headers["fusebox-reason"], "timeout");
    assert!(asks.recv().await.unwrap().1.is_closed(), "the work was cancelled");
}

#[tokio::test]
async fn an_open_breaker_tells_its_reason_and_when_to_try_again() {
    let breaker = json!({
        "errorPercentThreshold": 50, "requestVolumeThreshold": 20, "sleepWindowMs": 1500,
        "rollingWindowMs": 10_000, "halfOpenProbes": 1, "mode": "ForcedOpen",
    });
    let policy = outbound(json!({ "fallbackEnabled": false, "circuitBreaker": breaker }));
    let service = serve(policy, &nobody()).await;
    let status = client(service.public).get_user(named("ada")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let told = |key| status.metadata().get(key).unwrap().to_str().unwrap();
    assert_eq!((told("fusebox-reason"), told("retry-after")), ("open", "2"));
    let (status, headers, body) = get(&service.url("/users/ada")).await;
    assert_eq!((status, &body["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("open")));
    assert_eq!(headers["fusebox-reason"], "open");
    assert_eq!(headers["retry-after"], "2");
}

/// A user that hangs in the store, greeted by the policy.
#[tokio::test]
async fn a_policy_answers_with_a_message_and_a_body_of_its_own() {
    let (store, _asks) = backend().await;
    let fallback = |answer| json!({ "timeoutMs": 50, "fallback": answer });
    let policy: Policy = serde_json::from_value(json!({
        "outbound": { "default": { "fallbackEnabled": false } },
        "inbound": { "default": {}, "methods": [
            { "match": { "grpc": { "service": "user.v1.UserService", "method": "GetUser" } },
              "policy": fallback(json!({ "message": { "json": r#"{"msg":"Hello, you"}"# } })) },
            { "match": { "http": { "pathPrefix": "/users" } },
              "policy": fallback(json!({ "body": { "contentType": "application/json", "body": r#"{"msg":"Hello"}"# } })) },
        ] },
    }))
    .unwrap();
    let service = serve(policy, &store).await;
    let response = client(service.public).get_user(named("ada")).await.unwrap();
    assert_eq!(response.metadata().get("fusebox-fallback").unwrap(), "true");
    assert_eq!(response.metadata().get("fusebox-reason").unwrap(), "timeout");
    assert_eq!(response.into_inner().msg, "Hello, you");
    let (status, headers, body) = get(&service.url("/users/ada")).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "msg": "Hello" })));
    assert_eq!(headers["fusebox-fallback"], "true");
    assert_eq!(headers["content-type"], "application/json");
}

#[tokio::test]
async fn unknown_paths_are_told_in_the_callers_protocol() {
    let service = serve(outbound(json!({})), &nobody()).await;
    assert_eq!(get(&service.url("/elsewhere")).await.0, StatusCode::NOT_FOUND);
    let mut grpc = tonic::client::Grpc::new(channel(service.public));
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<GetUserRequest, HealthCheckResponse>::default();
    let path = "/user.v2.UserService/GetUser".parse().unwrap();
    let status = grpc.unary(tonic::Request::new(named("ada")), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("user.v2"), "{status}");
}

#[tokio::test]
async fn reflection_tells_the_service() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};

    let service = serve(outbound(json!({})), &nobody()).await;
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut reflection = ServerReflectionClient::new(channel(service.public));
    let answer = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answer.into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    assert!(list.service.iter().any(|service| service.name == "user.v1.UserService"), "{list:?}");
}

#[tokio::test]
async fn metrics_are_on_the_admin_port() {
    let service = serve(outbound(json!({})), &answering(StatusCode::OK, ADA).await).await;
    client(service.public).get_user(named("ada")).await.unwrap();
    let (status, headers, _) = get(&format!("http://{}/metrics", service.admin)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["content-type"].to_str().unwrap().contains("openmetrics-text"));
    assert_eq!(get(&service.url("/metrics")).await.0, StatusCode::NOT_FOUND, "not for everyone");
}

/// An open dashboard holds nothing up: the stream ends when the process begins to close.
#[tokio::test]
async fn the_hystrix_stream_is_on_the_admin_port_and_ends_with_the_process() {
    let service = serve(outbound(json!({})), &answering(StatusCode::OK, ADA).await).await;
    client(service.public).get_user(named("ada")).await.unwrap();
    let (status, headers, mut body) = open(&format!("http://{}/hystrix.stream", service.admin)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let events = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let events = String::from_utf8(events.to_vec()).unwrap();
    assert!(events.starts_with("data: {") && events.contains(r#""name":"find_user""#), "{events}");
    service.stop().await;
    service.stop().await;
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    service.ended().await;
}

async fn until(statuses: &mut tonic::Streaming<HealthCheckResponse>, wanted: ServingStatus) {
    while statuses.message().await.unwrap().unwrap().status() != wanted {}
}

#[tokio::test]
async fn an_orderly_end_loses_no_request() {
    let (store, mut asks) = backend().await;
    let service = serve(outbound(json!({})), &store).await;
    let mut health = HealthClient::new(channel(service.public));
    let watched = HealthCheckRequest { service: "user.v1.UserService".to_owned() };
    let mut statuses = health.watch(watched).await.unwrap().into_inner();
    until(&mut statuses, ServingStatus::Serving).await;

    // In flight when it is told to end, and over HTTP/1.1 as well.
    let mut grpc = client(service.public);
    let first = tokio::spawn(async move { grpc.get_user(named("ada")).await });
    let (_, first_answer) = asks.recv().await.unwrap();
    let url = service.url("/users/ada");
    let second = tokio::spawn(async move { get(&url).await });
    let (_, second_answer) = asks.recv().await.unwrap();
    service.stop().await;
    until(&mut statuses, ServingStatus::NotServing).await;

    // Draining: not ready, alive, and it serves new connections.
    let admin = format!("http://{}", service.admin);
    assert_eq!(get(&format!("{admin}/readyz")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&format!("{admin}/healthz")).await.0, StatusCode::OK);
    let server = HealthCheckRequest::default();
    let alive = health.check(server).await.unwrap().into_inner().status();
    assert_eq!(alive, ServingStatus::Serving, "the server itself is alive");
    let mut late = client(service.public);
    let third = tokio::spawn(async move { late.get_user(named("ada")).await });
    let (_, third_answer) = asks.recv().await.unwrap();
    third_answer.send(ADA.into_response()).unwrap();
    assert_eq!(third.await.unwrap().unwrap().into_inner().msg, "Hello, Ada");

    // Closing: what is in flight finishes.
    service.stop().await;
    first_answer.send(ADA.into_response()).unwrap();
    second_answer.send(ADA.into_response()).unwrap();
    assert_eq!(first.await.unwrap().unwrap().into_inner().msg, "Hello, Ada");
    assert_eq!(second.await.unwrap().2["msg"], "Hello, Ada");
    assert!(statuses.message().await.unwrap().is_none(), "who watches is told the end");
    service.ended().await;
}
