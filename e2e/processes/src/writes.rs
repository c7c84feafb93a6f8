//! Which requests of the operator's change something, what to call them, and what became of them.

use http::{Method, StatusCode};
use prost::Message;
use serde_json::Value;

use crate::wires::{Outcome, Server};

/// etcd's transaction, as far as it says what is compared and written.
#[derive(Clone, PartialEq, Message)]
struct Txn {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<Compared>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<Op>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<Op>,
}

/// One operation of it; a read has neither.
#[derive(Clone, PartialEq, Message)]
struct Op {
    #[prost(message, tag = "2")]
    put: Option<Keyed>,
    #[prost(message, tag = "3")]
    delete: Option<Keyed>,
}

/// Of a put and a deletion, the key.
#[derive(Clone, PartialEq, Message)]
struct Keyed {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// A comparison; none with a revision is one of something else.
#[derive(Clone, PartialEq, Message)]
struct Compared {
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(int64, optional, tag = "6")]
    at: Option<i64>,
}

/// What became of a transaction, and what it read.
#[derive(Clone, PartialEq, Message)]
struct Done {
    #[prost(bool, tag = "2")]
    succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    answers: Vec<Answered>,
}

#[derive(Clone, PartialEq, Message)]
struct Answered {
    #[prost(message, tag = "1")]
    range: Option<Range>,
}

#[derive(Clone, PartialEq, Message)]
struct Range {
    #[prost(message, repeated, tag = "2")]
    found: Vec<Found>,
}

#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(int64, tag = "3")]
    at: i64,
}

/// gRPC's frame before a message: a flag and a length.
const FRAME: usize = 5;

/// May this request be a write? Then its body is short and can be read whole.
pub fn may_be_write(server: Server, method: &Method, path: &str) -> bool {
    match server {
        Server::Etcd => path.starts_with("/etcdserverpb.KV/") && path != "/etcdserverpb.KV/Range",
        Server::Kubernetes | Server::Consul => !matches!(*method, Method::GET | Method::HEAD),
    }
}

/// What it writes, for a person; None if it changes nothing, or nothing that is the operator's work: Leases, Events, the
/// renewals of sessions.
pub fn write(server: Server, method: &Method, path: &str, body: &[u8]) -> Option<String> {
    if !may_be_write(server, method, path) {
        return None;
    }
    match server {
        Server::Kubernetes => {
            let kind = kind(path);
            (!matches!(kind.as_str(), "leases" | "events")).then(|| format!("{method} {kind}"))
        }
        Server::Consul if path.starts_with("/v1/session/renew/") => None,
        Server::Consul => {
            let endpoint: Vec<&str> = path.split('/').skip(2).take(2).collect();
            Some(format!("{method} {}", endpoint.join("/")))
        }
        Server::Etcd => {
            let txn = Txn::decode(body.get(FRAME..)?).ok()?;
            let ops = || txn.success.iter().chain(&txn.failure);
            let keys = ops().flat_map(|op| op.put.iter().chain(&op.delete));
            // The part of ours that says what it is: /fusebox/v1/<cluster>/<part>/…
            let parts = keys.map(|keyed| {
                let key = String::from_utf8_lossy(&keyed.key);
                key.strip_prefix("/fusebox/v1/")
                    .and_then(|rest| rest.split('/').nth(1))
                    .map_or_else(|| "key".to_owned(), str::to_owned)
            });
            let deletes = ops().any(|op| op.delete.is_some());
            let parts: std::collections::BTreeSet<String> = parts.collect();
            let parts: Vec<String> = parts.into_iter().collect();
            let verb = if deletes { "delete" } else { "put" };
            (!parts.is_empty()).then(|| format!("{verb} {}", parts.join("+")))
        }
    }
}

/// Is the epoch compared with it by the server itself? Those of the dead man and of Kubernetes are not.
pub fn is_fenced(server: Server, what: &str) -> bool {
    match server {
        Server::Etcd => true,
        Server::Consul => what == "PUT txn" || what.starts_with("PUT kv/"),
        Server::Kubernetes => false,
    }
}

