//! Pods of the sample service that are not like the others: what a test does to them, a Deployment would undo.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::world::SHOP;
use crate::{World, eventually, shop};

/// The name of the pod.
pub const NAME: &str = "odd";

fn pods(world: &World) -> Api<Pod> {
    Api::namespaced(world.client.clone(), SHOP)
}

/// Starts an instance of the user service beside its Deployment's: without probes, so ready as soon as it runs
/// and for as long as it is not gone, and changed by `change`.
pub async fn start(world: &World, change: impl FnOnce(&mut PodSpec)) -> Result<Pod> {
    gone(world).await?;
    let deployment = Api::<Deployment>::namespaced(world.client.clone(), SHOP).get("user-service").await?;
    let template = deployment.spec.context("no spec")?.template;
    let labels = template.metadata.and_then(|metadata| metadata.labels);
    let mut spec = template.spec.context("no pod spec")?;
    spec.topology_spread_constraints = None;
    spec.termination_grace_period_seconds = Some(1);
    for container in &mut spec.containers {
        (container.readiness_probe, container.liveness_probe, container.startup_probe) = (None, None, None);
    }
    change(&mut spec);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": NAME, "labels": labels }, "spec": spec,
    }))?;
    pods(world).create(&PostParams::default(), &pod).await?;
    eventually("the odd pod is ready", || async {
        let pod = pods(world).get(NAME).await?;
        ensure!(shop::is_ready(&pod), "{:?}", pod.status);
        Ok::<_, anyhow::Error>(pod)
    })
    .await
}

/// Ends it, if it is there.
pub async fn gone(world: &World) -> Result<()> {
    pods(world).delete(NAME, &DeleteParams::default().grace_period(0)).await.ok();
    eventually("no odd pod", || async {
        ensure!(pods(world).get_opt(NAME).await?.is_none(), "it is still there");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// How often its container was started again.
pub async fn restarts(world: &World) -> Result<i32> {
    let status = pods(world).get(NAME).await?.status.unwrap_or_default();
    Ok(status.container_statuses.iter().flatten().map(|container| container.restart_count).sum())
}

/// Sends a signal to the service's process in the pod.
pub async fn signal(world: &World, pod: &Pod, signal: &str) -> Result<()> {
    crate::node::signal(world, pod, "user-service", signal).await
}
