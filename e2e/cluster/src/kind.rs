//! What kind is asked for, on both roads.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use crate::ports;
use crate::process::Exec;
use crate::{Places, Progress};

/// The cluster's name.
pub(crate) const NAME: &str = "fusebox";

/// kind's configuration. The control plane takes pods too: a lost worker then leaves somewhere to go.
pub(crate) fn config(workers: u8) -> Result<String> {
    let mut text = String::from(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n\
         networking: {ipFamily: ipv4, apiServerAddress: 127.0.0.1, podSubnet: 10.244.0.0/16}\n\
         nodes:\n- role: control-plane\n  kubeadmConfigPatches:\n  - |\n    kind: InitConfiguration\n    nodeRegistration: {taints: []}\n  \
         labels: {fusebox.dev/ports: \"true\"}\n  extraPortMappings:\n",
    );
    for port in ports::ALL {
        writeln!(
            text,
            "  - {{containerPort: {}, hostPort: {}, listenAddress: 127.0.0.1}}",
            port.node, port.host
        )?;
    }
    for _ in 0..workers {
        text.push_str("- role: worker\n");
    }
    Ok(text)
}

/// Create the cluster and wait until it is usable: kind is content with Ready nodes, people want DNS too.
pub(crate) fn create(
    places: &Places,
    progress: Progress,
    vars: &[(String, String)],
    image: &str,
    config: &str,
) -> Result<()> {
    let file = places.state.join("kind.yaml");
    fs::write(&file, config).context("cannot write the state folder")?;
    let log = |name: &str| places.logs().join(name);
    progress.step("creating the kind cluster", || {
        Exec::new("kind")
            .args([
                "create", "cluster", "--retain", "--wait", "180s", "--name", NAME, "--image", image,
                "--config",
            ])
            .arg(&file)
            .envs(vars)
            .deadline(600)
            .logged(&log("kind-create.log"))
    })?;
    progress.step("waiting for DNS and the system's pods", || {
        let kube_system = |args: &[&str], name: &str| {
            let kubectl = Exec::new("kubectl").args(["-n", "kube-system"]).args(args).envs(vars);
            kubectl.deadline(200).logged(&log(name))
        };
        kube_system(
            &["rollout", "status", "ds/kube-proxy", "deploy/coredns", "--timeout=180s"],
            "rollout.log",
        )?;
        kube_system(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s"], "pods.log")
    })
}

/// Delete the cluster; one that is not there is fine.
pub(crate) fn delete(places: &Places, vars: &[(String, String)]) -> Result<()> {
    let kind = Exec::new("kind").args(["delete", "cluster", "--name", NAME]).envs(vars).deadline(120);
    kind.logged(&places.logs().join("kind-delete.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_a_line_for_each_worker_and_port() {
        let text = config(2).unwrap();
        assert_eq!(text.matches("- role: worker\n").count(), 2);
        assert_eq!(text.matches("listenAddress: 127.0.0.1}").count(), ports::ALL.len());
        assert!(text.contains("{containerPort: 30500, hostPort: 18500,"));
    }
}
