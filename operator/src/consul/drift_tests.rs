//! Against a server on this machine that answers blocking queries as Consul does.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::consul::{ConsulConfig, Http};
use crate::ports::{CatalogOp, ConsulCatalog, Fence};

const NODE: &str = "fusebox-demo-1";

/// What is on the node.
#[derive(Clone, Default)]
struct Content {
    index: u64,
    entries: Vec<Entry>,
    gone: bool,
    /// Writes get no good answer.
    fails: bool,
}

#[derive(Clone, Default)]
struct Server {
    content: watch::Sender<Content>,
    /// How many queries have come, and which of them wait, at which index.
    asked: watch::Sender<(usize, BTreeMap<String, u64>)>,
}

impl Server {
    fn change(&self, change: impl FnOnce(&mut Content)) {
        self.content.send_modify(|content| {
            content.index += 1;
            change(content);
        });
    }

    /// Waits until both questions wait for a change of what is there now, so that it is known.
    async fn is_followed(&self) {
        let now = self.content.borrow().index;
        let known = |(_, waiting): &(usize, BTreeMap<String, u64>)| {
            waiting.len() == 2 && waiting.values().all(|at| *at == now)
        };
        self.asked.subscribe().wait_for(known).await.unwrap();
    }
}

/// A query that waits, until it is answered or given up.
struct Waits(Server, String);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.asked.send_modify(|(_, waiting)| {
            waiting.remove(&self.1);
        });
    }
}

type Answer = (StatusCode, [(&'static str, String); 1], String);

async fn answer(State(server): State<Server>, request: Request) -> Answer {
    let uri = request.uri().to_string();
    let index =
        uri.split_once("index=").map(|(_, rest)| rest.split('&').next().unwrap().parse::<u64>().unwrap());
    let mut content = server.content.subscribe();
    if let Some(index) = index {
        let path = uri.split('?').next().unwrap().to_owned();
        server.asked.send_modify(|(asked, waiting)| {
            *asked += 1;
            waiting.insert(path.clone(), index);
        });
        let _waits = Waits(server.clone(), path);
        // As Consul: not for an index of the past or, after a restore, of the future.
        content.wait_for(|content| content.index != index || index == 0).await.unwrap();
    }
    let Content { index, entries, gone, fails } = content.borrow().clone();
    let service = |entry: &Entry| {
        json!({ "ID": entry.id, "Service": entry.name, "Tags": entry.tags, "Meta": entry.meta,
                "Address": entry.address, "Port": entry.port })
    };
    let state = |entry: &Entry| if entry.passing == Some(true) { "passing" } else { "critical" };
    let body = if uri.starts_with("/v1/health/node/") {
        entries.iter().map(|e| json!({ "CheckID": e.id, "Status": state(e) })).collect::<Value>()
    } else if uri.starts_with("/v1/txn") || gone {
        Value::Null
    } else {
        let services: Value = entries.iter().map(service).collect();
        json!({ "Node": { "Node": NODE, "Meta": { "fusebox-cluster": "demo" } }, "Services": services })
    };
    let status = if fails && uri.starts_with("/v1/txn") { 500 } else { 200 };
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("X-Consul-Index", index.to_string())], body.to_string())
}

fn entry(name: &str) -> Entry {
    let resource = format!("shop/{name}");
    let meta = [(mark::CLUSTER, "demo"), (mark::OWNER, name), (mark::RESOURCE, &*resource)];
    Entry {
        id: name.into(),
        name: "user".into(),
        address: "10.0.0.1".into(),
        port: 1,
        tags: Vec::new(),
        meta: meta.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        passing: Some(true),
    }
}

/// Two entries, of a and b, followed.
async fn followed() -> (Server, Arc<Consul>, mpsc::UnboundedReceiver<Drifted>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::default();
    server.change(|content| (content.index, content.entries) = (100, vec![entry("a"), entry("b")]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = axum::Router::new().fallback(answer).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let http = Http::new(&ConsulConfig { address, ..ConsulConfig::default() }).unwrap();
    let consul = Arc::new(Consul::new(http, "demo"));
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(consul.clone().follow_drift(tell));
    assert!(consul.node(NODE).await.unwrap().exists);
    server.is_followed().await;
    (server, consul, told)
}

fn of(name: &str) -> Drifted {
    Drifted::Of(Ident::new("shop", name))
}

/// What is told next; a minute is far more than it takes.
async fn next(told: &mut mpsc::UnboundedReceiver<Drifted>) -> Drifted {
    tokio::time::timeout(Duration::from_mins(1), told.recv()).await.expect("nothing is told").unwrap()
}

#[tokio::test]
async fn what_others_change_is_told_and_what_we_write_is_not() {
    let (server, consul, mut told) = followed().await;
    server.change(|content| content.entries[1].passing = Some(false));
    assert_eq!(next(&mut told).await, of("b"), "turned critical");
    server.is_followed().await;
    server.change(|content| content.entries[0].port = 2);
    assert_eq!(next(&mut told).await, of("a"), "edited");
    server.is_followed().await;

    // Healed by us: nobody is woken; the next one to be told of is the stranger's.
    let heal = [CatalogOp::Register(entry("a")), CatalogOp::Register(entry("b"))];
    consul.transact(Fence(1), NODE, &heal).await.unwrap();
    server.change(|content| content.entries = vec![entry("a"), entry("b")]);
    server.is_followed().await;
    consul
        .transact(Fence(1), NODE, &[CatalogOp::Deregister { id: "a".into(), name: "user".into() }])
        .await
        .unwrap();
    server.change(|content| drop(content.entries.remove(0)));
    server.is_followed().await;
    assert!(told.is_empty());
    server.change(|content| content.entries.clear());
    assert_eq!(next(&mut told).await, of("b"), "deregistered");
}

#[tokio::test]
async fn an_index_that_goes_backwards_is_begun_anew() {
    let (server, _consul, mut told) = followed().await;
    let asked = server.asked.borrow().0;
    // Another server, empty, young.
    server.content.send_replace(Content { index: 3, gone: true, ..Content::default() });
    let mut all = [next(&mut told).await, next(&mut told).await];
    all.sort();
    assert_eq!(all, [of("a"), of("b")]);
    server.is_followed().await;
    let then = server.asked.borrow().0;
    assert_eq!(then - asked, 4, "for each question one that tells all, and one that waits");
}

#[tokio::test]
async fn a_node_that_is_gone_is_followed_no_more_until_it_is_back() {
    let (server, consul, _told) = followed().await;
    server.change(|content| content.gone = true);
    assert!(!consul.node(NODE).await.unwrap().exists);
    server.asked.subscribe().wait_for(|(_, waiting)| waiting.is_empty()).await.unwrap();
    // If it were, it would be asked for again within this.
    sleep(2 * SPACING).await;
    assert!(server.asked.borrow().1.is_empty());
    server.change(|content| content.gone = false);
    assert!(consul.node(NODE).await.unwrap().exists);
    server.is_followed().await;
}

#[tokio::test]
async fn a_write_of_ours_that_had_no_answer_is_told_when_it_comes() {
    let (server, consul, mut told) = followed().await;
    server.change(|content| content.fails = true);
    server.is_followed().await;
    let late = CatalogOp::SetCheck { id: "a".into(), name: "user".into(), passing: false };
    consul.transact(Fence(1), NODE, &[late]).await.unwrap_err();
    server.change(|content| content.entries[0].passing = Some(false));
    assert_eq!(next(&mut told).await, of("a"));
}
