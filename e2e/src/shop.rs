//! The sample shop: its resources as in `examples/`, its pods, its user store that can be made slow.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use fusebox_policy::v1alpha1::ResilientService;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};

use crate::world::{SHOP, file};
use crate::{World, eventually, resource};

/// Brings the shop to its first state: the examples applied, the store quick, two instances, all in force.
pub async fn opened() -> Result<World> {
    let world = World::open().await?;
    crate::node::all_awake(&world).await?;
    store(&world, 0, 0).await?;
    ca(&world).await?;
    for path in ["examples/user.yaml", "examples/caller.yaml"] {
        eventually(&format!("{path} is as written"), || restored(&world, path)).await?;
    }
    // Of a test that ended half-way.
    world.kubectl(&["delete", "pod", "gated", crate::odd::NAME, "--ignore-not-found", "--now"]).await?;
    crate::callers::removed(&world).await?;
    scale(&world, "user-service", 2).await?;
    for name in ["user", "caller"] {
        for type_ in ["Ready", "Enforced"] {
            resource::until(&world, name, type_, "True").await?;
        }
    }
    closed(&world).await?;
    eventually("Traefik routes the user service", || crate::gateway::greet(&world, "Ada")).await?;
    Ok(world)
}

/// Gives a resource exactly the spec of its example: what a test before has set, and the example does not, would
/// stay under `kubectl apply`.
pub async fn restored(world: &World, path: &str) -> Result<()> {
    let mut example: ResilientService = serde_saphyr::from_str(&file(path)?)?;
    let resources = resource::api(world);
    match resources.get_opt(&example.name_any()).await? {
        // One that is going makes room first.
        Some(now) if now.metadata.deletion_timestamp.is_some() => {
            anyhow::bail!("the old one is not gone yet")
        }
        Some(now) if now.spec == example.spec => {}
        Some(now) => {
            example.metadata = now.metadata;
            resources.replace(&example.name_any(), &PostParams::default(), &example).await?;
        }
        None => {
            resources.create(&PostParams::default(), &example).await?;
        }
    }
    Ok(())
}

/// Waits until the caller's breaker is closed again: a call must succeed for that.
pub async fn closed(world: &World) -> Result<()> {
    eventually("the caller greets", || async {
        let hello = crate::gateway::hello(world, "Ada").await?;
        ensure!(!hello.fallback, "fallback: {:?}", hello.reason);
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// Makes the user store slow or failing, through the API server's proxy.
pub async fn store(world: &World, delay_ms: u64, fail_percent: u64) -> Result<()> {
    let path = format!("/api/v1/namespaces/{SHOP}/services/user-store:admin/proxy/admin/behaviour");
    let body = serde_json::json!({ "delayMs": delay_ms, "failPercent": fail_percent });
    eventually("the store's admin endpoint answers", || async {
        let request = http::Request::put(&path).header("content-type", "application/json");
        let request = request.body(serde_json::to_vec(&body)?)?;
        Ok::<_, anyhow::Error>(world.client.request_text(request).await?)
    })
    .await?;
    Ok(())
}

/// Scales a deployment and waits until exactly that many pods are there and ready.
pub async fn scale(world: &World, name: &str, replicas: i32) -> Result<()> {
    world.kubectl(&["scale", "deployment", name, &format!("--replicas={replicas}")]).await?;
    eventually(&format!("{name} has {replicas} pods"), || async {
        let deployment = Api::<Deployment>::namespaced(world.client.clone(), SHOP).get(name).await?;
        let status = deployment.status.unwrap_or_default();
        let ready = status.ready_replicas.unwrap_or_default();
        let pods = pods(world, name).await?.len();
        ensure!(ready == replicas && i32::try_from(pods)? == replicas, "{ready} ready of {pods} pods");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// The pods of a deployment that are not going.
pub async fn pods(world: &World, name: &str) -> Result<Vec<Pod>> {
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
    let pods = Api::<Pod>::namespaced(world.client.clone(), SHOP).list(&labels).await?;
    Ok(pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

/// The UIDs and restarts of a deployment's pods: unchanged means that no process was restarted.
pub async fn incarnation(world: &World, name: &str) -> Result<BTreeSet<(String, i32)>> {
    let restarts = |pod: &Pod| -> i32 {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.into_iter().flatten().map(|status| status.restart_count).sum()
    };
    Ok(pods(world, name)
        .await?
        .into_iter()
        .map(|pod| (pod.metadata.uid.clone().unwrap_or_default(), restarts(&pod)))
        .collect())
}

/// Does the pod take calls?
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The addresses of a deployment's ready pods.
pub async fn ready_addresses(world: &World, name: &str, port: u16) -> Result<Vec<String>> {
    let pods = pods(world, name).await?;
    let mut found: Vec<String> = pods
        .iter()
        .filter(|pod| is_ready(pod))
        .filter_map(|pod| pod.status.as_ref()?.pod_ip.as_ref().map(|ip| format!("{ip}:{port}")))
        .collect();
    found.sort();
    Ok(found)
}

/// The certificate authority that the tests make for Traefik's TLS entry point, with the Secret that the
/// example names; made anew for each call.
pub async fn ca(world: &World) -> Result<String> {
    let hosts = vec![crate::gateway::API.to_owned(), crate::gateway::GRPC.to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(hosts)?;
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "api-cert", "namespace": SHOP },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": cert.pem(), "tls.key": signing_key.serialize_pem() },
    });
    world.apply(&secret.to_string()).await?;
    Ok(cert.pem())
}
