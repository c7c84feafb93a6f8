//! `cargo xtask test`: everything that CI runs.

use anyhow::Result;
use fusebox_cluster::process::Exec;
use fusebox_cluster::{Cluster, Options, install};

use crate::cargo::cargo;
use crate::steps::Steps;
use crate::{check, selftest};

/// Set to 1, proofs take their time.
const LONG: &str = "FUSEBOX_LONG";

/// A hundred times proptest's default.
const CASES: &str = "25600";

/// The packages that run in the cluster.
const PACKAGES: [&str; 2] = ["fusebox-operator", "user-service"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the cluster up at the end
    #[arg(long)]
    keep: bool,
    /// Run the long proofs instead: loom with higher bounds, a hundred times the random schedules (about
    /// half an hour, no cluster)
    #[arg(long, conflicts_with = "keep")]
    long: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let cluster = Cluster::open()?;
    let mut steps = Steps::new(cluster.progress());
    let result = if args.long { long(&cluster, &mut steps) } else { all(&cluster, &mut steps, args) };
    steps.print();
    result
}

fn all(cluster: &Cluster, steps: &mut Steps, args: &Args) -> Result<()> {
    let checkout = &cluster.places().checkout;
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

/// What finds the same kind of mistake as the tests, in more places. The tests say how many.
fn long(cluster: &Cluster, steps: &mut Steps) -> Result<()> {
    let run = |test: &[&str]| {
        let test = Exec::new("cargo").arg("test").args(test).args(["--", "--nocapture", "--test-threads=1"]);
        test.env(LONG, "1").env("PROPTEST_CASES", CASES).dir(&cluster.places().checkout).shown_live()
    };
    steps.run("loom: every order, at the higher bounds", || run(&["-p", "fusebox-model"]))?;
    eprintln!("random cases of each property without a number of its own: {CASES}");
    steps.run("random schedules, a hundred times as many", || run(&["--workspace", "--lib"]))?;
    // Here, because it is a workspace of its own, with the peers in it.
    steps.run("the benchmark's lints", || {
        let lints =
            ["clippy", "--manifest-path", check::BENCH, "--all-targets", "--quiet", "--", "-D", "warnings"];
        cargo(&cluster.places().checkout, &lints)
    })
}

fn on_cluster(cluster: &Cluster, steps: &mut Steps) -> Result<()> {
    steps.run("images", || images(cluster))?;
    steps.run("platform, operator and shop installed", || {
        install::platform(cluster)?;
        install::operator(cluster)?;
        install::shop(cluster)
    })?;
    steps.run("end-to-end tests", || {
        // The whole workspace, as the tests before: one set of features, one build.
        let test = ["test", "--workspace", "--test", "main_job", "--", "--test-threads=1"];
        cargo(&cluster.places().checkout, &test)
    })?;
    if std::env::var_os(LONG).is_none_or(|long| long != "1") {
        steps.not_run("a worker node paused, Consul's leader lost", "FUSEBOX_LONG=1 runs them");
    }
    Ok(())
}

/// Build our images and load them.
pub fn images(cluster: &Cluster) -> Result<()> {
    // The whole workspace, as the tests: one set of features, one build.
    cargo(&cluster.places().checkout, &["build", "--workspace", "--bins"])?;
    let images = PACKAGES.iter().map(|package| cluster.image(package)).collect::<Result<Vec<_>>>()?;
    cluster.load(&images)
}
