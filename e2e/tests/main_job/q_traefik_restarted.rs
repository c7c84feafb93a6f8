//! Traefik is killed: what it serves is in Kubernetes, and the operator has nothing to do.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use fusebox_cluster::install::PLATFORM_NAMESPACE;
use fusebox_e2e::declared::{self, Foreign};
use fusebox_e2e::{World, etcd, eventually, gateway, operator, resource, shop};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

/// When everything was last written that the operator may write.
async fn written(world: &World) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let kinds = "ingressroutes.traefik.io,middlewares.traefik.io,traefikservices.traefik.io,\
                 serverstransports.traefik.io,resilientservices.fusebox.dev";
    let list: Value = serde_json::from_str(&world.kubectl(&["get", kinds, "-o", "json"]).await?)?;
    for item in list["items"].as_array().into_iter().flatten() {
        let name = format!("{} {}", item["kind"], item["metadata"]["name"]);
        all.insert(name, item["metadata"]["resourceVersion"].to_string());
    }
    for name in ["user", "caller"] {
        let (keys, of) = (etcd::keys(), etcd::ident(name));
        for key in [keys.policy(&of), keys.config(&of), keys.raw(&of)] {
            let found = etcd::client(world).await?.get(key.clone(), None).await?;
            all.insert(key, found.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision).to_string());
        }
    }
    let url =
        format!("{}/v1/health/service/{}?consistent", world.address("CONSUL_HTTP_ADDR"), declared::SERVICE);
    let entries: Vec<Value> = world.http.get(url).send().await?.error_for_status()?.json().await?;
    for entry in entries {
        // Not the node's dead man: its session is renewed, and made anew, whatever Traefik does.
        let checks =
            entry["Checks"].as_array().into_iter().flatten().filter(|check| check["ServiceID"] != "");
        let state = json!([entry["Service"], checks.collect::<Vec<_>>()]);
        all.insert(format!("Consul {}", entry["Service"]["ID"]), state.to_string());
    }
    all.insert("effects".to_owned(), operator::metric(world, "fusebox_effects_total").await?.to_string());
    Ok(all)
}

#[tokio::test]
async fn q_traefik_is_killed_and_nobody_writes_anything() -> Result<()> {
    let world = shop::opened().await?;
    let foreign = Foreign::register(&world).await?;
    // What the tests before had it write may be on its way.
    let before = eventually("nothing is written any more", || async {
        let pods = shop::pods(&world, "user-service").await?;
        ensure!(pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()), "an instance is going");
        let (first, second) = (written(&world).await?, written(&world).await?);
        ensure!(first == second, "{first:#?}, then {second:#?}");
        Ok::<_, anyhow::Error>(second)
    })
    .await?;
    ensure!(before.len() > 10, "too little to compare: {before:?}");
    let passes = operator::metric(&world, "fusebox_reconciles_total").await?;

    let pods = Api::<Pod>::namespaced(world.client.clone(), PLATFORM_NAMESPACE);
    let labels = ListParams::default().labels("app.kubernetes.io/name=traefik");
    let pod = pods.list(&labels).await?.items.into_iter().next().context("no Traefik")?;
    let begin = Instant::now();
    pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    // Whether a call fails meanwhile is the machine's: the next one may be there before anybody has noticed.
    eventually("another Traefik is there instead", || async {
        let there = pods.list(&labels).await?.items;
        let is_next =
            there.len() == 1 && there.iter().all(|next| next.uid() != pod.uid() && shop::is_ready(next));
        ensure!(is_next, "{:?}", there.iter().map(ResourceExt::name_any).collect::<Vec<_>>());
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    eventually("calls flow again", || async {
        ensure!(gateway::greet(&world, "Ada").await?.msg == "Hello, Ada");
        ensure!(!gateway::hello(&world, "Ada").await?.fallback, "only the fallback");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let took = Instant::now() - begin;
    // Its resync looks at everything again, and finds nothing to do.
    eventually("the operator looked at both resources since", || async {
        let since = operator::metric(&world, "fusebox_reconciles_total").await? - passes;
        ensure!(since >= 2.0, "{since} passes");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let after = written(&world).await?;
    let changed: Vec<_> = after.iter().filter(|(what, now)| before.get(*what) != Some(*now)).collect();
    ensure!(after == before, "changed: {changed:#?} of {before:#?}");
    for name in ["user", "caller"] {
        resource::until(&world, name, "Routed", "True").await?;
    }
    eprintln!("calls flowed again after {took:?}; {} objects as they were", before.len());
    declared::again(&world, foreign).await
}
