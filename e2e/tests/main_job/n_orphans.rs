//! A finalizer that somebody removes by hand leaves things behind, and they are found.

use std::time::Duration;

use anyhow::{Result, ensure};
use fusebox_cluster::install::OPERATOR_NAMESPACE;
use fusebox_e2e::{World, consul, etcd, eventually, resource, shop};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

/// Two sweeps.
const SWEPT: Duration = Duration::from_mins(1);

async fn operators(world: &World, n: u32) -> Result<()> {
    let n = format!("--replicas={n}");
    world
        .run("kubectl", &["-n", OPERATOR_NAMESPACE, "scale", "deployment/operator-fusebox", &n], None)
        .await?;
    let args =
        ["-n", OPERATOR_NAMESPACE, "rollout", "status", "deployment/operator-fusebox", "--timeout=120s"];
    world.run("kubectl", &args, None).await?;
    Ok(())
}

/// Nobody saw the resource go: its operator was away.
#[tokio::test]
async fn n_what_a_finalizer_removed_by_hand_leaves_is_swept() -> Result<()> {
    let world = shop::opened().await?;
    operators(&world, 0).await?;
    let gone = async {
        // Nobody is there who would put it back.
        let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        resource::api(&world).patch("user", &PatchParams::default(), &none).await?;
        resource::api(&world).delete("user", &DeleteParams::default()).await?;
        anyhow::Ok(())
    };
    let gone = gone.await;
    ensure!(!consul::instances(&world, "user.service").await?.is_empty(), "something is left behind");
    operators(&world, 1).await?;
    gone?;
    let begin = Instant::now();
    eventually("Consul and etcd hold nothing of it", || async {
        let there = consul::instances(&world, "user.service").await?;
        ensure!(there.is_empty(), "{there:?}");
        let (keys, of) = (etcd::keys(), etcd::ident("user"));
        for key in [keys.policy(&of), keys.config(&of), keys.raw(&of), "service.user.timeout".to_owned()] {
            ensure!(etcd::get(&world, &key).await?.is_none(), "{key} is there");
        }
        let claims = etcd::range(&world, "/fusebox/v1/claims/raw/").await?;
        ensure!(claims.is_empty(), "{claims:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let took = begin.elapsed();
    ensure!(took <= SWEPT, "swept after {took:?}");
    eprintln!("swept {took:?} after the operator was ready");
    let other = etcd::keys().policy(&etcd::ident("caller"));
    ensure!(etcd::get(&world, &other).await?.is_some(), "the others are left alone");
    Ok(())
}
