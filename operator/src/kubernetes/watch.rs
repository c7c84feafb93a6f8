//! The watches: each keeps a cache, and wakes the resources that a change concerns.
//!
//! # Guarantees
//! - Whoever is woken finds in the caches what woke it. A list is told of at its end: the caches have nothing
//!   of it before.
//! - An edit or the end of a resource also wakes those that share a claim with it, as it was or as it is: the
//!   claim may have fallen free, or may be lost.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use kube::core::Status;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::labels::Labels;
use super::news::{Change, News};
use super::spare::spare;
use super::{Guarded, SERVICE_LABEL, Stores};
use crate::claims::{self, Claim};
use crate::pace::paced;

/// The least time between two looks at a resource's instances: the first change is looked at at once.
const FLAPS: Duration = Duration::from_millis(100);

/// Which resource to reconcile. Unbounded: the controller always reads it, and keeps each object once.
pub type Wake = mpsc::UnboundedSender<ObjectRef<Guarded>>;

/// Starts them; they run as long as the process.
pub fn start(client: &Client, wake: &Wake) -> Stores {
    let (resources, of_resources) = reflector::store();
    let (services, of_services) = reflector::store();
    let (slices, of_slices) = reflector::store();
    let stores = Stores::new(resources, services, slices);
    let (by, slices_of) = (stores.by.clone(), stores.slices_of.clone());
    let resource_events = cache(client, watcher::Config::default(), of_resources, move |event| by.see(event));
    let service_events = cache(client, watcher::Config::default(), of_services, |_| {});
    let config = watcher::Config::default().labels(SERVICE_LABEL);
    let slice_events = cache(client, config, of_slices, move |event| slices_of.see(event));

    let (to, all, mut news) = (wake.clone(), stores.clone(), News::default());
    tokio::spawn(each("ResilientService", resource_events, move |event| {
        wake_concerned(&to, &all, &news.of(event));
    }));
    let (to, all) = (wake.clone(), stores.clone());
    tokio::spawn(each("Service", service_events, move |event| {
        wake_by(&to, &all, &event, names(&event));
    }));
    // Instances that come and go all the time cost no more than this.
    let (flapping, flaps) = mpsc::unbounded_channel();
    let to = wake.clone();
    tokio::spawn(paced(FLAPS, flaps, move |of| drop(to.send(of))));
    let (all, mut labels) = (stores.clone(), Labels::default());
    tokio::spawn(each("EndpointSlice", slice_events, move |event| {
        wake_by(&flapping, &all, &event, labels.of(&event));
    }));
    stores
}

/// Wakes every resource.
pub fn wake_all(wake: &Wake, resources: &Store<Guarded>) {
    for resource in resources.state() {
        let _ = wake.send(ObjectRef::from_obj(&*resource));
    }
}

/// Wakes those that ask for or hold this name in Consul, in lower case.
pub fn wake_called(wake: &Wake, stores: &Stores, name: String) {
    for of in stores.claimants("", &[Claim::ConsulName(name)]) {
        let _ = wake.send(ObjectRef::from_obj(&*of));
    }
}

/// The Services that an event is about; none where it is a list's.
fn names(event: &watcher::Event<Service>) -> Vec<String> {
    match event {
        watcher::Event::Apply(service) | watcher::Event::Delete(service) => vec![service.name_any()],
        watcher::Event::Init | watcher::Event::InitApply(_) | watcher::Event::InitDone => Vec::new(),
    }
}

/// Wakes those that use one of the `services` that an event is about, or did before an edit that is not applied: what
/// they have registered follows its instances. After a list, all: what it left out is told by nothing else.
fn wake_by<K: ResourceExt>(wake: &Wake, stores: &Stores, event: &watcher::Event<K>, services: Vec<String>) {
    match event {
        watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
            let namespace = object.namespace().unwrap_or_default();
            let claims: Vec<Claim> = services.into_iter().map(Claim::Service).collect();
            for of in stores.claimants(&namespace, &claims) {
                let _ = wake.send(ObjectRef::from_obj(&*of));
            }
        }
        watcher::Event::InitDone => wake_all(wake, &stores.resources),
        watcher::Event::Init | watcher::Event::InitApply(_) => {}
    }
}

/// Wakes those that changed, then those that share a claim with them.
fn wake_concerned(wake: &Wake, stores: &Stores, changes: &[Change]) {
    for of in concerned(changes, |namespace, claims| stores.claimants(namespace, claims)) {
        let _ = wake.send(of);
    }
}

