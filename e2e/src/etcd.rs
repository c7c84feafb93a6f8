//! What etcd holds, read as an operator of it would.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, TlsOptions};
use fusebox_cluster::ETCD_PASSWORD_FILE;
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::wire::Report;

use crate::World;
use crate::world::{CLUSTER, SHOP};

/// A client that may do all.
pub async fn client(world: &World) -> Result<Client> {
    let file = world.address(ETCD_PASSWORD_FILE);
    let password = std::fs::read_to_string(file).context("no platform: run `cargo xtask demo` once")?;
    client_as(world, Some(("root", &password))).await
}

/// A client of this user and password, or of nobody.
pub async fn client_as(world: &World, user: Option<(&str, &str)>) -> Result<Client> {
    let ca =
        std::fs::read(world.address("ETCDCTL_CACERT")).context("no platform: run `cargo xtask demo` once")?;
    let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
    let mut options = ConnectOptions::new().with_tls(tls).with_timeout(Duration::from_secs(10));
    if let Some((name, password)) = user {
        options = options.with_user(name, password.trim_end());
    }
    Ok(Client::connect([world.address("ETCDCTL_ENDPOINTS")], Some(options)).await?)
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
