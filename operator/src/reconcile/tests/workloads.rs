//! What happens to a cluster in the tests that disturb it, and what must be there in the end.

use std::collections::{BTreeMap, BTreeSet};

use fusebox_policy::keys::Ident;
use kube::ResourceExt;

use super::scene::{CLUSTER, FULL, Scene, user};
use crate::model::mark;
use crate::ports::{NodeView, RouteView};

/// Another resource of the same namespace, of the Service `two`.
pub fn second() -> Ident {
    Ident::new("shop", "user-two")
}

/// Everything of it differs from FULL.
pub const EDITED: &str = "
service: { name: user-service, port: http }
inbound: { rateLimit: { requestsPerSecond: 90, scope: Service } }
outbound: { timeout: 200ms }
consul: { serviceName: people.service }
gateway: { routes: [{ host: people.example.com }] }
config: { etcdKeys: { service.user.limit: '5' } }
";

/// As FULL, of the Service `two`: what differs is the Service alone.
pub fn rival() -> String {
    FULL.replace("user-service", "two")
}

/// FULL, all that another may want renamed.
pub fn renamed() -> String {
    FULL.replace("user.service,", "people.service,")
        .replace("api.example.com", "people.example.com")
        .replace("service.user.timeout", "service.user.limit")
}

/// FULL with this many raw keys.
fn with_keys(prefix: &str, count: usize) -> String {
    let keys: Vec<String> = (0..count).map(|n| format!("service.user.{prefix}{n}: '{n}'")).collect();
    FULL.replace("service.user.timeout: '1000'", &keys.join(", "))
}

fn many(count: usize) -> Vec<(String, bool)> {
    (0..count).map(|n| (format!("m{n:02}"), n % 3 > 0)).collect()
}

fn scale(scene: &Scene, instances: &[(String, bool)]) {
    let instances: Vec<(&str, bool)> =
        instances.iter().map(|(name, ready)| (name.as_str(), *ready)).collect();
    scene.scale(&instances);
}

pub struct Workload {
    pub name: &'static str,
    pub before: fn(&Scene),
    pub then: fn(&Scene),
}

fn full(scene: &Scene) {
    scene.put(&user(), FULL);
}

fn edit(scene: &Scene, from: &str, to: &str) {
    assert!(FULL.contains(from), "{from}");
    scene.put(&user(), &FULL.replace(from, to));
}

pub const WORKLOADS: &[Workload] = &[
    Workload { name: "create", before: |_| {}, then: full },
    Workload { name: "policy edit", before: full, then: |scene| edit(scene, "300ms", "200ms") },
    Workload {
        name: "endpoint up",
        before: full,
        then: |scene| scene.scale(&[("a", true), ("b", true), ("c", true)]),
    },
    Workload { name: "endpoint down", before: full, then: |scene| scene.scale(&[("b", false)]) },
    Workload { name: "all endpoints gone", before: full, then: |scene| scene.scale(&[]) },
    Workload {
        name: "host change",
        before: full,
        then: |scene| edit(scene, "api.example.com", "www.example.com"),
    },
    Workload {
        name: "no TLS any more",
        before: full,
        then: |scene| {
            let plain = FULL.replace("web, tls: websecure }", "web }");
            scene.put(&user(), &plain.replace("  tls: { secretName: api-cert }\n", ""));
        },
    },
    Workload { name: "rename", before: full, then: |scene| edit(scene, "user.service,", "people.service,") },
    Workload { name: "service port", before: full, then: |scene| edit(scene, "port: grpc", "port: http") },
    Workload { name: "service name", before: full, then: |scene| scene.put(&user(), &rival()) },
    Workload {
        name: "everything and an endpoint",
        before: full,
        then: |scene| {
            scene.put(&user(), EDITED);
            scene.scale(&[("b", true), ("c", false)]);
        },
    },
    Workload { name: "and back", before: |scene| scene.put(&user(), EDITED), then: full },
    Workload {
        name: "sections removed",
        before: full,
        then: |scene| scene.put(&user(), "service: { name: user-service }"),
    },
    Workload { name: "delete", before: full, then: |scene| scene.delete(&user()) },
    Workload {
        name: "delete with a shared rate",
        before: |scene| scene.put(&user(), EDITED),
        then: |scene| scene.delete(&user()),
    },
    Workload {
        name: "raw key added",
        before: full,
        then: |scene| edit(scene, "'1000' }", "'1000', service.user.limit: '5' }"),
    },
    Workload {
        name: "raw key dropped",
        before: |scene| edit(scene, "'1000' }", "'1000', service.user.limit: '5' }"),
        then: full,
    },
    Workload {
        name: "all of many raw keys replaced",
        before: |scene| scene.put(&user(), &with_keys("old", 32)),
        then: |scene| scene.put(&user(), &with_keys("new", 32)),
    },
    Workload {
        name: "raw key handed over",
        before: |scene| {
            full(scene);
            scene.put(&second(), "service: { name: two }");
        },
        then: |scene| {
            edit(scene, "  etcdKeys: { service.user.timeout: '1000' }\n", "");
            scene.put(
                &second(),
                "{ service: { name: two }, config: { etcdKeys: { service.user.timeout: '7' } } }",
            );
        },
    },
    Workload {
        name: "created, and all that it asks for is another's",
        before: full,
        then: |scene| scene.put(&second(), &rival()),
    },
    Workload {
        name: "what it frees is another's",
        before: |scene| {
            full(scene);
            scene.put(&second(), &rival());
        },
        then: |scene| scene.put(&user(), &renamed()),
    },
    Workload {
        name: "deleted, and another's",
        before: |scene| {
            full(scene);
            scene.put(&second(), &rival());
        },
        then: |scene| scene.delete(&user()),
    },
    Workload {
        name: "another of its name, unseen",
        before: full,
        then: |scene| scene.replace(&user(), EDITED),
    },
    Workload {
        name: "many endpoints replaced",
        before: |scene| {
            full(scene);
            scale(scene, &many(20));
        },
        then: |scene| scale(scene, &many(60)[20..]),
    },
];