/// Those that changed, and those that share a claim with them; `claimants` finds who may, by a namespace and claims.
pub fn concerned(
    changes: &[Change],
    claimants: impl Fn(&str, &[Claim]) -> Vec<Arc<Guarded>>,
) -> Vec<ObjectRef<Guarded>> {
    let first: HashSet<&ObjectRef<Guarded>> = changes.iter().map(|change| &change.of).collect();
    let mut beside = HashSet::new();
    for form in changes.iter().flat_map(|change| &change.forms) {
        let of = form.holder();
        let others =
            claimants(&of.namespace().unwrap_or_default(), &[claims::asked(of), claims::held(of)].concat());
        let others =
            others.iter().filter(|other| share(form, other)).map(|other| ObjectRef::from_obj(&**other));
        beside.extend(others.filter(|other| !first.contains(other)));
    }
    first.iter().copied().cloned().chain(beside).collect()
}

fn share(one: &Guarded, other: &Guarded) -> bool {
    claims::share(one.holder(), other.holder())
}

/// Keeps a cache, and before it what `see` keeps: whoever finds the cache complete finds that complete too.
fn cache<K, S>(
    client: &Client,
    config: watcher::Config,
    writer: Writer<K>,
    see: S,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K, S>
where
    S: Fn(&watcher::Event<K>) + Send,
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    watcher(Api::<K>::all(client.clone()), config)
        .default_backoff()
        .modify(|object| spare(object.meta_mut()))
        .inspect(move |event| event.iter().for_each(&see))
        .reflect(writer)
}

