//! Against a server on this machine that says what the API server says.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::routes::Kept;
use super::traefik::Traefik;
use super::*;
use crate::ports::{Owner, Route, RouteStore};

/// Method, path and query, body.
type Seen = (String, String, Value);

#[derive(Default)]
struct Fake {
    seen: Mutex<Vec<Seen>>,
    answers: Mutex<Vec<(u16, Value)>>,
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or(Value::Null);
    fake.seen.lock().await.push((head.method.to_string(), head.uri.to_string(), body));
    let (status, answer) = fake.answers.lock().await.remove(0);
    (http::StatusCode::from_u16(status).unwrap(), axum::Json(answer)).into_response()
}

async fn fake(answers: &[(u16, Value)]) -> (Arc<Fake>, Client) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fake = Arc::new(Fake::default());
    *fake.answers.lock().await = answers.to_vec();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let app = axum::Router::new().fallback(answer).with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (fake, Client::try_from(kube::Config::new(uri)).unwrap())
}

fn stores() -> (Stores, Writer<Guarded>, Writer<Service>, Writer<EndpointSlice>) {
    let (resources, of_resources) = reflector::store();
    let (services, of_services) = reflector::store();
    let (slices, of_slices) = reflector::store();
    (Stores::new(resources, services, slices), of_resources, of_services, of_slices)
}

#[tokio::test]
async fn one_that_cannot_be_decoded_keeps_what_it_holds() {
    let (_fake, client) = fake(&[]).await;
    let (stores, mut resources, _services, _slices) = stores();
    let bad = "{ metadata: { name: bad, namespace: shop, uid: bad }, spec: { service: 5 }, status: { claims: \
               [consul/user] } }";
    for event in [Event::Init, Event::InitApply(serde_saphyr::from_str(bad).unwrap()), Event::InitDone] {
        stores.by.see(&event);
        resources.apply_watcher_event(&event);
    }
    let cluster = Cluster::new(client, stores, "test");
    let young = "{ metadata: { name: user, namespace: other, uid: user }, spec: { service: { name: user }, consul: {} } }";
    let young: ResilientService = serde_saphyr::from_str(young).unwrap();
    let found = cluster.claimants("other", &claims::asked(&young), &BTreeSet::new());
    let lost = claims::lost(&young, found.iter().map(Arc::as_ref), &BTreeSet::new());
    let name = Claim::ConsulName("user".into());
    assert_eq!(lost, [claims::Lost { claim: name, by: "bad".into(), holder: None, held: true }]);
}

#[tokio::test]
async fn the_first_lists_are_there_when_each_kind_is_listed_to_its_end() {
    type Turn = fn(&mut Writer<Guarded>, &mut Writer<Service>, &mut Writer<EndpointSlice>);
    let done: [Turn; 3] = [
        |resources, _, _| resources.apply_watcher_event(&Event::InitDone),
        |_, services, _| services.apply_watcher_event(&Event::InitDone),
        |_, _, slices| slices.apply_watcher_event(&Event::InitDone),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let (stores, mut resources, mut services, mut slices) = stores();
        let mut waiting: BoxFuture<'_, _> = Box::pin(stores.first_lists());
        resources.apply_watcher_event(&Event::Init);
        services.apply_watcher_event(&Event::Init);
        slices.apply_watcher_event(&Event::Init);
        let half = serde_saphyr::from_str(
            "{ metadata: { name: s, namespace: n }, addressType: IPv4, endpoints: [] }",
        );
        slices.apply_watcher_event(&Event::InitApply(half.unwrap()));
        for turn in order {
            assert!(waiting.as_mut().now_or_never().is_none(), "before {turn} of {order:?}");
            done[turn](&mut resources, &mut services, &mut slices);
        }
        assert!(waiting.await.is_ok());
        assert_eq!(stores.slices.len(), 1);
    }
    let (stores, resources, ..) = stores();
    drop(resources);
    assert!(stores.first_lists().await.is_err(), "a watch that ended is no empty list");
}

#[tokio::test]
async fn the_fresh_list_is_of_a_quorum_and_has_every_page() {
    let page = |name: &str, token: &str| {
        let item = json!({ "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") } });
        let list = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
            "metadata": { "continue": token, "resourceVersion": "7" }, "items": [item] });
        (200, list)
    };
    let denied =
        json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": "Expired", "code": 410 });
    let (fake, client) = fake(&[page("a", "next"), page("b", ""), page("a", "next"), (410, denied)]).await;
    let cluster = Cluster::new(client, stores().0, "test");
    let named = |name: &str| (Ident::new("shop", name), format!("uid-{name}"));
    assert_eq!(cluster.fresh().await, Ok([named("a"), named("b")].into()));
    assert!(cluster.fresh().await.is_err(), "half a list is none");
    let seen = fake.seen.lock().await;
    for (_, uri, _) in seen.iter() {
        assert!(uri.starts_with("/apis/fusebox.dev/v1alpha1/resilientservices?"), "{uri}");
        assert!(!uri.contains("resourceVersion"), "a cache may answer to that: {uri}");
    }
    assert!(seen[1].1.contains("continue=next"));
}

#[tokio::test]
async fn a_route_goes_with_its_owner() {
    let missing = json!({ "kind": "Status", "status": "Failure", "message": "not found", "reason": "NotFound",
        "details": { "name": "fusebox-user-plain" }, "code": 404 });
    let there = json!({ "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
        "metadata": { "name": "fusebox-user-plain", "namespace": "shop" } });
    let (fake, client) = fake(&[(404, missing), (200, there)]).await;
    let owner = Owner { ident: Ident::new("shop", "user"), uid: "uid-user".into() };
    let route = Route { name: "fusebox-user-plain".into(), spec: json!({ "routes": [] }) };
    Traefik::new(client, Kept::default()).apply(&owner, &route).await.unwrap();
    let seen = fake.seen.lock().await;
    let written = &seen[1].2["metadata"];
    // Kubernetes collects an object whose owner, of the same namespace and by UID, is gone.
    let reference = json!([{ "apiVersion": "fusebox.dev/v1alpha1", "kind": "ResilientService", "name": "user",
        "uid": "uid-user", "controller": true }]);
    assert_eq!((&written["ownerReferences"], seen[1].0.as_str()), (&reference, "PATCH"));
    assert_eq!(written["labels"][super::traefik::MANAGED_BY], MANAGER, "what is watched");
    assert!(
        seen[1].1.starts_with("/apis/traefik.io/v1alpha1/namespaces/shop/ingressroutes/fusebox-user-plain?")
    );
}
