//! Enforced is true: what an instance does that rejects, hangs, starts again, or is replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::WatchOptions;
use fusebox_e2e::world::SHOP;
use fusebox_e2e::{World, etcd, eventually, odd, resource, shop};
use fusebox_policy::wire::Report;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

/// What is stated: twice the lease of a report.
const BOUND: Duration = Duration::from_secs(20);

/// It is built without the descriptors that the policy's answer needs, and calls a command that no policy names.
#[tokio::test]
async fn k_an_instance_that_rejects_is_named_with_its_reason() -> Result<()> {
    let world = shop::opened().await?;
    odd::start(&world, |spec| {
        for container in &mut spec.containers {
            container.args = Some(vec!["caller".to_owned()]);
        }
    })
    .await?;
    let message = json!({ "inbound": { "methods": [{
        "match": { "grpc": { "service": "user.v1.UserService", "method": "GetUser" } },
        "fallback": { "message": { "msg": "Hello, whoever you are" } },
    }] } });
    resource::patch(&world, "user", message).await?;
    let user = resource::until_reason(&world, "user", "Enforced", "False", Some("Rejected")).await?;
    let status = user.status.context("no status")?;
    assert_eq!(status.summary.map(|summary| summary.enforced).as_deref(), Some("2/3"));
    assert_eq!(status.instances.map(|instances| instances.rejecting), Some(1));
    let described = world.kubectl(&["describe", "rsvc", "user"]).await?;
    let line = described.lines().find(|line| line.contains("odd: ")).with_context(|| described.clone())?;
    assert!(line.contains("GetUser") && line.contains("descriptors"), "{line}");
    assert!(described.contains("Rejected"), "{described}");

    odd::gone(&world).await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    Ok(())
}

#[tokio::test]
async fn k_a_paused_instance_turns_enforced_false_within_the_bound_and_back() -> Result<()> {
    let world = shop::opened().await?;
    let pod = odd::start(&world, |_| ()).await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    odd::signal(&world, &pod, "STOP").await?;
    let stopped = Instant::now();
    let user = resource::until_reason(&world, "user", "Enforced", "False", Some("Stale")).await?;
    let took = Instant::now() - stopped;
    assert!(took <= BOUND, "{took:?}");
    let failures = user.status.map(|status| status.failures).unwrap_or_default();
    assert!(failures.iter().any(|f| f.instance == odd::NAME && f.reason == "Stale"), "{failures:?}");
    odd::signal(&world, &pod, "CONT").await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    odd::gone(&world).await
}

/// The first report of a process says that it runs no policy of ours, whatever the process before it said.
#[tokio::test]
async fn k_a_container_that_starts_again_does_not_count_by_its_old_report() -> Result<()> {
    let world = shop::opened().await?;
    let pod = odd::start(&world, |_| ()).await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    let uid = pod.uid().context("no uid")?;
    let key = etcd::keys().report(&etcd::ident("user"), &uid);
    let old: Report = serde_json::from_str(&etcd::get(&world, &key).await?.context("no report")?)?;
    let mut client = etcd::client(&world).await?;
    let mut watch = client.watch(key, Some(WatchOptions::new())).await?;
    odd::signal(&world, &pod, "KILL").await?;

    let mut seen: Vec<Report> = Vec::new();
    let until = Instant::now() + fusebox_e2e::eventually::PATIENCE;
    while seen.last().is_none_or(|report| report.hash != old.hash) {
        let message =
            tokio::time::timeout_at(until, watch.message()).await.with_context(|| format!("{seen:?}"))?;
        let message = message?.context("the watch ended")?;
        let values = message.events().iter().filter_map(|event| event.kv().map(|kv| kv.value().to_vec()));
        for value in values.filter(|value| !value.is_empty()) {
            seen.push(serde_json::from_slice(&value)?);
        }
    }
    let first = &seen[0];
    assert!(first.boot != old.boot && first.hash.is_none(), "{seen:?}");
    assert!(seen.iter().all(|report| report.boot == first.boot), "{seen:?}");
    eventually("the kubelet has counted it", || async {
        ensure!(odd::restarts(&world).await? == 1, "not yet");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    odd::gone(&world).await
}

/// What each ready pod runs, by its own word.
async fn running(world: &World) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for pod in shop::pods(world, "user-service").await?.iter().filter(|pod| shop::is_ready(pod)) {
        let path = format!("/api/v1/namespaces/{SHOP}/pods/{}:9090/proxy/metrics", pod.name_any());
        let asked = world.client.request_text(http::Request::get(path).body(Vec::new())?).await;
        let text = match asked {
            Ok(text) => text,
            Err(error) => {
                // Only one that is going cannot be asked any more.
                let now = Api::<Pod>::namespaced(world.client.clone(), SHOP).get_opt(&pod.name_any()).await?;
                let goes = now.is_none_or(|now| now.metadata.deletion_timestamp.is_some());
                ensure!(goes, "{} is ready and cannot be asked: {error}", pod.name_any());
                continue;
            }
        };
        let hash =
            text.lines().find_map(|line| line.strip_prefix("fusebox_policy{hash=\"")?.split('"').next());
        found.insert(pod.name_any(), hash.context("no policy in the metrics")?.to_owned());
    }
    Ok(found)
}

#[tokio::test]
async fn k_enforced_stays_truthful_through_a_rolling_restart_and_an_edit() -> Result<()> {
    let world = shop::opened().await?;
    let before: Vec<String> = running(&world).await?.into_keys().collect();
    world.kubectl(&["rollout", "restart", "deployment", "user-service"]).await?;
    let until = Instant::now() + fusebox_e2e::eventually::PATIENCE;
    let (mut edits, mut looks, mut trues) = (0, 0, 0);
    let mut edited = Instant::now();
    loop {
        ensure!(Instant::now() < until, "the rollout does not end");
        // The status is between two looks at the pods: who runs another policy in both did so meanwhile.
        let first = running(&world).await?;
        let user = resource::api(&world).get("user").await?;
        let then = running(&world).await?;
        looks += 1;
        let enforced = resource::condition(&user, "Enforced").is_ok_and(|enforced| enforced.status == "True");
        if enforced {
            trues += 1;
            let wanted = user.status.and_then(|status| status.policy_hash).context("no hash")?;
            for (pod, hash) in &first {
                let other = *hash != wanted && then.get(pod).is_some_and(|hash| *hash != wanted);
                ensure!(!other, "Enforced is True of {wanted}, and {pod} runs {hash}: {first:?} {then:?}");
            }
        }
        let replaced = then.len() == 2 && then.keys().all(|pod| !before.contains(pod));
        if replaced && enforced {
            break;
        }
        // A status is written at most once a second: edits that follow faster are never seen in force.
        if !replaced && Instant::now() - edited > Duration::from_millis(1500) {
            edits += 1;
            edited = Instant::now();
            let timeout = format!("{}ms", 1500 + edits);
            resource::patch(&world, "user", json!({ "inbound": { "timeout": timeout } })).await?;
        }
    }
    ensure!(trues > 1 && edits > 0, "{looks} looks, {trues} of them True, {edits} edits: nothing is shown");
    Ok(())
}
