//! The whole program between real servers with many resources: what it costs, and what an outage, flapping instances and
//! a new list do to it. Figures are printed; what is asserted does not depend on the speed of a machine.
//!
//! `FUSEBOX_LONG=1` runs it with 2,000 resources, `FUSEBOX_SCALE=n` with n; else a few show that it works.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod flapping;
mod fleet;
mod lists;
mod outage;
mod tally;

use std::time::Duration;

use fusebox_processes::Site;
use serde_json::json;
use tokio::time::{Instant, sleep};

use fleet::{CLUSTER, Fleet};
use tally::{Tally, memory};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_fusebox-operator");

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// How many resources.
    resources: usize,
    /// How long the backends are away.
    away: Duration,
    /// How long instances flap.
    flapping: Duration,
    /// How long nothing happens.
    rest: Duration,
}

fn scale() -> Scale {
    let seconds = Duration::from_secs;
    let long = fusebox_processes::long();
    match std::env::var("FUSEBOX_SCALE").ok().map(|resources| resources.parse().unwrap()) {
        Some(resources) => Scale {
            resources,
            away: seconds(60),
            flapping: seconds(if long { 300 } else { 60 }),
            rest: seconds(60),
        },
        None if long => {
            Scale { resources: 2000, away: seconds(60), flapping: seconds(300), rest: seconds(60) }
        }
        None => Scale { resources: 20, away: seconds(12), flapping: seconds(5), rest: seconds(2) },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_resources_flapping_instances_an_outage_and_a_new_list() {
    let scale = scale();
    println!("scale: {scale:?}");
    let values = json!({ "cluster": CLUSTER, "consul": {}, "etcd": {} });
    let site = Site::start(PROGRAM, &values).await;
    let operator = site.operator(&[]).await;
    site.wires.aim(None);
    let start = Instant::now();
    let fleet = Fleet::create(&site, operator, scale.resources).await;
    let created = Instant::now() - start;
    let until = fleet.until_converged("the first publication").await;
    let published = Tally::of(&site);
    println!(
        "first publication: {} resources created in {created:.1?}, all converged {until:.1?} later; {published}",
        scale.resources
    );
    published.each_resource_at_most("status writes", 6);
    fleet.is_everywhere().await;

    site.wires.aim(None);
    sleep(scale.rest).await;
    fleet.keep_alive().await;
    let rest = Tally::of(&site);
    println!("at rest for {:?}: {rest}; {}", scale.rest, memory(fleet.operator.lock().await.pid()));
    assert_eq!(rest.work(), Vec::<&str>::new(), "converged means silent");

    flapping::flap(&fleet, scale.flapping).await;
    outage::outage(&fleet, scale.away).await;
    lists::restart(&fleet).await;
}