/// The cluster of a workload, at rest before it happens.
pub async fn prepared(workload: &Workload) -> Scene {
    let scene = Scene::new();
    scene.foreign();
    scene.service("two");
    scene.scale_of("two", &[("t", true)]);
    scene.scale(&[("a", true), ("b", true)]);
    (workload.before)(&scene);
    scene.settle_all().await;
    scene
}

/// What a process that nothing disturbs makes of it.
pub async fn undisturbed(base: &Scene, workload: &Workload) -> State {
    let scene = base.copy();
    (workload.then)(&scene);
    scene.settle_all().await;
    State::of(&scene)
}

/// Everything that there is, but for times.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub catalog: BTreeMap<String, NodeView>,
    pub keys: BTreeMap<String, String>,
    pub routes: BTreeMap<Ident, RouteView>,
    pub told: BTreeMap<Ident, Told>,
}

/// What a resource says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    finalizers: Vec<String>,
    claims: BTreeSet<String>,
    conditions: Vec<String>,
}

impl State {
    pub fn of(scene: &Scene) -> Self {
        let told = |resource: &fusebox_policy::v1alpha1::ResilientService| {
            let status = resource.status.clone().unwrap_or_default();
            let condition = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
                format!("{}={}/{}", c.type_, c.status, c.reason)
            };
            Told {
                finalizers: resource.finalizers().to_vec(),
                conditions: status.conditions.iter().map(condition).collect(),
                claims: status.claims.into_iter().collect(),
            }
        };
        let resources = scene.cluster.now().resources;
        Self {
            catalog: scene.catalog.state(),
            keys: scene.store.state(),
            routes: scene.routes.state(),
            told: resources.iter().map(|(of, resource)| (of.clone(), told(resource))).collect(),
        }
    }

    /// Fails with what is not as it is wanted.
    pub fn must_be(&self, wanted: &Self, what: &str) {
        let (now, wanted) = (self.lines(), wanted.lines());
        let more: Vec<&String> = now.difference(&wanted).collect();
        let missing: Vec<&String> = wanted.difference(&now).collect();
        assert!(more.is_empty() && missing.is_empty(), "{what}: too much {more:#?}, missing {missing:#?}");
    }

    fn lines(&self) -> BTreeSet<String> {
        let entries = |(name, node): (&String, &NodeView)| {
            let node_itself = format!("node {name} {} {}", node.exists, node.foreign);
            let entries = node.entries.values().map(|entry| format!("{name}: {entry:?}"));
            entries.chain([node_itself]).collect::<Vec<_>>()
        };
        let keys = self.keys.iter().map(|(key, value)| format!("{key} = {value}"));
        let routes = self.routes.iter().map(|(at, view)| format!("{at}: {view:?}"));
        let told = self.told.iter().map(|(of, told)| format!("{of}: {told:?}"));
        self.catalog.iter().flat_map(entries).chain(keys).chain(routes).chain(told).collect()
    }

    /// Without what its resources say.
    pub fn planes(mut self) -> Self {
        self.told.clear();
        self
    }
}

