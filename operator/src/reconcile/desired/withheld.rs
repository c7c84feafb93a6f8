//! What stays of a resource that is not accepted. Pure.
//!
//! What an earlier generation of it applied stays, save what another resource has by right, and its Consul
//! entries go on following the instances of the Service they came from, whatever the refused spec says.

use std::collections::BTreeSet;

use fusebox_policy::wire::PolicyDocument;
use serde_json::Value;

use super::{Desired, Like, Plane, Published, matcher};
use crate::claims::Claim;
use crate::model::{Endpoint, Entry, mark};
use crate::ports::Route;
use crate::reconcile::conditions::{Obstacle, reasons};
use crate::reconcile::observe::Snapshot;
use crate::reconcile::validate::Refusal;

/// What should be everywhere of a resource that is refused.
pub fn withheld(cluster: &str, seen: &Snapshot, refusal: &Refusal) -> Desired {
    let not_accepted = |what: &str| {
        Obstacle::lasting(
            reasons::NOT_ACCEPTED,
            format!("this generation is not accepted, so nothing of it is applied; {what}"),
        )
    };
    let lost = |of: fn(&Claim) -> bool| refusal.lost.iter().any(|lost| of(&lost.claim));
    let mut entries = frozen(cluster, seen);
    entries.retain(|entry| !refusal.lost.iter().any(|lost| is_entry_of(entry, &lost.claim)));
    let told = match entries.len() {
        0 if lost(|claim| matches!(claim, Claim::Service(_) | Claim::ConsulName(_))) => {
            "none of its instances is registered, since another resource has the claim".to_owned()
        }
        0 => "nothing is registered".to_owned(),
        1 => "1 instance of an earlier generation stays registered".to_owned(),
        n => format!("{n} instances of an earlier generation stay registered"),
    };
    let routes_told = if lost(|claim| !matches!(claim, Claim::ConsulName(_) | Claim::RawKey(_))) {
        "the routes of an earlier generation, if any, stay, but for those that another resource has"
    } else {
        "the routes of an earlier generation, if any, stay"
    };
    let document = |json: &String| PolicyDocument::from_json(json.as_bytes()).ok();
    let store = seen.store.as_ref().ok().map(|view| {
        let policy = view.policy.as_ref().and_then(document);
        // Of another of this name, before: its policy is not this one's.
        if policy.as_ref().is_some_and(|policy| policy.uid != seen.uid) {
            return Published::default();
        }
        let taken = |key: &str| {
            refusal.lost.iter().any(|lost| matches!(&lost.claim, Claim::RawKey(held) if held == key))
        };
        let kept = view.held.iter().filter(|key| !taken(key));
        let raw = kept.filter_map(|key| Some((key.clone(), view.raw.get(key)?.value.clone()?))).collect();
        // The policy that stays is shared by the instances that there are, like the entries in Consul.
        let fleet = match (policy, seen.sources.values().next()) {
            (Some(policy), Some(instances)) => super::fleet(&policy, instances),
            (None, _) if view.policy.is_none() => None,
            // Nobody knows how many they are, or who counts them.
            _ => view.fleet.clone(),
        };
        Published { policy: view.policy.clone(), config: view.config.clone(), fleet, raw }
    });
    let published = store.as_ref().is_some_and(|store| store.policy.is_some());
    let store_told =
        if published { "the policy of an earlier generation stays in force" } else { "nothing is published" };
    let spec = &seen.resource.spec;
    let mut desired = Desired {
        catalog: Plane::blocked(Some(entries), not_accepted(&told)),
        routes: Plane::blocked(uncontested(seen, refusal), not_accepted(routes_told)),
        store: Plane::blocked(store, not_accepted(store_told)),
    };
    desired.catalog.requested = spec.consul.is_some();
    desired.routes.requested = spec.gateway.is_some();
    desired
}

