//! Where things are: the checkout, the cache that outlives clusters, and the state of the one cluster.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The folders in use. All paths are absolute.
#[derive(Debug, Clone)]
pub struct Places {
    /// The checkout whose `e2e/` holds the tools modules and scripts.
    pub checkout: PathBuf,
    /// Programs, packages and archives, keyed by version: `$FUSEBOX_CACHE`, else `fusebox` in the user's cache folder.
    pub cache: PathBuf,
    /// Everything of the running cluster: `$FUSEBOX_STATE`, else `cluster` in the cache.
    pub state: PathBuf,
}

impl Places {
    /// The folders for this process, created where missing.
    pub fn find() -> Result<Self> {
        let checkout = checkout()?;
        let cache = cache()?;
        let state = var("FUSEBOX_STATE").unwrap_or_else(|| cache.join("cluster"));
        let places = Self { checkout, cache, state: absolute(&state)? };
        std::fs::create_dir_all(places.logs())
            .with_context(|| format!("cannot create {}", places.state.display()))?;
        Ok(places)
    }

    /// Links to the programs of the versions in use.
    pub fn bin(&self) -> PathBuf {
        self.cache.join("bin")
    }
    /// What the steps of bring-up printed.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }
    /// The cluster's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }
    /// A script of `e2e/kind-node`.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        self.checkout.join("e2e/kind-node").join(name)
    }
    /// Where the packages road unpacks Debian's daemons.
    pub(crate) fn debian(&self) -> PathBuf {
        self.cache.join("debian/root")
    }
}

/// The cache's folder, which need not exist.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = match (var("FUSEBOX_CACHE"), var("XDG_CACHE_HOME"), var("HOME")) {
        (Some(cache), ..) => cache,
        (None, Some(xdg), _) => xdg.join("fusebox"),
        (None, None, Some(home)) => home.join(".cache/fusebox"),
        (None, None, None) => bail!("no folder for the cache: set FUSEBOX_CACHE (or HOME)"),
    };
    absolute(&cache)
}

fn var(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no usable path", path.display()))
}

/// The checkout of the working folder, so that a moved or copied checkout works; else the one that was compiled.
fn checkout() -> Result<PathBuf> {
    let here = env::current_dir().context("the working folder is gone")?;
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .chain(compiled.ancestors())
        .find(|folder| folder.join("e2e/kind-node").is_dir())
        .map(Path::to_path_buf)
        .context("not inside a checkout: no folder above this one holds e2e/kind-node")
}
