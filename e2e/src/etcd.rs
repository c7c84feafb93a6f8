//! What etcd holds, read as an operator of it would.

use std::collections::BTreeMap;

use anyhow::Result;
use etcd_client::{Client, GetOptions};
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::wire::Report;

use crate::World;
use crate::world::{CLUSTER, SHOP};

/// A client.
pub async fn client(world: &World) -> Result<Client> {
    Ok(Client::connect([world.address("ETCDCTL_ENDPOINTS")], None).await?)
}

/// The keys of the demo's cluster.
pub fn keys() -> Keys {
    Keys::new(CLUSTER)
}

/// A resource of the sample namespace.
pub fn ident(name: &str) -> Ident {
    Ident::new(SHOP, name)
}

/// The value of a key.
pub async fn get(world: &World, key: &str) -> Result<Option<String>> {
    let response = client(world).await?.get(key, None).await?;
    Ok(response.kvs().first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()))
}

/// Every key and value under a prefix.
pub async fn range(world: &World, prefix: &str) -> Result<BTreeMap<String, String>> {
    let response = client(world).await?.get(prefix, Some(GetOptions::new().with_prefix())).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(response.kvs().iter().map(|kv| (text(kv.key()), text(kv.value()))).collect())
}

/// The reports of a resource's instances.
pub async fn reports(world: &World, name: &str) -> Result<Vec<Report>> {
    let found = range(world, &keys().reports(&ident(name))).await?;
    Ok(found.values().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?)
}
