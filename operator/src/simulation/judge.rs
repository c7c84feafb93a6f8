//! Looks at every write at the moment at which a server takes it. Knows how everything really is, and shares no code
//! with what decides.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{PROCEED_ANNOTATION, ResilientService};
use fusebox_policy::wire::Epoch;
use kube::ResourceExt;
use tokio::time::Instant;

use super::foreign::Foreign;
use super::place::Place;
use crate::claims::{self, Claim};
use crate::model::{Entry, ServiceView, mark};
use crate::ports::{CatalogOp, NodeView, Owner, StoreOp};
use crate::world::Cache;

/// What a process acts on, and its acts on their way, are no older than this: late watches, silent backends.
const OLD: Duration = Duration::from_mins(1);
/// The window of the budget, but for what acts of one moment may arrive apart.
const WINDOW: Duration = Duration::from_secs(40);
/// After a store was wiped or restored, its content says nothing about who wrote it.
const UNREST: Duration = Duration::from_mins(2);

type Nodes = BTreeMap<String, NodeView>;

/// What one replica's life was about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Transactions that stores took.
    pub accepted: u64,
    /// Those that came after a later leader's epoch.
    pub stale: u64,
    /// Entries that were deregistered on inference.
    pub inferred: u64,
    /// Deregistrations and critical checks that were looked at.
    pub looked_at: u64,
}

/// Does another resource have, by `claims`, what this one asks for?
pub fn is_contested<'a>(
    one: &ResilientService,
    mut all: impl Iterator<Item = &'a ResilientService>,
    claims: impl Fn(&ResilientService) -> Vec<Claim>,
) -> bool {
    let asked = claims::asked(one);
    all.any(|other| {
        let (beside, theirs) = (other.namespace() == one.namespace(), claims(other));
        other.uid() != one.uid()
            && asked.iter().any(|claim| claim.is_exclusive(beside) && theirs.contains(claim))
    })
}

/// Is it so for longer than anything that is acted on is old?
fn long(since: Option<&Instant>) -> bool {
    since.is_some_and(|since| Instant::now().duration_since(*since) > OLD)
}

pub struct Judge {
    name: String,
    /// The latest leader, by its place among the tenures, that raised the epoch of Consul and of etcd.
    raised: [Option<usize>; 2],
    now: Arc<Cache>,
    /// Since when each resource is as it is, by UID.
    declared: BTreeMap<String, Instant>,
    /// Since when each resource wants the instances of its Service in Consul, under whichever name, and nobody else
    /// holds what it asks for.
    wants: BTreeMap<String, Instant>,
    /// When the last resource of a name went, as `namespace/name`.
    left: BTreeMap<String, Instant>,
    /// Since when each Service is as it is.
    services: BTreeMap<Ident, Instant>,
    /// Since when each instance is ready.
    ready: BTreeMap<(Ident, String), Instant>,
    /// When somebody last changed Consul, and Traefik's objects, behind the operators' backs.
    pub unrest: Instant,
    /// When and by whom what was deregistered on inference.
    inferred: BTreeMap<String, VecDeque<(Instant, String)>>,
    /// How much was registered.
    registered: VecDeque<(Instant, usize)>,
    pub foreign: Foreign,
    pub wrong: Vec<String>,
    pub tally: Tally,
    trace: DefaultHasher,
}

