//! Helpers of the tests that run on a real cluster.
//!
//! The cluster, the platform (Consul, etcd, Traefik), the operator and the sample service are installed
//! before (`cargo xtask test` does it); a test that finds none of it fails and says so.

pub mod callers;
pub mod consul;
pub mod declared;
pub mod etcd;
pub mod eventually;
pub mod gateway;
pub mod node;
pub mod odd;
pub mod operator;
pub mod resource;
pub mod shop;
pub mod world;

#[allow(missing_docs, clippy::pedantic)]
pub mod user {
    tonic::include_proto!("user.v1");
}

pub use eventually::eventually;
pub use world::World;

/// Whether the slowest tests run too; one that does not says so.
pub fn long(what: &str) -> bool {
    let long = std::env::var_os("FUSEBOX_LONG").is_some_and(|long| long == "1");
    if !long {
        eprintln!("not run: {what}, FUSEBOX_LONG=1 runs it");
    }
    long
}
