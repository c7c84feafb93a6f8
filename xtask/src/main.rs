//! The commands of a checkout. `cargo xtask --help` tells them.
// The time of steps that a person waits for: synchronous code with nothing to pause.
#![allow(clippy::disallowed_types)]

mod cargo;
mod check;
mod cli;
mod cluster;
mod debian;
mod demo;
mod generate;
mod selftest;
mod steps;
mod story;
mod test;

fn main() -> std::process::ExitCode {
    match cli::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
