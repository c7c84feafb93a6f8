//! A pass is dropped at each point where it waits: what it leaves, the same process and the next one mend.

use super::steps::{round, steps};
use super::workloads::{State, WORKLOADS, prepared, undisturbed};

#[tokio::test(start_paused = true)]
async fn a_pass_may_be_dropped_wherever_it_waits() {
    let mut points = 0;
    for workload in WORKLOADS {
        let base = prepared(workload).await;
        let wanted = undisturbed(&base, workload).await;
        let first = points;
        for k in 1.. {
            let mut done = false;
            for another in [false, true] {
                let mut scene = base.copy();
                (workload.then)(&scene);
                scene.crash.pace(true);
                let now = scene.later().await;
                let mut passes = round(&scene.context, &scene, now);
                done = steps(&mut passes, k).await;
                drop(passes);
                scene.crash.pace(false);
                if another {
                    scene.restart();
                }
                scene.settle_all().await;
                let what = format!("{}: dropped at {k}, another process: {another}", workload.name);
                State::of(&scene).must_be(&wanted, &what);
                assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{what}");
                points += usize::from(!done);
            }
            if done {
                break;
            }
        }
        assert!(points - first >= 10, "{} waits", workload.name);
    }
    println!("points of cancellation: {points}");
}
