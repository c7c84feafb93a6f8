//! A namespace that somebody forces away takes resources with it that nobody could clear: they are found.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fusebox_e2e::declared::{self, Foreign};
use fusebox_e2e::{World, consul, etcd, eventually, operator, shop};
use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::ResilientService;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

const NAMESPACE: &str = "forced";
const NAME: &str = "doomed";
const SERVICE: &str = "doomed.service";

/// Two sweeps.
const SWEPT: Duration = Duration::from_mins(1);

/// A service whose one instance is an address, so that the namespace needs neither image nor pods.
fn doomed() -> Vec<Value> {
    let metadata = json!({ "name": NAME, "namespace": NAMESPACE });
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": { "ports": [{ "name": "http", "port": 8080 }] },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": NAME, "namespace": NAMESPACE, "labels": { "kubernetes.io/service-name": NAME },
            },
            "endpoints": [{ "addresses": ["10.244.250.250"], "conditions": { "ready": true } }],
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        }),
        json!({
            "apiVersion": "fusebox.dev/v1alpha1", "kind": "ResilientService", "metadata": metadata,
            "spec": {
                "service": { "name": NAME, "port": "http" },
                "inbound": { "timeout": "1s" },
                "consul": { "serviceName": SERVICE },
                "gateway": { "entryPoints": { "plain": "web" }, "routes": [{ "host": "doomed.example.com" }] },
                "config": { "document": { "a": 1 } },
            },
        }),
    ]
}

fn resources(world: &World) -> Api<ResilientService> {
    Api::namespaced(world.client.clone(), NAMESPACE)
}

fn keys() -> [String; 2] {
    let of = Ident::new(NAMESPACE, NAME);
    [etcd::keys().policy(&of), etcd::keys().config(&of)]
}

