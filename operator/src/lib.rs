//! The controller: one `ResilientService` into Consul, Traefik and etcd, and its status back.
//!
//! A library so that simulations can run its parts; nothing of it is an interface for others.

mod access;
mod admin;
mod app;
mod budget;
mod claims;
mod cli;
mod config;
pub mod consul;
mod deadman;
mod drift;
mod epoch;
pub mod etcd;
mod gate;
mod intents;
mod kubernetes;
mod leader;
mod metrics;
pub mod model;
mod pace;
pub mod ports;
mod readiness;
pub mod reconcile;
mod sweep;
#[cfg(test)]
#[allow(clippy::unwrap_in_result, reason = "a world that cannot be locked fails its test")]
mod world;

pub use cli::run;
