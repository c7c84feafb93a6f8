//! One row of the library's benchmark a run. `cargo xtask bench library` pins, interleaves and compares them.

mod alloc;
mod fidelity;
mod grpc;
mod inner;
mod measure;
mod rows;
mod subjects;
mod version;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "bench", about = "One row of the library's benchmark")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the rows there are, one JSON object a line
    List,
    /// Measure one row and print it as one line of JSON
    Row(rows::Args),
    /// Serve the gRPC hello of B10; the first line printed is the port
    Serve(grpc::serve::Args),
    /// Load a server of B10 and print what came back as one line of JSON
    Load(grpc::load::Args),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::List => rows::list(),
        Command::Row(args) => rows::run(&args),
        Command::Serve(args) => grpc::serve::run(&args),
        Command::Load(args) => grpc::load::run(&args),
    }
}
