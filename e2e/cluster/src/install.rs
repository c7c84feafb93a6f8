//! What a demo and the tests install: Traefik's definitions, the platform, the operator, the sample shop.
//! Each is `helm upgrade --install`, so that a second run changes only what changed.

use anyhow::{Context, Result};

use crate::process::Exec;
use crate::{Cluster, etcd, tools};

/// Where Consul, etcd and Traefik run.
pub const PLATFORM_NAMESPACE: &str = "platform";
/// Where the operator runs.
pub const OPERATOR_NAMESPACE: &str = "fusebox";
/// Where the sample service runs.
pub const SHOP_NAMESPACE: &str = "shop";

/// Consul, etcd and Traefik for trying out; the operator's image, whose program makes etcd's users, is loaded before.
pub fn platform(cluster: &Cluster) -> Result<()> {
    cluster.progress().step("installing Consul, etcd and Traefik", || {
        let definitions = tools::traefik_crds(cluster.places())?;
        let definitions = definitions.to_str().context("the module cache's path is no UTF-8")?;
        // Server-side: the definitions are too long for the annotation of a client-side apply.
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", definitions])?;
        let digest = format!("etcd.{}", digest(cluster, "fusebox-operator")?);
        let keys = format!("etcd.access.allowedKeyPrefixes={}", allowed_keys());
        let values = ["--set-json", &keys, "--set-string", &digest];
        release(cluster, "platform", "demo-platform", PLATFORM_NAMESPACE, &values)?;
        etcd::keep(cluster)
    })
}

/// The operator, as `helm install operator charts/operator` does, its image rolled out by its digest.
pub fn operator(cluster: &Cluster) -> Result<()> {
    cluster.progress().step("installing the operator", || {
        let digest = digest(cluster, "fusebox-operator")?;
        etcd::give(cluster, "operator", OPERATOR_NAMESPACE)?;
        let keys = format!("etcd.allowedKeyPrefixes={}", allowed_keys());
        let user = format!("etcd.userSecret={},etcd.caConfigMap={}", etcd::user_secret("operator"), etcd::CA);
        let values = ["--set-json", &keys, "--set", "metricsService.nodePort=30808", "--set", &user];
        let values = [&values[..], &["--set-string", &digest]].concat();
        release(cluster, "operator", "operator", OPERATOR_NAMESPACE, &values)
    })
}

/// The sample service, its store with the admin endpoint on, and its caller.
pub fn shop(cluster: &Cluster) -> Result<()> {
    cluster.progress().step("installing the sample shop", || {
        let digest = digest(cluster, "user-service")?;
        etcd::give(cluster, SHOP_NAMESPACE, SHOP_NAMESPACE)?;
        let secret = etcd::user_secret(SHOP_NAMESPACE);
        let user = format!("fusebox.etcdUserSecret={secret},fusebox.etcdCaConfigMap={}", etcd::CA);
        let values = ["--set", "store.admin=true", "--set", &user, "--set-string", &digest];
        release(cluster, "user", "user-service", SHOP_NAMESPACE, &values)
    })
}

/// Takes all of it away again; what is not there is no error.
pub fn remove(cluster: &Cluster) -> Result<()> {
    cluster.progress().step("removing what is installed", || {
        // The operator last of ours: its finalizers clear Consul, etcd and Traefik.
        for namespace in [SHOP_NAMESPACE, OPERATOR_NAMESPACE, PLATFORM_NAMESPACE] {
            let args = ["delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s"];
            cluster.tool("kubectl").args(args).deadline(150).output()?;
        }
        Ok(())
    })
}

/// The raw keys of the example.
fn allowed_keys() -> String {
    serde_json::json!({ SHOP_NAMESPACE: ["service.user."] }).to_string()
}

fn release(cluster: &Cluster, name: &str, chart: &str, namespace: &str, values: &[&str]) -> Result<()> {
    let chart = cluster.places().checkout.join("charts").join(chart);
    let helm: Exec = cluster.tool("helm").args(["upgrade", "--install", name]).arg(chart);
    helm.args(["--namespace", namespace, "--create-namespace", "--wait", "--timeout", "240s"])
        .args(values)
        .deadline(300)
        .output()
        .with_context(|| format!("`kubectl -n {namespace} get pods,events` shows more"))?;
    Ok(())
}

/// The annotation that makes a new build of a `:dev` image roll out.
fn digest(cluster: &Cluster, package: &str) -> Result<String> {
    Ok(format!("podAnnotations.fusebox\\.dev/image={}", cluster.image(package)?.digest))
}
