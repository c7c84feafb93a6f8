//! Three Consul servers, and the one that leads is killed: nobody is deregistered for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fusebox_cluster::install::PLATFORM_NAMESPACE;
use fusebox_e2e::declared::{self, Foreign, SERVICE};
use fusebox_e2e::{World, consul, eventually, gateway, long, resource, shop};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep};

/// As `helm upgrade` does it: Consul begins anew, with nothing in it.
async fn servers(world: &World, n: usize) -> Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/demo-platform").display().to_string();
    let n = format!("consul.replicas={n}");
    let args =
        ["upgrade", "platform", &chart, "-n", PLATFORM_NAMESPACE, "--reuse-values", "--set", &n, "--wait"];
    world.run("helm", &args, None).await?;
    Ok(())
}

async fn asked<T: serde::de::DeserializeOwned>(world: &World, path: &str) -> Result<T> {
    let url = format!("{}/v1/{path}", world.address("CONSUL_HTTP_ADDR"));
    Ok(world.http.get(url).send().await?.error_for_status()?.json().await?)
}

/// The address of the server that leads.
async fn leader(world: &World) -> Result<String> {
    let address: String = asked(world, "status/leader").await?;
    let (ip, _) = address.split_once(':').with_context(|| format!("nobody leads: {address:?}"))?;
    Ok(ip.to_owned())
}

/// Waits until there are three servers that vote, and `gone` is not one of them.
async fn may_lose_one(world: &World, gone: &str) -> Result<()> {
    eventually("three servers, of which one may be lost", || async {
        let health: serde_json::Value = asked(world, "operator/autopilot/health").await?;
        let servers = health["Servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let old = |server: &serde_json::Value| server["Address"] == format!("{gone}:8300");
        let whole = servers.len() == 3 && health["FailureTolerance"] == 1 && !servers.iter().any(old);
        ensure!(whole, "{health}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// A server of three that is gone without a goodbye; another pod takes its place.
async fn kill_leader(world: &World) -> Result<String> {
    let ip = leader(world).await?;
    let pods = Api::<Pod>::namespaced(world.client.clone(), PLATFORM_NAMESPACE);
    let labels = ListParams::default().labels("app.kubernetes.io/name=consul");
    let is_it = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()) == Some(&ip);
    let pod = pods.list(&labels).await?.items.into_iter().find(is_it).context("no pod leads")?;
    fusebox_e2e::node::signal(world, &pod, "consul", "KILL").await?;
    pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    Ok(ip)
}

/// Reads the catalog without a pause: who was there before is in every answer, and passes; and the caller, who is such a
/// reader, calls on. How many requests got no answer.
async fn read(
    world: Arc<World>,
    before: BTreeSet<String>,
    answers: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Result<usize> {
    let mut failures = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Ok(there) = consul::instances(&world, SERVICE).await {
            let passing: BTreeSet<String> =
                there.into_iter().filter(|one| one.passing).map(|one| one.address).collect();
            ensure!(passing.is_superset(&before), "{before:?} were registered, {passing:?} are");
            answers.fetch_add(1, Ordering::Relaxed);
        } else {
            failures += 1;
        }
        let hello = gateway::hello(&world, "Ada").await?;
        // A machine that starts servers may be slow for a call.
        let slow = matches!(hello.reason.as_deref(), Some("timeout" | "open"));
        ensure!(!hello.fallback || slow, "the caller lost it: {hello:?}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(failures)
}

async fn leaders_lost(world: &Arc<World>) -> Result<()> {
    may_lose_one(world, "").await?;
    declared::follows(world).await?;
    let foreign = Foreign::register(world).await?;
    let before = declared::registered(world).await?;
    ensure!(before.len() == 2, "{before:?}");
    for round in 0..2 {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let reader = tokio::spawn(read(world.clone(), before.clone(), answers.clone(), stop.clone()));
        let begin = Instant::now();
        let old = kill_leader(world).await?;
        let elected = eventually("another leads", || async {
            let now = leader(world).await?;
            ensure!(now != old, "{now} leads");
            Ok::<_, anyhow::Error>(Instant::now() - begin)
        })
        .await?;
        if round == 0 {
            // What changes just now is not lost.
            world.kubectl(&["scale", "deployment", "user-service", "--replicas=3"]).await?;
        }
        resource::patch(world, "user", json!({ "consul": { "tags": ["v1", format!("round-{round}")] } }))
            .await?;
        eventually("the operator writes again", || async {
            let there = consul::instances(world, SERVICE).await?;
            let tagged = |one: &&consul::Instance| one.tags.contains(&format!("round-{round}"));
            let tagged = there.iter().filter(tagged).count();
            ensure!(tagged >= 2, "{there:?}");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        let written = Instant::now() - begin;
        declared::follows(world).await?;
        may_lose_one(world, &old).await?;
        let so_far = answers.load(Ordering::Relaxed);
        eventually("the catalog is read some more", || async {
            let more = answers.load(Ordering::Relaxed) - so_far;
            // A reader that found something wrong reads no more.
            ensure!(more >= 20 || reader.is_finished(), "{more} answers");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        stop.store(true, Ordering::Relaxed);
        let failures = reader.await??;
        let answers = answers.load(Ordering::Relaxed);
        eprintln!(
            "a leader after {elected:?}, written after {written:?}; {answers} answers, each with all; {failures} failures"
        );
        foreign.untouched(world).await?;
    }
    ensure!(gateway::greet(world, "Ada").await?.msg == "Hello, Ada");
    shop::scale(world, "user-service", 2).await?;
    declared::again(world, foreign).await
}

#[tokio::test]
async fn s_consul_loses_its_leader_and_nobody_is_deregistered() -> Result<()> {
    if !long("Consul's leader lost among three servers") {
        return Ok(());
    }
    let world = Arc::new(shop::opened().await?);
    let tested = async {
        servers(&world, 3).await?;
        leaders_lost(&world).await
    };
    let tested = tested.await;
    // Whatever was seen, the tests after this one have one server.
    servers(&world, 1).await?;
    tested
}
