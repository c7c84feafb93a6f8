//! Crashes at every write, alone and in pairs, the second one in the recovery from the first: the next process
//! ends where an undisturbed one does.

use super::scene::Scene;
use super::workloads::{State, WORKLOADS, Workload, fresh, prepared};
use crate::model::mark;

/// The cluster before a workload, and what an undisturbed process makes of it.
async fn undisturbed(workload: &Workload) -> (Scene, State) {
    let base = prepared(workload).await;
    let scene = base.copy();
    (workload.then)(&scene);
    scene.settle_all().await;
    let wanted = State::of(&scene);
    fresh(&scene).await.must_be(&wanted, workload.name);
    assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{}", workload.name);
    (base, wanted)
}

async fn recovers(scene: &mut Scene, wanted: &State, what: &str) {
    assert!(scene.foreign_is_untouched(), "{what}");
    scene.restart();
    scene.settle_all().await;
    State::of(scene).must_be(wanted, what);
    assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{what}");
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_anywhere_the_next_process_ends_where_an_undisturbed_one_does() {
    let mut crashes = 0;
    for workload in WORKLOADS {
        let (base, wanted) = undisturbed(workload).await;
        let first = crashes;
        for n in 0.. {
            let mut happened = false;
            for answered in [true, false] {
                let mut scene = base.copy();
                (workload.then)(&scene);
                scene.crash.after(n, answered);
                scene.settle_all().await;
                if scene.crash.happened() {
                    happened = true;
                    crashes += 1;
                    if ["create", "delete"].contains(&workload.name) {
                        let routed = scene.routes.state().values().any(|view| view.owner.is_some());
                        let registered = scene.entries().iter().any(|e| e.meta.contains_key(mark::RESOURCE));
                        assert!(registered || !routed, "{}: routes to nowhere after {n}", workload.name);
                    }
                    let what = format!("{} after write {n}, answered: {answered}", workload.name);
                    recovers(&mut scene, &wanted, &what).await;
                }
            }
            if !happened {
                break;
            }
        }
        assert!(crashes - first >= 4, "{} has writes to crash after", workload.name);
    }
    println!("crashes: {crashes} of {} workloads", WORKLOADS.len());
}

#[tokio::test(start_paused = true)]
async fn after_any_two_crashes_too() {
    let mut pairs = 0;
    let answers = [true, false];
    for workload in WORKLOADS {
        let (base, wanted) = undisturbed(workload).await;
        for (n, answered) in (0..).flat_map(|n| answers.iter().map(move |answered| (n, *answered))) {
            let mut left = base.copy();
            (workload.then)(&left);
            left.crash.after(n, answered);
            left.settle_all().await;
            if !left.crash.happened() {
                break;
            }
            left.restart();
            for (m, again) in (0..).flat_map(|m| answers.iter().map(move |answered| (m, *answered))) {
                let mut scene = left.copy();
                scene.crash.after(m, again);
                scene.settle_all().await;
                if !scene.crash.happened() {
                    break;
                }
                pairs += 1;
                let what = format!("{} after writes {n} {answered} and {m} {again}", workload.name);
                recovers(&mut scene, &wanted, &what).await;
            }
        }
    }
    assert!(pairs > 1000, "{pairs}");
    println!("pairs of crashes: {pairs}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_changes_nothing() {
    let mut lost = 0;
    for workload in WORKLOADS {
        let (base, wanted) = undisturbed(workload).await;
        for n in 1.. {
            let scene = base.copy();
            (workload.then)(&scene);
            scene.crash.lose_answer(n);
            scene.settle_all().await;
            if !scene.crash.lost_answer() {
                break;
            }
            lost += 1;
            State::of(&scene).must_be(&wanted, &format!("{}: the answer to write {n}", workload.name));
            assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{} {n}", workload.name);
        }
    }
    println!("lost answers: {lost}");
}
