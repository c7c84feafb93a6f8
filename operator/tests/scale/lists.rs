//! F6: everything is listed anew.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::fleet::Fleet;
use crate::tally::{Tally, held, memory};

/// Another process takes over: its first lists, and its first pass for each resource, write nothing.
pub async fn restart(fleet: &Fleet<'_>) {
    let site = fleet.site;
    fleet.keep_alive().await;
    let mut operator = fleet.operator.lock().await;
    let before = memory(operator.pid());
    operator.ask_to_end();
    assert!(operator.wait().await.success(), "{}", operator.said());
    site.wires.aim(None);
    *operator = site.operator(&[]).await;
    let start = Instant::now();
    // Every pass reads etcd once.
    while Tally::of(site).count(&["etcd txns"]) < fleet.count {
        assert!(Instant::now() - start < Duration::from_mins(10), "the first passes: {}", Tally::of(site));
        sleep(Duration::from_millis(500)).await;
    }
    let took = Instant::now() - start;
    sleep(Duration::from_secs(5)).await;
    let tally = Tally::of(site);
    let (rest, peak) = held(operator.pid());
    println!(
        "a new process: all looked at after {took:.1?}, {tally}; before: {before}; now: {rest} MiB, peak {peak} MiB"
    );
    assert_eq!(tally.work(), Vec::<&str>::new(), "nothing has changed");
    assert!(operator.ended().is_none(), "{}", operator.said());
    drop(operator);
    fleet.is_everywhere().await;
}
