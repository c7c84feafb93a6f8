//! Debian packages that the Rust build and our commands need.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, bail};
use fusebox_cluster::Progress;
use fusebox_cluster::process::{Exec, which};

/// etcd-client's build runs protoc on files that import protobuf's own: both packages are needed.
pub fn ensure_protoc(progress: Progress) -> Result<()> {
    let installed = std::env::var_os("PROTOC").is_some() || which("protoc").is_some();
    if installed && (std::env::var_os("PROTOC_INCLUDE").is_some() || well_known_types()) {
        return Ok(());
    }
    let what = "protoc or protobuf's own .proto files, which the build of the etcd client needs \
                (macOS: brew install protobuf)";
    install(what, &["protobuf-compiler", "libprotobuf-dev"], progress)
}

/// A program that a command of ours runs, from the package of the same name.
pub fn ensure(program: &str, progress: Progress) -> Result<()> {
    if which(program).is_some() { Ok(()) } else { install(program, &[program], progress) }
}

fn install(what: &str, packages: &[&str], progress: Progress) -> Result<()> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let packages_shown = packages.join(" ");
    if !root || which("apt-get").is_none() {
        bail!("missing: {what}. Install it (Debian: {packages_shown}), then try again");
    }
    progress.step(&format!("installing {packages_shown}"), || {
        let install = || {
            Exec::new("apt-get")
                .args(["install", "-y", "--no-install-recommends"])
                .args(packages)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .output()
        };
        // The first try may meet a stale or absent package list.
        install().or_else(|_| Exec::new("apt-get").arg("update").output().and_then(|_| install())).map(|_| ())
    })
}

/// Whether protobuf's own files lie in `include` beside the `bin` that protoc is in, where protoc looks for them.
fn well_known_types() -> bool {
    let Some(protoc) = which("protoc") else { return false };
    let real = protoc.canonicalize().unwrap_or(protoc);
    let beside =
        |bin: &Path| Some(bin.parent()?.parent()?.join("include/google/protobuf/empty.proto").is_file());
    beside(&real).unwrap_or_default()
}
