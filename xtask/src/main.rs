//! The commands of a checkout. `cargo xtask --help` tells them.
// The time of steps that a person waits for: synchronous code with nothing to pause.
#![allow(clippy::disallowed_types)]

mod bench;
mod cargo;
mod check;
mod cli;
mod cluster;
mod debian;
mod demo;
mod generate;
mod layout;
mod long;
mod selftest;
mod steps;
mod story;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes is for people; a backtrace of this program tells them nothing.
            let causes: Vec<_> = error.chain().map(ToString::to_string).collect();
            eprintln!("error: {}", causes.join("\n  because: "));
            ExitCode::FAILURE
        }
    }
}
