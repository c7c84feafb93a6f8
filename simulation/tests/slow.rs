//! A wire so slow that the lease's renewal is due again when it is done: what changed is told all the same.

use std::time::Duration;

use fusebox_policy::keys::Ident;
use fusebox_policy::wire::Report;
use fusebox_simulation::memory::Memory;
use fusebox_simulation::policies::{document, number};
use fusebox_simulation::stage::Stage;
use fusebox_simulation::wire::Line;
use tokio::time::{Instant, sleep};

/// Which policy the report of the instance tells of, 120 s of virtual time at the most.
async fn tells(memory: &Memory, key: &str, wanted: u64) -> Duration {
    let started = Instant::now();
    loop {
        let report = memory.read(key).and_then(|value| serde_json::from_slice::<Report>(&value).ok());
        if report.and_then(|report| number(&report.hash?)) == Some(wanted) {
            return Instant::now() - started;
        }
        assert!(Instant::now() - started < Duration::from_mins(2), "never told of policy {wanted}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_renewal_does_not_keep_an_old_report_alive() {
    for seed in 0..100 {
        let mut memory = Memory::new(seed);
        let of = Ident::new("shop", "user");
        let (policy, report) = (memory.keys().policy(&of), memory.keys().report(&of, "uid-1"));
        memory.write(&policy, Some(document(1).to_json()));
        let wire = memory.wire();
        let instance = memory.start(&of, "uid-1", &wire).unwrap();
        tells(&memory, &report, 1).await;
        memory.set(&wire, Line::Whole(Duration::from_millis(2400)));
        for round in 2..6 {
            let wanted = 1 + round % 2;
            memory.write(&policy, Some(document(wanted).to_json()));
            let took = tells(&memory, &report, wanted).await;
            // Each way 2.4 s at the most: the policy's one, those of a beat (four), the report's one, and a second.
            assert!(took < Duration::from_secs(16), "seed {seed}: {took:?}");
        }
        drop(instance);
    }
}
