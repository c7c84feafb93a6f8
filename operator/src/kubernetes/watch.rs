//! The watches: each keeps a cache, and wakes the resources that a change concerns.
//!
//! # Caveats
//! - A claim that falls free wakes the losers of conflicts at once when the holder is edited, else the resync
//!   finds it.

use std::fmt::Debug;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::predicates;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::{Predicate, WatchStreamExt};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Guarded, SERVICE_LABEL, Stores};
use crate::reconcile::status::lost_a_claim;

/// Which resource to reconcile. Unbounded: the controller always reads it, and keeps each object once.
pub type Wake = mpsc::UnboundedSender<ObjectRef<Guarded>>;

/// Starts them; they run as long as the process.
pub fn start(client: &Client, wake: &Wake) -> Stores {
    let (services, service_events) = cache::<Service>(client, watcher::Config::default());
    let (slices, slice_events) =
        cache::<EndpointSlice>(client, watcher::Config::default().labels(SERVICE_LABEL));
    let (resources, resource_events) = resources(client);
    let stores = Stores { resources: resources.clone(), services, slices };

    let (to, all) = (wake.clone(), resources.clone());
    tokio::spawn(each("ResilientService", resource_events, move |resource| {
        let _ = to.send(ObjectRef::from_obj(&resource));
        for loser in all.state_filter(|other| other.0.as_ref().is_ok_and(lost_a_claim)) {
            let _ = to.send(ObjectRef::from_obj(&*loser));
        }
    }));
    let (to, all) = (wake.clone(), resources.clone());
    tokio::spawn(each("Service", service_events, move |service| {
        wake_users(&to, &all, service.namespace().as_deref(), &service.name_any());
    }));
    let (to, all) = (wake.clone(), resources);
    tokio::spawn(each("EndpointSlice", slice_events, move |slice| {
        if let Some(service) = slice.labels().get(SERVICE_LABEL) {
            wake_users(&to, &all, slice.namespace().as_deref(), service);
        }
    }));
    stores
}

/// Wakes every resource.
pub fn wake_all(wake: &Wake, resources: &Store<Guarded>) {
    for resource in resources.state() {
        let _ = wake.send(ObjectRef::from_obj(&*resource));
    }
}

fn wake_users(wake: &Wake, resources: &Store<Guarded>, namespace: Option<&str>, service: &str) {
    let uses = |resource: &Guarded| {
        resource.meta().namespace.as_deref() == namespace
            && resource.0.as_ref().is_ok_and(|resource| resource.spec.service.name == service)
    };
    for user in resources.state_filter(uses) {
        let _ = wake.send(ObjectRef::from_obj(&*user));
    }
}

/// Resources wake when their spec, their finalizers or annotations change, or their deletion begins; never
/// for their status, which we write ourselves.
fn resources(
    client: &Client,
) -> (Store<Guarded>, impl Stream<Item = Result<Guarded, watcher::Error>> + Send + use<>) {
    let (reader, writer) = reflector::store();
    let events = watcher(Api::<Guarded>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .predicate_filter(wakes(), kube::runtime::utils::PredicateConfig::default());
    (reader, events)
}

fn wakes() -> impl Predicate<Guarded> + Send + 'static {
    let deletion = |object: &Guarded| object.meta().deletion_timestamp.as_ref().map(|_| 1);
    predicates::generation.combine(predicates::finalizers).combine(predicates::annotations).combine(deletion)
}

fn cache<K>(
    client: &Client,
    config: watcher::Config,
) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let events = watcher(Api::<K>::all(client.clone()), config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects();
    (reader, events)
}

async fn each<K>(
    kind: &'static str,
    events: impl Stream<Item = Result<K, watcher::Error>>,
    mut act: impl FnMut(K),
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(object) => act(object),
            Err(error) => tracing::warn!(kind, %error, "a watch is interrupted; it starts again by itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(metadata: &str) -> Guarded {
        serde_saphyr::from_str(&format!(
            "
apiVersion: fusebox.dev/v1alpha1
kind: ResilientService
metadata: {metadata}
spec: {{ service: {{ name: user }} }}
"
        ))
        .unwrap()
    }

    #[test]
    fn everything_but_a_status_wakes() {
        let wakes = wakes();
        let seen = |metadata: &str| wakes.hash_property(&object(metadata));
        let base = seen("{ name: a, generation: 1, resourceVersion: '1' }");
        assert_eq!(base, seen("{ name: a, generation: 1, resourceVersion: '2' }"), "a status does not");
        for metadata in [
            "{ name: a, generation: 2 }",
            "{ name: a, generation: 1, finalizers: [x] }",
            "{ name: a, generation: 1, annotations: { fusebox.dev/abandon-cleanup: 'true' } }",
            "{ name: a, generation: 1, deletionTimestamp: '2026-11-24T21:00:00Z' }",
        ] {
            assert_ne!(base, seen(metadata), "{metadata}");
        }
    }

    #[test]
    fn an_undecodable_resource_is_an_object_all_the_same() {
        let bad: Guarded =
            serde_saphyr::from_str("{ metadata: { name: bad, generation: 1 }, spec: { service: 5 } }")
                .unwrap();
        assert!(bad.0.is_err() && wakes().hash_property(&bad).is_some());
    }
}
