//! Against a server on this machine that says what Consul says.

use std::sync::Arc;

use axum::extract::{Request, State};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::*;
use crate::deadman::port::Sessions as _;
use crate::model::Entry;

type Seen = (String, String, Option<String>, Value);

#[derive(Default)]
struct Fake {
    /// Method, path and query, token, body.
    seen: Mutex<Vec<Seen>>,
    answers: Mutex<Vec<(u16, String)>>,
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> (::http::StatusCode, String) {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let token = head.headers.get("x-consul-token").map(|token| token.to_str().unwrap().to_owned());
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    fake.seen.lock().await.push((head.method.to_string(), head.uri.to_string(), token, body));
    let mut answers = fake.answers.lock().await;
    let (status, text) = if answers.is_empty() { (200, "null".to_owned()) } else { answers.remove(0) };
    (::http::StatusCode::from_u16(status).unwrap(), text)
}

async fn fake(answers: &[(u16, Value)]) -> (Arc<Fake>, ConsulConfig) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fake = Arc::new(Fake::default());
    *fake.answers.lock().await = answers.iter().map(|(status, json)| (*status, json.to_string())).collect();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer).with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (fake, ConsulConfig { address, ..ConsulConfig::default() })
}

fn consul(config: &ConsulConfig) -> Consul {
    Consul::new(Http::new(config).unwrap(), "a b/c")
}

fn entry(id: &str) -> Entry {
    Entry {
        id: id.into(),
        name: "user.service".into(),
        address: "10.0.0.1".into(),
        port: 50051,
        tags: vec!["v1".into()],
        meta: [("team".to_owned(), "shop".to_owned())].into(),
        passing: Some(true),
    }
}

