//! Raw keys and the config document: what any etcd client, and Viper's remote provider, read.

use anyhow::Result;
use etcd_client::WatchOptions;
use fusebox_e2e::{etcd, eventually, resource, shop};
use serde_json::{Value, json};

#[tokio::test]
async fn e_a_raw_key_is_read_and_watched() -> Result<()> {
    let world = shop::opened().await?;
    assert_eq!(etcd::get(&world, "service.user.timeout").await?.as_deref(), Some("1000"));

    let mut client = etcd::client(&world).await?;
    let mut watch = client.watch("service.user.timeout", Some(WatchOptions::new())).await?;
    resource::patch(&world, "user", json!({ "config": { "etcdKeys": { "service.user.timeout": "2000" } } }))
        .await?;
    let next = async {
        loop {
            let Some(message) = watch.message().await? else { anyhow::bail!("the watch ended") };
            if let Some(kv) = message.events().first().and_then(|event| event.kv()) {
                return Ok(kv.value_str()?.to_owned());
            }
        }
    };
    assert_eq!(tokio::time::timeout(eventually::PATIENCE, next).await??, "2000");

    // A key that is no longer declared is gone, and so is its claim.
    resource::patch(&world, "user", json!({ "config": { "etcdKeys": null } })).await?;
    eventually("the key is gone", || async {
        let value = etcd::get(&world, "service.user.timeout").await?;
        let claims = etcd::range(&world, "/fusebox/v1/claims/raw/").await?;
        anyhow::ensure!(value.is_none() && claims.is_empty(), "{value:?}, {claims:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

#[tokio::test]
async fn e_the_config_document_is_plain_json() -> Result<()> {
    let world = shop::opened().await?;
    let key = etcd::keys().config(&etcd::ident("user"));
    let text = etcd::get(&world, &key).await?.unwrap_or_default();
    let document: Value = serde_json::from_str(&text)?;
    assert_eq!(document["service"]["user"]["timeout"], json!(1000), "{text}");
    Ok(())
}
