//! The feed's benchmark: one subject a process, which follows a key of etcd while its calls go on, and the
//! writer that changes the key. `cargo xtask bench feed` starts, pins, interleaves and compares them.

mod arrivals;
mod caller;
mod document;
mod follow;
mod rows;
#[path = "../version.rs"]
mod version;
mod write;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "feed", about = "One subject of the feed's benchmark, or its writer")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the subjects there are, one JSON object a line
    List,
    /// Wait for etcd, write document 0, and print etcd's version
    Seed(write::Place),
    /// Write the other documents, each when it is due, whatever became of those before
    Write(write::Args),
    /// Follow the key; prints a line when document 0 has come, and one of JSON at the end
    Follow(follow::Args),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::List => rows::list(),
        Command::Seed(place) => write::seed(&place),
        Command::Write(args) => write::run(&args),
        Command::Follow(args) => follow::run(&args),
    }
}