#[tokio::test]
async fn names_are_encoded_and_the_token_is_read_anew() {
    let (fake, mut config) = fake(&[]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    config.token_file = Some(file.path().to_owned());
    let consul = consul(&config);
    assert_eq!(consul.read_epoch().await, Ok(None));
    std::fs::write(file.path(), "second\n").unwrap();
    assert_eq!(consul.node("n?/#").await, Ok(NodeView::default()));
    let seen = fake.seen.lock().await;
    assert_eq!(seen[0].1, "/v1/kv/fusebox/a%20b/c/epoch?consistent");
    assert_eq!(seen[0].2.as_deref(), Some("first"));
    assert!(seen.iter().any(|seen| seen.1 == "/v1/catalog/node-services/n%3F%2F%23?consistent"));
    assert_eq!(seen[1].2.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_node_is_read_with_its_checks_and_its_mark() {
    let node = json!({
        "Node": { "Node": "n", "Address": "127.0.0.1", "Meta": { "fusebox-cluster": "a b/c" } },
        "Services": [{ "ID": "s1", "Service": "user.service", "Tags": ["v1"], "Meta": { "team": "shop" },
                       "Address": "10.0.0.1", "Port": 50051, "Weights": { "Passing": 1 } }],
    });
    let checks =
        json!([{ "CheckID": "s1", "Status": "passing" }, { "CheckID": "other", "Status": "critical" }]);
    for (cluster, foreign) in [("a b/c", false), ("another", true)] {
        let (_, config) = by_path(node.clone(), checks.clone()).await;
        let read = Consul::new(Http::new(&config).unwrap(), cluster).node("n").await.unwrap();
        let entries = [("s1".to_owned(), entry("s1"))].into();
        assert_eq!(read, NodeView { exists: true, foreign, entries, others: 0 });
    }
}

#[tokio::test]
async fn a_transaction_begins_with_the_fence_and_names_what_is_refused() {
    let refusal = json!({ "Results": null, "Errors": [{ "OpIndex": 4, "What": "invalid check" }] });
    let (fake, config) =
        fake(&[(409, refusal), (409, json!({ "Errors": [{ "OpIndex": 0, "What": "index" }] }))]).await;
    let consul = consul(&config);
    let ops = [
        CatalogOp::EnsureNode,
        CatalogOp::Register(entry("s1")),
        CatalogOp::SetCheck { id: "s2".into(), name: "two".into(), passing: false },
        CatalogOp::Deregister { id: "s3".into(), name: "x".into() },
    ];
    let error = consul.transact(Fence(7), "n", &ops).await.unwrap_err();
    assert_eq!(error, TxnError::Refused(vec![(2, "invalid check".into())]));
    assert_eq!(consul.transact(Fence(7), "n", &ops).await, Err(TxnError::Fenced));
    assert_eq!(consul.transact(Fence(7), "n", &ops).await, Ok(()));

    let seen = fake.seen.lock().await;
    let wire = seen[0].3.as_array().unwrap();
    assert_eq!((seen[0].0.as_str(), seen[0].1.as_str()), ("PUT", "/v1/txn"));
    assert_eq!(wire[0], json!({ "KV": { "Verb": "check-index", "Key": "fusebox/a b/c/epoch", "Index": 7 } }));
    assert_eq!(wire[1]["Node"]["Node"]["Meta"]["fusebox-cluster"], "a b/c");
    assert_eq!(wire[2]["Service"]["Service"]["Service"], "user.service");
    assert_eq!(
        (&wire[3]["Check"]["Check"]["Status"], &wire[3]["Check"]["Check"]["ServiceID"]),
        (&json!("passing"), &json!("s1"))
    );
    assert_eq!(wire[4]["Check"]["Check"]["Status"], "critical");
    let named = |wire: &Value| wire["Check"]["Check"]["ServiceName"].clone();
    assert_eq!([named(&wire[3]), named(&wire[4])], ["user.service", "two"], "what Consul's ACLs judge");
    let wanted = json!({ "Verb": "delete", "Node": "n", "Service": { "ID": "s3", "Service": "x" } });
    assert_eq!(wire[5]["Service"], wanted, "Consul refuses a deletion without the name");
    assert_eq!(wire.len(), 6);
}

#[tokio::test]
async fn a_node_that_somebody_came_to_is_not_reaped() {
    let occupied = json!({ "Node": { "Meta": { "fusebox-cluster": "a b/c" } }, "Services": [
        { "ID": "s1", "Service": "x", "Address": "", "Port": 1 },
        { "ID": "new", "Service": "x", "Address": "", "Port": 1 },
    ] });
    let ops = [CatalogOp::Deregister { id: "s1".into(), name: "x".into() }, CatalogOp::ReapNode];
    for (services, wanted) in [(&occupied["Services"], 2), (&json!([occupied["Services"][0]]), 3)] {
        let node = json!({ "Node": occupied["Node"], "Services": services });
        let (fake, config) = by_path(node, json!([])).await;
        consul(&config).transact(Fence(1), "n", &ops).await.unwrap();
        let seen = fake.seen.lock().await;
        let wire = seen.last().unwrap().3.as_array().unwrap().clone();
        assert_eq!(wire.len(), wanted, "{wire:?}");
    }
}

/// Answers by what is asked: the node, its checks, and yes to a transaction.
async fn by_path(node: Value, checks: Value) -> (Arc<Fake>, ConsulConfig) {
    let (fake, mut config) = fake(&[]).await;
    let inner = fake.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.address = listener.local_addr().unwrap().to_string();
    let app = axum::Router::new().fallback(async move |request: Request| {
        let path = request.uri().path().to_owned();
        let (status, text) = answer(State(inner), request).await;
        match path.split('/').nth(2) {
            Some("catalog") => (status, node.to_string()),
            Some("health") => (status, checks.to_string()),
            _ => (status, text),
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (fake, config)
}

#[tokio::test]
async fn an_epoch_is_read_and_swapped() {
    let value = BASE64.encode(r#"{"epoch":3,"holder":"me"}"#);
    let (fake, config) = fake(&[
        (200, json!([{ "Key": "k", "Value": value, "ModifyIndex": 42 }])),
        (200, json!(true)),
        (200, json!(false)),
        (200, json!([{ "Key": "k", "Value": null, "ModifyIndex": 43 }])),
    ])
    .await;
    let consul = consul(&config);
    let epoch = Epoch { epoch: 3, holder: "me".into(), ..Epoch::default() };
    assert_eq!(consul.read_epoch().await, Ok(Some((epoch.clone(), Fence(42)))));
    assert_eq!(consul.swap_epoch(Some(Fence(42)), &epoch).await, Ok(true));
    assert_eq!(consul.swap_epoch(None, &epoch).await, Ok(false));
    assert_eq!(consul.read_epoch().await.unwrap().unwrap().0.epoch, 0, "what is no epoch has no holder");
    let seen = fake.seen.lock().await;
    assert_eq!(seen[1].1, "/v1/kv/fusebox/a%20b/c/epoch?cas=42");
    assert_eq!(seen[2].1, "/v1/kv/fusebox/a%20b/c/epoch?cas=0");
}

#[tokio::test]
async fn errors_tell_what_and_where() {
    let (_, config) = fake(&[(403, json!("Permission denied"))]).await;
    let told = consul(&config).read_epoch().await.unwrap_err().0;
    assert!(told.contains("403") && told.contains("Permission denied") && told.contains(NEEDS), "{told}");
    let nobody = ConsulConfig { address: "127.0.0.1:1".into(), ..config };
    let told = consul(&nobody).read_epoch().await.unwrap_err().0;
    assert!(told.contains("http://127.0.0.1:1") && told.contains("refused"), "{told}");
}

#[test]
fn what_is_wrong_with_an_address_is_said_without_its_password() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let at = |address: &str| ConsulConfig { address: address.into(), ..ConsulConfig::default() };
    let wrong = |config: &ConsulConfig| Http::new(config).map(drop).unwrap_err().to_string();
    for address in ["", "http://:8500", "ftp://consul:8500", "https://me:hush@consul:8501"] {
        let told = wrong(&at(address));
        assert!(told.starts_with("Consul's address") && !told.contains("hush"), "{told}");
    }
    let empty = tempfile::NamedTempFile::new().unwrap();
    let told = wrong(&ConsulConfig { ca_file: Some(empty.path().into()), ..at("https://consul:8501") });
    assert!(told.contains("holds no certificate") && told.contains(empty.path().to_str().unwrap()), "{told}");
}

const NEEDS: &str = "the token in use needs write for node_prefix \"fusebox-a b/c-\", session_prefix \
                     \"fusebox-a b/c-\", service_prefix \"\" and key_prefix \"fusebox/a b/c/\"";

#[tokio::test]
async fn an_operation_that_the_token_may_not_do_is_not_a_lost_epoch() {
    let denied = |at: usize| {
        let what = "Permission denied: token with AccessorID 'x' lacks permission 'service:write'";
        (409, json!({ "Errors": [{ "OpIndex": at, "What": what }] }))
    };
    let (_, config) = fake(&[denied(0), denied(1)]).await;
    let (consul, ops) = (consul(&config), [CatalogOp::Register(entry("s1"))]);
    let told = consul.transact(Fence(7), "n", &ops).await.unwrap_err();
    assert!(matches!(&told, TxnError::Unavailable(Unavailable(why)) if why.contains(NEEDS)), "{told}");
    let told = consul.transact(Fence(7), "n", &ops).await.unwrap_err();
    assert!(matches!(&told, TxnError::Refused(all) if all.len() == 1 && all[0].1.contains(NEEDS)), "{told}");
}

#[tokio::test]
async fn a_list_that_the_acls_filtered_is_no_list() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_, config) = fake(&[]).await;
    let app = axum::Router::new()
        .fallback(async || ([("X-Consul-Results-Filtered-By-ACLs", "true")], r#"{"Services":[]}"#));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let told = consul(&ConsulConfig { address, ..config }).node("n").await.unwrap_err().0;
    assert!(told.contains("may not read") && told.contains(NEEDS), "{told}");
}

#[tokio::test]
async fn an_empty_token_file_is_not_a_request_without_a_token() {
    let (fake, mut config) = fake(&[]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\n").unwrap();
    config.token_file = Some(file.path().to_owned());
    let told = consul(&config).read_epoch().await.unwrap_err().0;
    assert!(told.contains("the token file") && told.contains("is empty"), "{told}");
    assert!(fake.seen.lock().await.is_empty());
}

#[tokio::test]
async fn a_slow_write_to_one_node_holds_up_no_other() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_, config) = fake(&[]).await;
    let app = axum::Router::new().fallback(async |body: String| {
        if body.contains("slow") {
            std::future::pending::<()>().await;
        }
        "{}"
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let consul = consul(&ConsulConfig { address, ..config });
    let ops = [CatalogOp::EnsureNode];
    tokio::select! {
        biased;
        _ = consul.transact(Fence(1), "slow", &ops) => panic!("it answered"),
        done = consul.transact(Fence(1), "n", &ops) => assert_eq!(done, Ok(())),
    }
}

/// A server that takes sessions and lets no check follow them, as those before 1.21.
/// Where Consul as a whole cannot work few ask, whatever asks how often; an error of one request is no such thing.
#[tokio::test]
async fn without_a_leader_few_ask_and_all_are_told_so() {
    for (status, text, asked) in [
        (500, "No cluster leader", 3),
        (500, "rpc error getting client: failed to get conn", 3),
        (502, "", 3),
        (503, "", 3),
        (500, "Invalid filter", 10),
        (429, "", 10),
        (403, "Permission denied", 10),
    ] {
        let (fake, config) = fake(&vec![(status, json!(text)); 20]).await;
        let consul = consul(&config);
        for _ in 0..10 {
            let told = consul.nodes().await.unwrap_err().0;
            assert!(told.contains(&status.to_string()) && told.contains(text), "{told}");
        }
        assert_eq!(fake.seen.lock().await.len(), asked, "{status} {text}");
    }
}

#[tokio::test]
async fn where_nothing_listens_it_is_said_and_noticed_that_it_is_back() {
    let (_, config) = fake(&[]).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let consul = Arc::new(consul(&ConsulConfig { address: format!("http://{gone}"), ..config }));
    let mut back = consul.back();
    for _ in 0..10 {
        let told = consul.nodes().await.unwrap_err().0;
        assert!(told.contains("onnection refused"), "{told}");
    }
    let asking = consul.clone();
    let asking = tokio::spawn(async move { asking.keep_asking().await });
    let listener = tokio::net::TcpListener::bind(gone).await.unwrap();
    let app = axum::Router::new().fallback(async || "null");
    tokio::spawn(async move { axum::serve(listener, app).await });
    tokio::time::timeout(std::time::Duration::from_mins(1), back.changed()).await.unwrap().unwrap();
    assert_eq!(consul.nodes().await, Ok(Vec::new()));
    asking.abort();
}

#[tokio::test]
async fn a_check_that_does_not_follow_its_session_is_no_dead_man() {
    for (status, supported) in [("passing", Ok(false)), ("critical", Ok(true))] {
        let (fake, mut config) = fake(&[]).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        config.address = listener.local_addr().unwrap().to_string();
        let inner = fake.clone();
        let app = axum::Router::new().fallback(async move |request: Request| {
            let path = request.uri().path().to_owned();
            let (code, text) = answer(State(inner.clone()), request).await;
            let text = match path.as_str() {
                "/v1/session/create" => json!({ "ID": "1" }).to_string(),
                path if path.starts_with("/v1/health/node/") => {
                    let check = json!({ "Node": "n", "CheckID": "fusebox-a b/c-canary-x", "Status": status });
                    json!([check]).to_string()
                }
                _ => text,
            };
            (code, text)
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        assert_eq!(consul(&config).supported("x").await, supported);
        let seen = fake.seen.lock().await;
        let last = seen.last().unwrap();
        assert_eq!(
            (last.1.as_str(), &last.3),
            ("/v1/catalog/deregister", &json!({ "Node": "fusebox-a b/c-canary" })),
            "the canary is gone"
        );
        let statuses: Vec<_> = seen.iter().filter(|seen| seen.1 == "/v1/catalog/register").collect();
        assert!(statuses.iter().all(|seen| seen.3["Check"]["Status"] == "passing"), "never without a status");
        let create = seen.iter().find(|seen| seen.1 == "/v1/session/create").unwrap();
        assert_eq!(create.3["NodeChecks"], json!([]));
    }
}

#[tokio::test]
async fn the_nodes_of_this_cluster_are_listed_by_their_mark() {
    let listed = json!([
        { "Node": "fusebox-a-1", "Meta": { "fusebox-cluster": "a b/c" } },
        { "Node": "theirs", "Meta": { "fusebox-cluster": "other" } },
        { "Node": "agent", "Meta": null },
    ]);
    let (fake, config) = fake(&[(200, listed)]).await;
    assert_eq!(consul(&config).nodes().await, Ok(vec!["fusebox-a-1".to_owned()]));
    let asked = "/v1/catalog/nodes?consistent&node-meta=fusebox-cluster:a%20b%2Fc";
    assert_eq!(fake.seen.lock().await[0].1, asked);
}

/// Its two requests go through one gate.
#[tokio::test]
async fn a_node_is_read_again_after_a_silence() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_, config) = fake(&[]).await;
    let silent = watch::Sender::new(true);
    let is_silent = silent.subscribe();
    let app = axum::Router::new().fallback(async move || {
        if *is_silent.borrow() {
            std::future::pending::<()>().await;
        }
        "null"
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let consul = consul(&ConsulConfig { address, ..config });
    let both = tokio::join!(consul.node("n"), consul.node("n"));
    assert!(both.0.is_err() && both.1.is_err());
    silent.send_replace(false);
    let again = async {
        while consul.node("n").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(std::time::Duration::from_mins(1), again).await.is_ok());
}
