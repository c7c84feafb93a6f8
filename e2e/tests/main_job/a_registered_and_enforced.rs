//! Applied means registered, routed, published and in force in every instance.

use anyhow::{Result, ensure};
use fusebox_e2e::{consul, etcd, eventually, resource, shop};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

/// Waits until Consul's passing instances are exactly the ready pods.
async fn consul_follows(world: &fusebox_e2e::World) -> Result<Vec<String>> {
    eventually("Consul's passing instances are the ready pods", || async {
        let ready = shop::ready_addresses(world, "user-service", 50051).await?;
        let passing = consul::passing(world, "user.service").await?;
        ensure!(ready == passing, "ready {ready:?}, passing {passing:?}");
        Ok::<_, anyhow::Error>(passing)
    })
    .await
}

#[tokio::test]
async fn a_applied_is_ready_and_enforced() -> Result<()> {
    let world = shop::opened().await?;
    // The command a person waits with.
    world.kubectl(&["wait", "--for=condition=Enforced", "rsvc/user", "--timeout=60s"]).await?;
    world.kubectl(&["wait", "--for=condition=Ready", "rsvc/user", "--timeout=60s"]).await?;

    let user = resource::until(&world, "user", "Enforced", "True").await?;
    for type_ in ["Accepted", "Registered", "Routed", "Published", "Enforced", "Ready"] {
        let condition = resource::condition(&user, type_)?;
        assert_eq!(condition.status, "True", "{type_}: {}", condition.message);
        assert!(!condition.message.is_empty(), "{type_} tells a person nothing");
    }
    let status = user.status.unwrap_or_default();
    assert_eq!(status.summary.unwrap_or_default().enforced, "2/2");
    let reports = etcd::reports(&world, "user").await?;
    assert_eq!(reports.len(), 2);
    for report in reports {
        assert_eq!(report.hash.map(|hash| hash.to_string()), status.policy_hash, "{}", report.instance);
    }
    Ok(())
}

#[tokio::test]
async fn a_registered_by_name_and_scaling_follows() -> Result<()> {
    let world = shop::opened().await?;
    for replicas in [1, 3, 1] {
        shop::scale(&world, "user-service", replicas).await?;
        let passing = consul_follows(&world).await?;
        assert_eq!(passing.len(), usize::try_from(replicas)?);
        resource::until(&world, "user", "Enforced", "True").await?;
    }
    // A pod that goes is critical while it drains, and is no longer there once it has left its slice.
    let instances = eventually("who left its slice is not kept", || async {
        let instances = consul::instances(&world, "user.service").await?;
        ensure!(instances.len() == 1, "{instances:?}");
        Ok::<_, anyhow::Error>(instances)
    })
    .await?;
    assert!(instances[0].tags.contains(&"v1".to_owned()), "{instances:?}");
    let uid = resource::api(&world).get("user").await?.metadata.uid.unwrap_or_default();
    assert_eq!(instances[0].meta.get("fusebox-owner"), Some(&uid));
    Ok(())
}

/// A readiness gate makes a pod ready and unready at will, with nothing else about it changing.
#[tokio::test]
async fn a_passing_exactly_when_ready() -> Result<()> {
    let world = shop::opened().await?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), fusebox_e2e::world::SHOP);
    pods.delete("gated", &DeleteParams::default().grace_period(0)).await.ok();
    eventually("no gated pod from before", || async {
        ensure!(pods.get_opt("gated").await?.is_none(), "still there");
        Ok::<_, anyhow::Error>(())
    })
    .await?;

    let mut pod = shop::pods(&world, "user-service").await?.remove(0);
    let mut spec = serde_json::to_value(pod.spec.take())?;
    spec["readinessGates"] = json!([{ "conditionType": "e2e.fusebox.dev/gate" }]);
    for of_the_node in ["nodeName", "serviceAccountName", "serviceAccount"] {
        spec.as_object_mut().map(|spec| spec.remove(of_the_node));
    }
    let mut labels = pod.metadata.labels.unwrap_or_default();
    labels.remove("pod-template-hash");
    let gated: Pod =
        serde_json::from_value(json!({ "metadata": { "name": "gated", "labels": labels }, "spec": spec }))?;
    pods.create(&PostParams::default(), &gated).await?;
    let address = eventually("the gated pod has an address", || async {
        let pod = pods.get("gated").await?;
        let ip = pod.status.and_then(|status| status.pod_ip).ok_or_else(|| anyhow::anyhow!("none yet"))?;
        Ok::<_, anyhow::Error>(format!("{ip}:50051"))
    })
    .await?;

    for gate in ["False", "True", "False"] {
        let status =
            json!({ "status": { "conditions": [{ "type": "e2e.fusebox.dev/gate", "status": gate }] } });
        pods.patch_status("gated", &PatchParams::default(), &Patch::Strategic(status)).await?;
        eventually(&format!("the gate is {gate}: Consul says so"), || async {
            let all = consul::instances(&world, "user.service").await?;
            let found = all.iter().find(|instance| instance.address == address);
            let passing =
                found.ok_or_else(|| anyhow::anyhow!("{address} is not registered: {all:?}"))?.passing;
            ensure!(passing == (gate == "True"), "passing: {passing}");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
    }
    pods.delete("gated", &DeleteParams::default()).await?;
    consul_follows(&world).await?;
    Ok(())
}
