//! Helpers of the tests that run on a real cluster.
//!
//! The cluster, the platform (Consul, etcd, Traefik), the operator and the sample service are installed
//! before (`cargo xtask test` does it); a test that finds none of it fails and says so.

pub mod consul;
pub mod etcd;
pub mod eventually;
pub mod gateway;
pub mod node;
pub mod odd;
pub mod resource;
pub mod shop;
pub mod world;

#[allow(missing_docs, clippy::pedantic)]
pub mod user {
    tonic::include_proto!("user.v1");
}

pub use eventually::eventually;
pub use world::World;
