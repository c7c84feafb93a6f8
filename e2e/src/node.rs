//! What somebody with a shell on a node can do.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;

use crate::World;

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
