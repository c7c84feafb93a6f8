//! Which requests of the operator's change something, and what to call them.

use http::Method;
use prost::Message;

use crate::wires::Server;

/// etcd's transaction, as far as it says what is written.
#[derive(Clone, PartialEq, Message)]
struct Txn {
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
        [vec![0; FRAME], Txn { success, failure }.encode_to_vec()].concat()
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
}
