//! What resources left that are gone without a clean-up.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::wire::Epoch;
use tokio::sync::watch;
use tokio::time::sleep;

use super::scene::{CLUSTER, FULL, Scene, user};
use crate::model::{mark, shard_node};
use crate::ports::NodeView;
use crate::sweep::{run, sweep};

type State = (BTreeMap<String, NodeView>, BTreeMap<String, String>);

fn state(scene: &Scene) -> State {
    (scene.catalog.state(), scene.store.state())
}

/// As somebody who takes its finalizer off and deletes it.
fn force_away(scene: &Scene, of: &Ident) {
    scene.cluster.resources.try_lock().unwrap().remove(of).unwrap();
}

/// A resource that was forced away, with two instances.
async fn forced() -> Scene {
    let scene = Scene::new();
    scene.scale(&[("a", true), ("b", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    force_away(&scene, &user());
    scene
}

#[tokio::test(start_paused = true)]
async fn what_a_resource_left_is_removed_and_nothing_of_others() {
    let scene = Scene::new();
    scene.foreign();
    let other = Ident::new("shop", "other");
    scene.put(&other, "{ service: { name: user-service }, config: { document: {} } }");
    scene.settle(&other).await;
    // Of a resource of this cluster that never was, and so would go as well.
    let mut keys = scene.store.keys.try_lock().unwrap();
    keys.remove("/fusebox/v1/test/policy/shop/user2");
    keys.insert("/fusebox/v1/test/reports/shop/user/uid-a".into(), "{}".into());
    keys.insert(Keys::new(CLUSTER).epoch(), "{}".into());
    drop(keys);
    let before = state(&scene);
    scene.scale(&[("a", true), ("b", true)]);
    scene.put(&user(), &FULL.replace("name: user-service", "name: second"));
    scene.service("second");
    scene.scale_of("second", &[("a", true), ("b", true)]);
    scene.settle(&user()).await;
    assert_ne!(state(&scene), before);
    force_away(&scene, &user());
    sweep(&scene.context).await;
    assert_eq!(state(&scene), before);
    assert!(scene.context.metrics.encode().contains(r#"fusebox_orphans_removed_total{backend="Consul"} 2"#));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_left_nothing_is_asked_or_written() {
    let scene = Scene::new();
    scene.foreign();
    scene.store.keys.try_lock().unwrap().remove("/fusebox/v1/test/policy/shop/user2");
    scene.put(&Ident::new("shop", "other"), "service: { name: other }");
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let (before, writes) = (state(&scene), scene.crash.writes());
    sweep(&scene.context).await;
    assert_eq!((state(&scene), scene.crash.writes()), (before, writes));
    assert_eq!(scene.cluster.fresh_lists.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_lags_removes_nothing() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let before = state(&scene);
    scene.cluster.unseen.try_lock().unwrap().insert(user());
    sweep(&scene.context).await;
    assert_eq!(state(&scene), before);
    assert_eq!(scene.cluster.fresh_lists.load(SeqCst), 1);
    scene.cluster.faults.set_down(true);
    sweep(&scene.context).await;
    assert_eq!(state(&scene), before, "nor one that nobody can compare");
}

#[tokio::test(start_paused = true)]
async fn of_one_that_was_created_anew_only_what_the_old_one_left_goes() {
    let scene = forced().await;
    scene.put(&user(), &FULL.replace("service.user.timeout: '1000'", "service.user.limit: '1'"));
    scene.cluster.resources.try_lock().unwrap().get_mut(&user()).unwrap().metadata.uid =
        Some("cr-new".into());
    scene.settle(&user()).await;
    // The passes of the new one find what is on its own node and in its own list; the sweep finds the rest.
    sweep(&scene.context).await;
    assert!(
        scene.entries().len() == 2 && scene.entries().iter().all(|entry| entry.meta[mark::OWNER] == "cr-new")
    );
    let keys = scene.store.state();
    assert!(!keys.contains_key("service.user.timeout") && keys["service.user.limit"] == "1");
    assert!(!keys.contains_key(&Keys::raw_claim("service.user.timeout")));
    let before = state(&scene);
    scene.settle(&user()).await;
    sweep(&scene.context).await;
    assert_eq!(state(&scene), before);
}

#[tokio::test(start_paused = true)]
async fn a_document_that_was_written_meanwhile_stays() {
    let scene = forced().await;
    let key = Keys::new(CLUSTER).policy(&user());
    *scene.store.meanwhile.try_lock().unwrap() = Some((key.clone(), "{}".into()));
    sweep(&scene.context).await;
    assert_eq!(scene.store.state().get(&key).map(String::as_str), Some("{}"));
    sweep(&scene.context).await;
    assert!(scene.store.state().is_empty(), "of nobody, as it turns out");
}

#[tokio::test(start_paused = true)]
async fn more_than_the_budget_stays_until_somebody_says_so() {
    let mut scene = Scene::new();
    scene.many("user-service", 0..40);
    let keys: Vec<String> = (0..20).map(|n| format!("service.user.k{n}: 'x'")).collect();
    scene.put(&user(), &FULL.replace("service.user.timeout: '1000'", &keys.join(", ")));
    scene.settle(&user()).await;
    force_away(&scene, &user());
    let before = state(&scene);
    for _ in 0..5 {
        tokio::time::advance(std::time::Duration::from_mins(2)).await;
        sweep(&scene.context).await;
    }
    assert_eq!(state(&scene), before);
    let metrics = scene.context.metrics.encode();
    for line in [r#"held{backend="Consul"} 40"#, r#"held{backend="Etcd"} 23"#] {
        assert!(metrics.contains(line), "{metrics}");
    }
    scene.context.settings.remove_all_orphans = true;
    sweep(&scene.context).await;
    assert_eq!(state(&scene), State::default());
    assert!(scene.context.metrics.encode().contains(r#"held{backend="Consul"} 0"#));
}

#[tokio::test(start_paused = true)]
async fn entries_that_nobody_uses_go_however_many() {
    let scene = Scene::new();
    scene.many("user-service", 0..40);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    force_away(&scene, &user());
    for node in scene.catalog.nodes.try_lock().unwrap().values_mut() {
        node.entries.values_mut().for_each(|entry| entry.passing = Some(false));
    }
    sweep(&scene.context).await;
    assert_eq!(state(&scene), State::default());
}

#[tokio::test(start_paused = true)]
async fn empty_nodes_of_ours_go_and_no_others() {
    let scene = Scene::new();
    let mut nodes = scene.catalog.nodes.try_lock().unwrap();
    let view = |foreign| NodeView { exists: true, foreign, ..NodeView::default() };
    nodes.insert("fusebox-test-3".into(), view(false));
    for (name, foreign) in
        [("fusebox-test-4", true), ("fusebox-test-canary", false), ("fusebox-test-2-1", false)]
    {
        nodes.insert(name.into(), view(foreign));
    }
    drop(nodes);
    sweep(&scene.context).await;
    let left: Vec<String> = scene.catalog.state().into_keys().collect();
    assert_eq!(left, ["fusebox-test-2-1", "fusebox-test-4", "fusebox-test-canary"]);
}

#[tokio::test(start_paused = true)]
async fn one_backend_that_is_gone_does_not_keep_the_other_from_being_swept() {
    let scene = forced().await;
    scene.catalog.faults.set_down(true);
    sweep(&scene.context).await;
    assert!(scene.entries().len() == 2 && scene.store.state().is_empty());
    scene.catalog.faults.set_down(false);
    scene.store.faults.set_down(true);
    sweep(&scene.context).await;
    assert!(scene.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deposed_process_sweeps_nothing() {
    let scene = forced().await;
    let before = state(&scene);
    let other = Epoch { epoch: 9, holder: "another".into(), ..Epoch::default() };
    scene.catalog.epoch.set(Some(other.clone()));
    scene.store.epoch.set(Some(other));
    sweep(&scene.context).await;
    sweep(&scene.context).await;
    assert_eq!(state(&scene), before);
}

#[tokio::test(start_paused = true)]
async fn what_a_backup_brings_back_is_removed_again() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let (nodes, keys) = state(&scene);
    scene.delete(&user());
    scene.settle(&user()).await;
    assert_eq!(state(&scene), State::default());
    *scene.catalog.nodes.try_lock().unwrap() = nodes;
    *scene.store.keys.try_lock().unwrap() = keys;
    let old = Epoch { epoch: 0, holder: "long ago".into(), ..Epoch::default() };
    scene.catalog.epoch.set(Some(old.clone()));
    scene.store.epoch.set(Some(old));
    // The first write of each finds that the store is another; the fence is raised anew.
    sweep(&scene.context).await;
    sweep(&scene.context).await;
    assert_eq!(state(&scene), State::default());
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_anywhere_the_next_process_sweeps_the_rest() {
    let mut crashes = 0;
    for n in 0.. {
        let mut happened = false;
        for answered in [true, false] {
            let mut scene = forced().await;
            scene.crash.after(n, answered);
            sweep(&scene.context).await;
            happened |= scene.crash.happened();
            scene.restart();
            sweep(&scene.context).await;
            assert_eq!(state(&scene), State::default(), "after write {n}, answered: {answered}");
            crashes += 1;
        }
        if !happened {
            break;
        }
    }
    assert_eq!(crashes, 10, "the node, the raw key, the documents: before, between, after, and none");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_a_living_resource_shares_stays() {
    let scene = forced().await;
    let node = shard_node(CLUSTER, &user());
    let beside = (0..1000)
        .map(|n| Ident::new("shop", format!("b{n}")))
        .find(|b| shard_node(CLUSTER, b) == node)
        .unwrap();
    scene.put(&beside, "{ service: { name: user-service, port: grpc }, consul: {} }");
    scene.settle(&beside).await;
    assert_eq!(scene.entries().len(), 4);
    sweep(&scene.context).await;
    assert_eq!((scene.entries().len(), scene.told(&beside, "Ready").as_str()), (2, "True/Ready"));
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_gone_within_a_minute_and_the_sweep_ends_when_it_is_told_to() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let (stop, stopping) = watch::channel(false);
    let act = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.entries().len(), 1);
        force_away(&scene, &user());
        sleep(Duration::from_mins(1)).await;
        assert_eq!(state(&scene), State::default());
        stop.send_replace(true);
    };
    tokio::join!(run(&scene.context, stopping), act);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_counts_what_is_registered_so_that_a_new_process_knows() {
    let mut scene = Scene::new();
    let node = shard_node(CLUSTER, &user());
    let other = (0..100)
        .map(|n| Ident::new("shop", format!("b{n}")))
        .find(|b| shard_node(CLUSTER, b) != node)
        .unwrap();
    scene.service("big");
    scene.many("big", 0..100);
    scene.put(&other, "{ service: { name: big, port: grpc }, consul: {} }");
    scene.settle(&other).await;
    scene.many("user-service", 0..20);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.restart();
    scene.many("user-service", 0..5);
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "False/DeletionsHeld", "15 of 20, as far as it knows");
    sweep(&scene.context).await;
    scene.pass(&user()).await;
    assert_eq!((scene.entries().len(), scene.told(&user(), "Registered").as_str()), (105, "True/Registered"));
}
