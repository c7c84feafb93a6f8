//! Kubernetes: resources, their finalizers and statuses, route objects, the Lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceSpec, ResilientServiceStatus};
use fusebox_processes::{ApiServer, chart, objects};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::Recording;
use crate::kubernetes::lease::KubeLease;
use crate::kubernetes::traefik::Traefik;
use crate::kubernetes::{Cluster, Stores};
use crate::leader::decide::Record;
use crate::leader::{LeaseStore, WriteError};
use crate::ports::{ClusterState, Owner, Route, RouteError, RouteStore};
use crate::world::{ClusterWorld, Crash, Ice, LeaseClient, LeaseWorld, RouteWorld, Weather, Wire};

const NAMES: [&str; 2] = ["user", "two"];
const ROUTES: [&str; 2] = ["r1", "r2"];
const LEASE: &str = "operator";
/// Another's, which keeps an object from going.
const HOLD: &str = "example.com/hold";

#[derive(Clone, Debug)]
enum Step {
    /// What a watch shows of it, from now on, in this place.
    Show(usize, &'static str),
    Fresh,
    Standing(usize),
    Finalizer(usize, bool),
    Status(usize, &'static str),
    Routes,
    Apply(usize, &'static str, usize),
    Unroute(usize, &'static str),
    Lease,
    /// By this holder, as it was read so many reads ago; None: as if there were none.
    Hold(&'static str, Option<usize>),
    // What others do.
    Create(&'static str),
    Edit(&'static str),
    Label(&'static str),
    Guard(&'static str),
    Strip(&'static str),
    Delete(&'static str),
    TheirRoute(&'static str),
    TheirField(&'static str, &'static str),
    DeleteRoute(&'static str),
    TouchLease,
    DeleteLease,
}

struct Memory {
    cluster: ClusterWorld,
    routes: RouteWorld,
    lease: LeaseClient,
}

struct Real {
    server: Arc<ApiServer>,
    cluster: Cluster,
    routes: Traefik,
    lease: KubeLease,
}

enum Side {
    Memory(Memory),
    Real(Real),
}

struct Player {
    side: Side,
    namespace: String,
    shown: BTreeMap<usize, ResilientService>,
    uids: Vec<String>,
    versions: Versions,
    edits: usize,
}

/// The Lease as it was read, each time.
#[derive(Default)]
struct Versions {
    memory: Vec<u64>,
    real: Vec<Lease>,
}

fn memory() -> Player {
    let crash = Arc::new(Crash::default());
    let wire = Wire { weather: tokio::sync::watch::Sender::new(Weather::default()), ice: Ice::default() };
    let lease = LeaseClient { world: Arc::new(LeaseWorld::default()), wire };
    let memory = Memory { cluster: ClusterWorld::new(&crash), routes: RouteWorld::new(&crash), lease };
    player(Side::Memory(memory), "shop".to_owned())
}

async fn real(server: &Arc<ApiServer>, script: &str) -> Player {
    let namespace = format!("shop-{}", script.replace(' ', "-"));
    server.apply(&objects::namespace(&namespace)).await;
    let client = server.admin();
    let stores = Stores {
        resources: reflector::store().0,
        services: reflector::store().0,
        slices: reflector::store().0,
    };
    let real = Real {
        server: server.clone(),
        cluster: Cluster::new(client.clone(), stores, "test"),
        routes: Traefik::new(client.clone()),
        lease: KubeLease::new(client, &namespace, LEASE),
    };
    player(Side::Real(real), namespace)
}

fn player(side: Side, namespace: String) -> Player {
    let (shown, uids, versions) = (BTreeMap::new(), Vec::new(), Versions::default());
    Player { side, namespace, shown, uids, versions, edits: 0 }
}

async fn server() -> Arc<ApiServer> {
    let server = ApiServer::start(&[]).await;
    for definition in chart::definitions() {
        server.apply(&definition).await;
    }
    Arc::new(server)
}

fn service(n: usize) -> ResilientServiceSpec {
    serde_saphyr::from_str(&format!("{{ service: {{ name: s{n} }} }}")).unwrap()
}

fn spec(n: usize) -> Value {
    let rule = |host: &str| json!([{ "kind": "Rule", "match": format!("Host(`{host}`)"), "services": [{ "name": "user", "port": 1 }] }]);
    match n {
        0 => json!({ "entryPoints": ["web"], "routes": rule("a.example") }),
        1 => json!({ "routes": rule("b.example") }),
        _ => json!({ "routes": rule("a.example"), "tls": { "secretName": "ours" } }),
    }
}

fn their(field: &str) -> Value {
    if field == "tls" { json!({ "secretName": "theirs" }) } else { json!(["theirs"]) }
}

fn record(holder: &str) -> Record {
    let time = "2026-11-28T12:00:00.123456Z".parse().unwrap();
    Record {
        holder: holder.into(),
        seconds: Some(15),
        transitions: 3,
        acquired: Some(time),
        renewed: Some(time),
    }
}

fn route_answer(done: Result<(), RouteError>) -> String {
    match done {
        Ok(()) => "done".to_owned(),
        // Its words are for people.
        Err(RouteError::Refused(_)) => "refused".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

impl Player {
    fn ident(&self, name: &str) -> Ident {
        Ident::new(&self.namespace, name)
    }

    fn uid(&mut self, uid: &str) -> String {
        let known = self.uids.iter().position(|seen| seen == uid);
        let place = known.unwrap_or_else(|| {
            self.uids.push(uid.to_owned());
            self.uids.len() - 1
        });
        format!("u{place}")
    }

    fn ports(&self) -> (&dyn ClusterState, &dyn RouteStore) {
        match &self.side {
            Side::Memory(memory) => (&memory.cluster, &memory.routes),
            Side::Real(real) => (&real.cluster, &real.routes),
        }
    }

    fn owner(&self, shown: &ResilientService) -> Owner {
        Owner { ident: self.ident(&shown.name_any()), uid: shown.uid().unwrap() }
    }

    async fn play(&mut self, step: &Step) -> String {
        let shown = match step {
            Step::Standing(at) | Step::Finalizer(at, _) | Step::Status(at, _) => Some(*at),
            Step::Apply(at, ..) | Step::Unroute(at, _) => Some(*at),
            _ => None,
        };
        if let Some(at) = shown {
            return match self.shown.get(&at) {
                Some(shown) => self.on(&shown.clone(), step).await,
                None => "never shown".to_owned(),
            };
        }
        match step {
            Step::Show(at, name) => {
                let Some(found) = self.get(name).await else { return "absent".to_owned() };
                let told = self.told(&found);
                self.shown.insert(*at, found);
                told
            }
            Step::Fresh => {
                let all = self.ports().0.fresh().await.unwrap();
                let mine = all.into_iter().filter(|(of, _)| of.namespace == self.namespace);
                let mine: Vec<_> = mine.collect();
                mine.iter()
                    .map(|(of, uid)| format!("{} {}", of.name, self.uid(uid)))
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            Step::Routes => {
                let names = ROUTES.map(str::to_owned);
                let found = self.ports().1.read(&self.namespace, &names).await.unwrap();
                let told = found.into_iter().map(|(name, view)| {
                    let owner = view.owner.map(|owner| self.uid(&owner));
                    format!("{name} of {owner:?} {}", view.spec)
                });
                told.collect::<Vec<_>>().join("\n    ")
            }
            Step::Lease | Step::Hold(..) => self.lease(step).await,
            theirs => {
                self.edits += 1;
                match &self.side {
                    Side::Memory(memory) => in_memory(memory, &self.namespace, theirs, self.edits),
                    Side::Real(real) => on_server(&real.server, &self.namespace, theirs, self.edits).await,
                }
                "done".to_owned()
            }
        }
    }

    async fn on(&self, shown: &ResilientService, step: &Step) -> String {
        let (cluster, routes) = self.ports();
        let owner = self.owner(shown);
        match step {
            Step::Standing(_) => format!("{:?}", cluster.standing(shown).await.unwrap()),
            Step::Finalizer(_, present) => {
                let done = cluster.set_finalizer(shown, *present).await;
                done.map_or_else(|_| "unavailable".to_owned(), |done| format!("{done:?}"))
            }
            Step::Status(_, hash) => {
                let status = ResilientServiceStatus {
                    policy_hash: Some((*hash).to_owned()),
                    ..ResilientServiceStatus::default()
                };
                let done = cluster.write_status(shown, &status).await;
                done.map_or_else(|_| "unavailable".to_owned(), |()| "done".to_owned())
            }
            Step::Apply(_, name, of) => {
                let route = Route { name: (*name).to_owned(), spec: spec(*of) };
                route_answer(routes.apply(&owner, &route).await)
            }
            Step::Unroute(_, name) => route_answer(routes.delete(&owner, name).await),
            other => unreachable!("{other:?}"),
        }
    }

    async fn get(&self, name: &str) -> Option<ResilientService> {
        match &self.side {
            Side::Memory(memory) => {
                memory.cluster.resources.try_lock().unwrap().get(&self.ident(name)).cloned()
            }
            Side::Real(real) => {
                let api = Api::<ResilientService>::namespaced(real.server.admin(), &self.namespace);
                api.get_opt(name).await.unwrap()
            }
        }
    }

    fn told(&mut self, of: &ResilientService) -> String {
        let uid = self.uid(&of.uid().unwrap());
        let status = of.status.as_ref().and_then(|status| status.policy_hash.as_deref());
        format!(
            "{uid} generation {} finalizers {:?} dying {} status {status:?}",
            of.metadata.generation.unwrap_or_default(),
            of.finalizers(),
            of.metadata.deletion_timestamp.is_some(),
        )
    }

    async fn lease(&mut self, step: &Step) -> String {
        let versions = &mut self.versions;
        match &self.side {
            Side::Memory(memory) => lease(&memory.lease, &mut versions.memory, step).await,
            Side::Real(real) => lease(&real.lease, &mut versions.real, step).await,
        }
    }

    async fn script(&mut self, name: &str, steps: &[Step], into: &mut Recording) {
        into.script(name);
        for step in steps {
            let answer = self.play(step).await;
            into.step(&format!("{step:?}"), &answer);
        }
    }
}

async fn lease<L: LeaseStore>(store: &L, versions: &mut Vec<L::At>, step: &Step) -> String {
    match step {
        Step::Lease => match store.read().await.unwrap() {
            None => "absent".to_owned(),
            Some((record, at)) => {
                versions.push(at);
                format!("{record:?}")
            }
        },
        Step::Hold(holder, before) => {
            let at = before.and_then(|before| versions.iter().rev().nth(before));
            if before.is_some() && at.is_none() {
                return "never read".to_owned();
            }
            match store.write(&record(holder), at).await {
                Ok(()) => "done".to_owned(),
                Err(WriteError::Conflict) => "conflict".to_owned(),
                Err(error) => format!("{error:?}"),
            }
        }
        other => unreachable!("{other:?}"),
    }
}

fn in_memory(memory: &Memory, namespace: &str, step: &Step, edits: usize) {
    let Memory { cluster, routes, lease } = memory;
    let at = |name: &str| Ident::new(namespace, name);
    match step {
        Step::Create(name) => {
            let mut all = cluster.resources.try_lock().unwrap();
            all.entry(at(name)).or_insert_with(|| {
                let mut new = ResilientService::new(name, service(0));
                new.metadata.namespace = Some(namespace.to_owned());
                new.metadata.uid = Some(format!("uid-{edits}"));
                new.metadata.generation = Some(1);
                new
            });
        }
        Step::Edit(name) => cluster.others(&at(name), |there| {
            there.spec = service(edits);
            there.metadata.generation = there.metadata.generation.map(|generation| generation + 1);
        }),
        Step::Label(name) => cluster.others(&at(name), |there| {
            there.labels_mut().insert("team".to_owned(), edits.to_string());
        }),
        Step::Guard(name) => cluster.others(&at(name), |there| {
            // Who is on the way out takes no finalizer any more.
            let there_already = there.finalizers().iter().any(|held| held == HOLD);
            if there.metadata.deletion_timestamp.is_none() && !there_already {
                there.finalizers_mut().push(HOLD.to_owned());
            }
        }),
        Step::Strip(name) => cluster.others(&at(name), |there| there.finalizers_mut().clear()),
        Step::Delete(name) => cluster.delete(&at(name), jiff::Timestamp::UNIX_EPOCH),
        Step::TheirRoute(name) => routes.theirs(&at(name), spec(1)),
        Step::TheirField(name, field) => routes.set_field(&at(name), field, their(field)),
        Step::DeleteRoute(name) => routes.lose(&at(name)),
        Step::TouchLease => lease.world.touch(),
        Step::DeleteLease => lease.world.delete(),
        ours => unreachable!("{ours:?}"),
    }
}

/// What is not there, or is there already, is let be.
fn let_be<T>(done: Result<T, kube::Error>) {
    match done {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        done => drop(done.unwrap()),
    }
}

async fn on_server(server: &ApiServer, namespace: &str, step: &Step, edits: usize) {
    let all = Api::<ResilientService>::namespaced(server.admin(), namespace);
    let leases = Api::<Lease>::namespaced(server.admin(), namespace);
    let like = |name: &str| {
        json!({ "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
            "metadata": { "name": name, "namespace": namespace } })
    };
    let merge = async |name: &str, patch: Value| {
        let_be(all.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await);
    };
    match step {
        Step::Create(name) => {
            let_be(all.create(&PostParams::default(), &ResilientService::new(name, service(0))).await);
        }
        Step::Edit(name) => {
            merge(name, json!({ "spec": { "service": { "name": format!("s{edits}") } } })).await
        }
        Step::Label(name) => {
            merge(name, json!({ "metadata": { "labels": { "team": edits.to_string() } } })).await
        }
        Step::Guard(name) => {
            let Some(there) = all.get_opt(name).await.unwrap() else { return };
            let mut finalizers = there.finalizers().to_vec();
            if there.metadata.deletion_timestamp.is_none() && !finalizers.iter().any(|held| held == HOLD) {
                finalizers.push(HOLD.to_owned());
                merge(name, json!({ "metadata": { "finalizers": finalizers } })).await;
            }
        }
        Step::Strip(name) => merge(name, json!({ "metadata": { "finalizers": null } })).await,
        Step::Delete(name) => let_be(all.delete(name, &DeleteParams::default()).await),
        Step::TheirRoute(name) => {
            let mut object = like(name);
            let routes = server.api(&object);
            if routes.get_opt(name).await.unwrap().is_none() {
                object["spec"] = spec(1);
                server.apply(&object).await;
            }
        }
        Step::TheirField(name, field) => {
            let mut object = like(name);
            let routes = server.api(&object);
            if routes.get_opt(name).await.unwrap().is_some() {
                object["spec"] = json!({ *field: their(field) });
                let params = PatchParams::apply("theirs").force();
                routes.patch(name, &params, &Patch::Apply(object)).await.unwrap();
            }
        }
        Step::DeleteRoute(name) => server.delete(&like(name)).await,
        Step::TouchLease => {
            let patch = json!({ "metadata": { "labels": { "team": edits.to_string() } } });
            let_be(leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(patch)).await);
        }
        Step::DeleteLease => let_be(leases.delete(LEASE, &DeleteParams::default()).await),
        ours => unreachable!("{ours:?}"),
    }
}

/// What the operator relies on, one after the other.
fn told_in_order() -> Vec<Step> {
    use Step::{
        Apply, Create, Delete, DeleteLease, DeleteRoute, Edit, Finalizer, Fresh, Guard, Hold, Label, Lease,
        Routes, Show, Standing, Status, Strip, TheirField, TheirRoute, TouchLease, Unroute,
    };
    let [user, two] = NAMES;
    let [one, other] = ROUTES;
    vec![
        Fresh,
        Create(user),
        Create(two),
        Fresh,
        Show(0, user),
        Standing(0),
        Label(user),
        Standing(0),
        Status(0, "1"),
        Standing(0),
        Edit(user),
        Standing(0),
        Status(0, "2"),
        Show(1, user),
        // A finalizer, though the view is old.
        Finalizer(0, true),
        Finalizer(0, true),
        Show(1, user),
        Standing(1),
        Finalizer(1, false),
        Guard(user),
        Finalizer(0, true),
        Show(1, user),
        Delete(user),
        Standing(1),
        Show(1, user),
        Standing(1),
        Delete(user),
        Show(1, user),
        Finalizer(1, true),
        Status(1, "3"),
        Show(1, user),
        Finalizer(1, false),
        Finalizer(1, true),
        Show(2, user),
        Fresh,
        Strip(user),
        Show(2, user),
        // Gone, and another of its name.
        Standing(1),
        Finalizer(1, false),
        Finalizer(1, true),
        Status(1, "4"),
        Create(user),
        Standing(1),
        Finalizer(1, true),
        Status(1, "5"),
        Show(2, user),
        Fresh,
        Delete(user),
        Standing(2),
        // Routes are their owner's.
        Create(user),
        Show(0, user),
        Show(1, two),
        Routes,
        Unroute(0, one),
        Apply(0, one, 0),
        Routes,
        Apply(1, one, 1),
        Unroute(1, one),
        Apply(0, one, 2),
        Routes,
        Apply(0, one, 1),
        Routes,
        TheirRoute(other),
        Apply(0, other, 0),
        Unroute(0, other),
        Routes,
        DeleteRoute(other),
        DeleteRoute(one),
        Unroute(0, one),
        Routes,
        // What others write into them.
        Apply(0, one, 0),
        TheirField(one, "tls"),
        Routes,
        Apply(0, one, 1),
        Routes,
        Apply(0, one, 2),
        Routes,
        Apply(0, one, 1),
        Routes,
        TheirField(one, "entryPoints"),
        Apply(0, one, 0),
        Routes,
        Apply(0, one, 1),
        Routes,
        Unroute(0, one),
        Apply(0, one, 1),
        Routes,
        // One writes the Lease, of those who read the same.
        Lease,
        Hold("a", None),
        Hold("b", None),
        Lease,
        Hold("a", Some(0)),
        Hold("b", Some(0)),
        Lease,
        TouchLease,
        Hold("a", Some(0)),
        Lease,
        Hold("", Some(0)),
        Lease,
        DeleteLease,
        Hold("b", Some(0)),
        Lease,
        Hold("b", None),
        Hold("a", Some(0)),
        Lease,
    ]
}

fn random(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut steps = vec![Step::Create(NAMES[0]), Step::Show(0, NAMES[0])];
    for _ in 0..50 {
        steps.push(step(&mut rng));
    }
    steps.extend([Step::Show(3, NAMES[0]), Step::Show(4, NAMES[1]), Step::Fresh, Step::Routes, Step::Lease]);
    steps
}

fn step(rng: &mut Rng) -> Step {
    let name = NAMES[[0, 0, 0, 1][rng.usize(0..4)]];
    let route = ROUTES[rng.usize(0..2)];
    let at = rng.usize(0..3);
    match rng.u8(0..40) {
        0..5 => Step::Show(at, name),
        5 => Step::Fresh,
        6 | 7 => Step::Standing(at),
        8..11 => Step::Finalizer(at, rng.u8(0..3) > 0),
        11 | 12 => Step::Finalizer(at, false),
        13 | 14 => Step::Status(at, ["1", "2"][rng.usize(0..2)]),
        15 | 16 => Step::Routes,
        17..21 => Step::Apply(at, route, rng.usize(0..3)),
        21 => Step::Unroute(at, route),
        22 | 23 => Step::Lease,
        24..27 => {
            Step::Hold(["a", "b", ""][rng.usize(0..3)], [None, Some(0), Some(0), Some(1)][rng.usize(0..4)])
        }
        27..30 => Step::Create(name),
        30 => Step::Edit(name),
        31 => Step::Label(name),
        32 => Step::Guard(name),
        33 => Step::Strip(name),
        34 | 35 => Step::Delete(name),
        36 => Step::TheirRoute(route),
        37 | 38 => Step::TheirField(route, ["tls", "entryPoints"][rng.usize(0..2)]),
        _ => [Step::DeleteRoute(route), Step::TouchLease, Step::DeleteLease][rng.usize(0..3)].clone(),
    }
}

fn scripts(seeds: std::ops::Range<u64>) -> Vec<(String, Vec<Step>)> {
    let first = (seeds.start == 0).then(|| ("told in order".to_owned(), told_in_order()));
    first.into_iter().chain(seeds.map(|seed| (format!("random {seed}"), random(seed)))).collect()
}

async fn play_in_memory(seeds: std::ops::Range<u64>) -> Recording {
    let mut all = Recording::default();
    for (name, steps) in scripts(seeds) {
        memory().script(&name, &steps, &mut all).await;
    }
    all
}

async fn play_on(server: &Arc<ApiServer>, seeds: std::ops::Range<u64>) -> Recording {
    let mut all = Recording::default();
    for (name, steps) in scripts(seeds) {
        real(server, &name).await.script(&name, &steps, &mut all).await;
    }
    all
}

const KEPT: std::ops::Range<u64> = 0..8;

#[tokio::test]
async fn the_cluster_in_memory_answers_as_kubernetes_once_did() {
    play_in_memory(KEPT).await.must_be(&Recording::kept("kubernetes"), "the world");
}

/// And the world as the server does.
#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_answers_as_it_once_did() {
    let server = server().await;
    play_on(&server, KEPT).await.must_be_kept("kubernetes");
    let seeds =
        if std::env::var_os("FUSEBOX_LONG").is_some_and(|long| long == "1") { 8..1000 } else { 8..60 };
    let answers = play_on(&server, seeds.clone()).await;
    play_in_memory(seeds.clone()).await.must_be(&answers, "the world");
    println!("Kubernetes: {} scripts of {} steps, one answer each", seeds.end - seeds.start, answers.steps());
}
