//! F24: the instances of one service come and go a hundred times a second.

use std::collections::BTreeSet;
use std::time::Duration;

use fusebox_processes::{eventually, objects};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::fleet::{Fleet, NAMESPACE, name};
use crate::tally::Tally;

/// How often its slice changes.
const EVERY: Duration = Duration::from_millis(10);
/// How many writes a second such a service may cost in Consul.
const MOST: u32 = 10;
/// Fewer than may vanish at once, however few resources there are.
const INSTANCES: usize = 8;

/// Addresses and readiness at the n-th change: each time another part of them is ready, and one is missing.
fn instances(n: usize) -> Vec<(String, bool)> {
    let all = (0..INSTANCES).filter(|at| *at != n % INSTANCES);
    all.map(|at| (format!("192.168.0.{at}"), (n >> (at % 4)) & 1 == 0)).collect()
}

async fn write(fleet: &Fleet<'_>, instances: &[(String, bool)]) {
    let instances: Vec<(&str, bool)> = instances.iter().map(|(at, ready)| (at.as_str(), *ready)).collect();
    fleet.site.kubernetes.apply(&objects::slice(NAMESPACE, &name(0), &instances)).await;
}

pub async fn flap(fleet: &Fleet<'_>, duration: Duration) {
    let site = fleet.site;
    site.wires.aim(None);
    let start = Instant::now();
    let flapping = async {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut changes = 0;
        while Instant::now() - start < duration {
            tick.tick().await;
            write(fleet, &instances(changes)).await;
            changes += 1;
        }
        changes
    };
    let others = async {
        let mut waits = Vec::new();
        while Instant::now() - start < duration {
            let n = 1 + waits.len() % (fleet.count - 1);
            fleet.edit(n, 2000 + u64::try_from(waits.len()).unwrap()).await;
            waits.push(fleet.until_ready(n).await);
            sleep(Duration::from_millis(500)).await;
        }
        waits
    };
    let (changes, waits) = tokio::join!(flapping, others);
    let took = Instant::now() - start;
    let during = Tally::of(site);
    // The last state is written once more: it is what has to be there in the end.
    let last = instances(7);
    write(fleet, &last).await;
    let wanted: BTreeSet<(String, bool)> = last.into_iter().collect();
    let path = format!("/v1/health/service/{}", name(0));
    eventually("the last state is registered", async || {
        let found: Value = site.servers.consul.get(&path).await;
        let found: BTreeSet<(String, bool)> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let checks = entry["Checks"].as_array().unwrap();
                let own = checks.iter().find(|check| check["ServiceName"] == name(0).as_str()).unwrap();
                (entry["Service"]["Address"].as_str().unwrap().to_owned(), own["Status"] == "passing")
            })
            .collect();
        found == wanted
    })
    .await;
    let longest = waits.iter().max().copied().unwrap_or_default();
    println!(
        "flapping: {changes} changes in {took:.1?}; {during}; {} edits of others, the slowest done after {longest:.2?}",
        waits.len()
    );
    let txns = u32::try_from(during.count(&["consul txns"])).unwrap();
    // A pass may be two: what comes before what goes.
    let most = 2 * MOST * u32::try_from(took.as_secs() + 1).unwrap();
    assert!(txns <= most, "{txns} writes to Consul in {took:?}");
    during.each_resource_at_most("status writes", usize::try_from(took.as_secs()).unwrap() + 2);
    write(fleet, &[("10.0.0.0".to_owned(), true)]).await;
    fleet.until_converged("after flapping").await;
}
