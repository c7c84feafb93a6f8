//! The program around the controller.

use clap::Parser;
use fusebox_operator::{app, config};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let Err(error) = app::run(config::Config::parse()).await else { return std::process::ExitCode::SUCCESS };
    eprintln!("fusebox-operator ends: {error:#}");
    std::process::ExitCode::FAILURE
}
