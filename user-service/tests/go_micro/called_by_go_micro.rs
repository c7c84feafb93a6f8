//! go-micro's client and a user service.

use fusebox_operator::model::Entry;
use fusebox_operator::ports::CatalogOp;
use serde_json::{Value, json};

use crate::operator::Operator;
use crate::programs::{Program, Store, user_service};

/// The breaker opens with the fifth failure; no timeout of it is reached in a test.
const USER: &str = "
apiVersion: fusebox.dev/v1alpha1
kind: ResilientService
metadata: { name: user, namespace: shop }
spec:
  service: { name: user-service, port: grpc }
  inbound:
    methods:
    - match: { grpc: { service: user.v1.UserService, method: GetUser } }
      timeout: 9m
  outbound:
    commands:
    - name: find_user
      timeout: 10m
      circuitBreaker: { errorPercentThreshold: 25, requestVolumeThreshold: 5, sleepWindow: 1h, rollingWindow: 1h }
      fallback: { enabled: false }
  consul:
    serviceName: user.service
    tags: [traefik.enable=true, eu-west]
    meta: { team: shop, version: '1.4' }
    goMicro: true
";

struct Scene {
    operator: Operator,
    store: Store,
    service: Program,
    at: std::net::SocketAddr,
    client: Program,
}

/// A registered user service and a client of it.
async fn scene(yaml: &str) -> Scene {
    let (operator, store) = tokio::join!(Operator::start(), Store::start());
    let user = operator.publish(yaml).await;
    let (service, at) = user_service(&operator.etcd.url(), &user, &store).await;
    operator.register(yaml, at, true).await;
    let client = Program::go_micro("client", &operator.consul.url(), "user.service");
    Scene { operator, store, service, at, client }
}

fn error(id: &str, code: u16, detail: &str, status: &str) -> Value {
    json!({ "id": id, "code": code, "detail": detail, "status": status })
}

#[tokio::test]
async fn the_registry_reads_what_a_go_micro_server_would_tell() {
    let Scene { operator, mut client, at, service: _service, store: _store } = scene(USER).await;
    let found = client.ask("find").await;
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    let (service, node) = (&found[0], &found[0]["nodes"][0]);
    assert_eq!((&service["name"], &service["version"]), (&json!("user.service"), &json!("1.4")));
    assert_eq!(node["address"], at.to_string());
    let metadata = json!({
        "registry": "consul", "server": "grpc", "team": "shop", "transport": "grpc", "version": "1.4",
    });
    assert_eq!(node["metadata"], metadata, "the tags of Traefik and others hide none of it");
    let endpoints: Vec<_> = service["endpoints"].as_array().unwrap().iter().map(|e| &e["name"]).collect();
    assert_eq!(endpoints, ["UserService.GetUser"]);

    let filtered =
        client.ask("call Ada 60000 version=1.4 label=team:shop endpoint=UserService.GetUser").await;
    assert_eq!(filtered["msg"], "Hello, Ada", "{filtered}");
    for other in ["version=2", "label=team:other", "endpoint=UserService.List"] {
        let told = client.ask(&format!("call Ada 60000 {other}")).await;
        assert_eq!((&told["attempts"], &told["error"]["code"]), (&json!(0), &json!(500)), "{other}: {told}");
    }
    assert_eq!(operator.register(USER, at, true).await, [], "what Consul gives back is what was meant");
}

#[tokio::test]
async fn its_client_greets_by_its_own_path_and_by_that_of_grpc() {
    let Scene { mut client, at, service: _service, store: _store, operator: _operator } = scene(USER).await;
    let greeted = json!({ "msg": "Hello, Ada", "attempts": 1, "nodes": [at.to_string()] });
    assert_eq!(client.ask("call Ada 60000").await, greeted);
    assert_eq!(client.ask("path /user.v1.UserService/GetUser Ada 60000").await, greeted);
    assert_eq!(client.ask("stream Ada 60000").await["msg"], "Hello, Ada");
}

#[tokio::test]
async fn errors_are_those_of_go_micro_and_none_of_the_callers_is_sent_again() {
    let Scene { mut client, service: _service, store: _store, operator: _operator, .. } = scene(USER).await;
    let told = client.ask("call nobody 60000").await;
    assert_eq!(told["error"], error("user.service", 404, "no user is named nobody", "Not Found"));
    assert_eq!(told["attempts"], 1);
    let told = client.ask("call _ 60000").await;
    assert_eq!((&told["error"]["code"], &told["attempts"]), (&json!(400), &json!(1)), "{told}");
    let told = client.ask("path /user.service.Other/GetUser Ada 60000").await;
    assert_eq!((&told["error"]["code"], &told["attempts"]), (&json!(501), &json!(1)), "{told}");
}

