//! Bad input, backends that go away, other processes.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{ABANDON_ANNOTATION, FINALIZER, ResilientService};
use fusebox_policy::wire::Epoch;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::scene::{FULL, Scene, user};
use crate::metrics::Outcome;
use crate::reconcile::{Next, RESYNC, reconcile};

fn second() -> Ident {
    Ident::new("shop", "user-two")
}

#[test]
fn many_resources_are_looked_at_more_seldom_so_that_the_backends_are_not_asked_more_often() {
    let waits = [0, 1, 1000, 1001, 10_000].map(|many| crate::reconcile::resync(many).as_millis());
    assert_eq!(waits, [30_000, 30_000, 30_000, 30_030, 300_000]);
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_conflict_writes_nothing_and_takes_over_when_the_holder_is_gone() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.put(&second(), FULL);
    scene.settle(&user()).await;
    let before = (scene.catalog.state(), scene.store.state(), scene.routes.state());
    scene.settle(&second()).await;
    assert_eq!((scene.catalog.state(), scene.store.state(), scene.routes.state()), before);
    assert_eq!(scene.told(&second(), "Accepted"), "False/Conflict");
    assert_eq!(scene.told(&second(), "Ready"), "False/Conflict");
    let message = scene.condition(&second(), "Accepted").message;
    for part in [
        "Service user-service",
        "the Consul name user.service",
        "api.example.com/users",
        "service.user.timeout",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(scene.pass(&second()).await.unwrap().next, Next::After(RESYNC));

    scene.delete(&user());
    scene.settle(&user()).await;
    scene.settle(&second()).await;
    assert_eq!(scene.told(&second(), "Ready"), "True/Ready");
    assert_eq!(scene.entries().len(), 1);
    assert_eq!(scene.store.state()["service.user.timeout"], "1000");
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_or_dying_or_another_before_it_has_the_finalizer_is_not_applied() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    let stale = Arc::new(scene.get(&user()).unwrap());
    let changed = |change: fn(&mut ResilientService)| {
        let mut there = ResilientService::clone(&stale);
        change(&mut there);
        Some(there)
    };
    let now = [
        None,
        changed(|there| there.metadata.uid = Some("another".into())),
        changed(|there| {
            there.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            there.metadata.finalizers = Some(vec!["of/another".into()]);
        }),
    ];
    for now in now {
        let mut all = scene.cluster.resources.try_lock().unwrap();
        all.clear();
        all.extend(now.map(|there| (user(), there)));
        drop(all);
        let done = reconcile(&scene.context, &stale, Timestamp::UNIX_EPOCH).await;
        assert_eq!((done.next, done.effects), (Next::OnChange, 0));
        assert!(scene.entries().is_empty() && scene.routes.state().is_empty());
        assert!(scene.store.state().is_empty());
        let there = scene.get(&user());
        assert!(there.is_none_or(|there| there.status.is_none() && !there.finalizers().contains(&FINALIZER.into())));
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_edit_leaves_the_earlier_one_in_force_and_follows_the_instances() {
    let scene = Scene::new();
    scene.scale(&[("a", true), ("b", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let (store, routes) = (scene.store.state(), scene.routes.state());
    scene.put(&user(), &FULL.replace("timeout: 250ms", "timeout: 0s").replace("user.service,", "new.name,"));
    scene.scale(&[("b", false), ("c", true)]);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "False/Invalid");
    let message = scene.condition(&user(), "Accepted").message;
    assert!(message.contains("outbound.commands[find_user].timeout"), "{message}");
    assert_eq!((scene.store.state(), scene.routes.state()), (store, routes));
    assert_eq!(scene.registered(), ["-uid-b", "+uid-c"]);
    assert!(scene.entries().iter().all(|entry| entry.name == "user.service"));
    assert!(scene.condition(&user(), "Published").message.contains("stays in force"));
    assert_eq!(scene.told(&user(), "Enforced"), "False/NotPublished");
    assert_eq!(scene.condition(&user(), "Accepted").observed_generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_key_outside_the_namespaces_prefixes_is_refused_by_name() {
    let scene = Scene::new();
    scene.put(&user(), &FULL.replace("service.user.timeout", "other.key"));
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "False/KeyNotAllowed");
    let message = scene.condition(&user(), "Accepted").message;
    assert!(message.contains("other.key") && message.contains("etcd.allowedKeyPrefixes.shop"), "{message}");
    assert!(scene.store.state().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_name_of_consuls_own_servers_is_refused_where_it_comes_from_the_service() {
    let scene = Scene::new();
    scene.service("consul");
    scene.put(&user(), "{ service: { name: consul, port: grpc }, consul: {} }");
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "False/Invalid");
    let message = scene.condition(&user(), "Accepted").message;
    assert!(message.contains("set another spec.consul.serviceName"), "{message}");
    assert!(scene.entries().is_empty());
    scene.put(&user(), "{ service: { name: consul, port: grpc }, consul: { serviceName: own } }");
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "True/Accepted");
}

#[tokio::test(start_paused = true)]
async fn a_missing_service_or_port_is_named_and_the_policy_is_published_all_the_same() {
    let scene = Scene::new();
    scene.put(&user(), &FULL.replace("user-service", "usr-service"));
    scene.settle(&user()).await;
    for name in ["Registered", "Routed"] {
        assert_eq!(scene.told(&user(), name), "False/ServiceNotFound");
        assert!(scene.condition(&user(), name).message.contains("no Service usr-service in namespace shop"));
    }
    assert_eq!(scene.told(&user(), "Published"), "True/Published");
    assert!(scene.document(&user()).is_some());

    scene.put(&user(), &FULL.replace("port: grpc", "port: grcp"));
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "False/PortNotFound");
    assert!(scene.condition(&user(), "Registered").message.contains("it has grpc (50051), http (80)"));

    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Ready"), "True/Ready");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_misspelt_keeps_the_instances_registered() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.put(&user(), &FULL.replace("port: grpc", "port: grcp"));
    scene.settle(&user()).await;
    assert_eq!(scene.registered(), ["+uid-a"]);
    assert_eq!(scene.routes.state().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_holds_up_no_other_and_is_caught_up_with() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.catalog.faults.set_down(true);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "False/ConsulUnavailable");
    assert!(scene.condition(&user(), "Registered").message.contains("connection refused"));
    assert_eq!(scene.told(&user(), "Routed"), "True/Routed");
    assert_eq!(scene.told(&user(), "Published"), "True/Published");
    let done = scene.pass(&user()).await.unwrap();
    assert_eq!((done.outcome, done.effects), (Outcome::retry, 0));
    assert!(matches!(done.next, Next::After(wait) if wait <= RESYNC));

    scene.catalog.faults.set_down(false);
    scene.store.faults.set_down(true);
    scene.put(&user(), &FULL.replace("300ms", "200ms"));
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "True/Registered");
    assert_eq!(scene.told(&user(), "Published"), "False/EtcdUnavailable");
    assert_eq!(scene.told(&user(), "Enforced"), "False/NotPublished");

    scene.store.faults.set_down(false);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Ready"), "True/Ready");
}

#[tokio::test(start_paused = true)]
async fn traefik_may_come_later_and_who_does_not_use_it_is_not_bothered() {
    let scene = Scene::new();
    scene.routes.crds_missing.store(true, SeqCst);
    scene.put(&user(), FULL);
    scene.put(&second(), "service: { name: other }");
    scene.settle(&user()).await;
    scene.settle(&second()).await;
    assert_eq!(scene.told(&user(), "Routed"), "False/TraefikCRDsMissing");
    assert_eq!(scene.told(&second(), "Ready"), "True/Ready");
    scene.routes.crds_missing.store(false, SeqCst);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Routed"), "True/Routed");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_use_consul_is_not_bothered_by_its_absence() {
    let scene = Scene::new();
    scene.catalog.faults.set_down(true);
    scene.put(&user(), "service: { name: user-service }");
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Ready"), "True/Ready");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_consul_refuses_does_not_keep_the_others_out() {
    let scene = Scene::new();
    scene.scale(&[("a", true), ("b", true), ("c", true)]);
    scene.catalog.refused.try_lock().unwrap().push("test-cr-shop-user-uid-b-50051".into());
    scene.put(&user(), FULL);
    scene.pass(&user()).await;
    assert_eq!(scene.registered(), ["+uid-a", "+uid-c"]);
    assert_eq!(scene.told(&user(), "Registered"), "False/ConsulRefused");
    scene.catalog.refused.try_lock().unwrap().clear();
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "True/Registered");
}

#[tokio::test(start_paused = true)]
async fn a_clean_up_waits_for_a_dead_backend_and_can_be_abandoned() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.catalog.faults.set_down(true);
    scene.delete(&user());
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Ready"), "False/CleanupBlocked");
    assert!(scene.store.state().is_empty() && scene.routes.state().is_empty(), "the others are clean");
    assert!(scene.condition(&user(), "Ready").message.contains(ABANDON_ANNOTATION));

    scene.annotate(&user(), ABANDON_ANNOTATION, "true");
    scene.settle(&user()).await;
    assert!(scene.get(&user()).is_none());
    let last = scene.cluster.notices.try_lock().unwrap().last().cloned().unwrap();
    assert!(last.warning && last.reason == "CleanupAbandoned", "{last:?}");
    assert!(
        last.message.contains("fusebox-owner=cr-shop-user") && !last.message.contains("etcd"),
        "{}",
        last.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_clean_up_ends_when_the_backend_is_back() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.store.faults.set_down(true);
    scene.delete(&user());
    scene.settle(&user()).await;
    assert!(scene.get(&user()).is_some());
    scene.store.faults.set_down(false);
    scene.settle(&user()).await;
    assert!(scene.get(&user()).is_none() && scene.store.state().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deposed_process_writes_nothing_and_ends() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let before = (
        scene.catalog.state(),
        scene.store.state(),
        scene.routes.state(),
        scene.get(&user()).unwrap().status,
    );
    let other = Epoch { epoch: 9, holder: "another".into(), ..Epoch::default() };
    scene.catalog.epoch.set(Some(other.clone()));
    scene.store.epoch.set(Some(other));
    scene.put(&user(), &FULL.replace("300ms", "200ms").replace("/users", "/people"));
    scene.scale(&[("b", true)]);
    scene.settle(&user()).await;
    let after = (
        scene.catalog.state(),
        scene.store.state(),
        scene.routes.state(),
        scene.get(&user()).unwrap().status,
    );
    assert_eq!(after, before);
    assert!(scene.signals.deposed.borrow().as_ref().is_some_and(|why| why.contains("another")));
}

#[tokio::test(start_paused = true)]
async fn an_epoch_key_that_only_moved_costs_nothing() {
    let scene = Scene::new();
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let mine = scene.catalog.epoch.epoch();
    scene.catalog.epoch.set(mine);
    scene.scale(&[("a", true)]);
    scene.pass(&user()).await;
    assert_eq!(scene.registered(), ["+uid-a"]);
}

#[tokio::test(start_paused = true)]
async fn a_wiped_consul_is_filled_again() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let before = scene.catalog.state();
    scene.catalog.nodes.try_lock().unwrap().clear();
    scene.catalog.epoch.set(None);
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "False/ConsulUnavailable", "nothing was written yet");
    scene.signals.resync.notified().await;
    scene.settle(&user()).await;
    assert_eq!(scene.catalog.state(), before);
    assert_eq!(scene.catalog.epoch.epoch().unwrap().epoch, 2);
    assert_eq!(scene.told(&user(), "Registered"), "True/Registered");
}

#[tokio::test(start_paused = true)]
async fn a_restored_etcd_is_brought_up_to_date() {
    let scene = Scene::new();
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let snapshot = scene.store.state();
    scene.put(&user(), &FULL.replace("300ms", "200ms"));
    scene.settle(&user()).await;
    let newest = scene.store.state();
    *scene.store.keys.try_lock().unwrap() = snapshot;
    scene.store.epoch.set(Some(Epoch { epoch: 0, holder: "long ago".into(), ..Epoch::default() }));
    scene.settle(&user()).await;
    scene.settle(&user()).await;
    assert_eq!(scene.store.state(), newest);
}

#[tokio::test(start_paused = true)]
async fn instances_that_do_not_serve_the_port_are_told() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    for (_, endpoints) in scene.cluster.services.try_lock().unwrap().values_mut() {
        for endpoint in endpoints {
            endpoint.ports.clear();
        }
    }
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert!(scene.entries().is_empty());
    assert!(scene.condition(&user(), "Registered").message.contains("none of 1 instances serves the port"));
}
