//! Kubernetes: resources, their finalizers and statuses, route objects, the Lease.

mod admission;
mod others;
mod script;

use std::collections::BTreeMap;
use std::sync::Arc;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceStatus};
use fusebox_processes::{ApiServer, chart, objects};
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::reflector;
use kube::{Api, ResourceExt};

use super::{Recording, answered};
use crate::kubernetes::lease::KubeLease;
use crate::kubernetes::routes::Kept;
use crate::kubernetes::traefik::Traefik;
use crate::kubernetes::{Cluster, Stores};
use crate::leader::decide::Record;
use crate::leader::{LeaseStore, WriteError};
use crate::ports::{ClusterState, Owner, Route, RouteError, RouteStore};
use crate::world::{ClusterWorld, Crash, Ice, LeaseClient, LeaseWorld, RouteWorld, Weather, Wire};
use others::{in_memory, on_server, spec};
use script::{ROUTES, Step, scripts};

const LEASE: &str = "operator";

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

#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
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
    let stores = Stores::new(reflector::store().0, reflector::store().0, reflector::store().0);
    let real = Real {
        server: server.clone(),
        cluster: Cluster::new(client.clone(), stores, "test"),
        routes: Traefik::new(client.clone(), Kept::default()),
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
            Step::Standing(at)
            | Step::Finalizer(at, _)
            | Step::Status(at, _)
            | Step::Apply(at, ..)
            | Step::Unroute(at, _) => Some(*at),
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
                let all = answered(async || self.ports().0.fresh().await).await;
                let mine = all.into_iter().filter(|(of, _)| of.namespace == self.namespace);
                let mine: Vec<_> = mine.collect();
                mine.iter()
                    .map(|(of, uid)| format!("{} {}", of.name, self.uid(uid)))
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            Step::Routes => {
                let names = ROUTES.map(str::to_owned);
                let found = answered(async || self.ports().1.read(&self.namespace, &names, true).await).await;
                let told = found.into_iter().map(|(name, view)| {
                    let owner = view.owner.map(|owner| self.uid(&owner));
                    format!("{name} of {owner:?} {}", view.spec)
                });
                told.collect::<Vec<_>>().join("\n    ")
            }
            Step::Lease | Step::Hold(..) => self.lease(step).await,
            Step::Declare(name, said) => {
                self.edits += 1;
                let new = admission::declared(name, &self.namespace, said);
                let done = match &self.side {
                    Side::Memory(memory) => admission::in_memory(&memory.cluster, new, self.edits),
                    Side::Real(real) => admission::on_server(&real.server, new).await,
                };
                done.err().unwrap_or_else(|| "done".to_owned())
            }
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
            Step::Standing(_) => format!("{:?}", answered(async || cluster.standing(shown).await).await),
            Step::Finalizer(_, present) => {
                let done = cluster.set_finalizer(shown, *present).await;
                done.map_or_else(|_| "unavailable".to_owned(), |done| format!("{done:?}"))
            }
            Step::Status(_, hash) => {
                let status = ResilientServiceStatus {
                    policy_hash: Some((*hash).to_owned()),
                    claims: vec![format!("raw/{hash}")],
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
    let seeds = if fusebox_processes::long() { 8..1000 } else { 8..32 };
    let answers = play_on(&server, seeds.clone()).await;
    play_in_memory(seeds.clone()).await.must_be(&answers, "the world");
    println!("Kubernetes: {} scripts of {} steps, one answer each", seeds.end - seeds.start, answers.steps());
}
