//! Where everything of the cluster is reached from this machine.

use std::collections::BTreeMap;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};
use fusebox_cluster::Cluster;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::process::Command;

/// The namespace of the sample service, as in `examples/`.
pub const SHOP: &str = "shop";
/// The name of the cluster in Consul and etcd, as the demo installs the operator.
pub const CLUSTER: &str = "demo";

/// Clients and addresses.
pub struct World {
    /// The API server.
    pub client: Client,
    /// HTTP without redirects or pooling surprises.
    pub http: reqwest::Client,
    cluster: Cluster,
    env: BTreeMap<String, String>,
}

impl World {
    /// Connects to the running cluster.
    pub async fn open() -> Result<Self> {
        // The second test of a process finds it installed.
        rustls::crypto::ring::default_provider().install_default().ok();
        let cluster = Cluster::open()?;
        let env: BTreeMap<_, _> = cluster.env().into_iter().collect();
        let path = env.get("KUBECONFIG").context("the cluster names no KUBECONFIG")?;
        let config = Kubeconfig::read_from(path).with_context(|| {
            format!("no cluster: {path} cannot be read. Run `cargo xtask test` or `cargo xtask demo`")
        })?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let http =
            reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(30)).build()?;
        Ok(Self { client: Client::try_from(config)?, http, cluster, env })
    }

    /// One of the variables that `cargo xtask cluster env` prints.
    pub fn address(&self, variable: &str) -> &str {
        self.env.get(variable).map_or("", String::as_str)
    }

    /// Runs `kubectl` (or `helm`) as a person would; its output, or its error as the person would see it.
    pub async fn run(&self, program: &str, args: &[&str], stdin: Option<&str>) -> Result<String> {
        let output = self.try_run(program, args, stdin).await?;
        ensure!(
            output.status.success(),
            "{program} {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `kubectl` in the namespace of the sample service.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.run("kubectl", &[&["-n", SHOP], args].concat(), None).await
    }

    /// `kubectl apply` of a text in the namespace of the sample service; Err holds the API server's words.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        self.run("kubectl", &["-n", SHOP, "apply", "-f", "-"], Some(yaml)).await
    }

    async fn try_run(&self, program: &str, args: &[&str], stdin: Option<&str>) -> Result<Output> {
        use tokio::io::AsyncWriteExt;
        // What is not one of our tools, like docker, is on the PATH that the cluster gives.
        let ours = fusebox_cluster::tools::path(self.cluster.places(), program);
        let mut command = Command::new(if ours.exists() { ours } else { program.into() });
        command.args(args).envs(&self.env).kill_on_drop(true);
        command.stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{program} cannot be run"))?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(stdin.unwrap_or_default().as_bytes()).await?;
        }
        match tokio::time::timeout(crate::eventually::PATIENCE * 2, child.wait_with_output()).await {
            Ok(output) => Ok(output?),
            Err(_) => bail!("{program} {} did not end", args.join(" ")),
        }
    }
}

/// A file of the checkout, by its path from the root.
pub fn file(path: &str) -> Result<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}
