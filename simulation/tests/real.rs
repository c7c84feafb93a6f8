//! The same schedules on real processes and a real etcd, which itself is killed and started again under all of
//! them.

use std::path::PathBuf;
use std::time::Duration;

use fusebox_simulation::play::play;
use fusebox_simulation::processes::Processes;
use fusebox_simulation::schedule::{Place, Schedule};
use tokio::time::sleep;

#[path = "../../resilience/tests/common/etcd.rs"]
#[allow(clippy::unwrap_used, reason = "shared with the library's tests")]
mod etcd;

/// How many schedules, all at once.
const SCHEDULES: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn enforced_is_true_only_if_every_ready_process_runs_the_policy() {
    let mut etcd = etcd::Etcd::start().await;
    let only: Option<u64> = std::env::var("FUSEBOX_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = only.map_or(0..SCHEDULES, |seed| seed..seed + 1);
    let mut all = tokio::task::JoinSet::new();
    for seed in seeds {
        let stage = Processes {
            cluster: format!("real-{seed}"),
            etcd: etcd.address(),
            client: etcd.client().await,
            program: PathBuf::from(env!("CARGO_BIN_EXE_instance")),
            operators: 0,
        };
        all.spawn(play(stage, Schedule::new(seed, Place::SharedEtcd)));
    }
    let schedules = all.len();
    // Of the schedule, not a wait for anything: in the middle of everybody's trouble, for longer than a reconnect.
    sleep(Duration::from_secs(25)).await;
    etcd.kill().await;
    sleep(Duration::from_secs(4)).await;
    etcd.run().await;
    let (mut worst, mut healed) = (Duration::ZERO, Duration::ZERO);
    while let Some(played) = all.join_next().await {
        let outcome = played.unwrap().unwrap_or_else(|error| panic!("{error}"));
        worst = worst.max(outcome.worst);
        healed = healed.max(outcome.healed);
    }
    println!(
        "{schedules} schedules on real processes: Enforced was True beside another policy for at most {worst:?} \
         (bound 20 s); all well again after at most {healed:?}"
    );
    assert!(
        only.is_some() || worst > Duration::from_secs(4),
        "schedules that never come near the bound prove nothing"
    );
}
