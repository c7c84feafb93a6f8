//! What every test of trouble ends with: all is as declared again, and what is somebody else's was not touched.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{World, consul, eventually, resource, shop};

/// The name in Consul that the example declares.
pub const SERVICE: &str = "user.service";

/// Somebody else's address under that name.
const ADDRESS: &str = "10.255.255.1:50051";
const NODE: &str = "somebody-elses";

/// An entry of somebody else in Consul, under our very name: never touched.
#[derive(Debug)]
pub struct Foreign(Value);

impl Foreign {
    /// Registers it.
    pub async fn register(world: &World) -> Result<Self> {
        let body = json!({
            "Node": NODE, "Address": "10.255.255.1",
            "Service": { "ID": "foreign", "Service": SERVICE, "Address": "10.255.255.1", "Port": 50051 },
            // So that nobody calls it.
            "Check": { "Name": "nobody is there", "ServiceID": "foreign", "Status": "critical" },
        });
        let url = format!("{}/v1/catalog/register", world.address("CONSUL_HTTP_ADDR"));
        world.http.put(url).json(&body).send().await?.error_for_status()?;
        Ok(Self(entry(world).await?))
    }

    /// Nobody wrote to it, not even the same again, since it was registered.
    pub async fn untouched(&self, world: &World) -> Result<()> {
        let now = entry(world).await?;
        ensure!(now == self.0, "somebody else's entry was {}, it is {now}", self.0);
        Ok(())
    }

    /// Removes it; with it ends what a test has to look after.
    pub async fn gone(self, world: &World) -> Result<()> {
        let url = format!("{}/v1/catalog/deregister", world.address("CONSUL_HTTP_ADDR"));
        world.http.put(url).json(&json!({ "Node": NODE })).send().await?.error_for_status()?;
        Ok(())
    }
}

/// It as Consul has it, with the indexes of its last writes.
async fn entry(world: &World) -> Result<Value> {
    let url = format!("{}/v1/health/service/{SERVICE}?consistent", world.address("CONSUL_HTTP_ADDR"));
    let all: Vec<Value> = world.http.get(url).send().await?.error_for_status()?.json().await?;
    all.into_iter().find(|entry| entry["Node"]["Node"] == NODE).context("somebody else's entry is gone")
}

/// The addresses of the instances that pass.
pub async fn registered(world: &World) -> Result<BTreeSet<String>> {
    Ok(consul::passing(world, SERVICE).await?.into_iter().collect())
}

/// Waits until exactly the ready instances are registered: none that is not, and none but they is there at all.
pub async fn follows(world: &World) -> Result<()> {
    eventually("registered are exactly the ready instances", || async {
        let ready: BTreeSet<String> =
            shop::ready_addresses(world, "user-service", 50051).await?.into_iter().collect();
        let all = consul::instances(world, SERVICE).await?.into_iter().map(|instance| instance.address);
        let ours: BTreeSet<String> = all.filter(|address| address != ADDRESS).collect();
        let passing = registered(world).await?;
        ensure!(ready == ours && ours == passing, "{ready:?} ready, {ours:?} registered, {passing:?} pass");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// Waits until all is as declared, and checks that somebody else's entry was not touched.
pub async fn again(world: &World, foreign: Foreign) -> Result<()> {
    follows(world).await?;
    for name in ["user", "caller"] {
        for type_ in ["Ready", "Enforced"] {
            resource::until(world, name, type_, "True").await?;
        }
    }
    shop::closed(world).await?;
    foreign.untouched(world).await?;
    foreign.gone(world).await
}
