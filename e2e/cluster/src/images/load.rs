//! Loading archives into the nodes, once for each content.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use anyhow::{Context, Result, bail};

use super::Image;
use crate::process::Exec;
use crate::{Places, Progress, kind};

/// What the nodes hold: reference and digest. The record goes with the cluster.
pub(crate) fn loaded(places: &Places) -> BTreeMap<String, String> {
    let text = fs::read_to_string(places.state.join("loaded.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Load what the nodes do not hold yet, several at once.
pub(crate) fn load(
    places: &Places,
    progress: Progress,
    vars: &[(String, String)],
    images: &[Image],
) -> Result<()> {
    let mut record = loaded(places);
    let new: Vec<_> =
        images.iter().filter(|image| record.get(&image.reference) != Some(&image.digest)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = new.iter().map(|image| image.reference.trim_start_matches("localhost/")).collect();
    progress.step(&format!("loading {}", names.join(", ")), || {
        thread::scope(|scope| {
            let loads: Vec<_> = new.iter().map(|image| scope.spawn(|| one(vars, image))).collect();
            loads
                .into_iter()
                .try_for_each(|load| load.join().unwrap_or_else(|_| bail!("a loading thread ended badly")))
        })
    })?;
    record.extend(new.iter().map(|image| (image.reference.clone(), image.digest.clone())));
    fs::write(places.state.join("loaded.json"), serde_json::to_string_pretty(&record)?)
        .context("cannot write the state folder")
}

fn one(vars: &[(String, String)], image: &Image) -> Result<()> {
    Exec::new("kind")
        .args(["load", "image-archive", "--name", kind::NAME])
        .arg(&image.archive)
        .envs(vars)
        .output()
        .map(|_| ())
        .with_context(|| format!("loading {}", image.reference))
}
