//! The controller: one `ResilientService` into Consul, Traefik and etcd, and its status back.

mod admin;
mod app;
mod claims;
mod config;
mod consul;
mod epoch;
mod etcd;
mod gate;
mod kubernetes;
mod metrics;
mod model;
mod ports;
mod readiness;
mod reconcile;
#[cfg(test)]
#[allow(clippy::unwrap_in_result, reason = "a world that cannot be locked fails its test")]
mod world;

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let Err(error) = app::run(config::Config::parse()).await else { return std::process::ExitCode::SUCCESS };
    eprintln!("fusebox-operator ends: {error:#}");
    std::process::ExitCode::FAILURE
}
