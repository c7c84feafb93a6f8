//! Many resources, each with a Service and its instances.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::GetOptions;
use fusebox_processes::{Operator, Site, objects};
use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::tally::Tally;

pub const CLUSTER: &str = "demo";
pub const NAMESPACE: &str = "shop";
/// How many objects are written at once.
const AT_ONCE: usize = 16;
/// Ten times what is seen.
const PATIENCE: Duration = Duration::from_mins(30);
const POLICIES: &str = "/fusebox/v1/demo/policy/";

pub struct Fleet<'a> {
    pub site: &'a Site,
    pub count: usize,
    pub operator: Mutex<Operator>,
    /// Watched, as a list of them all at each look would be most of the API server's work.
    seen: Store<DynamicObject>,
    _watch: AbortOnDrop,
}

/// A task that ends with this.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn name(n: usize) -> String {
    format!("service-{n:05}")
}

/// The resource of the n-th Service, with this timeout.
fn resource(n: usize, timeout: u64) -> Value {
    let spec = json!({
        "service": { "name": name(n) },
        "inbound": { "timeout": format!("{timeout}ms") },
        "outbound": { "commands": [{ "name": "find_user", "timeout": "250ms" }] },
        "consul": { "tags": ["v1"] },
    });
    objects::resource(NAMESPACE, &name(n), &spec)
}

fn address(n: usize) -> String {
    format!("10.{}.{}.{}", n / 65_536, n / 256 % 256, n % 256)
}

impl<'a> Fleet<'a> {
    pub async fn create(site: &'a Site, operator: Operator, count: usize) -> Self {
        site.kubernetes.apply(&objects::namespace(NAMESPACE)).await;
        let all = stream::iter(0..count).map(|n| async move {
            site.kubernetes.apply(&objects::service(NAMESPACE, &name(n))).await;
            site.kubernetes.apply(&objects::slice(NAMESPACE, &name(n), &[(&address(n), true)])).await;
            site.kubernetes.apply(&resource(n, 1000)).await;
        });
        all.buffer_unordered(AT_ONCE).collect::<()>().await;
        let kind =
            ApiResource::from_gvk(&GroupVersionKind::gvk("fusebox.dev", "v1alpha1", "ResilientService"));
        let writer = Writer::new(kind);
        let seen = writer.as_reader();
        let api = site.kubernetes.api(&objects::resource(NAMESPACE, "any", &Value::Null));
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let watch = tokio::spawn(reflector::reflector(writer, events).for_each(async |_| {}));
        seen.wait_until_ready().await.unwrap();
        Self { site, count, operator: Mutex::new(operator), seen, _watch: AbortOnDrop(watch) }
    }

    /// As a kubelet would: one that ended, since a machine too slow for a Lease, begins anew.
    pub async fn keep_alive(&self) {
        let mut operator = self.operator.lock().await;
        if let Some(status) = operator.ended() {
            let said = operator.said();
            assert!(said.contains("the Lease could not be renewed"), "{status}: {said}");
            println!("the operator lost its Lease, as this machine is too slow, and begins anew");
            *operator = self.site.operator(&[]).await;
        }
    }

    /// Another timeout for the n-th.
    pub async fn edit(&self, n: usize, timeout: u64) {
        self.site.kubernetes.apply(&resource(n, timeout)).await;
    }

    /// The resources, and whether each is as its spec says by its own status.
    fn resources(&self) -> BTreeMap<String, (bool, Value)> {
        let each = self.seen.state().into_iter().map(|object| {
            let generation = object.metadata.generation;
            let status = object.data["status"].clone();
            let ready = status["conditions"].as_array().into_iter().flatten().any(|condition| {
                condition["type"] == "Ready"
                    && condition["status"] == "True"
                    && condition["observedGeneration"].as_i64() == generation
            });
            (object.name_any(), (ready, status))
        });
        each.collect()
    }

    fn converged(&self) -> usize {
        self.resources().values().filter(|(ready, _)| *ready).count()
    }

    /// Waits until all are as their specs say; how long it took.
    pub async fn until_converged(&self, what: &str) -> Duration {
        let start = Instant::now();
        loop {
            self.keep_alive().await;
            let done = self.converged();
            let took = Instant::now() - start;
            if done == self.count {
                return took;
            }
            assert!(took < PATIENCE, "{what}: {done} of {} after {took:?}", self.count);
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until nothing is written any more: after a silence of etcd, reports are doubted for the life of a lease.
    pub async fn until_at_rest(&self) {
        let start = Instant::now();
        loop {
            self.site.wires.aim(None);
            sleep(Duration::from_secs(12)).await;
            let tally = Tally::of(self.site);
            if tally.work().is_empty() {
                return;
            }
            assert!(Instant::now() - start < PATIENCE, "never at rest: {tally}");
        }
    }

    /// Waits until the n-th is as its spec says.
    pub async fn until_ready(&self, n: usize) -> Duration {
        let (start, like) = (Instant::now(), objects::resource(NAMESPACE, &name(n), &Value::Null));
        let api = self.site.kubernetes.api(&like);
        loop {
            self.keep_alive().await;
            let object = api.get(&name(n)).await.unwrap();
            let is_ready =
                object.data["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
                    condition["type"] == "Ready"
                        && condition["status"] == "True"
                        && condition["observedGeneration"].as_i64() == object.metadata.generation
                });
            if is_ready {
                return Instant::now() - start;
            }
            assert!(Instant::now() - start < PATIENCE, "{} stays as it was", name(n));
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is published is what each status says, and every instance is registered: nothing is missing, nothing is too
    /// much.
    pub async fn is_everywhere(&self) {
        let options = GetOptions::new().with_prefix();
        let found = self.site.servers.etcd.client().await.get(POLICIES, Some(options)).await.unwrap();
        let published: BTreeMap<String, Value> = found
            .kvs()
            .iter()
            .map(|kv| {
                let key = kv.key_str().unwrap().rsplit('/').next().unwrap().to_owned();
                (key, serde_json::from_slice(kv.value()).unwrap())
            })
            .collect();
        let resources = self.resources();
        assert_eq!(published.len(), self.count);
        for (name, (ready, status)) in &resources {
            assert!(ready, "{name}: {status}");
            assert_eq!(published[name]["hash"], status["policyHash"], "{name}");
        }
        assert_eq!(self.registered().await.len(), self.count);
    }

    /// The names in Consul that have a passing instance.
    pub async fn registered(&self) -> Vec<String> {
        let all = self.site.servers.consul.get("/v1/health/state/passing").await;
        let names = all.as_array().unwrap().iter().filter_map(|check| check["ServiceName"].as_str());
        let mut names: Vec<String> =
            names.filter(|name| name.starts_with("service-")).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }
}