/// What became of a write, by its answer.
pub fn outcome(server: Server, request: &[u8], status: StatusCode, answer: &[u8]) -> Outcome {
    match server {
        Server::Etcd => of_txn(request, answer).unwrap_or(Outcome::Refused),
        // Only the epoch is swapped.
        Server::Consul if answer.trim_ascii() == b"false" => Outcome::Fenced,
        // The first operation is the fence.
        Server::Consul if status == StatusCode::CONFLICT => {
            let said: Value = serde_json::from_slice(answer).unwrap_or_default();
            let mut errors = said["Errors"].as_array().into_iter().flatten();
            if errors.any(|error| error["OpIndex"] == 0) { Outcome::Fenced } else { Outcome::Refused }
        }
        _ if status.is_success() => Outcome::Done,
        _ => Outcome::Refused,
    }
}

/// None: what etcd answers is no message but an error.
fn of_txn(request: &[u8], answer: &[u8]) -> Option<Outcome> {
    let txn = Txn::decode(request.get(FRAME..)?).ok()?;
    let done = Done::decode(answer.get(FRAME..)?).ok()?;
    if done.succeeded {
        return Some(Outcome::Done);
    }
    let is_epoch = |key: &[u8]| key.starts_with(b"/fusebox/v1/") && key.ends_with(b"/epoch");
    let compared = txn.compare.iter().find(|compared| is_epoch(&compared.key)).and_then(|epoch| epoch.at);
    let mut found =
        done.answers.iter().filter_map(|answer| answer.range.as_ref()).flat_map(|range| &range.found);
    let found = found.find(|found| is_epoch(&found.key)).map(|epoch| epoch.at);
    // Whoever compares nothing else does not ask why.
    let only = txn.compare.iter().all(|compared| is_epoch(&compared.key));
    let moved = compared.is_some() && (only || found != compared);
    Some(if moved { Outcome::Fenced } else { Outcome::Refused })
}