/// Was it registered under this claim?
pub fn is_entry_of(entry: &Entry, claim: &Claim) -> bool {
    match claim {
        Claim::ConsulName(name) => entry.name.eq_ignore_ascii_case(name),
        Claim::Service(name) => entry.meta.get(mark::SERVICE) == Some(name),
        Claim::Route(..) | Claim::Host(_) | Claim::RawKey(_) => false,
    }
}

/// What is registered already, following the instances but not the spec; not under a name that is another's by now.
pub fn frozen(cluster: &str, seen: &Snapshot) -> Vec<Entry> {
    let is_taken = |entry: &Entry| seen.rivals.taken.iter().any(|name| is_entry_of(entry, name));
    let own: Vec<&Entry> = (seen.catalog.iter().flat_map(|node| node.entries.values()))
        .filter(|entry| entry.is_of(cluster, &seen.uid) && !is_taken(entry))
        .collect();
    let mut all: Vec<Entry> = own.iter().filter_map(|entry| followed(seen, entry)).collect();
    let mut services = BTreeSet::new();
    for (known, like) in own.iter().filter_map(|entry| Some((entry, Like::of(entry)?))) {
        if services.insert(like.service) {
            let new = |endpoint: &&Endpoint| !own.iter().any(|e| e.instance() == endpoint.instance);
            let new = source(seen, known).unwrap_or_default().iter().filter(new);
            all.extend(new.filter_map(|endpoint| like.entry(cluster, seen, endpoint)));
        }
    }
    all
}

/// The instances of the Service that an entry came from; None: nobody knows which one that was.
fn source<'a>(seen: &'a Snapshot, entry: &Entry) -> Option<&'a [Endpoint]> {
    seen.sources.get(entry.meta.get(mark::SERVICE)?).map(Vec::as_slice)
}

/// An entry as its instance is now; None: the instance is gone.
fn followed(seen: &Snapshot, entry: &Entry) -> Option<Entry> {
    let Some(source) = source(seen, entry) else { return Some(entry.clone()) };
    let endpoint = source.iter().find(|endpoint| endpoint.instance == entry.instance())?;
    Some(Entry { passing: Some(endpoint.ready), ..entry.clone() })
}

impl<'a> Like<'a> {
    /// Like an entry that is there, if it says where it came from.
    fn of(entry: &'a Entry) -> Option<Self> {
        let own = entry.meta.iter().filter(|(key, _)| !key.starts_with(mark::PREFIX));
        Some(Self {
            name: &entry.name,
            service: entry.meta.get(mark::SERVICE)?,
            port: entry.meta.get(mark::PORT)?,
            tags: &entry.tags,
            meta: own.map(|(key, value)| (key.clone(), value.clone())).collect(),
        })
    }
}

/// The routes that are there without the rules that another resource has; None: all of them may stay.
fn uncontested(seen: &Snapshot, refusal: &Refusal) -> Option<Vec<Route>> {
    let mut contested = false;
    let mut routes = Vec::new();
    let there = seen.routes.iter().flatten();
    for (name, view) in there.filter(|(_, view)| view.owner.as_ref() == Some(&seen.uid)) {
        let mut route = Route { name: name.clone(), spec: view.spec.clone() };
        let Some(rules) = route.spec.get_mut("routes").and_then(Value::as_array_mut) else { continue };
        let before = rules.len();
        rules.retain(|rule| !refusal.lost.iter().any(|lost| is_rule_of(rule, &lost.claim)));
        contested |= rules.len() < before;
        if !rules.is_empty() {
            routes.push(route);
        }
    }
    contested.then_some(routes)
}

fn is_rule_of(rule: &Value, claim: &Claim) -> bool {
    let says = rule.get("match").and_then(Value::as_str).unwrap_or_default();
    match claim {
        Claim::Route(host, path) => says == matcher(host, path),
        Claim::Host(host) => says
            .strip_prefix(&matcher(host, ""))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(" && ")),
        Claim::Service(name) => {
            let services = rule.get("services").and_then(Value::as_array);
            services.into_iter().flatten().any(|s| s.get("name").and_then(Value::as_str) == Some(name))
        }
        Claim::ConsulName(_) | Claim::RawKey(_) => false,
    }
}
