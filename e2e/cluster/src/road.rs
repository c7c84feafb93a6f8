//! Which way to a cluster this machine has, said in plain words where it has none.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::process::{Exec, which};
use crate::{Places, Progress};

/// A stock node image of the Kubernetes minor that the packages road builds.
const STOCK_IMAGE: &str = "kindest/node:v1.34.0";

/// How the cluster's nodes come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Road {
    /// The user's Docker daemon runs the stock node image.
    Stock,
    /// A Docker daemon of the cluster's own runs a node image built from packages.
    Packages,
}

/// The stock node image, or the one that `$FUSEBOX_NODE_IMAGE` names.
pub(crate) fn stock_image() -> String {
    std::env::var("FUSEBOX_NODE_IMAGE").unwrap_or_else(|_| STOCK_IMAGE.to_owned())
}

impl Road {
    /// The road of the cluster that is there, `$FUSEBOX_ROAD` (stock or packages), or the first that can be gone.
    pub(crate) fn choose(places: &Places, progress: Progress) -> Result<Self> {
        if let Some(road) = Self::taken(places) {
            return Ok(road);
        }
        match std::env::var("FUSEBOX_ROAD").as_deref() {
            Ok("stock") => stock(progress).map(|()| Self::Stock).map_err(anyhow::Error::msg),
            Ok("packages") => packages().map(|()| Self::Packages).map_err(anyhow::Error::msg),
            Ok(other) => bail!("FUSEBOX_ROAD is `stock` or `packages`, not `{other}`"),
            Err(_) => Self::first(progress),
        }
    }

    /// Record it: what follows, and `down` above all, is done on the same road.
    pub(crate) fn take(self, places: &Places) -> Result<()> {
        fs::write(places.state.join("road"), self.name()).context("cannot write the state folder")
    }

    /// The road of the cluster that is there.
    pub(crate) fn taken(places: &Places) -> Option<Self> {
        match fs::read_to_string(places.state.join("road")).ok()?.trim() {
            "stock" => Some(Self::Stock),
            "packages" => Some(Self::Packages),
            _ => None,
        }
    }

    fn first(progress: Progress) -> Result<Self> {
        let Err(no_stock) = stock(progress) else { return Ok(Self::Stock) };
        match packages() {
            Ok(()) => {
                progress.say(format!("{no_stock}: the node is built from packages"));
                Ok(Self::Packages)
            }
            Err(no_packages) => bail!(
                "no way to a cluster on this machine.\n  With Docker: {no_stock}.\n  From packages: {no_packages}.\n\
                 Start Docker (with access to its registry), or run this as root on a Debian-like Linux"
            ),
        }
    }

    /// Its name in the state folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Packages => "packages",
        }
    }
}

/// Whether the user's daemon answers and has, or gets, the stock node image.
fn stock(progress: Progress) -> Result<(), String> {
    if which("docker").is_none() {
        return Err("there is no docker command".into());
    }
    if !Exec::new("docker").args(["version"]).deadline(10).succeeds() {
        return Err("there is a docker command but no daemon answers it".into());
    }
    let image = stock_image();
    if Exec::new("docker").args(["image", "inspect", &image]).deadline(20).succeeds() {
        return Ok(());
    }
    progress
        .step(&format!("pulling {image}"), || {
            Exec::new("docker").args(["pull", "-q", &image]).deadline(900).output()
        })
        .map(|_| ())
        .map_err(|error| {
            let said = error.root_cause().to_string();
            let reason = said.lines().last().unwrap_or_default().trim();
            format!("Docker cannot get the node image ({reason})")
        })
}

/// Whether this machine can build the node and run a daemon.
fn packages() -> Result<(), String> {
    if std::env::consts::OS != "linux" || std::env::consts::ARCH != "x86_64" {
        return Err("it needs Linux on x86-64".into());
    }
    for program in ["apt-get", "dpkg", "python3"] {
        if which(program).is_none() {
            return Err(format!("it needs {program} (a Debian-like system with Python 3)"));
        }
    }
    if fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
        return Err("it needs root, and this is another user".into());
    }
    Ok(())
}
