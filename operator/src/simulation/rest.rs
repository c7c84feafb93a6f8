//! What must be so after a quiet time: what an operator makes of the same resources that never saw any trouble, and
//! nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::{Ident, Key, Keys};
use fusebox_policy::v1alpha1::ResilientService;
use fusebox_policy::wire::Claim;
use kube::ResourceExt;
use tokio::time::sleep;

use super::judge::is_contested;
use super::place::Place;
use crate::claims;
use crate::epoch::{Fenced, Signals};
use crate::model::is_shard_node;
use crate::ports::{ConsulCatalog, PolicyStore};
use crate::reconcile::conditions::{reasons, types};
use crate::reconcile::deletions::Deletions;
use crate::reconcile::memory::Memory;
use crate::reconcile::{Context, reconcile};
use crate::world::{CatalogWorld, RouteWorld, StoreWorld, TenureWorld};

/// How many differences are told.
const SHOWN: usize = 5;

/// A resource's reason for a condition that is not True.
pub fn told<'a>(resource: &'a ResilientService, condition: &str) -> Option<&'a str> {
    let all = &resource.status.as_ref()?.conditions;
    all.iter().find(|c| c.type_ == condition && c.status != "True").map(|c| c.reason.as_str())
}

/// What this place's operators have in the backends and say of the resources, but for those that are refused.
pub fn lines(place: &Place, refused: &BTreeMap<Ident, String>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let cluster = &place.name;
    let is_refused = |uid: &str| refused.values().any(|refused| refused == uid);
    for (name, node) in place.catalog.state().iter().filter(|(name, _)| is_shard_node(cluster, name)) {
        if node.entries.is_empty() {
            lines.insert(format!("empty node {name}"));
        }
        let ours = node.entries.values().filter(|e| e.owner(cluster).is_some_and(|uid| !is_refused(uid)));
        lines.extend(ours.map(|entry| format!("{name}: {entry:?}")));
    }
    let (keys, all) = (Keys::new(cluster), place.store.state());
    let claim = |key: &str| -> Option<Claim> {
        all.get(&Keys::raw_claim(key)).map(|claim| serde_json::from_str(claim).unwrap())
    };
    let anothers =
        |key: &str| claim(key).is_some_and(|claim| claim.cluster != *cluster || is_refused(&claim.uid));
    for (key, value) in &all {
        let raw = key.strip_prefix(&Keys::raw_claim("")).unwrap_or(key);
        let is_ours = match keys.parse(key) {
            Some(Key::Policy(of) | Key::Config(of) | Key::Fleet(of) | Key::Raw(of)) => {
                !refused.contains_key(&of)
            }
            Some(Key::Report(..) | Key::Epoch) => false,
            None => raw.starts_with(&place.key_prefix()) && !anothers(raw),
        };
        if is_ours {
            lines.insert(format!("{key} = {value}"));
        }
    }
    for (at, view) in place.routes.state() {
        if view.owner.as_ref().is_some_and(|uid| !is_refused(uid)) {
            lines.insert(format!("{at}: {view:?}"));
        }
    }
    for (of, resource) in place.cluster.now().resources {
        if refused.contains_key(&of) {
            continue;
        }
        let status = resource.status.clone().unwrap_or_default();
        let conditions = status.conditions.iter().map(|c| format!("{}={}/{}", c.type_, c.status, c.reason));
        let claims: BTreeSet<&String> = status.claims.iter().collect();
        let conditions: Vec<String> = conditions.collect();
        lines.insert(format!("{of}: {conditions:?} {claims:?} {:?}", resource.finalizers()));
    }
    lines
}

/// An operator without a past, over empty backends, has done all it wanted with these resources.
async fn fresh(place: &Place, refused: &BTreeMap<Ident, String>) -> BTreeSet<String> {
    let catalog = CatalogWorld::new(&Arc::default());
    let store = StoreWorld::new(&Arc::default(), &place.name, &[&place.key_prefix()]);
    let new = Arc::new(Place::new(&place.name, catalog, store));
    let now = place.cluster.now();
    *new.cluster.services.try_lock().unwrap() = now.services;
    for (of, mut resource) in now.resources {
        if !refused.contains_key(&of) {
            resource.status = None;
            resource.metadata.finalizers = None;
            new.cluster.resources.try_lock().unwrap().insert(of, resource);
        }
    }
    let signals = Arc::new(Signals::new(Arc::<TenureWorld>::default()));
    let consul: Arc<dyn ConsulCatalog> = new.catalog.clone();
    let etcd: Arc<dyn PolicyStore> = new.store.clone();
    let context = Context {
        settings: new.settings(false),
        cluster: new.cluster.clone(),
        consul: Fenced::new(consul, "Consul", "fresh", signals.clone()),
        etcd: Fenced::new(etcd, "etcd", "fresh", signals),
        routes: Arc::<RouteWorld>::clone(&new.routes),
        metrics: Arc::default(),
        memory: Memory::default(),
        deletions: Deletions::default(),
    };
    for _ in 0..20 {
        let before = new.writes();
        for resource in new.cluster.now().resources.into_values() {
            reconcile(&context, &Arc::new(resource), place.wall()).await;
        }
        if new.writes() == before {
            return lines(&new, refused);
        }
        sleep(Duration::from_millis(1100)).await;
    }
    panic!("an operator without a past does not settle")
}

/// What is not as it must be.
pub async fn wrong(place: &Place) -> Vec<String> {
    let mut wrong = Vec::new();
    let all = place.cluster.now().resources;
    let mut refused = BTreeMap::new();
    for (of, resource) in &all {
        if resource.metadata.deletion_timestamp.is_some() {
            wrong.push(format!("{of} is still being deleted: {:?}", resource.status));
        }
        let reason = told(resource, types::ACCEPTED);
        let by = |claims: fn(&ResilientService) -> Vec<claims::Claim>| {
            is_contested(resource, all.values(), claims)
        };
        // Who is refused gives way to one that holds it, or asks for it and does not have to wait itself.
        let says = reason == Some(reasons::CONFLICT);
        let waits = |other: &&ResilientService| {
            told(other, types::ACCEPTED).is_some_and(|reason| reason != reasons::CONFLICT)
                || is_contested(other, all.values(), claims::held)
        };
        let in_turn = || is_contested(resource, all.values().filter(|other| !waits(other)), claims::asked);
        if (reason.is_none() && by(claims::held)) || (says && !by(claims::held) && !in_turn()) {
            wrong.push(format!("{of} says {reason:?} of what it asks for"));
        }
        if reason.is_some() {
            refused.insert(of.clone(), resource.uid().unwrap_or_default());
        }
    }
    let (is, wanted) = (lines(place, &refused), fresh(place, &refused).await);
    wrong.extend(is.difference(&wanted).take(SHOWN).map(|line| format!("too much: {line}")));
    wrong.extend(wanted.difference(&is).take(SHOWN).map(|line| format!("missing: {line}")));
    wrong.extend(place.judge.try_lock().unwrap().foreign.touched(place));
    let nodes = place.sessions.nodes();
    let armed = nodes.iter().filter(|n| n.check.as_ref().is_some_and(|c| c.passing && c.session.is_some()));
    if armed.count() != nodes.len() {
        wrong.push(format!("dead men are not armed: {nodes:?}"));
    }
    if !wrong.is_empty() {
        let spec = |resource: &ResilientService| serde_json::to_string(&resource.spec).unwrap();
        let says = |resource: &ResilientService| serde_json::to_string(&resource.status).unwrap();
        wrong.extend(all.iter().map(|(of, r)| format!("where {of} is {} and says {}", spec(r), says(r))));
    }
    wrong
}
