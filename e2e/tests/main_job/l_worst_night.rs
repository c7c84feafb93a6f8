//! The worst night: the operator is killed in the middle of its work, and the API server is gone for a minute. What is
//! registered, routed and in force stays, and all is as declared again in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fusebox_cluster::install::OPERATOR_NAMESPACE;
use fusebox_e2e::{World, consul, eventually, gateway, node, resource, shop};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep};

const SERVICE: &str = "user.service";

/// An entry of somebody else, under our very name: never touched.
const FOREIGN: &str = "10.255.255.1:50051";

async fn foreign(world: &World) -> Result<()> {
    let body = json!({
        "Node": "somebody-elses", "Address": "10.255.255.1",
        "Service": { "ID": "foreign", "Service": SERVICE, "Address": "10.255.255.1", "Port": 50051 },
        // So that nobody calls it.
        "Check": { "Name": "nobody is there", "ServiceID": "foreign", "Status": "critical" },
    });
    let url = format!("{}/v1/catalog/register", world.address("CONSUL_HTTP_ADDR"));
    world.http.put(url).json(&body).send().await?.error_for_status()?;
    Ok(())
}

async fn foreign_gone(world: &World) -> Result<()> {
    let url = format!("{}/v1/catalog/deregister", world.address("CONSUL_HTTP_ADDR"));
    world.http.put(url).json(&json!({ "Node": "somebody-elses" })).send().await?.error_for_status()?;
    Ok(())
}

async fn registered(world: &World) -> Result<BTreeSet<String>> {
    Ok(consul::passing(world, SERVICE).await?.into_iter().collect())
}

/// Exactly the ready instances are registered, the policy is in force, and nobody else's entry was touched.
async fn all_is_well(world: &World) -> Result<()> {
    eventually("registered are exactly the ready instances", || async {
        let ready: BTreeSet<String> =
            shop::ready_addresses(world, "user-service", 50051).await?.into_iter().collect();
        let all = consul::instances(world, SERVICE).await?.into_iter().map(|instance| instance.address);
        let ours: BTreeSet<String> = all.filter(|address| address != FOREIGN).collect();
        let passing = registered(world).await?;
        ensure!(ready == ours && ours == passing, "{ready:?} ready, {ours:?} registered, {passing:?} pass");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    for type_ in ["Ready", "Enforced"] {
        resource::until(world, "user", type_, "True").await?;
    }
    let there = consul::instances(world, SERVICE).await?;
    ensure!(
        there.iter().any(|instance| instance.address == FOREIGN),
        "somebody else's entry is gone: {there:?}"
    );
    Ok(())
}

async fn operators(world: &World) -> Result<Vec<Pod>> {
    let labels = ListParams::default().labels("app.kubernetes.io/name=fusebox-operator");
    Ok(Api::<Pod>::namespaced(world.client.clone(), OPERATOR_NAMESPACE).list(&labels).await?.items)
}

/// SIGKILL, and its pod with it: another takes its place at once.
async fn kill_operator(world: &World) -> Result<()> {
    for pod in operators(world).await? {
        // One that has not started yet has no process.
        node::signal(world, &pod, "fusebox-operat", "KILL").await.ok();
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
    foreign(&world).await?;
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
    all_is_well(&world).await?;
    foreign_gone(&world).await
}

#[tokio::test]
async fn l_a_minute_without_the_api_server_changes_nothing() -> Result<()> {
    let world = shop::opened().await?;
    foreign(&world).await?;
    let labels = ListParams::default().labels("node-role.kubernetes.io/control-plane");
    let nodes = Api::<Node>::all(world.client.clone()).list(&labels).await?;
    let node = nodes.items.first().context("no control plane")?.name_any();
    let before = registered(&world).await?;
    node::signal_on(&world, &node, "kube-apiserver", "STOP").await?;
    let seen = without_the_api_server(&world, &before).await;
    // Whatever was seen, the tests after this one need it.
    node::signal_on(&world, &node, "kube-apiserver", "CONT").await?;
    seen?;
    eventually("the API server answers", || shop::pods(&world, "user-service")).await?;
    shop::scale(&world, "user-service", 3).await?;
    all_is_well(&world).await?;
    foreign_gone(&world).await
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
