//! Two Kubernetes clusters on one Consul and one etcd: what happens in one is nothing to the other, and nobody takes the
//! other's name.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::GetOptions;
use fusebox_processes::{Operator, Server, Servers, Site, eventually};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::workload::{NAMESPACE, STEPS, Step, prepare, take, values};
use crate::{ALONE, PROGRAM};

/// How long nothing may be written to what is the neighbour's.
const REST: Duration = Duration::from_secs(3);

/// Everything of a cluster in Consul and etcd, its versions included: who writes, even the same again, changes it.
async fn owned(servers: &Servers, cluster: &str) -> Value {
    let mut all = BTreeMap::new();
    let nodes = servers.consul.get(&format!("/v1/catalog/nodes?node-meta=fusebox-cluster:{cluster}")).await;
    for node in nodes.as_array().unwrap() {
        let name = node["Node"].as_str().unwrap();
        for path in ["catalog/node-services", "health/node"] {
            all.insert(format!("{path}/{name}"), servers.consul.get(&format!("/v1/{path}/{name}")).await);
        }
    }
    all.insert("epoch".to_owned(), servers.consul.get(&format!("/v1/kv/fusebox/{cluster}/epoch")).await);
    let prefix = Some(GetOptions::new().with_prefix());
    let found = servers.etcd.client().await.get(format!("/fusebox/v1/{cluster}/"), prefix).await.unwrap();
    for kv in found.kvs() {
        let is = json!({ "value": kv.value_str().unwrap(), "revision": kv.mod_revision() });
        all.insert(kv.key_str().unwrap().to_owned(), is);
    }
    json!(all)
}

async fn status(site: &Site) -> Value {
    let like = fusebox_processes::objects::resource(NAMESPACE, "user", &Value::Null);
    let found = site.kubernetes.api(&like).get_opt("user").await.unwrap();
    found.map(|found| found.data["status"].clone()).unwrap_or_default()
}

async fn site(servers: &Servers, cluster: &str) -> Site {
    let mut values = values();
    values["cluster"] = json!(cluster);
    // Nothing of it is written again because of a time that passed.
    values["consul"]["deadManTTL"] = json!("1h");
    let site = Site::beside(servers, PROGRAM, &values).await;
    prepare(&site).await;
    site
}

/// Takes a step and waits until it is so in Consul.
async fn done(site: &Site, operator: &mut Operator, cluster: &str, step: Step) {
    take(site, step).await;
    let wanted = match step {
        Step::Create | Step::Edit => 2,
        Step::Scale => 3,
        Step::Delete => 0,
    };
    let path = format!(
        "/v1/catalog/service/user.service?filter=ServiceMeta%5B%22fusebox-cluster%22%5D%3D%3D{cluster}"
    );
    eventually(&format!("{cluster}: {step:?}"), async || {
        assert!(operator.ended().is_none(), "{}", operator.said());
        let entries = site.servers.consul.get(&path).await.as_array().unwrap().len();
        let all_true = status(site).await["conditions"].as_array().is_some_and(|all| {
            let is = |kind: &str| all.iter().any(|c| c["type"] == kind && c["status"] == "True");
            ["Accepted", "Registered", "Routed"].into_iter().all(is)
        });
        entries == wanted && (all_true || step == Step::Delete && status(site).await.is_null())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_in_one_cluster_is_nothing_to_the_other() {
    let _alone = ALONE.lock().await;
    let servers = Servers::start().await;
    let (one, two) = tokio::join!(site(&servers, "one"), site(&servers, "two"));
    let mut neighbour = two.operator(&[]).await;
    done(&two, &mut neighbour, "two", Step::Create).await;
    sleep(REST).await;
    two.wires.aim(None);
    let before = owned(&servers, "two").await;
    assert!(before.as_object().unwrap().len() > 4, "{before}");

    let untouched = async |what: &str| {
        assert_eq!(owned(&servers, "two").await, before, "{what}");
        assert_eq!(two.wires.writes(), [], "{what}");
    };
    let mut operator = one.operator(&[]).await;
    for step in STEPS {
        done(&one, &mut operator, "one", step).await;
        untouched(&format!("after {step:?} in the other")).await;
        if step == Step::Scale {
            operator.kill().await;
            one.free_lease().await;
            operator = one.operator(&[]).await;
        }
    }
    sleep(REST).await;
    untouched("at rest").await;
    assert_eq!(
        owned(&servers, "one").await.as_object().unwrap().keys().collect::<Vec<_>>().len(),
        2,
        "the epochs"
    );
    operator.kill().await;

    // The same name on another Kubernetes: it would take what it finds for orphans.
    one.free_lease().await;
    take(&one, Step::Create).await;
    one.wires.aim(None);
    let mut impostor = one.operator(&[("FUSEBOX_CLUSTER", "two")]).await;
    eventually("it says why it does nothing", async || {
        assert!(impostor.ended().is_none(), "{}", impostor.said());
        status(&one).await.to_string().contains("belongs to another Kubernetes cluster")
    })
    .await;
    // Longer than the time between two sweeps.
    sleep(Duration::from_secs(33)).await;
    untouched("by one of the same name").await;
    let elsewhere = one.wires.writes().into_iter().filter(|write| write.server != Server::Kubernetes);
    assert_eq!(elsewhere.collect::<Vec<_>>(), [], "{}", impostor.said());
    assert!(neighbour.ended().is_none() && impostor.ended().is_none());
}
