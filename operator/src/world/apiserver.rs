//! What the API server gives to those who list and watch: objects, their history and how far back it goes, pages,
//! bookmarks. In the process, so that a test's clock may be paused.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A kind, as its path names it, and an object's namespace and name.
type Key = (String, String, String);

/// The server.
#[derive(Clone, Debug)]
pub struct ApiServer {
    state: Arc<Mutex<Kept>>,
    /// Are lists answered?
    lists: watch::Sender<bool>,
}

/// Somebody who watches a kind.
#[derive(Debug)]
struct Watcher {
    kind: String,
    /// Do they take bookmarks?
    bookmarks: bool,
    to: mpsc::UnboundedSender<String>,
}

#[derive(Debug, Default)]
struct Kept {
    revision: u64,
    /// What there was before is forgotten.
    floor: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<(u64, Key, Value)>,
    watchers: Vec<Watcher>,
    /// Of lists that have further pages.
    snapshots: BTreeMap<String, (u64, Vec<Value>)>,
    page: Option<usize>,
    /// So many lists expire after their first page.
    expiring: usize,
    failures: VecDeque<u16>,
    asked: Vec<String>,
}

impl Default for ApiServer {
    fn default() -> Self {
        Self { state: Arc::default(), lists: watch::Sender::new(true) }
    }
}

impl ApiServer {
    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(axum::Router::new().fallback(serve).with_state(self.clone()), "default")
    }

    fn kept<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.state.try_lock().unwrap())
    }

    /// Creates an object or changes it.
    pub fn apply(&self, kind: &str, mut object: Value) {
        self.kept(|kept| {
            let at = key(kind, &object);
            let what = if kept.objects.contains_key(&at) { "MODIFIED" } else { "ADDED" };
            kept.revision += 1;
            object["metadata"]["resourceVersion"] = kept.revision.to_string().into();
            kept.objects.insert(at.clone(), object.clone());
            kept.happened(at, json!({ "type": what, "object": object }));
        });
    }

    /// Deletes it, if it is there.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.kept(|kept| {
            let at = (kind.to_owned(), namespace.to_owned(), name.to_owned());
            let Some(mut object) = kept.objects.remove(&at) else { return };
            kept.revision += 1;
            object["metadata"]["resourceVersion"] = kept.revision.to_string().into();
            kept.happened(at, json!({ "type": "DELETED", "object": object }));
        });
    }

    /// Says the last thing that happened once more to those who watch.
    pub fn repeat(&self) {
        self.kept(|kept| {
            if let Some((_, (kind, ..), event)) = kept.history.last().cloned() {
                kept.tell(&kind, &event);
            }
        });
    }

    /// Tells those who watch `kind` how far they are.
    pub fn bookmark(&self, kind: &str) {
        self.kept(|kept| {
            let metadata = json!({ "resourceVersion": kept.revision.to_string() });
            let object = json!({ "apiVersion": "v1", "kind": "Any", "metadata": metadata });
            let bookmark = json!({ "type": "BOOKMARK", "object": object });
            for watcher in kept.watchers.iter().filter(|of| of.kind == kind && of.bookmarks) {
                let _ = watcher.to.send(line(&bookmark));
            }
        });
    }

    /// Ends every watch of `kind`, without a word.
    pub fn cut(&self, kind: &str) {
        self.kept(|kept| kept.watchers.retain(|watcher| watcher.kind != kind));
    }

    /// Forgets what happened so far: it can be listed, not watched.
    pub fn compact(&self) {
        self.kept(|kept| {
            kept.floor = kept.revision;
            kept.history.clear();
        });
    }

    /// Lists are answered from now on, or are waited for.
    pub fn answer_lists(&self, answer: bool) {
        self.lists.send_replace(answer);
    }

    /// Lists come in pages of this size, whatever is asked for.
    pub fn pages_of(&self, size: usize) {
        self.kept(|kept| kept.page = Some(size));
    }

    /// The next requests fail so.
    pub fn fail(&self, codes: &[u16]) {
        self.kept(|kept| kept.failures.extend(codes));
    }

    /// The next so many lists expire before their second page is asked for.
    pub fn expire_pages(&self, times: usize) {
        self.kept(|kept| kept.expiring = times);
    }

    /// The paths and queries of all requests since the last look.
    pub fn asked(&self) -> Vec<String> {
        self.kept(|kept| std::mem::take(&mut kept.asked))
    }

    /// The objects of a kind.
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        self.kept(|kept| kept.of(kind))
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.kept(|kept| {
            kept.watchers.retain(|watcher| !watcher.to.is_closed());
            kept.watchers.len()
        })
    }

    fn list(&self, kind: &str, query: &BTreeMap<String, String>) -> Response {
        self.kept(|kept| {
            let token = query.get("continue").filter(|token| !token.is_empty());
            let (at, items, from) = match token.and_then(|token| token.split_once('/')) {
                Some((snapshot, from)) => match kept.snapshots.get(snapshot) {
                    Some((at, items)) if *at >= kept.floor && kept.expiring == 0 => {
                        (*at, items.clone(), from.parse().unwrap())
                    }
                    _ => {
                        kept.expiring = kept.expiring.saturating_sub(1);
                        return refused(410);
                    }
                },
                None => (kept.revision, kept.of(kind), 0),
            };
            let to = kept.page.map_or(items.len(), |page| items.len().min(from + page));
            let mut metadata = json!({ "resourceVersion": at.to_string() });
            if to < items.len() {
                let snapshot = format!("{kind}-{at}");
                metadata["continue"] = format!("{snapshot}/{to}").into();
                kept.snapshots.insert(snapshot, (at, items.clone()));
            }
            axum::Json(
                json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items[from..to] }),
            )
            .into_response()
        })
    }

    fn watch(&self, kind: &str, query: &BTreeMap<String, String>) -> Response {
        let since: u64 = query.get("resourceVersion").and_then(|at| at.parse().ok()).unwrap_or_default();
        let (to, lines) = mpsc::unbounded_channel();
        self.kept(|kept| {
            if since < kept.floor {
                // As the real one: the answer begins well, and then tells.
                let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "too old resource version", "reason": "Expired", "code": 410 });
                let _ = to.send(line(&json!({ "type": "ERROR", "object": status })));
                return;
            }
            for (_, _, event) in kept.history.iter().filter(|(at, (of, ..), _)| *at > since && of == kind) {
                let _ = to.send(line(event));
            }
            let bookmarks = query.get("allowWatchBookmarks").is_some_and(|allow| allow == "true");
            kept.watchers.push(Watcher { kind: kind.to_owned(), bookmarks, to });
        });
        Body::from_stream(UnboundedReceiverStream::new(lines).map(Ok::<_, Infallible>)).into_response()
    }
}

