//! A leader takes over from another: what is there stays, and the one before writes nothing more.

use std::sync::Arc;

use jiff::Timestamp;

use super::scene::{FULL, Scene, user};
use crate::ports::CatalogOp;
use crate::reconcile::reconcile;

async fn settled() -> Scene {
    let scene = Scene::new();
    scene.foreign();
    scene.put(&user(), FULL);
    scene.scale(&[("a", true), ("b", true)]);
    scene.settle(&user()).await;
    scene
}

#[tokio::test(start_paused = true)]
async fn a_handover_writes_the_two_epochs_and_nothing_else() {
    let mut scene = settled().await;
    for _ in 0..3 {
        let before = (scene.catalog.state(), scene.store.state(), scene.routes.state(), scene.get(&user()));
        let (writes, log) = (scene.crash.writes(), scene.catalog.log.try_lock().unwrap().len());
        scene.take_over();
        // As the wiring does before the first pass.
        scene.context.consul.fence().await.unwrap();
        scene.context.etcd.fence().await.unwrap();
        for _ in 0..3 {
            assert_eq!(scene.pass(&user()).await.unwrap().effects, 0);
        }
        assert_eq!(scene.crash.writes() - writes, 2, "the epochs of Consul and etcd");
        assert_eq!(scene.catalog.log.try_lock().unwrap().len(), log);
        let after = (scene.catalog.state(), scene.store.state(), scene.routes.state(), scene.get(&user()));
        assert_eq!(after, before);
    }
    let log = scene.catalog.log.try_lock().unwrap();
    assert!(!log.iter().any(|op| matches!(op, CatalogOp::Deregister { .. } | CatalogOp::ReapNode)));
}

#[tokio::test(start_paused = true)]
async fn the_one_before_writes_nothing_more_whatever_it_sees() {
    let mut scene = settled().await;
    let late = scene.take_over();
    scene.context.consul.fence().await.unwrap();
    scene.context.etcd.fence().await.unwrap();
    let before = (scene.catalog.state(), scene.store.state(), scene.routes.state(), scene.get(&user()));
    // It sees an empty slice and would deregister everything.
    scene.scale(&[]);
    let resource = Arc::new(scene.get(&user()).unwrap());
    let done = reconcile(&late, &resource, Timestamp::from_second(9000).unwrap()).await;
    assert_eq!(done.effects, 0);
    let after = (scene.catalog.state(), scene.store.state(), scene.routes.state(), scene.get(&user()));
    assert_eq!(after, before, "no status either");
    assert!(late.consul.signals().deposed.borrow().as_ref().unwrap().contains("took over"));
}

const EDITED: &str = "
service: { name: user-service, port: http }
outbound: { timeout: 200ms }
consul: { serviceName: people.service }
gateway: { routes: [{ host: people.example.com }] }
";

#[tokio::test(start_paused = true)]
async fn who_leads_no_more_by_its_own_clock_writes_nothing_not_even_what_has_no_fence() {
    let scene = settled().await;
    scene.put(&user(), EDITED);
    scene.scale(&[]);
    let (writes, status) = (scene.crash.writes(), scene.get(&user()).unwrap().status);
    scene.tenure.lose();
    for _ in 0..3 {
        assert_eq!(scene.pass(&user()).await.unwrap().effects, 0);
    }
    assert_eq!(scene.crash.writes(), writes, "nothing is tried");
    assert_eq!(scene.get(&user()).unwrap().status, status);
}
