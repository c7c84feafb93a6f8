//! A slow service: the caller times out at the declared limit, its breaker opens, its clients get the
//! fallback, and it closes again after recovery.

use anyhow::{Result, ensure};
use fusebox_e2e::{etcd, eventually, gateway, resource, shop};
use serde_json::json;
use tokio::time::Instant;

#[tokio::test]
async fn c_a_slow_service_opens_the_callers_breaker_and_it_closes_again() -> Result<()> {
    let world = shop::opened().await?;
    // Nobody but the caller gives up: the service and its look-up would wait longer than the store takes.
    let patient = json!({ "inbound": { "timeout": "9s" }, "outbound": { "commands": [{ "name": "find_user", "timeout": "9s", "fallback": { "enabled": false } }] } });
    resource::patch(&world, "user", patient).await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    shop::store(&world, 3000, 0).await?;

    let start = Instant::now();
    let first = gateway::hello(&world, "Ada").await?;
    let took = Instant::now() - start;
    assert_eq!((first.msg.as_str(), first.reason.as_deref()), ("default user", Some("timeout")));
    // Neither refused at once nor held for the store's three: whose timer is first, the caller's own or the one of
    // the service that was told the deadline, is a matter of a millisecond.
    assert!(
        (900..2900).contains(&took.as_millis()),
        "given up after {took:?} instead of the declared second"
    );

    let open = eventually("calls are refused by an open breaker", || async {
        let calls = (0..8).map(|_| gateway::hello(&world, "Ada"));
        let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().collect::<Result<_>>()?;
        for answer in &answers {
            assert_eq!(answer.msg, "default user", "{answer:?}");
        }
        let reasons: Vec<_> = answers.iter().filter_map(|answer| answer.reason.clone()).collect();
        ensure!(reasons.iter().any(|reason| reason == "open"), "{reasons:?}");
        Ok::<_, anyhow::Error>(())
    });
    open.await?;

    let status = eventually("the status names the open breaker", || async {
        let status = resource::api(&world).get("caller").await?.status.unwrap_or_default();
        // Half-open counts too: a probe may be on its way.
        ensure!(!status.open_breakers.is_empty(), "{:?}", status.summary);
        Ok::<_, anyhow::Error>(status)
    })
    .await?;
    let breaker = &status.open_breakers[0];
    assert_eq!(breaker.command, "get_user");
    assert!(!breaker.reason.is_empty() && !breaker.since.is_empty(), "{breaker:?}");
    let summary = status.summary.unwrap_or_default().breaker;
    assert!(summary.starts_with("get_user "), "{summary}");

    shop::store(&world, 0, 0).await?;
    shop::closed(&world).await?;
    eventually("the status says closed", || async {
        let status = resource::api(&world).get("caller").await?.status.unwrap_or_default();
        let summary = status.summary.unwrap_or_default().breaker;
        ensure!(summary == "closed" && status.open_breakers.is_empty(), "{summary}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// Three in ten calls fail: the caller's 25 % is reached, the 50 % of the service's own look-up is not.
#[tokio::test]
async fn c_the_breaker_opens_at_its_own_percentage() -> Result<()> {
    let world = shop::opened().await?;
    shop::store(&world, 0, 30).await?;
    eventually("the caller's breaker opens", || async {
        let calls = (0..8).map(|_| gateway::hello(&world, "Ada"));
        let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().collect::<Result<_>>()?;
        ensure!(answers.iter().any(|answer| answer.reason.as_deref() == Some("open")), "{answers:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let looked_up: Vec<_> =
        etcd::reports(&world, "user").await?.into_iter().flat_map(|report| report.breakers).collect();
    assert_eq!(looked_up, [], "30 % of failures opened a breaker of 50 %");
    Ok(())
}

/// The seed configures `get_user` and calls `getuser`: there the unknown name silently gets defaults.
#[tokio::test]
async fn c_a_command_that_the_policy_does_not_name_is_visible() -> Result<()> {
    let world = shop::opened().await?;
    let commands = json!({ "outbound": { "commands": [{ "name": "getuser", "timeout": "1s" }] } });
    resource::patch(&world, "caller", commands).await?;
    resource::until(&world, "caller", "Enforced", "True").await?;
    eventually("the status names the command that the code calls", || async {
        gateway::hello(&world, "Ada").await?;
        let failures = resource::api(&world).get("caller").await?.status.unwrap_or_default().failures;
        let named = failures.iter().any(|f| f.reason == "UnknownCommand" && f.message.contains("get_user"));
        ensure!(named, "{failures:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}
