//! `cargo xtask test`: everything that CI runs.

use std::time::Duration;

use anyhow::Result;
use fusebox_cluster::{Cluster, Options, disk, install};

use crate::cargo::cargo;
use crate::steps::Steps;
use crate::{check, long, selftest};

/// What a build of everything takes, in GiB.
const BUILD: u64 = 12;

/// The packages that run in the cluster.
const PACKAGES: [&str; 2] = ["fusebox-operator", "user-service"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the cluster up at the end
    #[arg(long)]
    keep: bool,
    /// Run the long proofs instead (no cluster): loom with higher bounds, a hundred times the random cases, SIGKILL
    /// and SIGSTOP at every write, every fault on real servers five times, 2,000 resources. They take an hour and a
    /// half on two cores, however many minutes are given (120 if none are); for the rest of those, but a minute at
    /// least, seeds are played that nobody has played before, of Enforced and of whole operators. A seed that fails
    /// is told with the command that plays it again
    #[arg(long, value_name = "MINUTES", num_args = 0..=1, default_missing_value = "120", conflicts_with = "keep")]
    long: Option<u64>,
}

pub fn run(args: &Args) -> Result<()> {
    let cluster = Cluster::open()?;
    let mut steps = Steps::new(cluster.progress());
    let result = match args.long {
        Some(minutes) => long::run(&cluster, &mut steps, Duration::from_mins(minutes)),
        None => all(&cluster, &mut steps, args),
    };
    steps.print();
    result
}

fn all(cluster: &Cluster, steps: &mut Steps, args: &Args) -> Result<()> {
    let checkout = &cluster.places().checkout;
    steps.run("room on the disk", || {
        let target = checkout.join("target/debug");
        if !target.exists() {
            disk::room(checkout, disk::CLUSTER + BUILD, "a first build, and a cluster,")?;
        }
        disk::room(&cluster.places().state, disk::CLUSTER, "a cluster")
    })?;
    // Programs first: installing them is no trace of a cluster, and the library's tests run etcd.
    steps.run("programs for the cluster", || cluster.prepare())?;
    check::all(cluster, steps)?;
    steps.run("unit and integration tests", || cargo(checkout, &["test", "--quiet", "--workspace"]))?;

    let was_up = cluster.status().up;
    // The cluster's own tests cost no cycle of their own: the one that the tests run on is one that healed.
    let before = if was_up { None } else { Some(selftest::killed(cluster, steps)?) };
    steps.run("cluster up", || cluster.up(&Options::default()))?;
    let tested = on_cluster(cluster, steps);
    if tested.is_err() {
        let folder = checkout.join("target/cluster-logs");
        if cluster.logs(&folder).is_ok() {
            eprintln!("what nodes and pods said: {}", folder.display());
        }
    }
    let Some(before) = before.filter(|_| !args.keep) else {
        steps.not_run("cluster down leaves nothing", "the cluster stays up");
        return tested;
    };
    // A failed test must not hide what `down` left, nor the other way round.
    let down = steps.run("cluster down leaves nothing", || {
        cluster.down()?;
        selftest::nothing_left(cluster, &before)
    });
    tested.and(down)
}

fn on_cluster(cluster: &Cluster, steps: &mut Steps) -> Result<()> {
    // As the tests before: one set of features, one build.
    steps.run("images", || images(cluster, &["--tests"]))?;
    steps.run("platform, operator and shop installed", || {
        install::platform(cluster)?;
        install::operator(cluster)?;
        install::shop(cluster)
    })?;
    steps.run("end-to-end tests", || {
        let test = ["test", "--workspace", "--test", "main_job", "--", "--test-threads=1"];
        cargo(&cluster.places().checkout, &test)
    })?;
    if std::env::var_os(long::LONG).is_none_or(|set| set != "1") {
        steps.not_run("a worker node paused, Consul's leader lost", "FUSEBOX_LONG=1 runs them");
    }
    Ok(())
}

/// Builds our programs, and with them what else is asked of cargo; their images are given to the cluster.
pub fn images(cluster: &Cluster, with: &[&str]) -> Result<()> {
    cargo(&cluster.places().checkout, &[&["build", "--workspace", "--bins"], with].concat())?;
    let images = PACKAGES.iter().map(|package| cluster.image(package)).collect::<Result<Vec<_>>>()?;
    cluster.load(&images)
}
