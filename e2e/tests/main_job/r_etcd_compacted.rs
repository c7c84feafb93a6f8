//! etcd forgets what happened while nobody of us could hear it: nothing is missed.

use anyhow::{Result, ensure};
use etcd_client::{CompactionOptions, ResponseHeader};
use fusebox_e2e::declared::{self, Foreign};
use fusebox_e2e::{World, etcd, eventually, gateway, node, operator, resource, shop};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::Instant;

const ETCD: u16 = 2379;

/// Everything up to now is what is there now.
async fn compacted(world: &World) -> Result<()> {
    let mut client = etcd::client(world).await?;
    let revision = client.get("/", None).await?.header().map_or(0, ResponseHeader::revision);
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await?;
    Ok(())
}

async fn not_enforced(world: &World) -> Result<()> {
    eventually("nobody says that it is enforced", || async {
        let user = resource::api(world).get("user").await?;
        let enforced = resource::condition(&user, "Enforced")?;
        ensure!(enforced.status != "True", "{}", enforced.message);
        Ok::<_, anyhow::Error>(())
    })
    .await
}

async fn unheard(world: &World, operator: &Pod) -> Result<()> {
    // The instances hear of neither edit.
    for timeout in ["1300ms", "1100ms"] {
        resource::patch(world, "user", json!({ "inbound": { "timeout": timeout } })).await?;
        resource::until(world, "user", "Published", "True").await?;
    }
    not_enforced(world).await?;
    ensure!(gateway::greet(world, "Ada").await?.msg == "Hello, Ada", "instances keep their last policy");
    // Nor the operator of a key that somebody deletes, and of one that somebody writes over.
    node::cut(world, operator, ETCD, true).await?;
    let done = async {
        eventually("the operator notices", || async {
            let caller = resource::api(world).get("caller").await?;
            let enforced = resource::condition(&caller, "Enforced")?;
            ensure!(enforced.status != "True", "{}", enforced.message);
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        let mut client = etcd::client(world).await?;
        client.delete(etcd::keys().config(&etcd::ident("user")), None).await?;
        client.put("service.user.timeout", "2000", None).await?;
        compacted(world).await
    };
    let done = done.await;
    node::cut(world, operator, ETCD, false).await?;
    done
}

#[tokio::test]
async fn r_etcd_compacted_during_a_cut_hides_nothing() -> Result<()> {
    let world = shop::opened().await?;
    let foreign = Foreign::register(&world).await?;
    let operator = operator::pod(&world).await?;
    let instances = shop::pods(&world, "user-service").await?;
    let mut cut = Vec::new();
    let tested = async {
        for pod in &instances {
            node::cut(&world, pod, ETCD, true).await?;
            cut.push(pod);
        }
        unheard(&world, &operator).await
    };
    let tested = tested.await;
    // Whatever was seen, the tests after this one need them.
    for pod in cut {
        node::cut(&world, pod, ETCD, false).await?;
    }
    tested?;
    let begin = Instant::now();
    declared::again(&world, foreign).await?;
    eventually("what was changed by hand is as declared", || async {
        let value = etcd::get(&world, "service.user.timeout").await?;
        ensure!(value.as_deref() == Some("1000"), "{value:?}");
        let config = etcd::get(&world, &etcd::keys().config(&etcd::ident("user"))).await?;
        ensure!(config.is_some(), "no config document");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    eprintln!("as declared {:?} after the cut ended", Instant::now() - begin);
    for report in etcd::reports(&world, "user").await? {
        let policy = etcd::get(&world, &etcd::keys().policy(&etcd::ident("user"))).await?.unwrap_or_default();
        let hash = report.hash.as_ref().map(|hash| hash.as_str().to_owned()).unwrap_or_default();
        ensure!(!hash.is_empty() && policy.contains(&hash), "{report:?} of {policy}");
    }
    Ok(())
}
