//! `cargo xtask cluster`: up, down, status, env, logs, check and the self-test.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use fusebox_cluster::{Cluster, ETCD_PASSWORD_FILE, Options, Status};

use crate::{debian, selftest};

/// What a user can set, told at the end of `--help`.
const VARIABLES: &str = "\
Environment:
  FUSEBOX_CACHE          programs, packages and images [default: fusebox in the user's cache folder]
  FUSEBOX_STATE          everything of the running cluster [default: cluster in the cache]
  FUSEBOX_ROAD           stock (Docker and its registry) or packages [default: the first that can be gone]
  FUSEBOX_NODE_IMAGE     the stock road's node image
  FUSEBOX_DEBIAN_MIRROR  the packages road's mirror [default: the one apt uses]";

#[derive(Debug, clap::Args)]
#[command(after_help = VARIABLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the cluster up, with the images of Consul, etcd and Traefik loaded; heals what a crash left
    Up {
        /// Nodes beside the control plane [default: as it is, or 1]
        #[arg(long)]
        workers: Option<u8>,
    },
    /// End the cluster and all that it made on this machine
    Down,
    /// What is there now
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Shell exports for people and scripts: eval "$(cargo xtask cluster env)"
    Env,
    /// Collect what nodes, pods and the daemon say
    Logs {
        /// The folder
        #[arg(default_value = "target/cluster-logs")]
        folder: PathBuf,
    },
    /// Build and fetch everything a cluster needs, without starting one
    Prepare,
    /// Print what a cluster left on this machine; fails if anything is left (or if one is up)
    Check,
    /// Kill the daemon, a node and `up` itself half-way, and prove that `up` heals and `down` leaves nothing
    Selftest,
}

pub fn run(args: &Args) -> Result<()> {
    let cluster = Cluster::open()?;
    match &args.command {
        Command::Up { workers } => {
            debian::ensure_protoc(cluster.progress())?;
            cluster.up(&Options { workers: *workers, ..Options::default() })?;
            cluster.progress().say("eval \"$(cargo xtask cluster env)\" gives a shell what it needs");
            Ok(())
        }
        Command::Down => cluster.down(),
        Command::Status { json: true } => out(&serde_json::to_string_pretty(&cluster.status())?),
        Command::Status { json: false } => out(&told(&cluster.status())?),
        Command::Env => {
            let env = cluster.env();
            let export = |(name, value): &(String, String)| format!("export {name}={}", quoted(value));
            let mut exports: Vec<_> = env.iter().map(export).collect();
            if let Some((_, file)) = env.iter().find(|(name, _)| name == ETCD_PASSWORD_FILE) {
                // The shell reads it, so that it is not on the screen.
                exports.push(format!("export ETCDCTL_PASSWORD=\"$(cat {})\"", quoted(file)));
            }
            out(&exports.join("\n"))
        }
        Command::Logs { folder } => {
            cluster.logs(folder)?;
            println!("{}", folder.display());
            Ok(())
        }
        Command::Prepare => cluster.prepare(),
        Command::Check => {
            let left = cluster.left()?;
            if !left.is_empty() {
                bail!("on this machine:\n{}", left.join("\n"));
            }
            println!("nothing left");
            Ok(())
        }
        Command::Selftest => selftest::run(&cluster),
    }
}

fn told(status: &Status) -> Result<String> {
    let mut text = String::new();
    let road = status.road.map_or("none", fusebox_cluster::Road::name);
    writeln!(text, "cluster    {} (road: {road})", if status.up { "up" } else { "not up" })?;
    writeln!(text, "state      {}", status.state.display())?;
    for node in &status.nodes {
        let ready = if node.ready { "ready" } else { "NOT READY" };
        writeln!(text, "node       {} {ready}, {}, {}", node.name, node.version, node.address)?;
    }
    for (image, digest) in &status.images {
        writeln!(text, "image      {image} {}", digest.get(..19).unwrap_or(digest))?;
    }
    if status.up {
        for (what, address) in &status.addresses {
            writeln!(text, "port       {address} {what}")?;
        }
    } else {
        writeln!(text, "           `cargo xtask cluster up` brings it up")?;
    }
    Ok(text)
}

/// Print for a reader that may have seen enough, such as `head`.
fn out(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}
