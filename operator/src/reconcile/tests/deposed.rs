//! Another process takes over between two operations of this one: this one writes nothing more.

use std::mem;

use super::scene::Scene;
use super::steps::{round, steps};
use super::workloads::{State, WORKLOADS, prepared, undisturbed};

/// Writes that took place: fenced ones, and those of Kubernetes, which has no fence.
fn writes(scene: &Scene) -> (usize, usize) {
    let fenced = scene.catalog.faults.writes() + scene.store.faults.writes();
    (fenced, scene.routes.faults.writes() + scene.cluster.faults.writes())
}

#[tokio::test(start_paused = true)]
async fn who_is_deposed_between_two_operations_writes_nothing_more() {
    let (mut handovers, mut under_way) = (0, 0);
    for workload in WORKLOADS {
        let base = prepared(workload).await;
        let wanted = undisturbed(&base, workload).await;
        for k in 1.. {
            let mut scene = base.copy();
            (workload.then)(&scene);
            let (second, signals) = scene.process(7);
            let first = mem::replace(&mut scene.context, second);
            scene.signals = signals;
            // As at its start.
            assert!(first.consul.fence().await.is_ok() && first.etcd.fence().await.is_ok());
            scene.crash.pace(true);
            let now = scene.later().await;
            let mut passes = round(&first, &scene, now);
            if steps(&mut passes, k).await {
                break;
            }
            scene.crash.pace(false);
            assert!(scene.context.consul.fence().await.is_ok() && scene.context.etcd.fence().await.is_ok());
            scene.settle_all().await;
            let what = format!("{}: taken over at {k}", workload.name);
            State::of(&scene).must_be(&wanted, &what);
            let before = writes(&scene);
            assert!(steps(&mut passes, usize::MAX).await);
            let after = writes(&scene);
            assert_eq!(after.0, before.0, "{what}: a fenced write");
            // What was on its way to Kubernetes arrives.
            assert!(after.1 <= before.1 + 1, "{what}: {} writes to Kubernetes", after.1 - before.1);
            under_way += after.1 - before.1;
            scene.settle_all().await;
            State::of(&scene).must_be(&wanted, &what);
            assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{what}");
            handovers += 1;
        }
    }
    println!("handovers: {handovers}, with {under_way} writes to Kubernetes that were under way");
}
