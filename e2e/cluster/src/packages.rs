//! The road without Docker or a registry: the node image from packages, and a daemon of the cluster's own.

use std::fs;
use std::thread;

use anyhow::{Result, bail};

use crate::process::Exec;
use crate::tools::{self, Target};
use crate::{Places, Progress};

/// The bridge, and so the name of Docker's network.
pub(crate) const BRIDGE: &str = "fusebox0";

/// A script of `e2e/kind-node` with its folders.
fn script(places: &Places, name: &str) -> Exec {
    Exec::new(places.script(name))
        .env("FUSEBOX_CACHE", &places.cache)
        .env("FUSEBOX_STATE", &places.state)
        .env("FUSEBOX_BRIDGE", BRIDGE)
        .deadline(900)
}

/// Programs, packages and node image, and the daemon running with the image in its store.
pub(crate) fn start(places: &Places, progress: Progress) -> Result<()> {
    image(places, progress, || {
        progress.step("starting the cluster's own Docker daemon", || {
            script(places, "daemon.sh").arg("start").logged(&places.logs().join("daemon.log"))
        })
    })?;
    let name = node_image(places)?;
    let log = places.logs().join("import.log");
    progress.step("giving it the node image", || script(places, "import-image.sh").arg(&name).logged(&log))
}

/// What can be made before a cluster is wanted.
pub(crate) fn prepare(places: &Places, progress: Progress) -> Result<()> {
    image(places, progress, || Ok(()))
}

/// The node image's name in the daemon's store.
pub(crate) fn node_image(places: &Places) -> Result<String> {
    Ok(format!("localhost/fusebox-node:{}", tools::KUBERNETES.version(places)?))
}

/// The node image. Debian's part, and what `then` needs it for, comes while our programs are built.
fn image(places: &Places, progress: Progress, then: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let log = |name: &str| places.logs().join(name);
    thread::scope(|scope| {
        let debian = scope.spawn(|| {
            progress.step("Debian packages and the node's system", || {
                script(places, "packages.sh").logged(&log("packages.log"))?;
                script(places, "node-base.sh").logged(&log("node-base.log"))
            })?;
            then()
        });
        for tool in [tools::KIND, tools::KUBERNETES, tools::ETCD, tools::COREDNS] {
            tool.ensure(places, progress, Target::Nodes)?;
        }
        debian.join().unwrap_or_else(|_| bail!("the packages' thread ended badly"))
    })?;
    let version = tools::KUBERNETES.version(places)?;
    progress
        .step("node image", || script(places, "build-image.sh").arg(version).logged(&log("node-image.log")))
}

/// Containers, volumes and network of the daemon, gone.
pub(crate) fn wipe(places: &Places) -> Result<()> {
    let log = places.logs().join("daemon.log");
    script(places, "daemon.sh").arg("wipe").logged(&log)?;
    script(places, "daemon.sh").arg("start").logged(&log)
}

/// The end of the daemon and of all it made.
pub(crate) fn stop(places: &Places) -> Result<()> {
    script(places, "daemon.sh").arg("stop").logged(&places.logs().join("daemon.log"))
}

/// What of this cluster is still on the machine, a line each.
pub(crate) fn left(places: &Places) -> Result<Vec<String>> {
    let log = places.logs().join("check.log");
    let clean = script(places, "daemon.sh").arg("check").logged(&log);
    let lines: Vec<_> = fs::read_to_string(&log)?.lines().map(str::to_owned).collect();
    match clean {
        Err(error) if lines.is_empty() => Err(error),
        _ => Ok(lines),
    }
}
