//! F26: Consul and etcd are silent for a while, and come back.

use std::time::Duration;

use fusebox_processes::eventually;
use tokio::time::{Instant, sleep};

use crate::fleet::Fleet;
use crate::tally::Tally;

/// How many passes are under way when silence begins, and what each has asked at most.
const UNDER_WAY: usize = 32 * 3;
/// A silent backend is asked again after a deadline of 5 s and a rest of 1 s; twice as often is let pass.
const PROBE: Duration = Duration::from_secs(3);

pub async fn outage(fleet: &Fleet<'_>, away: Duration) {
    let site = fleet.site;
    site.wires.aim(None);
    site.servers.etcd.freeze(true);
    site.servers.consul.freeze(true);
    let start = Instant::now();
    let edits = (fleet.count / 10).max(2);
    for n in 0..edits {
        fleet.edit(n * 10 % fleet.count, 3000).await;
    }
    sleep(away.saturating_sub(Instant::now() - start)).await;
    let silent = Instant::now() - start;
    let during = Tally::of(site);
    println!("away for {silent:.1?} with {edits} edits: {during}");
    let probes = usize::try_from(silent.as_secs() / PROBE.as_secs()).unwrap() + 1;
    // A probe of Consul is two reads at once; the dead man and the sweep ask as well.
    for (of, asked, most) in [
        ("Consul", during.count(&["consul reads", "consul txns", "consul writes and renewals"]), 4),
        ("etcd", during.count(&["etcd txns"]), 2),
    ] {
        assert!(asked <= UNDER_WAY + most * probes, "{of} was asked {asked} times in {silent:?} of silence");
    }
    during.each_resource_at_most("status writes", 4);

    site.wires.aim(None);
    site.servers.etcd.freeze(false);
    site.servers.consul.freeze(false);
    let start = Instant::now();
    eventually("Consul answers", async || site.servers.consul.get("/v1/status/leader").await.is_string())
        .await;
    fleet.until_converged("after the outage").await;
    let took = Instant::now() - start;
    let drain = Tally::of(site);
    println!("back: all {} converged after {took:.1?}; {drain}", fleet.count);
    drain.each_resource_at_most("status writes", 4);
    fleet.is_everywhere().await;
    fleet.until_at_rest().await;
}
