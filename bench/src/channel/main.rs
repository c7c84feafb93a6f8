//! The channel's benchmark: what it costs a call, and what a list that never rests does to the calls.
//! `cargo xtask bench channel` starts and pins the server and its caller.

#[path = "../alloc.rs"]
mod alloc;
mod churn;
mod hello;
mod overhead;
mod row;
mod serve;
#[path = "../grpc/hello.rs"]
mod service;
mod subject;
#[path = "../version.rs"]
mod version;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "channel", about = "The channel's benchmark: its server, and its callers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a hello at every address of this machine; the first line printed is the port
    Serve,
    /// Call it over each channel in turn, and print what the calls cost, one row as JSON a line
    Overhead(overhead::Args),
    /// Call it at a fixed rate, while the list of endpoints changes and while it does not
    Churn(churn::Args),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Serve => serve::run(),
        Command::Overhead(args) => overhead::run(&args),
        Command::Churn(args) => churn::run(&args),
    }
}
