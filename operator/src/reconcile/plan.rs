//! What has to be done: the difference between what should be and what is, in order, and no more. Pure.
//!
//! # Guarantees
//! - Nothing that does not carry the mark of this cluster, and of this resource or of one of its name that is
//!   gone, is in an effect.
//! - Where what is seen is what should be, there is no effect.
//! - Instances are registered before others are deregistered, and before routes are written; a removal goes
//!   the other way round.

mod store;

use std::collections::BTreeSet;

use serde_json::Value;

use super::conditions::{Obstacle, reasons};
use super::desired::Desired;
use super::observe::Snapshot;
use crate::model::{Entry, mark};
use crate::ports::{CatalogOp, NodeView, Route, RouteError, StoreOp};

/// The most operations in a Consul transaction, the fence not counted; Consul itself allows 64.
pub const MAX_CATALOG_OPS: usize = 58;

/// One step: it happens whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A Consul transaction.
    Catalog(Vec<CatalogOp>),
    /// Write a route object.
    ApplyRoute(Route),
    /// Remove a route object.
    DeleteRoute(String),
    /// An etcd transaction.
    Store(Vec<StoreOp>),
}

/// One of each plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PerPlane<T> {
    /// Consul.
    pub catalog: T,
    /// Traefik.
    pub routes: T,
    /// etcd.
    pub store: T,
}

/// What has to be done, and what cannot be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub effects: Vec<Effect>,
    /// What is in the way.
    pub obstacles: PerPlane<Vec<Obstacle>>,
}

/// Is the resource to stay, or on its way out?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Register, route, publish; then clear what is not wanted any more.
    Converge,
    /// Unpublish, unroute, deregister.
    Remove,
}

/// Compares.
pub fn plan(cluster: &str, seen: &Snapshot, desired: &Desired, direction: Direction) -> Plan {
    let mut found = PerPlane::default();
    let catalog = catalog(cluster, seen, desired, direction, &mut found.catalog);
    let (apply, delete) = routes(seen, desired, &mut found.routes);
    let store = store::changes(cluster, seen, desired, &mut found.store);
    let between = !apply.is_empty() || !delete.is_empty() || !store.is_empty();
    let Changes { add, remove } = catalog;
    let mut effects = Vec::new();
    match direction {
        Direction::Remove => {
            effects.extend(store.into_iter().map(Effect::Store));
            effects.extend(delete);
            effects.extend(chunks(remove));
        }
        // Nothing goes between: one transaction, in the same order.
        Direction::Converge if !between => effects.extend(chunks([add, remove].concat())),
        Direction::Converge => {
            effects.extend(chunks(add));
            effects.extend(apply);
            effects.extend(store.into_iter().map(Effect::Store));
            effects.extend(delete);
            effects.extend(chunks(remove));
        }
    }
    Plan { effects, obstacles: found }
}

#[derive(Default)]
struct Changes {
    add: Vec<CatalogOp>,
    remove: Vec<CatalogOp>,
}

fn catalog(
    cluster: &str,
    seen: &Snapshot,
    desired: &Desired,
    direction: Direction,
    found: &mut Vec<Obstacle>,
) -> Changes {
    let node = match &seen.catalog {
        Ok(node) => node,
        Err(error) => {
            found.push(Obstacle::transient(reasons::CONSUL_UNAVAILABLE, error.to_string()));
            return Changes::default();
        }
    };
    let Some(goal) = &desired.catalog.goal else { return Changes::default() };
    if node.foreign {
        if !goal.is_empty() {
            found.push(Obstacle::lasting(
                reasons::NODE_TAKEN,
                format!(
                    "the Consul node {} exists and does not belong to this cluster's Fusebox: remove it, or \
                     give this cluster another name in the operator chart's value cluster",
                    seen.node
                ),
            ));
        }
        return Changes::default();
    }
    let mut changes = Changes::default();
    for entry in goal {
        match node.entries.get(&entry.id) {
            Some(there) if !there.is_of(cluster, &seen.uid) => found.push(Obstacle::lasting(
                reasons::CONSUL_REFUSED,
                format!("the service id {} is taken in Consul by an entry that is not ours", entry.id),
            )),
            there => changes.add.extend(difference(there, entry)),
        }
    }
    if !node.exists && !changes.add.is_empty() {
        changes.add.insert(0, CatalogOp::EnsureNode);
    }
    let wanted: BTreeSet<&str> = goal.iter().map(|entry| entry.id.as_str()).collect();
    let own = (node.entries.values())
        .filter(|entry| entry.is_of(cluster, &seen.uid) || is_of_one_before(entry, cluster, seen));
    changes.remove = own
        .filter(|entry| !wanted.contains(entry.id.as_str()))
        .map(|e| CatalogOp::Deregister { id: e.id.clone(), name: e.name.clone() })
        .collect();
    if reap(node, &wanted, &changes.remove, direction) {
        changes.remove.push(CatalogOp::ReapNode);
    }
    changes
}

