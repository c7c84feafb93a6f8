//! The operator's pods.

use anyhow::{Context, Result};
use fusebox_cluster::install::OPERATOR_NAMESPACE;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::{World, node};

/// All of them.
pub async fn pods(world: &World) -> Result<Vec<Pod>> {
    let labels = ListParams::default().labels("app.kubernetes.io/name=fusebox-operator");
    Ok(Api::<Pod>::namespaced(world.client.clone(), OPERATOR_NAMESPACE).list(&labels).await?.items)
}

/// The one that runs, where there is one replica.
pub async fn pod(world: &World) -> Result<Pod> {
    let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    pods(world).await?.into_iter().find(stays).context("no operator")
}

/// Sends a signal to the operator's process in a pod.
pub async fn signal(world: &World, pod: &Pod, signal: &str) -> Result<()> {
    node::signal(world, pod, "fusebox-operat", signal).await
}

/// The sum of a metric over its labels.
pub async fn metric(world: &World, name: &str) -> Result<f64> {
    let url = format!("{}/metrics", world.address("FUSEBOX_OPERATOR"));
    let text = world.http.get(url).send().await?.error_for_status()?.text().await?;
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum()).with_context(|| format!("no metric {name}"))
}
