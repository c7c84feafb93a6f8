//! A policy edited while calls run: in force in every instance, no restart, no lost state.

use anyhow::{Result, ensure};
use fusebox_e2e::{etcd, eventually, gateway, resource, shop};
use fusebox_policy::v1alpha1::ResilientService;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

#[tokio::test]
async fn d_an_edited_timeout_is_in_force_without_a_restart() -> Result<()> {
    let world = shop::opened().await?;
    let before = shop::incarnation(&world, "user-service").await?;
    shop::store(&world, 1000, 0).await?;
    let answer = gateway::get(&world, gateway::API, "/users/Ada").await?;
    assert_eq!(answer.status(), 200, "a second is within the declared 1500ms: {}", answer.text().await?);

    let user = resource::patch(&world, "user", json!({ "inbound": { "timeout": "300ms" } })).await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    // Enforced means every instance: no call may run longer from here on.
    for _ in 0..10 {
        let answer = gateway::get(&world, gateway::API, "/users/Ada").await?;
        assert_eq!(answer.status(), 504, "an instance still runs the old timeout");
        let reason =
            answer.headers().get("fusebox-reason").map(|value| value.to_str().unwrap_or_default().to_owned());
        assert_eq!(reason.as_deref(), Some("timeout"));
    }
    assert_eq!(shop::incarnation(&world, "user-service").await?, before, "a pod was restarted");
    assert!(user.metadata.generation > Some(1));
    Ok(())
}

#[tokio::test]
async fn d_an_open_breaker_stays_open_through_an_edit() -> Result<()> {
    let world = shop::opened().await?;
    let before = shop::incarnation(&world, "user-caller").await?;
    let get_user = |timeout: &str, sleep_window: &str| {
        let breaker =
            json!({ "errorPercentThreshold": 25, "requestVolumeThreshold": 20, "sleepWindow": sleep_window });
        json!({ "outbound": { "commands": [{
            "name": "get_user", "timeout": timeout, "maxConcurrentRequests": 100, "circuitBreaker": breaker,
        }] } })
    };
    resource::patch(&world, "caller", get_user("1s", "10m")).await?;
    resource::until(&world, "caller", "Enforced", "True").await?;
    shop::store(&world, 3000, 0).await?;
    let open = |world| async move {
        let reports = etcd::reports(world, "caller").await?;
        let open: Vec<_> = reports.into_iter().flat_map(|report| report.breakers).collect();
        ensure!(!open.is_empty(), "no breaker is open");
        Ok::<_, anyhow::Error>(open)
    };
    let opened = eventually("the caller's breaker opens", || async {
        futures::future::join_all((0..8).map(|_| gateway::hello(&world, "Ada"))).await;
        open(&world).await
    })
    .await?;

    resource::patch(&world, "caller", get_user("900ms", "10m")).await?;
    resource::until(&world, "caller", "Enforced", "True").await?;
    assert_eq!(open(&world).await?, opened, "state, since and reason survive the edit");
    let hello = gateway::hello(&world, "Ada").await?;
    assert_eq!(hello.reason.as_deref(), Some("open"), "{hello:?}");
    assert_eq!(shop::incarnation(&world, "user-caller").await?, before, "a pod was restarted");

    // Let it close for the tests after this one.
    shop::store(&world, 0, 0).await?;
    resource::patch(&world, "caller", get_user("900ms", "1s")).await?;
    shop::closed(&world).await
}

#[tokio::test]
async fn d_enforced_is_told_with_its_generation() -> Result<()> {
    let world = shop::opened().await?;
    let config = watcher::Config::default().fields("metadata.name=user");
    let mut changes = Box::pin(watcher(resource::api(&world), config).default_backoff().applied_objects());
    changes.next().await;

    let generation = resource::patch(&world, "user", json!({ "inbound": { "timeout": "1400ms" } }))
        .await?
        .metadata
        .generation;
    let verdicts = async {
        let mut seen: Vec<(Option<i64>, String, String)> = Vec::new();
        while let Some(resource) = changes.try_next().await? {
            let Some(enforced) = verdict(&resource) else { continue };
            if seen.last() != Some(&enforced) {
                seen.push(enforced.clone());
            }
            if enforced.0 == generation && enforced.1 == "True" {
                break;
            }
        }
        Ok::<_, anyhow::Error>(seen)
    };
    let seen = tokio::time::timeout(fusebox_e2e::eventually::PATIENCE, verdicts).await??;
    // What is in force everywhere within a quarter of a second is told once.
    let of_the_edit: Vec<_> =
        seen.iter().filter(|verdict| verdict.0 == generation).map(|v| v.1.as_str()).collect();
    assert!([&["True"][..], &["False", "True"]].contains(&&of_the_edit[..]), "{seen:?}");
    Ok(())
}

fn verdict(resource: &ResilientService) -> Option<(Option<i64>, String, String)> {
    let conditions = &resource.status.as_ref()?.conditions;
    let enforced = conditions.iter().find(|condition| condition.type_ == "Enforced")?;
    Some((enforced.observed_generation, enforced.status.clone(), enforced.reason.clone()))
}
