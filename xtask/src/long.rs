//! `cargo xtask test --long`: what finds the same kind of mistake as the tests, in more places. The tests say how
//! many, and which seeds they begin with.

use std::time::{Duration, Instant};

use anyhow::Result;
use fusebox_cluster::Cluster;

use crate::cargo::{cargo, command};
use crate::check;
use crate::steps::Steps;

/// Set to 1, proofs take their time.
pub const LONG: &str = "FUSEBOX_LONG";
/// For how many seconds those take it that have no end.
const SECONDS: &str = "FUSEBOX_SECONDS";
/// A hundred times proptest's default.
const CASES: &str = "25600";
/// Each step ends by itself; none takes so many seconds.
const NIGHT: u64 = 8 * 60 * 60;
/// What is played for the rest of the time, however little that is.
const LEAST: Duration = Duration::from_mins(1);
/// How long a process plays.
const PROCESS: Duration = Duration::from_mins(3);
/// One test after the other, for those that take all cores, or tell how long the real servers took.
const ALONE: &str = "--test-threads=1";
/// The proof that has no end.
const DAYS: &str = "simulation::days::whole_operators_survive_bad_days";

/// Runs them all, however long it takes, and plays seeds for what is left of `time`. What fails does not keep the others
/// from being run.
pub fn run(cluster: &Cluster, steps: &mut Steps, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    let left = || end.saturating_duration_since(Instant::now());
    let test = |test: &[&str], only: &[&str], seconds: Duration| {
        let cargo = command(&cluster.places().checkout).deadline(NIGHT);
        cargo
            .arg("test")
            .args(test)
            .args(["--", "--nocapture"])
            .args(only)
            .env(LONG, "1")
            .env("PROPTEST_CASES", CASES)
            .env(SECONDS, seconds.as_secs().to_string())
            .shown_live()
    };
    let mut all = Ok(());
    let mut step = |name: &str, work: &mut dyn FnMut() -> Result<()>| {
        let done = steps.run(name, work);
        if let Err(error) = &done {
            eprintln!("{error:#}");
        }
        if all.is_ok() {
            all = done;
        }
    };
    step("loom: every order, at the higher bounds", &mut || test(&["-p", "fusebox-model"], &[], LEAST));
    eprintln!("random cases of each property without a number of its own: {CASES}");
    step("random schedules, a hundred times as many", &mut || {
        test(&["--workspace", "--exclude", "fusebox-operator", "--lib"], &[], LEAST)
    });
    step("the operator's long proofs", &mut || {
        test(&["-p", "fusebox-operator"], &[ALONE, "--skip", DAYS], LEAST)
    });
    // Here, because it is a workspace of its own, with the peers in it.
    step("the benchmark's lints", &mut || {
        let lints =
            ["clippy", "--manifest-path", check::BENCH, "--all-targets", "--quiet", "--", "-D", "warnings"];
        cargo(&cluster.places().checkout, &lints)
    });
    // One process after the other: what calls look at lives as long as it.
    let in_turn = |time: Duration, packages: &[&str], only: &[&str]| {
        let until = Instant::now() + time.max(LEAST);
        loop {
            test(packages, only, until.saturating_duration_since(Instant::now()).min(PROCESS))?;
            if Instant::now() + LEAST / 4 > until {
                return Ok(());
            }
        }
    };
    step("Enforced under random schedules", &mut || {
        in_turn(left() / 3, &["-p", "fusebox-simulation", "--test", "enforced"], &[])
    });
    step("whole operators over bad days", &mut || {
        in_turn(left(), &["-p", "fusebox-operator", "--lib"], &[DAYS, "--exact"])
    });
    steps.not_run("the slowest faults on a cluster", "they take one: FUSEBOX_LONG=1 cargo xtask test");
    all
}
