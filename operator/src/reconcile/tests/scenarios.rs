//! What a service owner does and sees.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::scene::{CLUSTER, FULL, Scene, user};
use crate::model::mark;
use crate::ports::CatalogOp;
use crate::reconcile::{Next, RESYNC};
use fusebox_policy::keys::{Ident, Keys};

#[tokio::test(start_paused = true)]
async fn created_it_is_on_every_plane_and_then_there_is_silence() {
    let scene = Scene::new();
    scene.scale(&[("a", true), ("b", false)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;

    for name in ["Accepted", "Registered", "Routed", "Published", "Ready"] {
        assert_eq!(scene.condition(&user(), name).status, "True", "{:?}", scene.condition(&user(), name));
    }
    assert_eq!(scene.registered(), ["+uid-a", "-uid-b"]);
    let entry = &scene.entries()[0];
    assert_eq!(entry.id, "test-cr-shop-user-uid-a-50051");
    assert_eq!(
        (entry.name.as_str(), entry.port, entry.tags.as_slice()),
        ("user.service", 50051, &["v1".to_owned()][..])
    );
    assert_eq!((entry.meta["team"].as_str(), entry.meta[mark::RESOURCE].as_str()), ("shop", "shop/user"));

    let routes = scene.routes.state();
    let plain = &routes[&Ident::new("shop", "fusebox-user-plain")].spec;
    assert_eq!(
        plain["routes"][0]["match"],
        "Host(`api.example.com`) && (Path(`/users`) || PathPrefix(`/users/`))"
    );
    assert_eq!(plain["routes"][0]["services"][0]["scheme"], "h2c");
    assert_eq!((plain["entryPoints"][0].as_str(), plain.get("tls")), (Some("web"), None));
    let tls = &routes[&Ident::new("shop", "fusebox-user-tls")].spec;
    assert_eq!(
        (tls["entryPoints"][0].as_str(), tls["tls"]["secretName"].as_str()),
        (Some("websecure"), Some("api-cert"))
    );

    let keys = scene.store.state();
    assert_eq!(keys["service.user.timeout"], "1000");
    assert_eq!(keys[&Keys::new(CLUSTER).config(&user())], r#"{"service":{"user":{"timeout":1000}}}"#);
    let status = scene.get(&user()).unwrap().status.unwrap();
    assert_eq!(status.policy_hash, scene.document(&user()).map(|document| document.hash.to_string()));

    let before = scene.crash.writes();
    scene.pass(&user()).await;
    scene.pass(&user()).await;
    assert_eq!(scene.crash.writes(), before, "converged means silent");
}

#[tokio::test(start_paused = true)]
async fn scaling_is_followed() {
    let scene = Scene::new();
    scene.put(&user(), FULL);
    for instances in [&[("a", true)][..], &[("a", true), ("b", true), ("c", true)], &[("b", true)], &[]] {
        scene.scale(instances);
        scene.settle(&user()).await;
        let wanted: Vec<String> = instances.iter().map(|(name, _)| format!("+uid-{name}")).collect();
        assert_eq!(scene.registered(), wanted);
    }
    assert!(scene.catalog.state().is_empty(), "an empty node is removed");
    assert_eq!(scene.told(&user(), "Enforced"), "Unknown/NoReadyInstances");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_readiness_is_one_operation() {
    let scene = Scene::new();
    scene.scale(&[("a", true), ("b", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.catalog.log.try_lock().unwrap().clear();
    scene.scale(&[("a", true), ("b", false)]);
    scene.settle(&user()).await;
    let log = scene.catalog.log.try_lock().unwrap().clone();
    let (id, name) = ("test-cr-shop-user-uid-b-50051".into(), "user.service".into());
    assert_eq!(log, [CatalogOp::SetCheck { id, name, passing: false }]);
    assert_eq!(scene.registered(), ["+uid-a", "-uid-b"]);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_instance_is_registered_before_the_old_one_goes() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.catalog.log.try_lock().unwrap().clear();
    scene.scale(&[("b", true)]);
    scene.settle(&user()).await;
    let log = scene.catalog.log.try_lock().unwrap().clone();
    assert!(matches!(log.as_slice(), [CatalogOp::Register(_), CatalogOp::Deregister { .. }]), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn deleted_nothing_of_it_is_left_and_nothing_of_others_is_touched() {
    let scene = Scene::new();
    scene.foreign();
    let before = (scene.catalog.state(), scene.store.state(), scene.routes.state());
    scene.scale(&[("a", true), ("b", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert_eq!(scene.entries().len(), 5);
    scene.delete(&user());
    scene.settle(&user()).await;
    assert!(scene.get(&user()).is_none());
    assert_eq!((scene.catalog.state(), scene.store.state(), scene.routes.state()), before);
}

#[tokio::test(start_paused = true)]
async fn removed_sections_are_cleared() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.put(&user(), "service: { name: user-service }");
    scene.settle(&user()).await;
    assert!(scene.entries().is_empty() && scene.routes.state().is_empty());
    assert_eq!(scene.store.state().len(), 1, "the policy alone: {:?}", scene.store.state());
    assert_eq!(scene.told(&user(), "Registered"), "True/NotRequested");
    assert_eq!(scene.told(&user(), "Routed"), "True/NotRequested");
}

#[tokio::test(start_paused = true)]
async fn routes_without_our_label_go_with_their_section() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let routes = scene.routes.state();
    assert_eq!(routes.len(), 2);
    for at in routes.keys() {
        scene.routes.unlabel(at);
    }
    scene.put(&user(), "service: { name: user-service }");
    scene.settle(&user()).await;
    assert_eq!(scene.routes.state(), [].into());
}

#[tokio::test(start_paused = true)]
async fn drift_is_repaired() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let before = (scene.catalog.state(), scene.store.state(), scene.routes.state());
    scene.catalog.nodes.try_lock().unwrap().clear();
    scene.store.keys.try_lock().unwrap().remove("service.user.timeout");
    scene.store.keys.try_lock().unwrap().insert(Keys::new(CLUSTER).policy(&user()), "{}".into());
    for view in scene.routes.objects.try_lock().unwrap().values_mut() {
        view.spec["routes"][0]["match"] = "Host(`evil`)".into();
    }
    scene.settle(&user()).await;
    assert_eq!((scene.catalog.state(), scene.store.state(), scene.routes.state()), before);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_instances_and_as_many_keys_fit_into_transactions() {
    let scene = Scene::new();
    let names: Vec<String> = (0..100).map(|n| format!("i{n:03}")).collect();
    scene.scale(&names.iter().map(|name| (name.as_str(), true)).collect::<Vec<_>>());
    let keys = |with: &str| {
        let keys: Vec<String> = (0..32).map(|n| format!("service.user.{with}{n}: 'x'")).collect();
        format!(
            "{{ service: {{ name: user-service, port: grpc }}, consul: {{}}, config: {{ etcdKeys: {{ {} }} }} }}",
            keys.join(", ")
        )
    };
    scene.put(&user(), &keys("old"));
    scene.settle(&user()).await;
    assert_eq!(scene.entries().len(), 100);
    scene.put(&user(), &keys("new"));
    scene.settle(&user()).await;
    let raw = scene
        .store
        .state()
        .keys()
        .filter(|key| key.starts_with("service.user."))
        .cloned()
        .collect::<Vec<_>>();
    assert!(raw.len() == 32 && raw.iter().all(|key| key.contains("new")), "{raw:?}");
    assert_eq!(scene.store.state().len(), 32 * 2 + 2);
}

#[tokio::test(start_paused = true)]
async fn more_keys_than_a_transaction_takes_are_released_in_several() {
    let keys = |with: &str| {
        let keys: Vec<String> = (0..32).map(|n| format!("service.user.{with}{n}: 'x'")).collect();
        format!("{{ service: {{ name: user-service }}, config: {{ etcdKeys: {{ {} }} }} }}", keys.join(", "))
    };
    for crash in 0..4 {
        let mut scene = Scene::new();
        scene.put(&user(), &keys("old"));
        scene.settle(&user()).await;
        scene.put(&user(), &keys("new"));
        // The new keys are told of and written, the old ones not yet released.
        scene.crash.after(2, true);
        scene.pass(&user()).await;
        scene.restart();
        assert_eq!(scene.store.state().len(), 64 * 2 + 2);
        scene.delete(&user());
        scene.crash.after(crash, false);
        scene.settle(&user()).await;
        scene.restart();
        scene.settle(&user()).await;
        assert!(scene.get(&user()).is_none() && scene.store.state().is_empty(), "crash {crash}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_raw_key_of_others_is_left_alone_and_the_rest_is_published() {
    let scene = Scene::new();
    scene.foreign();
    let spec = FULL
        .replace("service.user.timeout: '1000'", "service.user.timeout: '1000', service.user.foreign: '2'");
    scene.put(&user(), &spec);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Published"), "False/KeyTaken");
    let message = scene.condition(&user(), "Published").message;
    assert!(message.contains("/fusebox/v1/claims/raw/service.user.foreign"), "{message}");
    let keys = scene.store.state();
    assert_eq!((keys["service.user.foreign"].as_str(), keys["service.user.timeout"].as_str()), ("1", "1000"));
    scene.delete(&user());
    scene.settle(&user()).await;
    assert_eq!(scene.store.state()["service.user.foreign"], "1");
}

#[tokio::test(start_paused = true)]
async fn the_raw_keys_of_a_resource_that_is_gone_are_taken_over() {
    let scene = Scene::new();
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    // Its finalizer is taken off by hand; then it is created anew.
    let mut all = scene.cluster.resources.try_lock().unwrap();
    all.remove(&user());
    drop(all);
    scene.put(&user(), &FULL.replace("timeout: '1000'", "timeout: '2000'"));
    let mut all = scene.cluster.resources.try_lock().unwrap();
    all.get_mut(&user()).unwrap().metadata.uid = Some("cr-new".into());
    drop(all);
    // The route objects go with their owner, as Kubernetes collects them.
    scene.routes.objects.try_lock().unwrap().clear();
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Ready"), "True/Ready");
    assert_eq!(scene.store.state()["service.user.timeout"], "2000");
    scene.delete(&user());
    scene.settle(&user()).await;
    assert!(scene.store.state().is_empty(), "{:?}", scene.store.state());
}

#[tokio::test(start_paused = true)]
async fn the_raw_key_of_a_live_resource_is_not_taken_over() {
    let scene = Scene::new();
    let other = Ident::new("shop", "other");
    scene.put(&other, "service: { name: other }");
    scene.settle(&other).await;
    let claim = serde_json::json!({ "cluster": CLUSTER, "uid": "cr-shop-other" }).to_string();
    scene.store.keys.try_lock().unwrap().insert(Keys::raw_claim("service.user.timeout"), claim.clone());
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Published"), "False/KeyTaken");
    assert_eq!(scene.store.state()[&Keys::raw_claim("service.user.timeout")], claim);
}

#[tokio::test(start_paused = true)]
async fn a_route_object_of_others_is_left_alone() {
    let scene = Scene::new();
    let theirs = crate::ports::RouteView { owner: Some("somebody".into()), spec: serde_json::json!({}) };
    let at = Ident::new("shop", "fusebox-user-plain");
    scene.routes.objects.try_lock().unwrap().insert(at.clone(), theirs.clone());
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Routed"), "False/NameTaken");
    assert_eq!(scene.told(&user(), "Published"), "True/Published");
    scene.delete(&user());
    scene.settle(&user()).await;
    assert_eq!(scene.routes.state(), [(at, theirs)].into());
}

/// Nobody may tell when it is out of the way.
#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_is_looked_at_again_soon_however_many_there_are() {
    let scene = Scene::new();
    scene.cluster.more.store(9_999, SeqCst);
    scene.scale(&[("a", true)]);
    let node = crate::model::shard_node(CLUSTER, &user());
    let theirs = crate::ports::NodeView { exists: true, foreign: true, ..Default::default() };
    scene.catalog.nodes.try_lock().unwrap().insert(node.clone(), theirs);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "False/NodeTaken");
    let next = async || scene.pass(&user()).await.unwrap().next;
    assert_eq!(next().await, Next::After(RESYNC));
    assert_eq!(next().await, Next::After(RESYNC), "for as long as it is there");
    scene.catalog.nodes.try_lock().unwrap().remove(&node);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "True/Registered");
    assert_eq!(next().await, Next::After(Duration::from_mins(5)), "30 ms for each that rests");
}

#[tokio::test(start_paused = true)]
async fn a_node_of_others_is_left_alone() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    let node = crate::model::shard_node(CLUSTER, &user());
    let theirs = crate::ports::NodeView { exists: true, foreign: true, ..Default::default() };
    scene.catalog.nodes.try_lock().unwrap().insert(node, theirs);
    let before = scene.catalog.state();
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "False/NodeTaken");
    scene.delete(&user());
    scene.settle(&user()).await;
    assert!(scene.get(&user()).is_none());
    assert_eq!(scene.catalog.state(), before);
}