/// What a new operator makes of the resources that there are, in a cluster that never saw another.
pub async fn fresh(scene: &Scene) -> State {
    let new = Scene::new();
    new.foreign();
    let now = scene.cluster.now();
    *new.cluster.services.try_lock().unwrap() = now.services;
    for (of, mut resource) in now.resources {
        resource.status = None;
        resource.metadata.finalizers = None;
        new.cluster.resources.try_lock().unwrap().insert(of, resource);
    }
    new.settle_all().await;
    State::of(&new)
}

impl Scene {
    /// Passes over all resources, round by round, until two rounds write nothing or the process is dead: what a pass
    /// lets go of that no status said is remembered only, and news to those before it in the round.
    pub async fn settle_all(&self) {
        let mut silent = 0;
        for _ in 0..12 {
            let before = self.crash.writes();
            for of in self.cluster.shown().resources.into_keys() {
                self.pass(&of).await;
                if self.crash.happened() {
                    return;
                }
            }
            let collected = self.collect();
            silent = if self.crash.writes() == before && !collected { silent + 1 } else { 0 };
            if silent == 2 {
                return;
            }
        }
        panic!("does not settle");
    }

    /// Kubernetes removes what belongs to a resource that is gone. Was there something?
    pub fn collect(&self) -> bool {
        let live: BTreeSet<String> =
            self.cluster.now().resources.values().filter_map(ResourceExt::uid).collect();
        let mut objects = self.routes.objects.try_lock().unwrap();
        let before = objects.len();
        objects.retain(|_, view| view.owner.as_ref().is_none_or(|owner| live.contains(owner)));
        objects.len() < before
    }

    /// It is at rest: one round more writes nothing.
    pub async fn is_silent(&self) -> bool {
        let before = self.crash.writes();
        for of in self.cluster.shown().resources.into_keys() {
            self.pass(&of).await;
        }
        self.crash.writes() == before
    }

    /// What is not ours is as it was put there.
    pub fn foreign_is_untouched(&self) -> bool {
        let theirs = Self::new();
        theirs.foreign();
        let (nodes, keys, objects) = (self.catalog.state(), self.store.state(), self.routes.state());
        let entries = theirs.catalog.state().into_iter().all(|(name, node)| {
            nodes.get(&name).is_some_and(|there| {
                there.foreign == node.foreign
                    && node.entries.iter().all(|(id, entry)| there.entries.get(id) == Some(entry))
            })
        });
        entries
            && theirs.store.state().iter().all(|(key, value)| keys.get(key) == Some(value))
            && theirs.routes.state().iter().all(|(at, view)| objects.get(at) == Some(view))
    }

    /// Names in Consul, hosts with paths in Traefik, and raw keys that two resources have at once.
    pub fn shared(&self) -> Vec<String> {
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut add = |what: String, owner: &str| {
            owners.entry(what).or_default().insert(owner.to_owned());
        };
        for entry in
            self.entries().iter().filter(|entry| entry.meta.get(mark::CLUSTER).is_some_and(|c| c == CLUSTER))
        {
            if entry.meta.contains_key(mark::RESOURCE) {
                add(format!("consul/{}", entry.name), &entry.meta[mark::OWNER]);
            }
        }
        for (at, view) in self.routes.state() {
            let Some(owner) = view.owner else { continue };
            for rule in view.spec["routes"].as_array().into_iter().flatten() {
                let host = rule["match"].as_str().unwrap_or_default();
                add(format!("route/{host}"), &owner);
                let host = host.split(" && ").next().unwrap_or_default();
                add(format!("host/{host}"), &at.namespace);
            }
        }
        for (key, list) in
            self.store.state().iter().filter(|(key, _)| key.starts_with("/fusebox/v1/test/raw/"))
        {
            for raw in serde_json::from_str::<Vec<String>>(list).unwrap() {
                add(format!("raw/{raw}"), key);
            }
        }
        owners
            .into_iter()
            .filter(|(_, by)| by.len() > 1)
            .map(|(what, by)| format!("{what} by {by:?}"))
            .collect()
    }
}