#[tokio::test]
async fn a_policys_timeout_is_told_once() {
    let short = USER.replace("timeout: 9m", "timeout: 100ms");
    let Scene { mut client, store, service: _service, operator: _operator, .. } = scene(&short).await;
    store.behave(60_000, 0).await;
    let told = client.ask("call Ada 60000").await;
    let expected = error("fusebox.timeout", 504, "no answer within the deadline", "Gateway Timeout");
    assert_eq!((&told["error"], &told["attempts"]), (&expected, &json!(1)));
}

#[tokio::test]
async fn an_open_breaker_is_told_once_and_by_name() {
    let Scene { mut client, store, service: _service, operator: _operator, .. } = scene(USER).await;
    store.behave(0, 100).await;
    for n in 1..=5 {
        let told = client.ask("call Ada 60000").await;
        let failed = (&told["error"]["id"], &told["error"]["code"], &told["attempts"]);
        assert_eq!(failed, (&json!("user.service"), &json!(503), &json!(1)), "call {n}: {told}");
    }
    store.behave(0, 0).await;
    let told = client.ask("call Ada 60000").await;
    let refused = (&told["error"]["id"], &told["error"]["code"], &told["error"]["status"], &told["attempts"]);
    assert_eq!(
        refused,
        (&json!("fusebox.open"), &json!(503), &json!("Service Unavailable"), &json!(1)),
        "{told}"
    );
}

/// A stream of go-micro has no deadline of gRPC. Here nobody else has one either: without the header the answer
/// would be a greeting, a minute later.
#[tokio::test]
async fn the_header_timeout_alone_is_a_deadline() {
    let Scene { mut client, store, service: _service, operator: _operator, .. } = scene(USER).await;
    store.behave(60_000, 0).await;
    let told = client.ask("stream Ada 300").await;
    assert_eq!(
        told["error"],
        error("fusebox.timeout", 504, "no answer within the deadline", "Gateway Timeout")
    );
}

#[tokio::test]
async fn an_instance_that_is_not_ready_is_not_called() {
    let Scene { operator, mut client, at, service: _service, store: _store } = scene(USER).await;
    assert_eq!(client.ask("call Ada 60000").await["msg"], "Hello, Ada");
    let ops = operator.register(USER, at, false).await;
    assert!(matches!(ops.as_slice(), [CatalogOp::SetCheck { passing: false, .. }]), "{ops:?}");
    let client = tokio::sync::Mutex::new(client);
    // Its selector has a cache, which a watch of its own keeps; a change that comes before the watch waits for the
    // cache's minute.
    in_time("the client knows", async || {
        let told = client.lock().await.ask("call Ada 60000").await;
        told["attempts"] == 0 && told["error"]["code"] == 500
    })
    .await;
    operator.register(USER, at, true).await;
    in_time("and that it is back", async || {
        client.lock().await.ask("call Ada 60000").await["msg"] == "Hello, Ada"
    })
    .await;
}

async fn in_time(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(std::time::Duration::from_mins(5), async {
        while !done().await {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

/// Why the operator refuses such a tag.
#[tokio::test]
async fn a_tag_of_one_letter_ends_every_client_that_looks() {
    let operator = Operator::start().await;
    let planted = |tag: &str| Entry {
        id: "planted".to_owned(),
        name: "user.service".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: 1,
        tags: vec![tag.to_owned()],
        meta: [("fusebox-cluster".to_owned(), "test".to_owned())].into(),
        passing: Some(true),
    };
    for tag in ["t", "e"] {
        operator.plant(planted(tag)).await;
        let client = Program::go_micro("client", &operator.consul.url(), "user.service");
        assert!(!client.asked_to_death("find").await, "{tag}");
    }
    for tag in ["v", "tt", "eu"] {
        operator.plant(planted(tag)).await;
        let mut client = Program::go_micro("client", &operator.consul.url(), "user.service");
        assert_eq!(client.ask("find").await[0]["nodes"][0]["address"], "127.0.0.1:1", "{tag}");
    }
}
