//! The credentials for the platform's etcd: each to the namespace that needs it, root's to the person at this machine.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::install::PLATFORM_NAMESPACE;
use crate::{Cluster, Places};

/// The authority of etcd's certificate: a `ConfigMap`, in the platform's namespace and in every one that uses etcd.
pub const CA: &str = "etcd-ca";

/// The Secret with the user of the operator (`operator`), of a namespace's services (its name) or of `root`.
pub fn user_secret(who: &str) -> String {
    format!("etcd-user-{who}")
}

/// The files that etcdctl on this machine needs, once the platform is installed: the authority, root's password.
pub(crate) fn files(places: &Places) -> Option<(PathBuf, PathBuf)> {
    let [ca, password] = paths(places);
    (ca.is_file() && password.is_file()).then_some((ca, password))
}

fn paths(places: &Places) -> [PathBuf; 2] {
    ["etcd-ca.crt", "etcd-root.password"].map(|name| places.state.join(name))
}

/// Writes those files.
pub(crate) fn keep(cluster: &Cluster) -> Result<()> {
    let [ca, password] = paths(cluster.places());
    write(&ca, &field(&get(cluster, "configmap", CA)?, "ca.crt")?)?;
    // kubectl decodes it itself, so that no library is needed for that.
    let decode = "go-template={{ .data.password | base64decode }}";
    let root = user_secret("root");
    write(&password, &cluster.kubectl(&["-n", PLATFORM_NAMESPACE, "get", "secret", &root, "-o", decode])?)
}

/// Removes them.
pub(crate) fn forget(places: &Places) {
    for path in paths(places) {
        let _ = fs::remove_file(path);
    }
}

/// Gives a namespace, made if it is not there, the authority and one user.
pub(crate) fn give(cluster: &Cluster, who: &str, namespace: &str) -> Result<()> {
    let apply = |object: &Value| {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        cluster.tool("kubectl").args(args).input(object.to_string()).output()
    };
    apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }))?;
    for (kind, name) in [("configmap", CA.to_owned()), ("secret", user_secret(who))] {
        let mut copy = get(cluster, kind, &name)?;
        copy["metadata"] = json!({ "name": name, "namespace": namespace });
        apply(&copy).with_context(|| format!("copying the {kind} {name} to namespace {namespace}"))?;
    }
    Ok(())
}

fn get(cluster: &Cluster, kind: &str, name: &str) -> Result<Value> {
    let text = cluster.kubectl(&["-n", PLATFORM_NAMESPACE, "get", kind, name, "-o", "json"])?;
    serde_json::from_str(&text).with_context(|| format!("the {kind} {name}"))
}

fn field(object: &Value, name: &str) -> Result<String> {
    object["data"][name].as_str().map(str::to_owned).with_context(|| format!("no {name} in it"))
}

/// For this user's eyes alone.
fn write(path: &Path, text: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
