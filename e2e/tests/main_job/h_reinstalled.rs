//! The operator uninstalled and installed again loses nothing and sticks nowhere.

use anyhow::{Result, ensure};
use fusebox_cluster::install;
use fusebox_e2e::{World, consul, etcd, eventually, gateway, resource, shop};
use fusebox_policy::v1alpha1::ResilientService;
use serde_json::json;

#[tokio::test]
async fn h_reinstalled_loses_nothing() -> Result<()> {
    let world = shop::opened().await?;
    let before = resource::api(&world).get("user").await?;
    let registered = consul::instances(&world, "user.service").await?;

    world.run("helm", &["uninstall", "operator", "-n", install::OPERATOR_NAMESPACE, "--wait"], None).await?;
    let without = without_an_operator(&world, &before, &registered).await;
    // Whatever was seen, the tests after this one need it back.
    tokio::task::spawn_blocking(|| install::operator(&fusebox_cluster::Cluster::open()?)).await??;
    without?;

    let after = resource::until(&world, "user", "Enforced", "True").await?;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    resource::until(&world, "user", "Ready", "True").await?;
    assert_eq!(consul::instances(&world, "user.service").await?, registered, "nothing was deregistered");
    eventually("the edit is in force", || async {
        let text = etcd::get(&world, &etcd::keys().policy(&etcd::ident("user"))).await?.unwrap_or_default();
        ensure!(text.contains("\"timeoutMs\":1300"), "{text}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// All that was applied goes on, and an edit waits for who applies it.
async fn without_an_operator(
    world: &World,
    before: &ResilientService,
    registered: &[consul::Instance],
) -> Result<()> {
    let kept = resource::api(world).get("user").await?;
    ensure!(kept.metadata.uid == before.metadata.uid, "the resources outlive the release");
    ensure!(consul::instances(world, "user.service").await? == registered, "still found by name");
    ensure!(gateway::greet(world, "Ada").await?.msg == "Hello, Ada", "still routed");
    ensure!(etcd::get(world, &etcd::keys().policy(&etcd::ident("user"))).await?.is_some(), "still published");
    resource::patch(world, "user", json!({ "inbound": { "timeout": "1300ms" } })).await?;
    Ok(())
}
