//! etcd runs out of space: what is in force stays, a condition says what to do, the rest goes on.

use anyhow::{Result, bail, ensure};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, CompactionOptions, Error, ResponseHeader};
use fusebox_e2e::declared::{self, Foreign};
use fusebox_e2e::{World, etcd, eventually, gateway, resource, shop};
use serde_json::json;
use tokio::time::Instant;

/// Nobody's key, of which etcd keeps every version.
const SCRATCH: &str = "/scratch";

/// Somebody writes until nothing more goes in: etcd raises its alarm by itself. How many megabytes it took.
async fn filled(world: &World) -> Result<usize> {
    let mut client = etcd::client(world).await?;
    let megabyte = vec![0; 1 << 20];
    for written in 0..1024 {
        match client.put(SCRATCH, megabyte.clone(), None).await {
            Ok(_) => {}
            Err(Error::GRpcStatus(status)) if status.message().contains("space exceeded") => {
                return Ok(written);
            }
            Err(error) => return Err(error.into()),
        }
    }
    bail!("a gigabyte went in: what is the chart's etcd.quotaBytes?")
}

/// What the condition tells a person to do; once more is no harm.
async fn mended(world: &World) -> Result<()> {
    let mut client = etcd::client(world).await?;
    client.delete(SCRATCH, None).await?;
    let revision = client.get(SCRATCH, None).await?.header().map_or(0, ResponseHeader::revision);
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await?;
    client.defragment().await?;
    for alarm in client.alarm(AlarmAction::Get, AlarmType::None, None).await?.alarms() {
        let mut member = AlarmOptions::new();
        member.with_member(alarm.member_id());
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await?;
    }
    Ok(())
}

async fn without_space(world: &World) -> Result<()> {
    let policy = etcd::get(world, &etcd::keys().policy(&etcd::ident("user"))).await?;
    resource::patch(world, "user", json!({ "inbound": { "timeout": "1100ms" } })).await?;
    let user = resource::until_reason(world, "user", "Published", "False", Some("EtcdUnavailable")).await?;
    let told = &resource::condition(&user, "Published")?.message;
    for word in ["out of space", "compact", "defrag", "alarm disarm"] {
        ensure!(told.contains(word), "nobody is told {word:?}: {told}");
    }
    eprintln!("Published=False: {told}");
    ensure!(resource::condition(&user, "Registered")?.status == "True", "Consul is not concerned");
    ensure!(resource::condition(&user, "Routed")?.status == "True", "nor is Traefik");
    // The edit is in force nowhere, and nobody says that it is.
    let enforced = resource::condition(&user, "Enforced")?;
    ensure!(enforced.status == "False", "Enforced={}: {}", enforced.status, enforced.message);
    ensure!(etcd::get(world, &etcd::keys().policy(&etcd::ident("user"))).await? == policy);
    ensure!(gateway::greet(world, "Ada").await?.msg == "Hello, Ada", "instances keep their last policy");
    // The other planes go on.
    for replicas in [3, 1] {
        shop::scale(world, "user-service", replicas).await?;
        declared::follows(world).await?;
        ensure!(gateway::greet(world, "Ada").await?.msg == "Hello, Ada");
        ensure!(!gateway::hello(world, "Ada").await?.fallback, "the caller finds it by name");
    }
    Ok(())
}

#[tokio::test]
async fn r_etcd_out_of_space_is_told_and_heals_by_itself() -> Result<()> {
    let world = shop::opened().await?;
    let foreign = Foreign::register(&world).await?;
    let begin = Instant::now();
    let tested = async {
        let megabytes = filled(&world).await?;
        eprintln!("full after {megabytes} MiB, {:?}", Instant::now() - begin);
        without_space(&world).await
    };
    let tested = tested.await;
    // Whatever was seen, the tests after this one need room.
    mended(&world).await?;
    tested?;
    let begin = Instant::now();
    declared::again(&world, foreign).await?;
    eprintln!("as declared {:?} after the alarm was disarmed", Instant::now() - begin);
    eventually("the edit is in etcd", || async {
        let text = etcd::get(&world, &etcd::keys().policy(&etcd::ident("user"))).await?.unwrap_or_default();
        ensure!(text.contains("\"timeoutMs\":1100"), "{text}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}
