//! ResilientServices as the API server holds them.

use anyhow::{Context, Result, ensure};
use fusebox_policy::v1alpha1::ResilientService;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use crate::world::SHOP;
use crate::{World, eventually};

/// The resources of the sample namespace.
pub fn api(world: &World) -> Api<ResilientService> {
    Api::namespaced(world.client.clone(), SHOP)
}

/// The condition of a type, about the current generation of the spec.
pub fn condition<'a>(resource: &'a ResilientService, type_: &str) -> Result<&'a Condition> {
    let status = resource.status.as_ref().context("no status yet")?;
    let found = status.conditions.iter().find(|condition| condition.type_ == type_);
    let condition = found.with_context(|| format!("no condition {type_} yet"))?;
    ensure!(
        condition.observed_generation == resource.metadata.generation,
        "{type_} is about generation {:?}, the spec is at {:?}",
        condition.observed_generation,
        resource.metadata.generation
    );
    Ok(condition)
}

/// Waits until a condition of the current generation has this status; the resource then.
pub async fn until(world: &World, name: &str, type_: &str, status: &str) -> Result<ResilientService> {
    until_reason(world, name, type_, status, None).await
}

/// Waits until a condition of the current generation has this status and reason.
pub async fn until_reason(
    world: &World,
    name: &str,
    type_: &str,
    status: &str,
    reason: Option<&str>,
) -> Result<ResilientService> {
    eventually(&format!("{name}: {type_}={status} {}", reason.unwrap_or_default()), || async {
        let resource = api(world).get(name).await?;
        let found = condition(&resource, type_)?;
        ensure!(
            found.status == status && reason.is_none_or(|reason| found.reason == reason),
            "{type_}={} {}: {}",
            found.status,
            found.reason,
            found.message
        );
        Ok::<_, anyhow::Error>(resource)
    })
    .await
}

/// Merges a patch into a resource's spec; the resource after it.
pub async fn patch(world: &World, name: &str, spec: Value) -> Result<ResilientService> {
    let body = serde_json::json!({ "spec": spec });
    Ok(api(world).patch(name, &PatchParams::default(), &Patch::Merge(body)).await?)
}