impl Kept {
    fn of(&self, kind: &str) -> Vec<Value> {
        self.objects.iter().filter(|((of, ..), _)| of == kind).map(|(_, object)| object.clone()).collect()
    }

    fn happened(&mut self, at: Key, event: Value) {
        self.tell(&at.0, &event);
        self.history.push((self.revision, at, event));
    }

    fn tell(&mut self, kind: &str, event: &Value) {
        self.watchers.retain(|of| of.kind != kind || of.to.send(line(event)).is_ok());
    }
}

fn key(kind: &str, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (kind.to_owned(), text("namespace"), text("name"))
}

fn line(event: &Value) -> String {
    format!("{event}\n")
}

fn refused(code: u16) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused by the test", "reason": if code == 410 { "Expired" } else { "InternalError" },
        "code": code });
    (StatusCode::from_u16(code).unwrap(), axum::Json(status)).into_response()
}

async fn serve(
    State(server): State<ApiServer>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let kind = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let failure = server.kept(|kept| {
        kept.asked.push(request.uri().to_string());
        kept.failures.pop_front()
    });
    if let Some(code) = failure {
        return refused(code);
    }
    if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
        return server.watch(&kind, &query);
    }
    let _ = server.lists.subscribe().wait_for(|answered| *answered).await;
    server.list(&kind, &query)
}
