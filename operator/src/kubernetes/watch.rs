//! The watches: each keeps a cache, and wakes the resources that a change concerns.
//!
//! An edit or the end of any resource also wakes those that lost a claim: it may have fallen free.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

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

/// Resources wake when their spec, their finalizers or annotations change, when their deletion begins or ends;
/// never for their status, which we write ourselves.
fn resources(
    client: &Client,
) -> (Store<Guarded>, impl Stream<Item = Result<Guarded, watcher::Error>> + Send + use<>) {
    let (reader, writer) = reflector::store();
    let mut news = News::default();
    let events = watcher(Api::<Guarded>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .filter_map(move |event| std::future::ready(event.map(|event| news.of(event)).transpose()));
    (reader, events)
}

/// Tells what concerns us from what does not. kube's own `predicate_filter` holds back the end of a deletion:
/// the last event shows the object as it was before its finalizer went, so nothing in it is new.
#[derive(Default)]
struct News(HashMap<ObjectRef<Guarded>, u64>);

impl News {
    fn of(&mut self, event: watcher::Event<Guarded>) -> Option<Guarded> {
        match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                let hash = wakes().hash_property(&object).unwrap_or_default();
                let before = self.0.insert(ObjectRef::from_obj(&object), hash);
                (before != Some(hash)).then_some(object)
            }
            watcher::Event::Delete(object) => {
                self.0.remove(&ObjectRef::from_obj(&object));
                Some(object)
            }
            watcher::Event::Init | watcher::Event::InitDone => None,
        }
    }
}

fn wakes() -> impl Predicate<Guarded> {
    let uid = |object: &Guarded| object.meta().uid.as_ref().map(hash);
    let deletion = |object: &Guarded| object.meta().deletion_timestamp.as_ref().map(|_| 1);
    predicates::generation
        .combine(predicates::finalizers)
        .combine(predicates::annotations)
        .combine(deletion)
        .combine(uid)
}

fn hash(text: &String) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
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
            Err(error) => {
                tracing::warn!(
                    "the watch of {kind} is interrupted and starts again by itself: {}",
                    why(kind, &error)
                );
            }
        }
    }
}

/// The error without its debugging text, and what to do about the one that a person can mend.
fn why(kind: &str, error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        error => return error.to_string(),
    };
    let fix = match status.code {
        404 if kind == "ResilientService" => {
            ": install the CRD (the chart does, unless crds.enabled is false)"
        }
        403 => ": the operator's ClusterRole is missing or incomplete",
        _ => "",
    };
    format!("the Kubernetes API answered {}: {}{fix}", status.code, status.message)
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
            "{ name: a, generation: 1, uid: another }",
        ] {
            assert_ne!(base, seen(metadata), "{metadata}");
        }
    }

    #[test]
    fn the_end_of_a_deletion_is_news_though_nothing_in_the_object_is() {
        let mut news = News::default();
        let dying =
            object("{ name: a, generation: 1, finalizers: [x], deletionTimestamp: '2026-11-24T21:00:00Z' }");
        assert!(news.of(watcher::Event::Apply(dying.clone())).is_some());
        assert!(news.of(watcher::Event::Apply(dying.clone())).is_none());
        assert!(news.of(watcher::Event::Delete(dying.clone())).is_some());
        assert!(news.of(watcher::Event::InitApply(dying)).is_some(), "a new one of this name");
    }

    #[test]
    fn an_undecodable_resource_is_an_object_all_the_same() {
        let bad: Guarded =
            serde_saphyr::from_str("{ metadata: { name: bad, generation: 1 }, spec: { service: 5 } }")
                .unwrap();
        assert!(bad.0.is_err() && wakes().hash_property(&bad).is_some());
    }
}
