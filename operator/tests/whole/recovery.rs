//! The way back from one fault, kind by kind, on real servers (H5): from its end until every resource is registered,
//! routed and published as it is declared, and says so. While a fault lasts, or just before it, a resource is edited
//! and an instance changes. The figures are printed; what is asserted is that there is a way back.
//!
//! What somebody changes of what is ours is seen by a watch: the resync would come later than that.
//!
//! Every run has what is over soon, `FUSEBOX_LONG=1` has all of it, and more often; `FUSEBOX_FAULT=restarted` only those
//! whose name has that in it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{CompactionOptions, DeleteOptions};
use fusebox_operator::reconcile::RESYNC;
use fusebox_processes::{Consul, Etcd, Operator, Server, Site, objects};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{ALONE, PROGRAM};

const CLUSTER: &str = "demo";
const NAMESPACE: &str = "shop";
/// As many as there are passes at once, and some more.
const RESOURCES: usize = 40;
/// How often each happens, in every run and in a long one.
const TIMES: [usize; 2] = [1, 5];
/// How long one lasts that has no end of its own: calls that are under way get no answer within 5 s, others are refused.
const LASTS: Duration = Duration::from_secs(8);
/// The pod that the operator's container is in, and those after it.
const POD: &str = "pod-";
/// A status is written once a second at most: what came before has to be over.
const BETWEEN: Duration = Duration::from_millis(1500);
/// Who was looked at just now is looked at again, by itself, after twice this: sooner a watch has told.
const TOLD: Duration = Duration::from_secs(RESYNC.as_secs() / 2);
/// Many times what is seen.
const PATIENCE: Duration = Duration::from_mins(3);

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Killed,
    PodLost,
    Ended,
    Silent(&'static [Server]),
    Refusing(&'static [Server]),
    ConsulRestarted,
    ConsulReplaced,
    EtcdRestarted,
    ConsulEmptied,
    EtcdEmptied,
    EtcdCompacted,
    EntryChanged,
    KeyChanged,
    RouteChanged,
    Recreated,
    FinalizerRemoved,
}

/// With the rows of the matrix in `docs/reliability.md`.
const FAULTS: [(&str, &str, Fault); 22] = [
    ("", "none, an edit and an instance", Fault::None),
    ("F1", "the operator killed", Fault::Killed),
    ("F1", "the operator killed with its pod", Fault::PodLost),
    ("F3", "the operator told to end", Fault::Ended),
    ("F7", "the API server silent", Fault::Silent(&[Server::Kubernetes])),
    ("F7", "the API server refusing", Fault::Refusing(&[Server::Kubernetes])),
    ("F10", "a resource deleted, and created anew", Fault::Recreated),
    ("F11", "a finalizer removed by hand", Fault::FinalizerRemoved),
    ("F15", "etcd compacted", Fault::EtcdCompacted),
    ("F17", "etcd silent", Fault::Silent(&[Server::Etcd])),
    ("F17", "etcd refusing", Fault::Refusing(&[Server::Etcd])),
    ("F17", "etcd killed, and restarted on its data", Fault::EtcdRestarted),
    ("F17", "all in etcd deleted", Fault::EtcdEmptied),
    ("F18, F22", "a key in etcd changed by somebody", Fault::KeyChanged),
    ("F19", "Consul silent", Fault::Silent(&[Server::Consul])),
    ("F19", "Consul refusing", Fault::Refusing(&[Server::Consul])),
    ("F19", "Consul killed, and restarted on its data", Fault::ConsulRestarted),
    ("F20", "Consul killed, and restarted without its data", Fault::ConsulReplaced),
    ("F20", "all in Consul deleted", Fault::ConsulEmptied),
    ("F22", "an entry in Consul changed by somebody", Fault::EntryChanged),
    ("F22", "a route changed by somebody", Fault::RouteChanged),
    ("F26", "all three silent", Fault::Silent(&[Server::Kubernetes, Server::Consul, Server::Etcd])),
];

impl Fault {
    /// Is it over soon? Then every run has it.
    fn is_short(self) -> bool {
        !matches!(self, Self::PodLost | Self::FinalizerRemoved | Self::Silent(_) | Self::Refusing(_))
    }

    /// Does somebody change what is ours?
    fn is_foreign(self) -> bool {
        matches!(self, Self::EntryChanged | Self::KeyChanged | Self::RouteChanged)
    }
}

/// A resource as it is declared, and its instances.
struct One {
    name: String,
    timeout: u64,
    instances: usize,
    /// Is it there?
    there: bool,
}

struct Town {
    site: Site,
    operator: Operator,
    all: Vec<One>,
    turn: usize,
    pods: usize,
}

/// The route object of the resource of this name.
fn route(of: &str) -> Value {
    json!({
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "IngressRoute",
        "metadata": { "name": format!("fusebox-{of}-plain"), "namespace": NAMESPACE },
    })
}

impl One {
    fn resource(&self) -> Value {
        let (name, host) = (&self.name, format!("{}.example.com", self.name));
        let spec = json!({
            "service": { "name": name },
            "inbound": { "timeout": format!("{}ms", self.timeout) },
            "consul": {},
            "gateway": { "routes": [{ "host": host }] },
            "config": { "etcdKeys": { self.key(): self.timeout.to_string() } },
        });
        objects::resource(NAMESPACE, name, &spec)
    }

    /// Its raw key.
    fn key(&self) -> String {
        format!("service.{}", self.name)
    }

    fn addresses(&self) -> Vec<String> {
        let number: usize = self.name.trim_start_matches("user-").parse().unwrap();
        (0..self.instances).map(|n| format!("10.0.{number}.{n}")).collect()
    }

    fn slice(&self) -> Value {
        let addresses = self.addresses();
        let endpoints: Vec<_> = addresses.iter().map(|address| (address.as_str(), true)).collect();
        objects::slice(NAMESPACE, &self.name, &endpoints)
    }
}

/// A container of this pod.
async fn start(site: &Site, pod: usize) -> Operator {
    site.operator(&[("POD_UID", &format!("{POD}{pod}"))]).await
}

impl Town {
    async fn new(site: Site) -> Self {
        site.kubernetes.apply(&objects::namespace(NAMESPACE)).await;
        let one = |n| One { name: format!("user-{n}"), timeout: 1000, instances: 2, there: true };
        let all: Vec<One> = (0..RESOURCES).map(one).collect();
        for one in &all {
            site.kubernetes.apply(&objects::service(NAMESPACE, &one.name)).await;
            site.kubernetes.apply(&one.slice()).await;
            site.kubernetes.apply(&one.resource()).await;
        }
        let operator = start(&site, 0).await;
        Self { site, operator, all, turn: 0, pods: 0 }
    }

    /// Another one each time.
    fn next(&mut self) -> usize {
        self.turn += 1;
        self.turn % RESOURCES
    }

    /// An edit, and an instance that comes or goes.
    async fn work(&mut self) {
        let (edited, scaled) = (self.next(), self.next());
        self.all[edited].timeout += 1;
        self.site.kubernetes.apply(&self.all[edited].resource()).await;
        self.all[scaled].instances = 3 - self.all[scaled].instances;
        self.site.kubernetes.apply(&self.all[scaled].slice()).await;
    }

    /// One that was edited, and looked at, just now.
    async fn looked_at(&mut self) -> String {
        let edited = self.next();
        self.all[edited].timeout += 1;
        self.site.kubernetes.apply(&self.all[edited].resource()).await;
        self.back("an edit").await;
        self.all[edited].name.clone()
    }

    /// As a kubelet would.
    async fn keep_alive(&mut self) {
        if self.operator.ended().is_some() {
            self.operator = start(&self.site, self.pods).await;
        }
    }

    /// What is not yet as it is declared.
    async fn missing(&self) -> Option<String> {
        let list = async |like: Value| {
            self.site.kubernetes.api(&like).list(&ListParams::default()).await.unwrap().items
        };
        let resources = list(objects::resource(NAMESPACE, "any", &Value::Null)).await;
        let routes: Vec<String> =
            list(route("any")).await.iter().map(|route| route.data["spec"].to_string()).collect();
        let mut etcd = self.site.servers.etcd.client().await;
        for one in &self.all {
            let name = &one.name;
            let resource = resources.iter().find(|resource| resource.name_any() == *name);
            if resource.is_some() != one.there {
                return Some(format!("{name} itself"));
            }
            let mut value = async |key: String| {
                let found = etcd.get(key, None).await.unwrap();
                found.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
            };
            let policy = value(format!("/fusebox/v1/{CLUSTER}/policy/{NAMESPACE}/{name}")).await;
            let policy: Value =
                policy.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap_or_default());
            let raw = value(one.key()).await;
            let passing = self.site.servers.consul.get(&format!("/v1/health/service/{name}?passing")).await;
            let passing =
                passing.as_array().unwrap().iter().map(|it| it["Service"]["Address"].as_str().unwrap());
            let mut passing: Vec<String> = passing.map(str::to_owned).collect();
            passing.sort();
            let is_routed = routes.iter().any(|route| route.contains(&format!("`{name}.example.com`")));
            let Some(resource) = resource else {
                if !policy.is_null() || raw.is_some() || !passing.is_empty() {
                    return Some(format!("{name} is there still"));
                }
                continue;
            };
            let status = &resource.data["status"];
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
            let is_ready = ready.any(|ready| {
                ready["status"] == "True"
                    && ready["observedGeneration"].as_i64() == resource.metadata.generation
            });
            let right = [
                ("its status", is_ready),
                ("its policy", !policy.is_null() && policy["hash"] == status["policyHash"]),
                ("its raw key", raw == Some(one.timeout.to_string())),
                ("its instances", passing == one.addresses()),
                ("its route", is_routed),
            ];
            if let Some((what, _)) = right.iter().find(|(_, right)| !right) {
                return Some(format!("{name}: {what}"));
            }
        }
        None
    }

    /// How long until all is as declared.
    async fn back(&mut self, what: &str) -> Duration {
        let start = Instant::now();
        loop {
            self.keep_alive().await;
            let missing = self.missing().await;
            let took = Instant::now() - start;
            let Some(missing) = missing else { return took };
            assert!(took < PATIENCE, "{what}: {missing} after {took:?}\n{}", self.operator.said());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// These servers say nothing for a while, or are away for whoever balances them.
    async fn cut_off(&mut self, servers: &[Server], is_silent: bool) {
        let harm = |site: &Site, harmed: bool| {
            for &server in servers {
                match (is_silent, server) {
                    (false, server) => site.wires.refuse(server, harmed),
                    (true, Server::Kubernetes) => site.kubernetes.freeze(harmed),
                    (true, Server::Consul) => site.servers.consul.freeze(harmed),
                    (true, Server::Etcd) => site.servers.etcd.freeze(harmed),
                }
            }
        };
        let can_work = !is_silent || !servers.contains(&Server::Kubernetes);
        harm(&self.site, true);
        let end = Instant::now() + LASTS;
        if can_work {
            sleep(LASTS / 4).await;
            self.work().await;
        }
        while Instant::now() < end {
            self.keep_alive().await;
            sleep(Duration::from_millis(50)).await;
        }
        harm(&self.site, false);
        if !can_work {
            self.work().await;
        }
    }

    fn consul(&mut self) -> &mut Consul {
        Arc::get_mut(&mut self.site.servers.consul).expect("nobody shares it")
    }

    fn etcd(&mut self) -> &mut Etcd {
        Arc::get_mut(&mut self.site.servers.etcd).expect("nobody shares it")
    }

    /// Lets it happen, and waits for its end.
    async fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::None => self.work().await,
            Fault::Killed | Fault::PodLost => {
                self.work().await;
                self.pods += usize::from(matches!(fault, Fault::PodLost));
                self.operator.kill().await;
                self.keep_alive().await;
            }
            Fault::Ended => {
                self.work().await;
                self.operator.ask_to_end();
                self.operator.wait().await;
                self.keep_alive().await;
            }
            Fault::Silent(servers) => self.cut_off(servers, true).await,
            Fault::Refusing(servers) => self.cut_off(servers, false).await,
            Fault::ConsulRestarted | Fault::ConsulReplaced => {
                self.consul().kill().await;
                self.work().await;
                if matches!(fault, Fault::ConsulReplaced) {
                    self.consul().wipe();
                }
                self.consul().run().await;
            }
            Fault::EtcdRestarted => {
                self.etcd().kill().await;
                self.work().await;
                self.etcd().run().await;
            }
            Fault::ConsulEmptied => {
                let consul = &self.site.servers.consul;
                let nodes = consul.get("/v1/catalog/nodes").await;
                for node in nodes.as_array().unwrap().iter().map(|node| node["Node"].as_str().unwrap()) {
                    if node != "consul" {
                        consul.ask("PUT", "/v1/catalog/deregister", &json!({ "Node": node })).await;
                    }
                }
                consul.ask("DELETE", "/v1/kv/?recurse", &Value::Null).await;
            }
            Fault::EtcdEmptied => {
                let all = DeleteOptions::new().with_all_keys();
                self.site.servers.etcd.client().await.delete("", Some(all)).await.unwrap();
            }
            Fault::EtcdCompacted => {
                let mut client = self.site.servers.etcd.client().await;
                self.work().await;
                let revision = client.get("any", None).await.unwrap().header().unwrap().revision();
                client.compact(revision, Some(CompactionOptions::new().with_physical())).await.unwrap();
            }
            Fault::EntryChanged => {
                let name = self.looked_at().await;
                let consul = &self.site.servers.consul;
                let found = consul.get(&format!("/v1/catalog/service/{name}")).await;
                let entry = json!({ "Node": found[0]["Node"], "ServiceID": found[0]["ServiceID"] });
                consul.ask("PUT", "/v1/catalog/deregister", &entry).await;
            }
            Fault::KeyChanged => {
                let key = format!("/fusebox/v1/{CLUSTER}/policy/{NAMESPACE}/{}", self.looked_at().await);
                self.site.servers.etcd.client().await.put(key, "garbage", None).await.unwrap();
            }
            Fault::RouteChanged => {
                let name = self.looked_at().await;
                self.site.kubernetes.delete(&route(&name)).await;
            }
            Fault::Recreated => {
                let one = self.next();
                let resource = self.all[one].resource();
                self.site.kubernetes.delete(&resource).await;
                let api = self.site.kubernetes.api(&resource);
                while api.get_opt(&self.all[one].name).await.unwrap().is_some() {
                    sleep(Duration::from_millis(5)).await;
                }
                self.site.kubernetes.apply(&resource).await;
            }
            Fault::FinalizerRemoved => {
                let one = self.next();
                let (name, like) = (self.all[one].name.clone(), self.all[one].resource());
                let (api, none) =
                    (self.site.kubernetes.api(&like), json!({ "metadata": { "finalizers": null } }));
                // It would put it back.
                self.operator.freeze(true);
                api.patch(&name, &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
                self.site.kubernetes.delete(&like).await;
                // There is nobody who collects what belonged to it.
                self.site.kubernetes.delete(&route(&name)).await;
                self.operator.freeze(false);
                self.all[one].there = false;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_way_back_from_each_fault() {
    let _alone = ALONE.lock().await;
    let values = json!({
        "cluster": CLUSTER, "consul": {}, "etcd": { "allowedKeyPrefixes": { NAMESPACE: ["service."] } },
    });
    let mut town = Town::new(Site::start(PROGRAM, &values).await).await;
    town.back("the first publication").await;
    let mut all = Vec::new();
    let only = std::env::var("FUSEBOX_FAULT").ok();
    let is_played = |what: &str, fault: Fault| match &only {
        Some(only) => what.contains(only.as_str()),
        None => fusebox_processes::long() || fault.is_short(),
    };
    for (rows, what, fault) in FAULTS.into_iter().filter(|(_, what, fault)| is_played(what, *fault)) {
        let mut ways = Vec::new();
        for _ in 0..TIMES[usize::from(fusebox_processes::long())] {
            sleep(BETWEEN).await;
            Box::pin(town.suffer(fault)).await;
            let way = town.back(what).await;
            assert!(
                !fault.is_foreign() || way < TOLD,
                "{what}: no watch told of it, {way:?}\n{}",
                town.operator.said()
            );
            ways.push(way);
            // One that was forced away comes again.
            for one in &mut town.all {
                if !std::mem::replace(&mut one.there, true) {
                    town.site.kubernetes.apply(&one.resource()).await;
                }
            }
            town.back(&format!("after {what}")).await;
        }
        println!("{rows}: {what}: {}", told(&mut ways));
        all.extend(ways);
    }
    assert!(!all.is_empty(), "no fault has {only:?} in its name");
    println!("all of them: {}", told(&mut all));
}

fn told(ways: &mut [Duration]) -> String {
    ways.sort();
    let at = |share: usize| ways[(ways.len() * share).div_ceil(100).max(1) - 1];
    format!(
        "{} times, half within {:.2?}, 99 % within {:.2?}, all within {:.2?}",
        ways.len(),
        at(50),
        at(99),
        at(100)
    )
}
