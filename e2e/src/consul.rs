//! What Consul says, as any client of it would see.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use crate::World;

/// One registered instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its address and port.
    pub address: String,
    /// Whether all its checks pass.
    pub passing: bool,
    /// Its metadata.
    pub meta: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    service: Service,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    address: String,
    port: u16,
    meta: Option<BTreeMap<String, String>>,
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

/// The instances registered under a name, sorted by address.
pub async fn instances(world: &World, service: &str) -> Result<Vec<Instance>> {
    let url = format!("{}/v1/health/service/{service}?consistent", world.address("CONSUL_HTTP_ADDR"));
    let entries: Vec<Entry> = world.http.get(url).send().await?.error_for_status()?.json().await?;
    let mut found: Vec<Instance> = entries
        .into_iter()
        .map(|entry| Instance {
            address: format!("{}:{}", entry.service.address, entry.service.port),
            passing: entry.checks.iter().all(|check| check.status == "passing"),
            meta: entry.service.meta.unwrap_or_default(),
            tags: entry.service.tags.unwrap_or_default(),
        })
        .collect();
    found.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(found)
}

/// The addresses of the instances that pass.
pub async fn passing(world: &World, service: &str) -> Result<Vec<String>> {
    let all = instances(world, service).await?;
    Ok(all.into_iter().filter(|instance| instance.passing).map(|instance| instance.address).collect())
}
