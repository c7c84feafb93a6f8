//! The caller and a server of go-micro that registered itself.

use axum::http::StatusCode;
use serde_json::json;

use crate::etcd::eventually;
use crate::operator::Operator;
use crate::programs::{Program, caller};
use crate::support::get;

const CALLER: &str = "
apiVersion: fusebox.dev/v1alpha1
kind: ResilientService
metadata: { name: caller, namespace: shop }
spec:
  service: { name: user-caller }
  outbound:
    commands:
    - name: get_user
      timeout: 5s
";

/// go-micro's server reads of a path the type and the method, so that the path of gRPC's generated clients is one
/// of its own.
#[tokio::test]
async fn the_caller_finds_a_go_micro_server_and_its_deadline_holds_there() {
    let operator = Operator::start().await;
    let mut server = Program::go_micro("server", &operator.consul.url(), "user.service");
    server.says("serving").await;
    let policy = operator.publish(CALLER).await;
    let (_caller, url) = caller(&operator.etcd.url(), &policy, &operator.consul.url(), "user.service").await;
    eventually("it is found", async || get(&format!("{url}/hello/Ada")).await.2["msg"] == "Hello, Ada").await;
    let (status, _, body) = get(&format!("{url}/hello/Ada")).await;
    assert_eq!((status, &body["fallback"]), (StatusCode::OK, &json!(false)), "{body}");

    let asked = server.says("asked Ada deadline ").await;
    let (millis, agent) = asked.split_once(" agent ").unwrap();
    assert!((1..=5000).contains(&millis.parse::<u64>().unwrap()), "{asked}");
    assert!(agent.contains("fusebox"), "{asked}");

    let (status, _, body) = get(&format!("{url}/hello/nobody")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "go-micro's 404 is NOT_FOUND to gRPC: {body}");
    assert!(body["error"].as_str().unwrap().contains("no user is named nobody"), "{body}");

    let (status, _, body) = get(&format!("{url}/hello/slow")).await;
    let fallback = (status, &body["msg"], &body["reason"]);
    assert_eq!(fallback, (StatusCode::OK, &json!("default user"), &json!("timeout")), "{body}");
    server.says("asked slow").await;
    server.says("gave up").await;

    // It deregisters itself.
    server.terminate().await;
    eventually("nobody is left", async || {
        let (status, _, body) = get(&format!("{url}/hello/Ada")).await;
        status == StatusCode::OK && body["msg"] == "default user" && body["reason"] == "failed"
    })
    .await;
}
