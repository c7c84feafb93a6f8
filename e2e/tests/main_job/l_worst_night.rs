//! The worst night: the operator is killed in the middle of its work, and the API server is gone for a minute. What is
//! registered, routed and in force stays, and all is as declared again in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use fusebox_cluster::install::OPERATOR_NAMESPACE;
use fusebox_e2e::declared::{self, Foreign, registered};
use fusebox_e2e::{World, eventually, gateway, node, operator, resource, shop};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep};

/// SIGKILL, and its pod with it: another takes its place at once.
async fn kill_operator(world: &World) -> Result<()> {
    for pod in operator::pods(world).await? {
        // One that has not started yet has no process.
        operator::signal(world, &pod, "KILL").await.ok();
        let now = DeleteParams::default().grace_period(0);
        Api::<Pod>::namespaced(world.client.clone(), OPERATOR_NAMESPACE)
            .delete(&pod.name_any(), &now)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn l_the_operator_is_killed_while_instances_come_and_go() -> Result<()> {
    let world = shop::opened().await?;
    let foreign = Foreign::register(&world).await?;
    let mut timeout = 1000;
    for (replicas, wait) in [(3, 0), (1, 400), (3, 1500), (2, 3000)] {
        world.kubectl(&["scale", "deployment", "user-service", &format!("--replicas={replicas}")]).await?;
        timeout += 100;
        let edit = json!({ "inbound": { "timeout": format!("{timeout}ms") } });
        resource::patch(&world, "user", edit).await?;
        // Where in its work it dies is up to chance; every place of it is in the tests over the in-memory worlds.
        sleep(Duration::from_millis(wait)).await;
        kill_operator(&world).await?;
        ensure!(gateway::greet(&world, "Ada").await?.msg == "Hello, Ada");
    }
    declared::again(&world, foreign).await
}

#[tokio::test]
async fn l_a_minute_without_the_api_server_changes_nothing() -> Result<()> {
    let world = shop::opened().await?;
    let foreign = Foreign::register(&world).await?;
    let node = node::control_plane(&world).await?;
    let before = registered(&world).await?;
    node::signal_on(&world, &node, "kube-apiserver", "STOP").await?;
    let seen = without_the_api_server(&world, &before).await;
    // Whatever was seen, the tests after this one need it.
    node::signal_on(&world, &node, "kube-apiserver", "CONT").await?;
    seen?;
    eventually("the API server answers", || shop::pods(&world, "user-service")).await?;
    shop::scale(&world, "user-service", 3).await?;
    declared::again(&world, foreign).await
}

async fn without_the_api_server(world: &World, before: &BTreeSet<String>) -> Result<()> {
    let until = Instant::now() + Duration::from_mins(1);
    let mut looks = 0;
    while Instant::now() < until {
        ensure!(gateway::greet(world, "Ada").await?.msg == "Hello, Ada");
        ensure!(!gateway::hello(world, "Ada").await?.fallback, "the caller finds it by name");
        let now = registered(world).await?;
        ensure!(now == *before, "{before:?} were registered, {now:?} are");
        looks += 1;
        sleep(Duration::from_millis(500)).await;
    }
    ensure!(looks > 10, "{looks} looks show nothing");
    Ok(())
}

/// Longer than its lease, and about as long as the kubelet bears with it: whether it ends by itself as it wakes, or is
/// ended, another process takes its place.
#[tokio::test]
async fn l_the_operator_is_frozen_for_half_a_minute_while_instances_come_and_go() -> Result<()> {
    let world = shop::opened().await?;
    let foreign = Foreign::register(&world).await?;
    let pod = operator::pod(&world).await?;
    let before = registered(&world).await?;
    world.kubectl(&["scale", "deployment", "user-service", "--replicas=3"]).await?;
    resource::patch(&world, "user", json!({ "inbound": { "timeout": "1100ms" } })).await?;
    operator::signal(&world, &pod, "STOP").await?;
    let seen = without_the_operator(&world, &before).await;
    // Whatever was seen, the tests after this one need it. It may have been ended meanwhile.
    operator::signal(&world, &pod, "CONT").await.ok();
    let looks = seen?;
    let woken = Instant::now();
    declared::again(&world, foreign).await?;
    eprintln!("{looks} looks while it was frozen; as declared {:?} after it woke", Instant::now() - woken);
    Ok(())
}

/// Half a minute in which instances come, and go again.
async fn without_the_operator(world: &World, before: &BTreeSet<String>) -> Result<usize> {
    let begin = Instant::now();
    let (mut looks, mut fewer) = (0, false);
    while Instant::now() - begin < Duration::from_secs(30) {
        ensure!(gateway::greet(world, "Ada").await?.msg == "Hello, Ada");
        // Nobody is there who would take out who goes: the caller may meet one, and must not wait for it.
        gateway::hello(world, "Ada").await?;
        let now = registered(world).await?;
        ensure!(now.is_superset(before), "{before:?} were registered, {now:?} are");
        looks += 1;
        if !fewer && Instant::now() - begin > Duration::from_secs(10) {
            fewer = true;
            world.kubectl(&["scale", "deployment", "user-service", "--replicas=1"]).await?;
        }
        sleep(Duration::from_millis(500)).await;
    }
    ensure!(looks > 10, "{looks} looks show nothing");
    Ok(looks)
}
