//! The controller: one `ResilientService` into Consul, Traefik and etcd, and its status back.

mod access;
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

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let done = if args.get(1).is_some_and(|word| word == "etcd-access") {
        Box::pin(access::run(access::AccessConfig::parse_from(&args[1..]))).await
    } else {
        app::run(config::Config::parse_from(args)).await
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("fusebox-operator ends: {error:#}");
    ExitCode::FAILURE
}
