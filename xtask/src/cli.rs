//! The command line.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{bench, check, cluster, demo, generate, test};

/// The commands of a checkout: each does its own set-up.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a cluster and show the main job on it, step by step; it stays up
    Demo(demo::Args),
    /// Everything that CI runs: check, tests, and the end-to-end tests on a cluster
    Test(test::Args),
    /// Formatting, lints, licences and generated files, without a cluster
    Check,
    /// Write the generated files (custom resource definitions)
    Generate(generate::Args),
    /// The kind cluster of this checkout
    Cluster(cluster::Args),
    /// How fast it is, beside its peers
    #[command(subcommand)]
    Bench(bench::Command),
}

pub fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Check => check::run(),
        Command::Generate(args) => generate::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Bench(command) => bench::run(&command),
    }
}
