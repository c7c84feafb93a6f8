//! Images without a registry: archives that `kind load image-archive` takes, made from files alone.

mod load;
mod ours;
mod platform;

use std::env::consts;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use load::{load, loaded};
pub use ours::ours;
pub use platform::platform;

use crate::Places;
use crate::process::Exec;
use crate::tools::fnv;

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name and tag, as a pod gives it.
    pub reference: String,
    /// The archive.
    pub archive: PathBuf,
    /// The digest of its content, `sha256:…`: in a pod's annotation, it makes a new build of a `:dev` tag roll out.
    pub digest: String,
}

/// The user that images run as; numeric, so that Kubernetes can see that it is not root.
pub const USER: &str = "65532";

/// What goes into an archive: an entrypoint, and layers of `DEST=SOURCE` parts as `archive.py` takes them.
struct Recipe {
    reference: String,
    entrypoint: String,
    layers: Vec<Vec<String>>,
    /// Names the inputs: an archive with the same key is not written again.
    key: String,
}

impl Recipe {
    fn write(&self, places: &Places) -> Result<Image> {
        let folder = places.cache.join("images");
        fs::create_dir_all(&folder)?;
        let name = self.reference.replace(['/', ':'], "-");
        let (archive, record) = (folder.join(format!("{name}.tar")), folder.join(format!("{name}.key")));
        let image = |digest: &str| Image {
            reference: self.reference.clone(),
            archive: archive.clone(),
            digest: digest.to_owned(),
        };
        // The record's first line is the key, its second the digest.
        let writer = places.script("lib/archive.py");
        let key = format!("{} {:08x}", self.key, fnv(&[&fs::read(&writer)?]));
        let known = fs::read_to_string(&record).unwrap_or_default();
        if let Some((known_key, digest)) = known.split_once('\n')
            && known_key == key
            && archive.is_file()
        {
            return Ok(image(digest.trim()));
        }
        let mut python = Exec::new("python3")
            .arg(&writer)
            .arg(&archive)
            .args([
                "--tag",
                &self.reference,
                "--user",
                USER,
                "--entrypoint",
                &format!("[\"{}\"]", self.entrypoint),
            ])
            .args(["--architecture", architecture()]);
        for layer in &self.layers {
            python = python.arg("--").args(layer);
        }
        let digest = python.output().with_context(|| format!("writing the image {}", self.reference))?;
        let digest = digest.trim();
        fs::write(&record, format!("{key}\n{digest}\n"))?;
        Ok(image(digest))
    }
}

/// The nodes' architecture under the name that images use.
fn architecture() -> &'static str {
    match consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// A file's size and time, which change with its content when a build writes it.
fn stamp(path: &Path) -> Result<String> {
    let meta =
        fs::metadata(path).with_context(|| format!("{} is not there: build it first", path.display()))?;
    let time = meta.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    Ok(format!("{} {} {time}", path.display(), meta.len()))
}
