//! The controller: one ResilientService into Consul, Traefik and etcd, and its status back.
mod backoff;
mod claims;
mod epoch;
mod metrics;
mod model;
mod ports;
mod reconcile;
#[cfg(test)]
mod world;
fn main() {}
