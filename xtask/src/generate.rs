//! `cargo xtask generate`: files that are written from code, and the gate that finds them out of date.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fusebox_cluster::Places;

use crate::cargo::cargo;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Change nothing; fail where a file differs from what would be written
    #[arg(long)]
    check: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let checkout = Places::find()?.checkout;
    if args.check { check(&checkout) } else { generate(&checkout, &checkout) }
}

/// Compare what is committed with what would be written.
pub fn check(checkout: &Path) -> Result<()> {
    let fresh = checkout.join("target/generated");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    generate(checkout, &fresh)?;
    let written = files(&fresh)?;
    ensure!(!written.is_empty(), "nothing was generated");
    let same = |path: &PathBuf| {
        fs::read(checkout.join(path)).is_ok_and(|now| fs::read(fresh.join(path)).is_ok_and(|new| new == now))
    };
    let stale: Vec<_> = written.iter().filter(|path| !same(path)).collect();
    ensure!(stale.is_empty(), "out of date: {stale:?}; `cargo xtask generate` writes them, then commit them");
    Ok(())
}

/// The writer lives beside the types that it writes down.
fn generate(checkout: &Path, to: &Path) -> Result<()> {
    let to = to.to_string_lossy();
    let program = ["--package", "fusebox-policy", "--features", "generate", "--bin", "generate"];
    cargo(checkout, &[&["run", "--quiet"], &program[..], &["--", &to]].concat())
}

/// The files under a folder, by their path in it.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