async fn arrived(world: &World) -> Result<()> {
    let objects: Vec<String> = doomed().iter().map(Value::to_string).collect();
    world.run("kubectl", &["apply", "-f", "-"], Some(&objects.join("\n---\n"))).await?;
    eventually("it is registered and published", || async {
        let status = resources(world).get(NAME).await?.status.unwrap_or_default();
        let ready = status.conditions.iter().find(|one| one.type_ == "Ready").context("no condition yet")?;
        ensure!(ready.status == "True", "{}", ready.message);
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    ensure!(consul::instances(world, SERVICE).await?.len() == 1);
    for key in keys() {
        ensure!(etcd::get(world, &key).await?.is_some(), "{key}");
    }
    Ok(())
}

fn namespaces(world: &World) -> Api<Namespace> {
    Api::all(world.client.clone())
}

/// The namespace is being deleted, and waits for our finalizer.
async fn deleted(world: &World) -> Result<()> {
    namespaces(world).delete(NAMESPACE, &DeleteParams::default()).await?;
    eventually("its resource is being deleted", || async {
        let now = resources(world).get(NAME).await?;
        ensure!(now.metadata.deletion_timestamp.is_some(), "not yet");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// The namespace ends whatever is in it. Its controller writes it too: who comes second reads it again.
async fn forced(world: &World) -> Result<()> {
    eventually("the namespace is gone", || async {
        // It may have ended by itself.
        let Some(now) = namespaces(world).get_opt(NAMESPACE).await? else { return Ok(()) };
        finalized(world, now).await?;
        ensure!(namespaces(world).get_opt(NAMESPACE).await?.is_none(), "it is still there");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// Nothing holds `namespace`, as it was read, any more.
async fn finalized(world: &World, namespace: Namespace) -> Result<()> {
    let mut now = serde_json::to_value(namespace)?;
    now["apiVersion"] = json!("v1");
    now["kind"] = json!("Namespace");
    now["spec"]["finalizers"] = json!([]);
    let path = format!("/api/v1/namespaces/{NAMESPACE}/finalize");
    let request = http::Request::put(path).header("content-type", "application/json");
    world.client.request_text(request.body(serde_json::to_vec(&now)?)?).await?;
    Ok(())
}

/// Takes our finalizer off by hand; nobody is there who would put it back.
async fn finalizer_off(world: &World) -> Result<()> {
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    resources(world).patch(NAME, &PatchParams::default(), &none).await?;
    Ok(())
}

/// Nothing of it is anywhere.
async fn nothing_left(world: &World) -> Result<()> {
    eventually("Consul and etcd hold nothing of it", || async {
        let there = consul::instances(world, SERVICE).await?;
        ensure!(there.is_empty(), "{there:?}");
        for key in keys() {
            ensure!(etcd::get(world, &key).await?.is_none(), "{key} is there");
        }
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// While the operator looks away, so that it neither clears nor sees anything.
async fn unseen(world: &World, what: impl Future<Output = Result<()>>) -> Result<Instant> {
    let pod = operator::pod(world).await?;
    operator::signal(world, &pod, "STOP").await?;
    let done = what.await;
    // Whatever was seen, the tests after this one need it.
    operator::signal(world, &pod, "CONT").await?;
    done?;
    Ok(Instant::now())
}

/// What is in etcd of the others, and when it was written.
async fn neighbours(world: &World) -> Result<Vec<(Vec<u8>, i64)>> {
    let mut all = Vec::new();
    for name in ["user", "caller"] {
        for key in [etcd::keys().policy(&etcd::ident(name)), etcd::keys().config(&etcd::ident(name))] {
            let found = etcd::client(world).await?.get(key, None).await?;
            all.extend(found.kvs().iter().map(|kv| (kv.key().to_vec(), kv.mod_revision())));
        }
    }
    ensure!(all.len() == 3, "two policies and a config document, not {}", all.len());
    Ok(all)
}

/// The instances of the demo's service, once none of ours is on its way out: the test before this one lost a node.
async fn instances_at_rest(world: &World) -> Result<Vec<consul::Instance>> {
    eventually("every instance of ours passes", || async {
        let there = consul::instances(world, declared::SERVICE).await?;
        ensure!(there.iter().all(|one| one.passing || one.meta.is_empty()), "{there:?}");
        Ok::<_, anyhow::Error>(there)
    })
    .await
}

/// A namespace goes by `away`, unseen, and nothing of it is left but what is of others.
async fn leaves_nothing(world: &World, away: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let before = (neighbours(world).await?, instances_at_rest(world).await?);
    arrived(world).await?;
    let begin = unseen(world, away()).await?;
    nothing_left(world).await?;
    let took = Instant::now() - begin;
    ensure!(took <= SWEPT, "gone after {took:?}");
    eprintln!("nothing left {took:?} after the operator could look again");
    let after = (neighbours(world).await?, consul::instances(world, declared::SERVICE).await?);
    ensure!(after == before, "the neighbours were {before:?}, they are {after:?}");
    Ok(())
}

/// The finalizer taken off by hand, so that nothing holds the namespace, and nobody saw any of it.
#[tokio::test]
async fn p_a_namespace_forced_away_leaves_nothing() -> Result<()> {
    let world = shop::opened().await?;
    let foreign = Foreign::register(&world).await?;
    let away = async || {
        deleted(&world).await?;
        finalizer_off(&world).await?;
        forced(&world).await
    };
    leaves_nothing(&world, away).await?;
    ensure!(resources(&world).get_opt(NAME).await?.is_none(), "the resource went with it");
    declared::again(&world, foreign).await
}

/// The namespace finalized with the resource in it, which Kubernetes keeps and lets nobody change any more.
#[tokio::test]
async fn p_what_outlives_its_namespace_is_cleared_and_goes_when_it_can() -> Result<()> {
    let world = shop::opened().await?;
    let foreign = Foreign::register(&world).await?;
    let away = async || {
        deleted(&world).await?;
        forced(&world).await
    };
    leaves_nothing(&world, away).await?;
    ensure!(
        resources(&world).get_opt(NAME).await?.is_some(),
        "without its namespace nobody can take a finalizer off"
    );
    // Whoever needs it gone makes the namespace again.
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    world.run("kubectl", &["apply", "-f", "-"], Some(&namespace.to_string())).await?;
    eventually("the resource is gone", || async {
        ensure!(resources(&world).get_opt(NAME).await?.is_none(), "its finalizer holds it");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    world.run("kubectl", &["delete", "namespace", NAMESPACE, "--timeout=60s"], None).await?;
    declared::again(&world, foreign).await
}
