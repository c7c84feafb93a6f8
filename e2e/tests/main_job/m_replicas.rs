//! Two replicas of the operator: one leads, and whichever ends, nothing is lost or deregistered.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use fusebox_cluster::install::OPERATOR_NAMESPACE;
use fusebox_e2e::{World, consul, eventually, node, resource, shop};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

const LEASE: &str = "operator-fusebox";
const SERVICE: &str = "user.service";

/// As `helm upgrade` does it.
async fn replicas(world: &World, n: u32) -> Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/operator").display().to_string();
    let n = format!("replicas={n}");
    let args =
        ["upgrade", "operator", &chart, "-n", OPERATOR_NAMESPACE, "--reuse-values", "--set", &n, "--wait"];
    world.run("helm", &args, None).await?;
    Ok(())
}

fn pods(world: &World) -> Api<Pod> {
    Api::namespaced(world.client.clone(), OPERATOR_NAMESPACE)
}

/// The pod that leads.
async fn leader(world: &World) -> Result<String> {
    let lease = Api::<Lease>::namespaced(world.client.clone(), OPERATOR_NAMESPACE).get(LEASE).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    let (pod, _) = holder.split_once('/').with_context(|| format!("nobody leads: {holder:?}"))?;
    Ok(pod.to_owned())
}

async fn another_leads(world: &World, old: &str) -> Result<String> {
    eventually("another replica leads", || async {
        let now = leader(world).await?;
        ensure!(now != old, "{now} leads");
        Ok::<_, anyhow::Error>(now)
    })
    .await
}

/// It does the work: an edit gets in force, and an instance more is found by name.
async fn works(world: &World, timeout: &str, instances: i32) -> Result<()> {
    resource::patch(world, "user", json!({ "inbound": { "timeout": timeout } })).await?;
    shop::scale(world, "user-service", instances).await?;
    eventually("it is registered", || async {
        let registered = consul::passing(world, SERVICE).await?;
        ensure!(registered == shop::ready_addresses(world, "user-service", 50051).await?, "{registered:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    resource::until(world, "user", "Enforced", "True").await?;
    Ok(())
}

async fn hand_over(world: &World) -> Result<()> {
    let registered = consul::instances(world, SERVICE).await?;
    // In an orderly way.
    let first = eventually("one leads", || leader(world)).await?;
    pods(world).delete(&first, &DeleteParams::default()).await?;
    let second = another_leads(world, &first).await?;
    ensure!(consul::instances(world, SERVICE).await? == registered, "a handover changes nothing");
    works(world, "1300ms", 3).await?;
    // A leader that is frozen for longer than its lease, and wakes.
    replicas(world, 2).await?;
    let pod = pods(world).get(&second).await?;
    ensure!(leader(world).await? == second, "it leads still");
    node::signal(world, &pod, "fusebox-operat", "STOP").await?;
    let third = another_leads(world, &second).await;
    let done = match &third {
        Ok(_) => works(world, "1200ms", 2).await,
        Err(_) => Ok(()),
    };
    node::signal(world, &pod, "fusebox-operat", "CONT").await.ok();
    let third = third?;
    done?;
    eventually("the old leader has ended by itself", || async {
        let logs = ["-n", OPERATOR_NAMESPACE, "logs", &second, "--previous"];
        let logs = world.run("kubectl", &logs, None).await?;
        ensure!(logs.contains("this process ends and writes nothing more"), "{logs}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    // Its process is over, so whatever it had in its hands when it was frozen has shown by now.
    ensure!(leader(world).await? == third, "and has not taken over again");
    works(world, "1100ms", 3).await
}

#[tokio::test]
async fn m_replicas_hand_over_and_a_frozen_leader_ends() -> Result<()> {
    let world = shop::opened().await?;
    replicas(&world, 2).await?;
    let done = hand_over(&world).await;
    // Whatever was seen, the tests after this one have one replica.
    replicas(&world, 1).await?;
    done
}
