//! `cargo xtask check`: formatting, lints, dependencies and drift of generated files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fusebox_cluster::process::Exec;
use fusebox_cluster::{Cluster, Places};

use crate::cargo::cargo;
use crate::steps::Steps;
use crate::{debian, generate, layout};

const CARGO_DENY: &str = "0.20.2";

/// A workspace of its own, under the same rules.
pub const BENCH: &str = "bench/Cargo.toml";

pub fn run() -> Result<()> {
    let cluster = Cluster::open()?;
    let mut steps = Steps::new(cluster.progress());
    let result = all(&cluster, &mut steps);
    steps.print();
    result
}

/// Every check, the quick ones first.
pub fn all(cluster: &Cluster, steps: &mut Steps) -> Result<()> {
    let places = cluster.places();
    let checkout = &places.checkout;
    debian::ensure_protoc(cluster.progress())?;
    steps.run("format", || {
        cargo(checkout, &["fmt", "--all", "--check"])?;
        cargo(checkout, &["fmt", "--check", "--manifest-path", BENCH])
    })?;
    steps.run("layout", || layout::check(checkout))?;
    steps.run("lints", || {
        cargo(checkout, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
    })?;
    steps.run("dependencies: bans, licences, sources", || {
        let deny = cargo_deny(places)?;
        let checks = ["--log-level", "error", "check", "bans", "licenses", "sources"];
        Exec::new(&deny).args(checks).dir(checkout).shown_live()?;
        Exec::new(&deny).args(["--manifest-path", BENCH]).args(checks).dir(checkout).shown_live()
    })?;
    steps.not_run("dependencies: advisories", "the advisory database is not reachable here");
    steps.run("generated files", || generate::check(checkout))
}

/// The program in the cache, installed where it is missing.
fn cargo_deny(places: &Places) -> Result<PathBuf> {
    let root = places.cache.join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        let root = root.to_string_lossy();
        // The dev profile builds in half the time, and it runs for a second.
        let install =
            ["install", "--debug", "--locked", "cargo-deny", "--version", CARGO_DENY, "--root", &root];
        cargo(Path::new("/"), &install)?;
    }
    Ok(program)
}