impl Judge {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            raised: [None; 2],
            now: Arc::new(Cache { resources: BTreeMap::new(), services: BTreeMap::new() }),
            declared: BTreeMap::new(),
            wants: BTreeMap::new(),
            left: BTreeMap::new(),
            services: BTreeMap::new(),
            ready: BTreeMap::new(),
            unrest: Instant::now(),
            inferred: BTreeMap::new(),
            registered: VecDeque::new(),
            foreign: Foreign::default(),
            wrong: Vec::new(),
            tally: Tally::default(),
            trace: DefaultHasher::new(),
        }
    }

    /// Everything that happened, in one number.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    fn wrong(&mut self, place: &Place, what: impl std::fmt::Display) {
        let at = Instant::now().duration_since(place.start);
        self.wrong.push(format!("{at:?} in {}: {what}", self.name));
    }

    /// Something happened.
    pub fn note(&mut self, place: &Place, who: &str, what: &str) {
        (Instant::now().duration_since(place.start), who, what).hash(&mut self.trace);
        if std::env::var_os("FUSEBOX_TRACE").is_some() {
            println!("{:?} {who}: {what}", Instant::now().duration_since(place.start));
        }
    }

    /// Kubernetes is like this now.
    pub fn sees(&mut self, cache: &Arc<Cache>) {
        let now = Instant::now();
        let before = std::mem::replace(&mut self.now, cache.clone());
        let same = |of: &Ident, is: &ResilientService| {
            before.resources.get(of).is_some_and(|was| {
                was.uid() == is.uid()
                    && was.metadata.generation == is.metadata.generation
                    && was.annotations() == is.annotations()
            })
        };
        for (of, is) in &cache.resources {
            let uid = is.uid().unwrap_or_default();
            if !same(of, is) {
                self.declared.insert(uid.clone(), now);
            }
            self.declared.entry(uid).or_insert(now);
        }
        let wants = |of: &Ident, is: &ResilientService| {
            let same = |was: &ResilientService| {
                was.uid() == is.uid() && was.spec.service.name == is.spec.service.name
            };
            is.spec.consul.is_some()
                && is.metadata.deletion_timestamp.is_none()
                && before.resources.get(of).is_some_and(same)
                && !is_contested(is, cache.resources.values(), claims::held)
        };
        for (of, is) in &cache.resources {
            let uid = is.uid().unwrap_or_default();
            if wants(of, is) {
                self.wants.entry(uid).or_insert(now);
            } else {
                self.wants.remove(&uid);
            }
        }
        for (of, was) in &before.resources {
            if cache.resources.get(of).is_none_or(|is| is.uid() != was.uid()) {
                self.declared.insert(was.uid().unwrap_or_default(), now);
                self.left.insert(of.to_string(), now);
            }
        }
        let was = |of: &Ident| before.services.get(of).map(|(service, _)| service);
        for (of, (service, endpoints)) in &cache.services {
            if was(of) != Some(service) {
                self.services.insert(of.clone(), now);
            }
            for endpoint in endpoints.iter().filter(|endpoint| endpoint.ready) {
                self.ready.entry((of.clone(), endpoint.instance.clone())).or_insert(now);
            }
        }
        self.ready.retain(|(of, instance), _| {
            let there = cache.services.get(of).map(|(_, all)| all.as_slice()).unwrap_or_default();
            there.iter().any(|endpoint| endpoint.instance == *instance && endpoint.ready)
        });
    }

    /// An epoch key was written, or not.
    pub fn raised(&mut self, place: &Place, store: usize, by: &str, done: bool, epoch: &Epoch) {
        self.note(place, by, &format!("epoch {store} {done} {}", epoch.epoch));
        if done {
            let by = place.lease.tenure(by);
            self.raised[store] = by.max(self.raised[store]);
        }
    }

    /// A store went back to what it was: who had the epoch then.
    pub fn restored(&mut self, place: &Place, store: usize, epoch: Option<&Epoch>) {
        self.raised[store] = epoch.and_then(|epoch| place.lease.tenure(&epoch.holder));
        self.unrest = Instant::now();
    }

    /// A transaction reached a store.
    pub fn arrived(&mut self, place: &Place, store: usize, by: &str, accepted: bool) {
        let stale = place.lease.tenure(by) < self.raised[store];
        self.tally.stale += u64::from(stale);
        self.tally.accepted += u64::from(accepted);
        if !accepted {
            return;
        }
        let epochs = [&place.catalog.epoch, &place.store.epoch];
        let holder = epochs[store].epoch().map(|epoch| epoch.holder);
        if stale || holder.as_deref() != Some(by) {
            self.wrong(place, format_args!("store {store} took a write of {by}, though {holder:?} leads"));
        }
    }

    /// A transaction was taken by etcd.
    pub fn store(&mut self, place: &Place, by: &str, ops: &[StoreOp]) {
        self.note(place, by, &format!("etcd {ops:?}"));
        self.untouched(place, by);
    }

    /// A route object was written or removed.
    pub fn route(&mut self, place: &Place, by: &str, owner: &Owner, name: &str, written: bool) {
        self.note(place, by, &format!("route {name} {written}"));
        self.untouched(place, by);
        // Routes have no fence: what a deposed leader writes late is put right by the next one's resync.
        if !written || place.lease.tenure(by) < self.raised[0].max(self.raised[1]) {
            return;
        }
        let objects = place.routes.state();
        let live = self.live();
        let rules = |spec: &serde_json::Value| -> BTreeSet<String> {
            let all = spec["routes"].as_array().into_iter().flatten();
            all.filter_map(|rule| rule["match"].as_str().map(str::to_owned)).collect()
        };
        let host = |rule: &String| rule.split(" && ").next().unwrap_or_default().to_owned();
        let Some(mine) = objects.get(&Ident::new(&owner.ident.namespace, name)) else { return };
        let mine = rules(&mine.spec);
        for (at, other) in &objects {
            let Some(uid) = other.owner.as_ref().filter(|uid| **uid != owner.uid && live.contains(*uid))
            else {
                continue;
            };
            let theirs = rules(&other.spec);
            let shared = mine.iter().find(|rule| {
                theirs.contains(*rule)
                    || (at.namespace != owner.ident.namespace
                        && theirs.iter().any(|theirs| host(theirs) == host(rule)))
            });
            if let Some(rule) = shared
                && self.calm()
            {
                self.wrong(
                    place,
                    format_args!("{by} wrote {rule} for {} ({}), which {uid} has", owner.ident, owner.uid),
                );
            }
        }
    }

    fn live(&self) -> BTreeSet<String> {
        self.now.resources.values().filter_map(ResourceExt::uid).collect()
    }

    fn calm(&self) -> bool {
        Instant::now().duration_since(self.unrest) > UNREST
    }

    fn untouched(&mut self, place: &Place, by: &str) {
        if let Some(what) = self.foreign.touched(place) {
            self.wrong(place, format_args!("{by} touched what is not ours: {what}"));
        }
    }

    /// A transaction was taken by Consul.
    pub fn catalog(&mut self, place: &Place, by: &str, node: &str, ops: &[CatalogOp], before: &Nodes) {
        self.note(place, by, &format!("consul {node} {ops:?}"));
        self.untouched(place, by);
        let after = place.catalog.state();
        let ours = |nodes: &Nodes| -> usize {
            nodes.values().flat_map(|node| node.entries.values()).filter(|e| e.is_in(&self.name)).count()
        };
        let now = Instant::now();
        self.registered.push_back((now, ours(before)));
        while self.registered.front().is_some_and(|(at, _)| now.duration_since(*at) > 2 * OLD) {
            self.registered.pop_front();
        }
        for op in ops {
            match op {
                CatalogOp::Register(new) => self.is_alone(place, by, new, &after),
                CatalogOp::Deregister { id, .. } | CatalogOp::SetCheck { id, passing: false, .. } => {
                    let was = before.get(node).and_then(|node| node.entries.get(id));
                    if let Some(was) = was.filter(|was| was.passing != Some(false)) {
                        self.tally.looked_at += 1;
                        self.leaves(place, by, was, &after);
                        if matches!(op, CatalogOp::Deregister { .. }) {
                            self.infers(place, by, was, &after);
                        }
                    }
                }
                CatalogOp::SetCheck { .. } | CatalogOp::EnsureNode | CatalogOp::ReapNode => {}
            }
        }
    }

    /// Nobody else that exists has this name.
    fn is_alone(&mut self, place: &Place, by: &str, new: &Entry, after: &Nodes) {
        let (mine, live) = (new.owner(&self.name).unwrap_or_default(), self.live());
        let all = after.values().flat_map(|node| node.entries.values());
        let other = all.filter(|entry| entry.name == new.name).find_map(|entry| {
            entry.owner(&self.name).filter(|owner| *owner != mine && live.contains(*owner))
        });
        if let Some(other) = other.map(str::to_owned)
            && live.contains(mine)
            && self.calm()
        {
            self.wrong(place, format_args!("{by} registered {} of {mine}, a name that {other} has", new.id));
        }
    }

    /// The resource that an entry belongs to and the Service it came from, if it is declared.
    fn declared(&self, entry: &Entry) -> Option<(&ResilientService, Ident, &ServiceView)> {
        let uid = entry.owner(&self.name)?;
        let resource = self.now.resources.values().find(|r| r.uid().as_deref() == Some(uid))?;
        let (service, port) = (entry.meta.get(mark::SERVICE)?, entry.meta.get(mark::PORT)?);
        let of = Ident::new(resource.namespace().unwrap_or_default(), service);
        let view = &self.now.services.get(&of)?.0;
        let asked = resource.metadata.deletion_timestamp.is_none()
            && resource.spec.service.name == *service
            && claims::consul_name(resource) == Some(&entry.name)
            && view.port(resource.spec.service.port.as_ref()).is_ok_and(|p| p.name == *port);
        asked.then_some((resource, of, view))
    }

    /// A live ready instance stays registered, under one name or another.
    fn leaves(&mut self, place: &Place, by: &str, was: &Entry, after: &Nodes) {
        let Some(uid) = was.owner(&self.name) else { return };
        let resource = self.now.resources.values().find(|resource| resource.uid().as_deref() == Some(uid));
        let Some(resource) = resource else { return };
        let of = Ident::new(resource.namespace().unwrap_or_default(), &resource.spec.service.name);
        let steady = long(self.wants.get(uid))
            && was.meta.get(mark::SERVICE) == Some(&of.name)
            && long(self.services.get(&of))
            && long(self.ready.get(&(of, was.instance().to_owned())))
            && self.calm();
        let there = after.values().flat_map(|node| node.entries.values());
        let is_there = |entry: &Entry| {
            entry.owner(&self.name) == was.owner(&self.name)
                && entry.instance() == was.instance()
                && entry.passing == Some(true)
        };
        if steady && !there.into_iter().any(is_there) {
            self.wrong(place, format_args!("{by} took {} from discovery, which is live and ready", was.id));
        }
    }

    /// What goes on inference stays within the budget.
    fn infers(&mut self, place: &Place, by: &str, was: &Entry, after: &Nodes) {
        let now = Instant::now();
        let Some(uid) = was.owner(&self.name).map(str::to_owned) else { return };
        let known = self.declared.get(&uid);
        let exists = self.live().contains(&uid);
        let named = was.meta.get(mark::RESOURCE).cloned().unwrap_or_default();
        let counts = if exists {
            self.declared(was).is_some_and(|(resource, of, _)| {
                long(known)
                    && long(self.services.get(&of))
                    && !resource.annotations().contains_key(PROCEED_ANNOTATION)
                    && long(self.wants.get(&uid))
            }) && !after
                .values()
                .flat_map(|node| node.entries.values())
                .any(|entry| entry.owner(&self.name) == Some(&uid) && entry.instance() == was.instance())
        } else {
            // An orphan; what one of the same name finds of the one before is no inference.
            known.is_none_or(|gone| now.duration_since(*gone) > OLD)
                && self.left.get(&named).is_none_or(|left| now.duration_since(*left) > OLD)
                && !self.now.resources.keys().any(|of| of.to_string() == named)
        };
        if !counts {
            return;
        }
        self.tally.inferred += 1;
        let gone = self.inferred.entry(by.to_owned()).or_default();
        if gone.iter().all(|(_, id)| *id != was.id) {
            gone.push_back((now, was.id.clone()));
        }
        while gone.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            gone.pop_front();
        }
        let most = self.registered.iter().map(|(_, n)| *n).max().unwrap_or_default();
        let limit = 10.max(most * 3 / 10);
        if gone.len() > limit && !by.ends_with("free") {
            let many = gone.len();
            self.wrong(place, format_args!("{by} deregistered {many} on inference, of {most} registered"));
        }
    }
}