/// The resource in a path of the Kubernetes API, its subresource included.
fn kind(path: &str) -> String {
    let mut segments = path.trim_matches('/').split('/');
    // /api/v1/… or /apis/<group>/<version>/…
    let skipped = usize::from(segments.next() != Some("api"));
    let rest: Vec<&str> = segments.skip(skipped + 1).collect();
    let rest = match rest.as_slice() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    match rest {
        [kind, _, sub, ..] => format!("{kind}/{sub}"),
        [kind, ..] => (*kind).to_owned(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(success: Vec<Op>, failure: Vec<Op>) -> Vec<u8> {
        [vec![0; FRAME], Txn { compare: vec![], success, failure }.encode_to_vec()].concat()
    }

    fn op(put: Option<&str>, delete: Option<&str>) -> Op {
        let keyed = |key: &str| Keyed { key: key.into() };
        Op { put: put.map(keyed), delete: delete.map(keyed) }
    }

    #[test]
    fn what_changes_something_is_a_write() {
        use Server::{Consul, Etcd, Kubernetes};
        let (get, put, post, patch) = (Method::GET, Method::PUT, Method::POST, Method::PATCH);
        let reads = txn(vec![op(None, None)], vec![]);
        let policy = op(Some("/fusebox/v1/demo/policy/shop/user"), None);
        let raw = op(Some("service.user.timeout"), None);
        let gone = op(None, Some("/fusebox/v1/demo/config/shop/user"));
        for (server, method, path, body, is) in [
            (Kubernetes, &get, "/api/v1/services", vec![], None),
            (
                Kubernetes,
                &patch,
                "/apis/fusebox.dev/v1alpha1/namespaces/shop/resilientservices/user/status",
                vec![],
                Some("PATCH resilientservices/status"),
            ),
            (
                Kubernetes,
                &patch,
                "/apis/traefik.io/v1alpha1/namespaces/shop/ingressroutes/user",
                vec![],
                Some("PATCH ingressroutes"),
            ),
            (Kubernetes, &put, "/apis/coordination.k8s.io/v1/namespaces/fusebox/leases/x", vec![], None),
            (Kubernetes, &post, "/apis/events.k8s.io/v1/namespaces/shop/events", vec![], None),
            (Consul, &get, "/v1/catalog/nodes", vec![], None),
            (Consul, &put, "/v1/txn", vec![], Some("PUT txn")),
            (Consul, &put, "/v1/kv/fusebox/demo/epoch", vec![], Some("PUT kv/fusebox")),
            (Consul, &put, "/v1/session/renew/x", vec![], None),
            (Consul, &put, "/v1/session/create", vec![], Some("PUT session/create")),
            (Etcd, &post, "/etcdserverpb.KV/Txn", reads, None),
            (Etcd, &post, "/etcdserverpb.KV/Range", vec![], None),
            (Etcd, &post, "/etcdserverpb.Watch/Watch", vec![], None),
            (
                Etcd,
                &post,
                "/etcdserverpb.KV/Txn",
                txn(vec![policy.clone(), raw], vec![]),
                Some("put key+policy"),
            ),
            (Etcd, &post, "/etcdserverpb.KV/Txn", txn(vec![gone], vec![]), Some("delete config")),
            (Etcd, &post, "/etcdserverpb.KV/Txn", txn(vec![], vec![policy]), Some("put policy")),
        ] {
            assert_eq!(write(server, method, path, &body).as_deref(), is, "{method} {path}");
        }
    }

    #[test]
    fn the_fence_is_told_from_other_refusals() {
        use Outcome::{Done as Carried, Fenced, Refused};
        use Server::{Consul, Etcd, Kubernetes};
        let framed = |message: Vec<u8>| [vec![0; FRAME], message].concat();
        let epoch = || b"/fusebox/v1/demo/epoch".to_vec();
        let at = |at| Compared { key: epoch(), at: Some(at) };
        let guard = || Compared { key: b"service.user".to_vec(), at: None };
        let asks = |compare| framed(Txn { compare, ..Txn::default() }.encode_to_vec());
        let told = |succeeded, at: Option<i64>| {
            let found = at.map(|at| Found { key: epoch(), at }).into_iter().collect();
            let answers = vec![Answered { range: Some(Range { found }) }];
            framed(Done { succeeded, answers }.encode_to_vec())
        };
        let (ok, conflict, error) = (StatusCode::OK, StatusCode::CONFLICT, StatusCode::INTERNAL_SERVER_ERROR);
        let failed =
            |op: usize| format!(r#"{{"Results":null,"Errors":[{{"OpIndex":{op},"What":"no"}}]}}"#).into();
        for (server, request, status, answer, is) in [
            (Etcd, asks(vec![at(7), guard()]), ok, told(true, None), Carried),
            (Etcd, asks(vec![at(7), guard()]), ok, told(false, Some(8)), Fenced),
            (Etcd, asks(vec![at(7), guard()]), ok, told(false, None), Fenced),
            (Etcd, asks(vec![at(7), guard()]), ok, told(false, Some(7)), Refused),
            (Etcd, asks(vec![at(7)]), ok, told(false, None), Fenced),
            (Etcd, asks(vec![guard()]), ok, told(false, Some(8)), Refused),
            (Etcd, asks(vec![at(7)]), ok, vec![], Refused),
            (Consul, vec![], ok, b"true\n".to_vec(), Carried),
            (Consul, vec![], ok, b"false\n".to_vec(), Fenced),
            (Consul, vec![], ok, b"{}".to_vec(), Carried),
            (Consul, vec![], conflict, failed(0), Fenced),
            (Consul, vec![], conflict, failed(1), Refused),
            (Consul, vec![], error, b"No cluster leader".to_vec(), Refused),
            (Kubernetes, vec![], StatusCode::CREATED, b"{}".to_vec(), Carried),
            (Kubernetes, vec![], conflict, b"{}".to_vec(), Refused),
        ] {
            assert_eq!(outcome(server, &request, status, &answer), is, "{server:?} {status} {answer:?}");
        }
        for (server, what, fenced) in [
            (Etcd, "put policy", true),
            (Consul, "PUT txn", true),
            (Consul, "PUT kv/fusebox", true),
            (Consul, "PUT session/create", false),
            (Consul, "PUT catalog/register", false),
            (Kubernetes, "PATCH ingressroutes", false),
        ] {
            assert_eq!(is_fenced(server, what), fenced, "{what}");
        }
    }
}
