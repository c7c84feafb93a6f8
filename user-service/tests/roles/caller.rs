//! The caller, with a Consul whose answers the test gives and real user services.

use std::net::SocketAddr;

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use fusebox::{Fusebox, Policy};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use user_service::caller::Caller;
use user_service::cli::CallerArgs;

use crate::support::{ANYWHERE, Running, answering, backend, get, nobody, outbound, process, serve};

async fn caller(policy: Policy, consul: String) -> Running {
    let args = CallerArgs {
        listen: ANYWHERE,
        admin_listen: ANYWHERE,
        consul,
        consul_token: None,
        consul_token_file: None,
        consul_ca_file: None,
        service: "user.service".to_owned(),
        instance: "caller-0".to_owned(),
    };
    let caller = Caller::bind(&args, Fusebox::fixed(policy)).await.unwrap();
    let (addresses, (stop, stopped)) = (caller.addresses().unwrap(), mpsc::channel(2));
    Running::new(addresses, stop, tokio::spawn(caller.run(stopped, process())))
}

/// Answers the caller's question with a list; the next question tells that it is in force.
async fn known<Q>(
    asks: &mut mpsc::Receiver<(Q, oneshot::Sender<Response>)>,
    addresses: &[SocketAddr],
) -> oneshot::Sender<Response> {
    let entry = |at: &SocketAddr| json!({ "Node": { "Address": at.ip() }, "Service": { "Port": at.port() } });
    let list = addresses.iter().map(entry).collect::<Value>().to_string();
    let (_, answer) = asks.recv().await.unwrap();
    answer.send(([("x-consul-index", "7")], list).into_response()).unwrap();
    asks.recv().await.unwrap().1
}

async fn hello(caller: &Running, name: &str) -> (StatusCode, Value) {
    let (status, _, body) = get(&caller.url(&format!("/hello/{name}"))).await;
    (status, body)
}

#[tokio::test]
async fn greets_through_an_instance_that_consul_knows() {
    let service = serve(outbound(json!({})), &answering(StatusCode::OK, r#"{"name":"Ada"}"#).await).await;
    let (consul, mut asks) = backend().await;
    let caller = caller(outbound(json!({})), consul).await;
    let _asked = known(&mut asks, &[service.public]).await;
    let expected = json!({ "msg": "Hello, Ada", "from": "user-0", "fallback": false });
    assert_eq!(hello(&caller, "ada").await, (StatusCode::OK, expected));
    assert_eq!(hello(&caller, "a%2Fb").await.0, StatusCode::BAD_REQUEST, "the caller's caller is told");
}

#[tokio::test]
async fn without_instances_it_answers_at_once() {
    let (consul, mut asks) = backend().await;
    let with_fallback = caller(outbound(json!({})), consul.clone()).await;
    let asked = known(&mut asks, &[]).await;
    let (status, body) = hello(&with_fallback, "ada").await;
    assert_eq!(
        (status, &body["msg"], &body["reason"]),
        (StatusCode::OK, &json!("default user"), &json!("failed"))
    );
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("no passing instance of user.service"), "{detail}");
    drop(asked);

    let without = caller(outbound(json!({ "fallbackEnabled": false })), consul).await;
    let (status, body) = hello(&without, "ada").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
}

#[tokio::test]
async fn a_failure_is_told_without_addresses_and_without_the_texts_of_others() {
    let gone = nobody().trim_start_matches("http://").parse().unwrap();
    let failing = serve(outbound(json!({ "fallbackEnabled": false })), &nobody()).await;
    for (instance, told) in
        [(gone, "the user service gave no answer"), (failing.public, "the user service answered Unavailable")]
    {
        for fallback in [true, false] {
            let (consul, mut asks) = backend().await;
            let caller = caller(outbound(json!({ "fallbackEnabled": fallback })), consul).await;
            let _asked = known(&mut asks, &[instance]).await;
            let (status, body) = hello(&caller, "ada").await;
            let (code, field) = if fallback {
                (StatusCode::OK, "detail")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "error")
            };
            assert_eq!((status, &body[field]), (code, &json!(told)), "{body}");
        }
    }
}

#[tokio::test]
async fn a_slow_service_costs_the_declared_timeout_and_then_the_breaker_saves_the_caller() {
    let (store, _asks) = backend().await;
    let service = serve(outbound(json!({ "fallbackEnabled": false })), &store).await;
    let (consul, mut asks) = backend().await;
    let breaker = json!({
        "errorPercentThreshold": 25, "requestVolumeThreshold": 3, "sleepWindowMs": 60_000,
        "rollingWindowMs": 60_000, "halfOpenProbes": 1,
    });
    let caller = caller(outbound(json!({ "timeoutMs": 50, "circuitBreaker": breaker })), consul).await;
    let _asked = known(&mut asks, &[service.public]).await;
    let mut reasons = Vec::new();
    for _ in 0..5 {
        let (status, body) = hello(&caller, "ada").await;
        assert_eq!(
            (status, &body["msg"], &body["fallback"]),
            (StatusCode::OK, &json!("default user"), &json!(true))
        );
        reasons.push(body["reason"].as_str().unwrap().to_owned());
    }
    assert!(reasons[..3].iter().all(|reason| reason == "timeout"), "{reasons:?}");
    assert!(reasons[3..].iter().all(|reason| reason == "open"), "{reasons:?}");
}

#[tokio::test]
async fn what_consul_no_longer_knows_is_not_called() {
    let store = answering(StatusCode::OK, r#"{"name":"Ada"}"#).await;
    let (a, b) = (serve(outbound(json!({})), &store).await, serve(outbound(json!({})), &store).await);
    let (consul, mut asks) = backend().await;
    let caller = caller(outbound(json!({})), consul).await;
    let next = known(&mut asks, &[a.public, b.public]).await;
    for _ in 0..4 {
        assert_eq!(hello(&caller, "ada").await.1["msg"], "Hello, Ada");
    }
    let entry = json!([{ "Node": { "Address": "127.0.0.1" }, "Service": { "Port": b.public.port() } }]);
    next.send(([("x-consul-index", "8")], entry.to_string()).into_response()).unwrap();
    let _asked = asks.recv().await.unwrap();
    // The connection ends with the channel, or this would wait for its grace.
    a.stop().await;
    a.stop().await;
    a.ended().await;
    for _ in 0..4 {
        assert_eq!(hello(&caller, "ada").await.1["msg"], "Hello, Ada");
    }
}