async fn each<T>(
    kind: &'static str,
    events: impl Stream<Item = Result<T, watcher::Error>>,
    mut act: impl FnMut(T),
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => act(event),
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
pub fn why(kind: &str, error: &watcher::Error) -> String {
    let Some(status) = answer(error) else { return error.to_string() };
    let fix = match status.code {
        404 if kind == "ResilientService" => {
            ": install the CRD (the chart does, unless crds.enabled is false)"
        }
        403 => ": the operator's ClusterRole is missing or incomplete",
        _ => "",
    };
    format!("the Kubernetes API answered {}: {}{fix}", status.code, status.message)
}

/// Was it for want of a right?
pub fn is_refused(error: &watcher::Error) -> bool {
    answer(error).is_some_and(|status| status.code == 403)
}

/// What the API server answered, if it did.
fn answer(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fusebox_policy::v1alpha1::ResilientServiceStatus;

    use kube::runtime::utils::Predicate;

    use super::super::news::wakes;
    use super::*;

    fn holding(mut object: Guarded, claims: &[&str]) -> Guarded {
        let claims = claims.iter().map(|&claim| claim.to_owned()).collect();
        object.0.as_mut().unwrap().status =
            Some(ResilientServiceStatus { claims, ..ResilientServiceStatus::default() });
        object
    }

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
        assert_eq!(news.of(watcher::Event::Apply(dying.clone())).len(), 1);
        assert!(news.of(watcher::Event::Apply(dying.clone())).is_empty());
        assert_eq!(news.of(watcher::Event::Delete(dying.clone())).len(), 1);
        assert_eq!(news.of(watcher::Event::Apply(dying)).len(), 1, "a new one of this name");
    }

    fn named(name: &str, generation: u32, service: &str) -> Guarded {
        let mut object = object(&format!(
            "{{ name: {name}, namespace: shop, uid: {name}, generation: {generation}, \
               creationTimestamp: '2026-11-24T21:00:00Z' }}"
        ));
        service.clone_into(&mut object.0.as_mut().unwrap().spec.service.name);
        object
    }

    /// Who is woken by each of these, in order of name, and the generation the cache has of it then.
    async fn woken(
        events: impl IntoIterator<Item = watcher::Event<Guarded>>,
    ) -> Vec<Vec<(String, Option<i64>)>> {
        let (reader, writer) = reflector::store();
        let stores = Stores::new(reader, reflector::store().0, reflector::store().0);
        let (wake, mut woken) = mpsc::unbounded_channel();
        let (mut news, mut all) = (News::default(), Vec::new());
        let events = futures::stream::iter(events.into_iter().map(Ok)).reflect(writer);
        each("a test", events, |event| {
            stores.by.see(&event);
            wake_concerned(&wake, &stores, &news.of(event));
            let mut now = Vec::new();
            while let Ok(of) = woken.try_recv() {
                now.push((
                    of.name.clone(),
                    stores.resources.get(&of).and_then(|there| there.meta().generation),
                ));
            }
            now.sort();
            all.push(now);
        })
        .await;
        all
    }

    #[tokio::test]
    async fn who_is_woken_by_a_list_finds_it_in_the_cache() {
        use watcher::Event::{Init, InitApply, InitDone};
        let events = [
            Init,
            InitApply(named("a", 1, "a")),
            InitApply(named("gone", 1, "gone")),
            InitDone,
            // The watch was interrupted: b was created, a edited and one removed meanwhile.
            Init,
            InitApply(named("a", 2, "a")),
            InitApply(named("b", 1, "b")),
            InitDone,
            Init,
            InitApply(named("a", 2, "a")),
            InitApply(named("b", 1, "b")),
            InitDone,
        ];
        let mut told = Box::pin(woken(events)).await;
        told.retain(|woken| !woken.is_empty());
        let is = |name: &str, generation| (name.to_owned(), generation);
        assert_eq!(
            told,
            [
                vec![is("a", Some(1)), is("gone", Some(1))],
                vec![is("a", Some(2)), is("b", Some(1)), is("gone", None)],
            ]
        );
    }

    fn names<T>(told: &[Vec<(String, T)>]) -> Vec<Vec<&str>> {
        told.iter().map(|woken| woken.iter().map(|(name, _)| &**name).collect()).collect()
    }

    #[tokio::test]
    async fn an_edit_and_an_end_wake_those_that_share_a_claim() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let events = [
            Apply(named("old", 1, "user")),
            Apply(named("loser", 1, "user")),
            Apply(named("third", 1, "third")),
            Apply(named("old", 2, "third")),
            Delete(named("old", 2, "third")),
            Apply(named("old", 1, "user")),
            // Its end falls into an interruption.
            Init,
            InitApply(named("loser", 1, "user")),
            InitApply(named("third", 1, "third")),
            InitDone,
        ];
        let told = Box::pin(woken(events)).await;
        let told = names(&told);
        assert_eq!(told[1], ["loser", "old"]);
        assert_eq!(told[2], ["third"]);
        assert_eq!(told[3], ["loser", "old", "third"], "as it was and as it is");
        assert_eq!(told[4], ["old", "third"]);
        assert_eq!(told[9], ["loser", "old"]);
    }

    #[tokio::test]
    async fn what_is_not_held_any_more_wakes_those_that_wait_for_it() {
        use watcher::Event::Apply;
        let old = |claim| holding(named("old", 2, "new"), &[claim]);
        let events = [
            Apply(old("service/user")),
            Apply(named("waiting", 1, "user")),
            Apply(old("service/user")),
            Apply(old("service/new")),
        ];
        let told = Box::pin(woken(events)).await;
        assert_eq!(names(&told[1..]), [vec!["old", "waiting"], vec![], vec!["old", "waiting"],]);
    }

    #[tokio::test]
    async fn who_was_refused_for_its_own_content_wakes_those_that_waited_for_it() {
        use watcher::Event::Apply;
        let refused = |reason: &str| {
            let mut object = named("old", 1, "user");
            let condition = serde_json::json!({
                "type": "Accepted", "status": "False", "reason": reason, "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-11-24T21:00:00Z",
            });
            let conditions = vec![serde_json::from_value(condition).unwrap()];
            object.0.as_mut().unwrap().status =
                Some(ResilientServiceStatus { conditions, ..ResilientServiceStatus::default() });
            object
        };
        let events = [
            Apply(named("waiting", 1, "user")),
            Apply(refused("Conflict")),
            Apply(refused("Invalid")),
            Apply(refused("Invalid")),
        ];
        let told = Box::pin(woken(events)).await;
        assert_eq!(names(&told[1..]), [vec!["old", "waiting"], vec!["old", "waiting"], vec![]]);
    }

    #[tokio::test]
    async fn a_change_of_a_service_wakes_its_users_and_a_list_wakes_all() {
        let (reader, mut writer) = reflector::store();
        let stores = Stores::new(reader, reflector::store().0, reflector::store().0);
        let edited = holding(named("edited", 2, "third"), &["service/user"]);
        let undecodable = "{ metadata: { name: bad, namespace: shop, uid: bad }, spec: { service: 5 }, status: { claims: \
                           [service/user] } }";
        let undecodable = serde_saphyr::from_str(undecodable).unwrap();
        let all = [named("a", 1, "user"), named("b", 1, "other"), edited, undecodable];
        for event in all.map(watcher::Event::Apply) {
            writer.apply_watcher_event(&event);
            stores.by.see(&event);
        }
        let (wake, mut woken) = mpsc::unbounded_channel();
        let service: Service =
            serde_saphyr::from_str("{ metadata: { name: user, namespace: shop } }").unwrap();
        let mut names = |event| {
            wake_by(&wake, &stores, &event, super::names(&event));
            std::iter::from_fn(|| woken.try_recv().ok()).map(|of| of.name).collect::<BTreeSet<_>>()
        };
        assert!(names(watcher::Event::Init).is_empty());
        assert!(
            names(watcher::Event::InitApply(service.clone())).is_empty(),
            "the cache does not have it yet"
        );
        assert_eq!(names(watcher::Event::InitDone).len(), 4);
        let users = ["a", "bad", "edited"].map(str::to_owned);
        assert_eq!(names(watcher::Event::Delete(service)), BTreeSet::from(users));
    }

    #[test]
    fn an_undecodable_resource_is_an_object_all_the_same() {
        let bad: Guarded =
            serde_saphyr::from_str("{ metadata: { name: bad, generation: 1 }, spec: { service: 5 } }")
                .unwrap();
        assert!(bad.0.is_err() && wakes().hash_property(&bad).is_some());
    }
}