/// Did another resource of this name register it, one that is gone? Its finalizer was taken off by hand.
fn is_of_one_before(entry: &Entry, cluster: &str, seen: &Snapshot) -> bool {
    let owner = entry.meta.get(mark::OWNER).filter(|owner| !seen.live.contains(*owner));
    owner.is_some_and(|owner| *owner != seen.uid && entry.is_of(cluster, owner))
        && entry.meta.get(mark::RESOURCE) == Some(&seen.ident.to_string())
}

/// Is our node empty after this?
fn reap(node: &NodeView, wanted: &BTreeSet<&str>, remove: &[CatalogOp], direction: Direction) -> bool {
    let emptied = wanted.is_empty() && node.entries.len() + node.others == remove.len();
    node.exists && emptied && (direction == Direction::Remove || !remove.is_empty())
}

fn difference(there: Option<&Entry>, wanted: &Entry) -> Option<CatalogOp> {
    let register = || Some(CatalogOp::Register(wanted.clone()));
    let Some(there) = there else { return register() };
    let but_for_the_check = Entry { passing: wanted.passing, ..there.clone() };
    if but_for_the_check != *wanted {
        return register();
    }
    (there.passing != wanted.passing).then(|| CatalogOp::SetCheck {
        id: wanted.id.clone(),
        name: wanted.name.clone(),
        passing: wanted.passing.unwrap_or_default(),
    })
}

fn chunks(ops: Vec<CatalogOp>) -> Vec<Effect> {
    let weight = |op: &CatalogOp| if matches!(op, CatalogOp::Register(_)) { 2 } else { 1 };
    let mut chunks: Vec<(usize, Vec<CatalogOp>)> = Vec::new();
    for op in ops {
        match chunks.last_mut() {
            Some((sum, chunk)) if *sum + weight(&op) <= MAX_CATALOG_OPS => {
                *sum += weight(&op);
                chunk.push(op);
            }
            _ => chunks.push((weight(&op), vec![op])),
        }
    }
    chunks.into_iter().map(|(_, ops)| Effect::Catalog(ops)).collect()
}

fn routes(seen: &Snapshot, desired: &Desired, found: &mut Vec<Obstacle>) -> (Vec<Effect>, Vec<Effect>) {
    let wanted = desired.routes.goal.as_deref();
    let there = match &seen.routes {
        Ok(there) => there,
        // Where the kind is unknown there can be no object of it.
        Err(RouteError::CrdsMissing) if wanted.is_none_or(<[Route]>::is_empty) => return Default::default(),
        Err(error) => {
            found.push(route_obstacle(error));
            return Default::default();
        }
    };
    let Some(wanted) = wanted else { return Default::default() };
    let mut apply = Vec::new();
    for route in wanted {
        match there.get(&route.name) {
            Some(other) if other.owner.as_ref() != Some(&seen.uid) => found.push(Obstacle::transient(
                reasons::NAME_TAKEN,
                format!(
                    "the IngressRoute {} exists and does not belong to this resource: rename or remove it",
                    route.name
                ),
            )),
            Some(own) if covers(&own.spec, &route.spec) => {}
            _ => apply.push(Effect::ApplyRoute(route.clone())),
        }
    }
    let delete = there
        .iter()
        .filter(|(name, view)| {
            view.owner.as_ref() == Some(&seen.uid) && !wanted.iter().any(|route| route.name == **name)
        })
        .map(|(name, _)| Effect::DeleteRoute(name.clone()))
        .collect();
    (apply, delete)
}

/// What a person should do about an error of the route store.
pub fn route_obstacle(error: &RouteError) -> Obstacle {
    match error {
        RouteError::CrdsMissing => Obstacle::transient(
            reasons::TRAEFIK_CRDS_MISSING,
            format!("{error}: install Traefik's chart, or its CRDs alone; routes follow by themselves"),
        ),
        RouteError::Refused(why) => Obstacle::transient(
            reasons::ROUTE_REFUSED,
            format!("the API server refused the IngressRoute: {why}"),
        ),
        RouteError::Unavailable(why) => Obstacle::transient(reasons::KUBERNETES_UNAVAILABLE, why.to_string()),
    }
}

/// Does `there` say all that `wanted` says? What a newer Traefik adds by itself is no difference.
fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| there.get(key).is_some_and(|there| covers(there, value)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there.iter().zip(wanted).all(|(there, wanted)| covers(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}
