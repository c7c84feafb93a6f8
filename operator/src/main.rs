//! The controller: one `ResilientService` into Consul, Traefik and etcd, and its status back.

mod access;
mod admin;
mod app;
mod claims;
mod cli;
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

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let Err(error) = cli::run(std::env::args_os().collect()).await else {
        return std::process::ExitCode::SUCCESS;
    };
    eprintln!("fusebox-operator ends: {error:#}");
    std::process::ExitCode::FAILURE
}
