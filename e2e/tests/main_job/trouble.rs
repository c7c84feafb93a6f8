//! Backends that go away: a condition names them, the rest goes on, all heals by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use fusebox_cluster::install::PLATFORM_NAMESPACE;
use fusebox_e2e::{World, consul, etcd, eventually, gateway, resource, shop};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;
use tokio::time::Instant;

/// How long Enforced may stay True while nobody can know: twice the lease of a report.
const BOUND: Duration = Duration::from_secs(20);
/// By when a watch has told: the resync, every 30 s, comes later two times of three.
const BY_WATCH: Duration = Duration::from_secs(10);

async fn backend(world: &World, name: &str, replicas: i32) -> Result<()> {
    let count = format!("--replicas={replicas}");

    world.run("kubectl", &["-n", PLATFORM_NAMESPACE, "scale", name, &count], None).await?;
    world
        .run("kubectl", &["-n", PLATFORM_NAMESPACE, "rollout", "status", name, "--timeout=120s"], None)
        .await?;
    Ok(())
}

/// The demo's Consul keeps nothing: what comes back is an empty server without our epoch.
#[tokio::test]
async fn trouble_consul_gone_and_back_empty() -> Result<()> {
    let world = shop::opened().await?;
    backend(&world, "deployment/consul", 0).await?;
    let user =
        resource::until_reason(&world, "user", "Registered", "False", Some("ConsulUnavailable")).await?;
    assert_eq!(resource::condition(&user, "Published")?.status, "True", "etcd is not concerned");
    assert_eq!(gateway::greet(&world, "Ada").await?.msg, "Hello, Ada");
    // The other planes still take changes.
    resource::patch(&world, "user", json!({ "inbound": { "timeout": "1200ms" } })).await?;
    resource::until(&world, "user", "Enforced", "True").await?;

    backend(&world, "deployment/consul", 1).await?;
    resource::until(&world, "user", "Ready", "True").await?;
    assert_eq!(consul::passing(&world, "user.service").await?.len(), 2);
    Ok(())
}

/// The demo's etcd keeps nothing either.
#[tokio::test]
async fn trouble_etcd_gone_and_back_empty() -> Result<()> {
    let world = shop::opened().await?;
    backend(&world, "deployment/etcd", 0).await?;
    let gone = Instant::now();
    resource::until_reason(&world, "user", "Published", "False", Some("EtcdUnavailable")).await?;
    assert_eq!(gateway::greet(&world, "Ada").await?.msg, "Hello, Ada", "instances keep their last policy");
    // Publishing and the watch of the reports find out separately.
    eventually("nobody can know", || async {
        let user = resource::api(&world).get("user").await?;
        let enforced = resource::condition(&user, "Enforced")?;
        ensure!(enforced.status != "True", "{}", enforced.message);
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let took = Instant::now() - gone;
    assert!(took <= BOUND, "Enforced stayed True for {took:?} without etcd");

    backend(&world, "deployment/etcd", 1).await?;
    resource::until(&world, "user", "Ready", "True").await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    assert_eq!(etcd::get(&world, "service.user.timeout").await?.as_deref(), Some("1000"));
    Ok(())
}

#[tokio::test]
async fn trouble_a_foreign_edit_of_a_route_is_healed() -> Result<()> {
    let world = shop::opened().await?;
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("traefik.io", "v1alpha1", "IngressRoute"),
        "ingressroutes",
    );
    let routes: Api<DynamicObject> =
        Api::namespaced_with(world.client.clone(), fusebox_e2e::world::SHOP, &kind);
    let plain = "fusebox-user-plain";
    let before = routes.get(plain).await?.data["spec"].clone();
    let foreign = json!({ "spec": { "entryPoints": ["websecure"] } });
    routes.patch(plain, &PatchParams::default(), &Patch::Merge(foreign)).await?;
    let edited = Instant::now();
    eventually("the route is as declared", || async {
        let now = routes.get(plain).await?.data["spec"].clone();
        ensure!(now == before, "{now}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let took = edited.elapsed();
    ensure!(took < BY_WATCH, "healed after {took:?}, which the resync does too");
    eprintln!("healed after {took:?}");
    Ok(())
}
