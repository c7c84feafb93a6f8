//! Beside the catalog's own reads and writes, on a server that restarts, that is wiped, that asks for rights.

use serde_json::{Value, json};

use super::{NODE, Process, SERVICE, TTL, adapter, check, entry, fence, register, server, until};
use crate::deadman::port::{Session, Sessions};
use crate::ports::{CatalogOp, ConsulCatalog, EpochStore};

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_own_reads_and_writes_and_the_dead_man_leave_each_other_alone() {
    let server = server::Consul::start(&[]).await;
    let consul = adapter(&server, None);
    register(&consul).await;
    let before = consul.node(NODE).await.unwrap();
    let id = consul.create(NODE, "one", TTL).await.unwrap().unwrap();
    assert!(consul.arm(NODE, &Session { name: "one".into(), id: id.clone() }).await.unwrap());
    let armed = check(&consul).await;
    assert!(armed.as_ref().is_some_and(|check| check.passing && check.session.is_some()));
    assert_eq!(consul.node(NODE).await.unwrap(), before, "the additional check is not an entry's");

    let ops = [
        CatalogOp::EnsureNode,
        CatalogOp::Register(entry("demo-3")),
        CatalogOp::SetCheck { id: "demo-1".into(), name: "user.service".into(), passing: false },
        CatalogOp::Deregister { id: "demo-2".into(), name: "user.service".into() },
    ];
    consul.transact(fence(&consul).await, NODE, &ops).await.unwrap();
    assert_eq!(check(&consul).await, armed, "a transaction leaves it alone");
    server.ask("PUT", &format!("/v1/session/destroy/{id}"), &Value::Null).await;
    assert!(check(&consul).await.is_some_and(|check| !check.passing), "and armed");
    let now = consul.node(NODE).await.unwrap();
    let passing = |id: &str| now.entries[id].passing;
    assert_eq!((passing("demo-1"), passing("demo-3")), (Some(false), Some(true)), "as it was written");

    // What a transaction does to the check: the reason why none of ours writes it.
    let txn = json!([{ "Check": { "Verb": "set", "Check": {
        "Node": NODE, "CheckID": "fusebox-dead-man", "Name": "x", "Type": "session", "Status": "passing",
        "Definition": { "SessionName": "one" },
    } } }]);
    server.ask("PUT", "/v1/txn", &txn).await;
    assert!(check(&consul).await.is_some_and(|check| check.passing && check.session.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_keeps_it_and_a_wiped_one_gets_it_anew() {
    let mut server = server::Consul::start(&[]).await;
    let consul = adapter(&server, None);
    register(&consul).await;
    let process = Process::start(&server, true, TTL);
    until("the first dead man", async || check(&consul).await.is_some()).await;
    let first = check(&consul).await;

    server.kill().await;
    server.run().await;
    assert_eq!(check(&consul).await, first);
    until("a renewal", async || process.metrics.unrenewed.get() == 0 && process.metrics.armed.get() == 1)
        .await;
    assert_eq!((check(&consul).await, process.metrics.rotations.get()), (first.clone(), 1));

    server.kill().await;
    server.wipe();
    server.run().await;
    register(&consul).await;
    until("another dead man", async || {
        check(&consul).await.is_some_and(|check| check.passing && Some(&check) != first.as_ref())
    })
    .await;
    let passing = server.get(&format!("{SERVICE}?passing")).await;
    assert_eq!(passing.as_array().unwrap().len(), 2);
}

const RIGHTS: [&str; 4] = [
    r#"node_prefix "fusebox-demo-" { policy = "write" }"#,
    r#"service_prefix "" { policy = "write" }"#,
    r#"key_prefix "fusebox/demo/" { policy = "write" }"#,
    r#"session_prefix "fusebox-demo-" { policy = "write" }"#,
];
const ROOT: &str = "11111111-2222-3333-4444-555555555555";

/// Who has no token may do nothing.
async fn asking_for_rights() -> server::Consul {
    let tokens = format!("tokens {{ initial_management = \"{ROOT}\" }}");
    let acl = format!("acl {{ enabled = true, default_policy = \"deny\", {tokens} }}");
    let server = server::Consul::start(&[&acl]).await;
    until("the first token", async || server.takes(ROOT).await).await;
    server
}

/// A token with these rights alone.
async fn token(server: &server::Consul, name: &str, rights: &[&str]) -> String {
    let policy = json!({ "Name": name, "Rules": rights.join("\n") });
    server.ask_as(ROOT, "PUT", "/v1/acl/policy", &policy).await;
    let token = json!({ "Policies": [{ "Name": name }] });
    let made = server.ask_as(ROOT, "PUT", "/v1/acl/token", &token).await;
    made["SecretID"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough_and_a_missing_one_is_named() {
    let server = asking_for_rights().await;

    let all = token(&server, "all", &RIGHTS).await;
    let consul = adapter(&server, Some(&all));
    register(&consul).await;
    assert_eq!(consul.supported("a").await, Ok(true));
    let id = consul.create(NODE, "one", TTL).await.unwrap().unwrap();
    assert!(consul.arm(NODE, &Session { name: "one".into(), id: id.clone() }).await.unwrap());
    assert!(check(&consul).await.is_some_and(|check| check.passing && check.session.is_some()));
    consul.renew(&id).await.unwrap();

    // The adapter reads its token anew for each request, from the same file.
    let some = token(&server, "some", &RIGHTS[..3]).await;
    server.write("token", &some);
    let refused = [
        consul.supported("b").await.map(|_| ()),
        consul.create(NODE, "two", TTL).await.map(|_| ()),
        consul.renew(&id).await.map(|_| ()),
    ];
    for refused in refused {
        let told = refused.unwrap_err().0;
        assert!(told.contains("session_prefix \"fusebox-demo-\""), "{told}");
    }
    server.write("token", &all);
    consul.disarm(NODE).await.unwrap();
    assert_eq!(check(&consul).await, None);
}

/// Consul says which right it misses, and we which ones are needed.
#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_taken_away_is_missed_by_name() {
    let server = asking_for_rights().await;
    let all = token(&server, "all", &RIGHTS).await;
    let consul = adapter(&server, Some(&all));
    register(&consul).await;
    let fence = fence(&consul).await;
    let (node, instance) = ([CatalogOp::EnsureNode], [CatalogOp::Register(entry("demo-3"))]);
    for (at, right) in ["node", "service", "key", "session"].into_iter().enumerate() {
        let rights: Vec<&str> = RIGHTS.into_iter().filter(|kept| *kept != RIGHTS[at]).collect();
        assert!(RIGHTS[at].starts_with(right) && rights.len() == 3);
        let some = token(&server, right, &rights).await;
        server.write("token", &some);
        let told = match right {
            "node" => consul.transact(fence, NODE, &node).await.unwrap_err().to_string(),
            "service" => consul.transact(fence, NODE, &instance).await.unwrap_err().to_string(),
            "key" => consul.read_epoch().await.unwrap_err().0,
            _ => consul.create(NODE, "two", TTL).await.unwrap_err().0,
        };
        assert!(told.contains(&format!("lacks permission '{right}:")), "{right}: {told}");
        assert!(RIGHTS.iter().all(|needed| told.contains(needed.split_once(' ').unwrap().0)), "{told}");
    }
    server.write("token", &all);
    assert_eq!(consul.transact(fence, NODE, &instance).await, Ok(()), "with all of them");
}
