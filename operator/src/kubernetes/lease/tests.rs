//! Against a server on this machine that keeps one Lease as the API server does.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::*;

#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    asked: Vec<String>,
    forbidden: bool,
}

impl Server {
    fn store(&mut self, mut lease: Value) -> (StatusCode, Value) {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(lease.clone());
        (StatusCode::OK, lease)
    }

    fn answer(&mut self, method: &Method, body: Value) -> (StatusCode, Value) {
        let refused = |code: StatusCode| {
            let why = code.canonical_reason().unwrap().replace(' ', "");
            (
                code,
                json!({ "kind": "Status", "status": "Failure", "code": code.as_u16(), "message": why, "reason": why }),
            )
        };
        if self.forbidden {
            return refused(StatusCode::FORBIDDEN);
        }
        match (method, self.lease.clone()) {
            (&Method::GET, Some(lease)) => (StatusCode::OK, lease),
            (&Method::POST, None) => self.store(body),
            (&Method::POST, Some(_)) => refused(StatusCode::CONFLICT),
            // As the API server: a replacement without a version is unconditional.
            (&Method::PUT, Some(lease)) => match &body["metadata"]["resourceVersion"] {
                version if version.is_null() || *version == lease["metadata"]["resourceVersion"] => {
                    self.store(body)
                }
                _ => refused(StatusCode::CONFLICT),
            },
            (_, _) => refused(StatusCode::NOT_FOUND),
        }
    }
}

async fn serve(State(server): State<Arc<Mutex<Server>>>, request: Request) -> (StatusCode, String) {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut server = server.lock().await;
    server.asked.push(format!("{} {}", head.method, head.uri));
    let (code, answer) = server.answer(&head.method, serde_json::from_slice(&body).unwrap_or(Value::Null));
    (code, answer.to_string())
}

async fn server() -> (Arc<Mutex<Server>>, KubeLease) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Arc::new(Mutex::new(Server::default()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let app = axum::Router::new().fallback(serve).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = Client::try_from(kube::Config::new(url)).unwrap();
    (server, KubeLease::new(client, "fusebox", "operator-fusebox"))
}

fn record(holder: &str) -> Record {
    let time = "2026-11-28T12:00:00.123456Z".parse().unwrap();
    Record {
        holder: holder.into(),
        seconds: Some(15),
        transitions: 3,
        acquired: Some(time),
        renewed: Some(time),
    }
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let (server, lease) = server().await;
    assert!(lease.read().await.unwrap().is_none());
    lease.write(&record("a"), None).await.unwrap();
    let (seen, at) = lease.read().await.unwrap().unwrap();
    assert_eq!(seen, record("a"));
    lease.write(&record(""), Some(&at)).await.unwrap();
    assert_eq!(lease.read().await.unwrap().unwrap().0, record(""));
    let server = server.lock().await;
    assert!(server.asked[1].starts_with("POST /apis/coordination.k8s.io/v1/namespaces/fusebox/leases?"));
    let path = "/apis/coordination.k8s.io/v1/namespaces/fusebox/leases/operator-fusebox?";
    assert!(server.asked[3].starts_with(&format!("PUT {path}")), "{:?}", server.asked);
}

#[tokio::test]
async fn who_was_slower_writes_nothing() {
    let (server, lease) = server().await;
    lease.write(&record("a"), None).await.unwrap();
    assert_eq!(lease.write(&record("b"), None).await, Err(WriteError::Conflict), "it is there already");
    let (_, at) = lease.read().await.unwrap().unwrap();
    lease.write(&record("a"), Some(&at)).await.unwrap();
    assert_eq!(lease.write(&record("b"), Some(&at)).await, Err(WriteError::Conflict), "it moved");
    assert_eq!(lease.read().await.unwrap().unwrap().0.holder, "a");
    server.lock().await.lease = None;
    assert_eq!(lease.write(&record("b"), Some(&at)).await, Err(WriteError::Conflict), "it is gone");
}

#[tokio::test]
async fn what_others_wrote_beside_it_stays() {
    let (server, lease) = server().await;
    lease.write(&record("a"), None).await.unwrap();
    server.lock().await.lease.as_mut().unwrap()["metadata"]["labels"] = json!({ "team": "platform" });
    let (_, at) = lease.read().await.unwrap().unwrap();
    lease.write(&record("b"), Some(&at)).await.unwrap();
    assert_eq!(server.lock().await.lease.as_ref().unwrap()["metadata"]["labels"]["team"], "platform");
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let (server, lease) = server().await;
    server.lock().await.forbidden = true;
    assert!(lease.read().await.unwrap_err().0.contains("Role for Leases"));
    let told = lease.write(&record("a"), None).await.unwrap_err().to_string();
    assert!(told.contains("Role for Leases"), "{told}");
}

#[test]
fn an_empty_lease_is_held_by_nobody() {
    assert_eq!(of(&Lease::default()), Record::default());
}
