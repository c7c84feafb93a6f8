//! The operator's own process between a real Kubernetes API server, a real Consul and a real etcd, without a cluster and
//! without containers.
//!
//! # Guarantees
//! - Everything runs on free ports of this machine, in folders of its own, and ends with its value.
//! - What the operator sends goes over [`Wires`], where it is counted, and where the operator can be killed at any write and frozen
//!   at any that is fenced.
//! - The operator has the rights and the settings that its chart gives it, by a token of its own.
//!
//! # Caveats
//! - There is no kubelet and no controller: who uses it makes `EndpointSlices`, and nothing is collected when its owner
//!   goes.
//! - What is in the way of a server fails the test, by a panic.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's tool: what is in its way fails the test"
)]

use std::ops::Range;

pub mod chart;
#[path = "../../../operator/tests/common/consul.rs"]
pub mod consul;
#[path = "../../../resilience/tests/common/etcd.rs"]
pub mod etcd;
mod kubernetes;
pub mod objects;
mod operator;
mod process;
mod proxy;
mod replica;
mod site;
mod wires;
mod writes;

pub use consul::Consul;
pub use etcd::{Etcd, eventually};
pub use kubernetes::{ApiServer, User};
pub use operator::Operator;
pub use process::Process;
pub use replica::Replica;
pub use site::{NAMESPACE, RELEASE, Servers, Site, in_release};
pub use wires::{Aim, Late, Outcome, Server, Side, Wires, Write};

/// What a proof plays: one seed, by `FUSEBOX_SEED=n`, or those of every run, or those of a long one.
pub fn seeds(every_run: Range<u64>, long_run: Range<u64>) -> Range<u64> {
    match std::env::var("FUSEBOX_SEED").map(|seed| seed.parse::<u64>()) {
        Ok(Ok(seed)) => seed..seed + 1,
        Ok(Err(error)) => panic!("FUSEBOX_SEED is no number: {error}"),
        Err(_) if long() => long_run,
        Err(_) => every_run,
    }
}

/// Takes a proof its time, by `FUSEBOX_LONG=1`: every point instead of a sample?
pub fn long() -> bool {
    std::env::var("FUSEBOX_LONG").is_ok_and(|long| long == "1")
}
