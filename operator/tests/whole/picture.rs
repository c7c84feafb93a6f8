//! What there is on every plane, without what differs from run to run.

use std::collections::BTreeMap;

use etcd_client::GetOptions;
use fusebox_processes::{Site, objects};
use serde_json::{Value, json};

/// Everything in Consul's catalog and keys, in etcd, and of our kinds in a namespace; of the cluster `cluster`'s own
/// epochs only that there are some.
pub async fn picture(site: &Site, cluster: &str, namespace: &str) -> Value {
    let (consul, etcd, kubernetes) =
        tokio::join!(consul(site, cluster), etcd(site, cluster), kubernetes(site, namespace));
    let all = json!({ "consul": consul, "etcd": etcd, "kubernetes": kubernetes });
    let mut text = all.to_string();
    // A resource is created anew in every run.
    for resource in all["kubernetes"]["resources"].as_object().unwrap().values() {
        text = text.replace(resource["uid"].as_str().unwrap(), "UID");
    }
    serde_json::from_str(&text).unwrap()
}

async fn consul(site: &Site, cluster: &str) -> Value {
    let consul = &site.servers.consul;
    let mut nodes = BTreeMap::new();
    for node in consul.get("/v1/catalog/nodes").await.as_array().unwrap() {
        let name = node["Node"].as_str().unwrap().to_owned();
        if name == "consul" {
            continue;
        }
        let mut services = consul.get(&format!("/v1/catalog/node-services/{name}")).await;
        let mut checks = consul.get(&format!("/v1/health/node/{name}")).await;
        if node["Meta"]["fusebox-cluster"] == cluster {
            for of in [&mut services, &mut checks] {
                strip(of, &["CreateIndex", "ModifyIndex", "Notes", "SessionName"]);
            }
        }
        nodes.insert(name, json!({ "services": services, "checks": checks }));
    }
    let keys = consul.get("/v1/kv/?keys").await;
    json!({ "nodes": nodes, "keys": keys })
}

async fn etcd(site: &Site, cluster: &str) -> Value {
    let all = GetOptions::new().with_all_keys();
    let found = site.servers.etcd.client().await.get("", Some(all)).await.unwrap();
    let own = format!("/fusebox/v1/{cluster}/");
    let keys = found.kvs().iter().map(|kv| {
        let (key, value) = (kv.key_str().unwrap(), kv.value_str().unwrap());
        let is = match key.strip_prefix(&own) {
            Some("epoch") => json!("an epoch"),
            Some(_) => json!(value),
            // A claim or a raw key, ours or not.
            None if value.contains("\"cluster\"") || key == super::workload::RAW_KEY => json!(value),
            None => json!({ "value": value, "revision": kv.mod_revision() }),
        };
        (key.to_owned(), is)
    });
    json!(keys.collect::<BTreeMap<_, _>>())
}

async fn kubernetes(site: &Site, namespace: &str) -> Value {
    let list = async |like: Value| {
        let found = site.kubernetes.api(&like).list(&kube::api::ListParams::default()).await.unwrap();
        let named = found.items.into_iter().map(|object| (object.metadata.name.clone().unwrap(), object));
        named.collect::<BTreeMap<_, _>>()
    };
    let like = json!({
        "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": { "namespace": namespace },
    });
    let routes: BTreeMap<_, _> = list(like)
        .await
        .into_iter()
        .map(|(name, object)| {
            let theirs =
                object.metadata.owner_references.is_none().then_some(object.metadata.resource_version);
            let is = json!({
                "spec": object.data["spec"],
                "labels": object.metadata.labels,
                "owners": object.metadata.owner_references,
                "version": theirs,
            });
            (name, is)
        })
        .collect();
    let resources: BTreeMap<_, _> = list(objects::resource(namespace, "any", &Value::Null))
        .await
        .into_iter()
        .map(|(name, mut object)| {
            strip(&mut object.data, &["lastTransitionTime"]);
            let is = json!({
                "uid": object.metadata.uid,
                "finalizers": object.metadata.finalizers,
                "status": object.data["status"],
            });
            (name, is)
        })
        .collect();
    json!({ "routes": routes, "resources": resources })
}

/// Takes these fields out, however deep.
fn strip(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| !fields.contains(&name.as_str()) || value.is_object());
            object.values_mut().for_each(|value| strip(value, fields));
        }
        Value::Array(all) => all.iter_mut().for_each(|value| strip(value, fields)),
        _ => {}
    }
}
