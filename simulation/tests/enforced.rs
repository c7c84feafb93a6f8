//! Enforced is never True beside another policy for longer than the bound, under any schedule; and all heals.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fusebox_simulation::memory::Memory;
use fusebox_simulation::play::{Outcome, play};
use fusebox_simulation::schedule::{Place, Schedule};

/// How many schedules. With `FUSEBOX_LONG=1` others, from a random seed on: three times as many, or as many as fit
/// into `FUSEBOX_SECONDS`. What calls look at lives as long as the process (docs/adr/0008): 100 KB a schedule.
const SCHEDULES: u64 = 10_000;

fn run(seed: u64) -> Result<Outcome, String> {
    // Delays between attempts are jittered. (The order of tasks that are ready together is tokio's.)
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime
        .map_err(|error| error.to_string())?
        .block_on(async { play(Memory::new(seed), Schedule::new(seed, Place::OwnEtcd)).await })
}

/// A seed of `FUSEBOX_SEED` alone is played again.
#[test]
fn enforced_is_true_only_if_every_ready_instance_runs_the_policy() {
    if let Ok(seed) = std::env::var("FUSEBOX_SEED") {
        println!("{:?}", run(seed.parse().unwrap()).unwrap_or_else(|error| panic!("{error}")));
        return;
    }
    let long = std::env::var_os("FUSEBOX_LONG").is_some();
    let first = if long { fastrand::u64(SCHEDULES..1 << 40) } else { 0 };
    let most = first + if long { 3 * SCHEDULES } else { SCHEDULES };
    let seconds = std::env::var("FUSEBOX_SECONDS").ok().filter(|_| long).map(|n| n.parse().unwrap());
    let began = jiff::Timestamp::now();
    let over =
        || seconds.is_some_and(|most: i64| jiff::Timestamp::now().duration_since(began).as_secs() >= most);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, NonZero::get);
    let worst = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut worst = (Duration::ZERO, Duration::ZERO);
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= most || over() {
                            next.fetch_sub(1, Ordering::Relaxed);
                            return worst;
                        }
                        let outcome = run(seed).unwrap_or_else(|error| {
                            next.store(most, Ordering::Relaxed);
                            panic!(
                                "{error}\nFUSEBOX_SEED={seed} cargo test -p fusebox-simulation --test enforced -- \
                                 --nocapture plays it again"
                            )
                        });
                        worst = (worst.0.max(outcome.worst), worst.1.max(outcome.healed));
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
    });
    let (worst, healed) = worst.unwrap();
    let played = next.load(Ordering::Relaxed) - first;
    println!(
        "{played} schedules from seed {first} on: Enforced was True beside another policy for at most {worst:?} (bound 20 s); all well \
         again after at most {healed:?}"
    );
    // Most of a lease's life: nothing shorter than that would show whether leases are waited for.
    assert!(
        played < SCHEDULES || worst > Duration::from_secs(8),
        "schedules that never come near the bound prove nothing: {worst:?}"
    );
}
