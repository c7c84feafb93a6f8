//! What somebody with a shell on a node can do.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::World;

/// The node that the ports of this machine are mapped from.
pub async fn control_plane(world: &World) -> Result<String> {
    named(world, "node-role.kubernetes.io/control-plane").await
}

/// A node that nothing outside the cluster is reached through.
pub async fn worker(world: &World) -> Result<String> {
    named(world, "!node-role.kubernetes.io/control-plane").await
}

async fn named(world: &World, labels: &str) -> Result<String> {
    let found = Api::<Node>::all(world.client.clone()).list(&ListParams::default().labels(labels)).await?;
    Ok(found.items.first().with_context(|| format!("no node with the labels {labels}"))?.name_any())
}

/// Freezes a node with all its pods: it falls silent without a goodbye.
pub async fn pause(world: &World, node: &str) -> Result<()> {
    world.run("docker", &["pause", node], None).await.map(drop)
}

/// Ends that.
pub async fn unpause(world: &World, node: &str) -> Result<()> {
    world.run("docker", &["unpause", node], None).await.map(drop)
}

/// Wakes and opens every node that a test which ended half-way left frozen or closed.
pub async fn all_awake(world: &World) -> Result<()> {
    for node in Api::<Node>::all(world.client.clone()).list(&ListParams::default()).await? {
        let name = node.name_any();
        let state = ["inspect", "--format", "{{.State.Paused}}", name.as_str()];
        if world.run("docker", &state, None).await?.trim() == "true" {
            unpause(world, &name).await?;
        }
        if node.spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
            cordon(world, &name, false).await?;
        }
    }
    Ok(())
}

/// Lets no new pods come to a node, or lets them come again.
pub async fn cordon(world: &World, node: &str, cordoned: bool) -> Result<()> {
    let verb = if cordoned { "cordon" } else { "uncordon" };
    world.run("kubectl", &[verb, node], None).await.map(drop)
}

/// Cuts a pod off from a port of other pods, its connections with it, or ends that.
pub async fn cut(world: &World, pod: &Pod, port: u16, cut: bool) -> Result<()> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("no node")?;
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("no address")?;
    let (verb, port) = (if cut { "-I" } else { "-D" }, port.to_string());
    let rule = ["-s", &ip, "-p", "tcp", "--dport", &port, "-j", "REJECT", "--reject-with", "tcp-reset"];
    let args = [&["exec", node.as_str(), "iptables", verb, "FORWARD"][..], &rule].concat();
    world.run("docker", &args, None).await.map(drop)
}

/// Loses all packets between a pod's port and the other pods, without a word, or ends that. The node, and with it the
/// kubelet's probes, still reaches it.
pub async fn isolate(world: &World, pod: &Pod, port: u16, isolated: bool) -> Result<()> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("no node")?;
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("no address")?;
    let (verb, port) = (if isolated { "-I" } else { "-D" }, port.to_string());
    for of in [["-d", &ip, "-p", "tcp", "--dport", &port], ["-s", &ip, "-p", "tcp", "--sport", &port]] {
        let args = [&["exec", node.as_str(), "iptables", verb, "FORWARD"][..], &of, &["-j", "DROP"]].concat();
        world.run("docker", &args, None).await?;
    }
    Ok(())
}

/// Sends a signal to the processes of a pod whose name, of which the kernel keeps 15 letters, begins with `process`.
pub async fn signal(world: &World, pod: &Pod, process: &str, signal: &str) -> Result<()> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("no node")?;
    let uid = pod.metadata.uid.clone().context("no uid")?;
    // A cgroup's name has the UID with hyphens or with underscores.
    let of_pod = format!("grep -q '{uid}\\|{}' $p/cgroup 2>/dev/null", uid.replace('-', "_"));
    send(world, &node, &of_pod, process, signal).await
}

/// The same to every process of that name on a node.
pub async fn signal_on(world: &World, node: &str, process: &str, signal: &str) -> Result<()> {
    send(world, node, "true", process, signal).await
}

async fn send(world: &World, node: &str, only: &str, process: &str, signal: &str) -> Result<()> {
    let script = format!(
        "n=0; for p in /proc/[0-9]*; do if {only} && grep -q '^{process}' $p/comm 2>/dev/null; then \
         kill -{signal} ${{p#/proc/}} && n=1; fi; done; [ $n = 1 ]"
    );
    world.run("docker", &["exec", node, "sh", "-c", &script], None).await?;
    Ok(())
}
