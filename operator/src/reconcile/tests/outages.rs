//! Backends that go away from the n-th operation on and come back, and stores that are wiped or restored under a
//! pass.

use super::scene::Scene;
use super::steps::{round, steps};
use super::workloads::{State, WORKLOADS, prepared, undisturbed};
use crate::world::Faults;

struct Outage {
    name: &'static str,
    of: fn(&Scene) -> Vec<&Faults>,
}

const OUTAGES: [Outage; 5] = [
    Outage { name: "Consul", of: |scene| vec![&scene.catalog.faults] },
    Outage { name: "etcd", of: |scene| vec![&scene.store.faults] },
    Outage { name: "Traefik's kinds", of: |scene| vec![&scene.routes.faults] },
    Outage { name: "Kubernetes", of: |scene| vec![&scene.routes.faults, &scene.cluster.faults] },
    Outage {
        name: "everything",
        of: |scene| {
            let Scene { catalog, store, routes, cluster, .. } = scene;
            vec![&catalog.faults, &store.faults, &routes.faults, &cluster.faults]
        },
    },
];

#[tokio::test(start_paused = true)]
async fn a_backend_may_go_away_at_any_operation_and_come_back() {
    let mut outages = 0;
    for workload in WORKLOADS {
        let base = prepared(workload).await;
        let wanted = undisturbed(&base, workload).await;
        for outage in &OUTAGES {
            for n in 0.. {
                let scene = base.copy();
                (workload.then)(&scene);
                for faults in (outage.of)(&scene) {
                    faults.down_after(n);
                }
                scene.settle_all().await;
                let happened = (outage.of)(&scene).iter().any(|faults| faults.is_down());
                let what = format!("{}: without {} from {n} on", workload.name, outage.name);
                assert!(scene.foreign_is_untouched() && scene.shared().is_empty(), "{what}");
                for faults in (outage.of)(&scene) {
                    faults.set_down(false);
                }
                scene.settle_all().await;
                State::of(&scene).must_be(&wanted, &what);
                assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{what}");
                if !happened {
                    break;
                }
                outages += 1;
            }
        }
    }
    println!("outages: {outages}");
}

/// The next process finds it away as well, before it comes back.
#[tokio::test(start_paused = true)]
async fn a_crash_during_an_outage_leaves_nothing_either() {
    let mut crashes = 0;
    for workload in WORKLOADS {
        let base = prepared(workload).await;
        let wanted = undisturbed(&base, workload).await;
        for outage in &OUTAGES {
            let points = (0..).flat_map(|n| [true, false].map(|answered| (n, answered)));
            for (n, answered) in points {
                let mut scene = base.copy();
                (workload.then)(&scene);
                for faults in (outage.of)(&scene) {
                    faults.set_down(true);
                }
                scene.crash.after(n, answered);
                scene.settle_all().await;
                if !scene.crash.happened() {
                    break;
                }
                crashes += 1;
                scene.restart();
                scene.settle_all().await;
                let what = format!(
                    "{} without {}, a crash after write {n}, answered: {answered}",
                    workload.name, outage.name
                );
                assert!(scene.foreign_is_untouched() && scene.shared().is_empty(), "{what}");
                for faults in (outage.of)(&scene) {
                    faults.set_down(false);
                }
                scene.settle_all().await;
                State::of(&scene).must_be(&wanted, &what);
                assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{what}");
            }
        }
    }
    assert!(crashes > 300, "{crashes}");
    println!("crashes during an outage: {crashes}");
}

/// A store as it was, or as good as empty: what others have in it is put back by them.
struct Loss {
    name: &'static str,
    wiped: bool,
    of_consul: bool,
}

const LOSSES: [Loss; 4] = [
    Loss { name: "Consul wiped", wiped: true, of_consul: true },
    Loss { name: "Consul restored", wiped: false, of_consul: true },
    Loss { name: "etcd wiped", wiped: true, of_consul: false },
    Loss { name: "etcd restored", wiped: false, of_consul: false },
];

impl Loss {
    fn happens(&self, scene: &Scene, before: &Scene) {
        let others = Scene::new();
        others.foreign();
        let then = if self.wiped { &others } else { before };
        if self.of_consul {
            *scene.catalog.nodes.try_lock().unwrap() = then.catalog.state();
            scene.catalog.epoch.set(None);
        } else {
            *scene.store.keys.try_lock().unwrap() = then.store.state();
            scene.store.epoch.set(None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_may_be_wiped_or_restored_under_a_pass() {
    let (mut losses, mut unseen) = (0, 0);
    for workload in WORKLOADS {
        let base = prepared(workload).await;
        let wanted = undisturbed(&base, workload).await;
        for loss in &LOSSES {
            let mut too_late = 0;
            'point: for k in 1.. {
                for another in [false, true] {
                    let mut scene = base.copy();
                    (workload.then)(&scene);
                    let resources = scene.cluster.now().resources.len();
                    let is_gone = |scene: &Scene| scene.cluster.now().resources.len() < resources;
                    // As at its start.
                    assert!(scene.context.consul.fence().await.is_ok());
                    assert!(scene.context.etcd.fence().await.is_ok());
                    scene.crash.pace(true);
                    let now = scene.later().await;
                    let mut passes = round(&scene.context, &scene, now);
                    let done = steps(&mut passes, k).await;
                    let gone = is_gone(&scene);
                    loss.happens(&scene, &base);
                    if !another && !done {
                        steps(&mut passes, usize::MAX).await;
                    }
                    drop(passes);
                    if !gone && is_gone(&scene) && State::of(&scene) != wanted {
                        // Its finalizer was on its way off, after a last look at both stores.
                        too_late += 1;
                        continue;
                    }
                    if gone || done {
                        break 'point;
                    }
                    scene.crash.pace(false);
                    if another {
                        scene.restart();
                    }
                    scene.settle_all().await;
                    let what = format!("{}: {} at {k}, another: {another}", workload.name, loss.name);
                    State::of(&scene).must_be(&wanted, &what);
                    assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{what}");
                    losses += 1;
                }
            }
            assert!(too_late <= 2, "{}: {} unseen at {too_late} points", workload.name, loss.name);
            unseen += too_late;
        }
    }
    println!("stores lost under a pass: {losses}; and {unseen} after the last look at them");
}
