//! Our own images: Debian's libc6, libgcc-s1 and ca-certificates as a base, and one binary on top.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Image, Recipe};
use crate::process::{Exec, which};
use crate::tools::fnv;
use crate::{Places, Progress};

/// The image `localhost/<package>:dev` with the binary at `/usr/bin/<package>`.
///
/// On a Debian-like Linux it holds `binary`, which was built against this machine's glibc. Elsewhere that binary is of no
/// use to a node: there the `Dockerfile` builds the same layout.
pub fn ours(places: &Places, progress: Progress, package: &str, binary: &Path) -> Result<Image> {
    let reference = format!("localhost/{package}:dev");
    if std::env::consts::OS != "linux" || which("dpkg").is_none() || which("apt-get").is_none() {
        return progress
            .step(&format!("docker build {reference}"), || docker_build(places, package, &reference));
    }
    let base = base(places, progress)?;
    let mut layer = Vec::new();
    for entry in fs::read_dir(&base)? {
        let entry = entry?;
        layer.push(format!("{}={}", entry.file_name().to_string_lossy(), entry.path().display()));
    }
    layer.sort();
    layer.push("tmp=dir".to_owned());
    let recipe = Recipe {
        key: format!("{} {}", base.display(), super::stamp(binary)?),
        entrypoint: format!("/usr/bin/{package}"),
        layers: vec![layer, vec![format!("usr/bin/{package}={}", binary.display())]],
        reference,
    };
    recipe.write(places)
}

/// The base's root filesystem in the cache, keyed by this machine's glibc.
fn base(places: &Places, progress: Progress) -> Result<std::path::PathBuf> {
    let glibc = Exec::new("dpkg-query").args(["-W", "-f", "${Version}", "libc6"]).output()?;
    let script = fs::read(places.script("base-layer.sh"))?;
    let name = format!("base-{}-{:08x}", glibc.trim(), fnv(&[&script]));
    let folder = places.cache.join("images").join(name);
    if !folder.is_dir() {
        progress.step("base layer from Debian packages", || {
            Exec::new(places.script("base-layer.sh"))
                .arg(&folder)
                .deadline(300)
                .logged(&places.logs().join("base-layer.log"))
        })?;
    }
    Ok(folder)
}

fn docker_build(places: &Places, package: &str, reference: &str) -> Result<Image> {
    if which("docker").is_none() {
        bail!(
            "{reference} is assembled on a Debian-like Linux or built by Docker, and this machine has neither"
        );
    }
    Exec::new("docker")
        .args(["build", "--build-arg", &format!("PACKAGE={package}"), "-t", reference, "."])
        .dir(&places.checkout)
        .deadline(3600)
        .logged(&places.logs().join(format!("docker-build-{package}.log")))?;
    let digest = Exec::new("docker").args(["image", "inspect", "-f", "{{.Id}}", reference]).output()?;
    let folder = places.cache.join("images");
    fs::create_dir_all(&folder)?;
    let archive = folder.join(format!("{package}.docker.tar"));
    Exec::new("docker").args(["save", reference, "-o"]).arg(&archive).output().context("docker save")?;
    Ok(Image { reference: reference.to_owned(), archive, digest: digest.trim().to_owned() })
}
