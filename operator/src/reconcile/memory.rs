//! What is remembered of each resource between reconciliations: failures in a row, the status last written,
//! which the cache may not show yet, and what it holds, which no status may say yet.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceStatus};
use kube::ResourceExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{RESYNC, SETTLES, backoff};
use crate::claims::{self, Claim};
use crate::model;

/// The least time between two writes of one status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// For how long our own write is believed rather than the cache.
pub const CACHE_LAG: Duration = Duration::from_secs(5);

/// By UID; and of each name the resource that was seen to exist last.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Known>, Mutex<HashMap<Ident, Current>>);

#[derive(Debug, Default)]
struct Known {
    /// By UID.
    of: HashMap<String, Remembered>,
    /// The UIDs of those that hold a claim, by the claim.
    holders: HashMap<String, BTreeSet<String>>,
}

impl Known {
    /// It holds this and nothing else.
    fn hold(&mut self, uid: &str, now: Held) {
        let claims = now.claims.iter().cloned().collect();
        let before = self.of.entry(uid.to_owned()).or_default().held.replace(now);
        self.index(uid, before, claims);
    }

    /// It holds what its status says.
    fn doubt(&mut self, uid: &str) {
        let before = self.of.get_mut(uid).and_then(|known| known.held.take());
        self.index(uid, before, BTreeSet::new());
    }

    /// It is gone.
    fn forget(&mut self, uid: &str) {
        let before = self.of.remove(uid).and_then(|known| known.held);
        self.index(uid, before, BTreeSet::new());
    }

    fn index(&mut self, uid: &str, before: Option<Held>, claims: BTreeSet<String>) {
        for gone in before.into_iter().flat_map(|held| held.claims).filter(|claim| !claims.contains(claim)) {
            if let Some(all) = self.holders.get_mut(&gone) {
                all.remove(uid);
                if all.is_empty() {
                    self.holders.remove(&gone);
                }
            }
        }
        for claim in claims {
            self.holders.entry(claim).or_default().insert(uid.to_owned());
        }
    }
}

/// A resource by its UID, and its newest generation.
#[derive(Debug)]
struct Current {
    uid: Option<String>,
    generation: Option<i64>,
}

#[derive(Debug, Default)]
struct Remembered {
    failures: u32,
    written: Option<(Instant, ResilientServiceStatus)>,
    change: Option<PolicyChange>,
    /// Since when a status has been put off.
    put_off: Option<Instant>,
    /// Since when it is not settled who has what it waits for.
    unsettled: Option<Instant>,
    /// The generation that was told to be one that cannot be decoded, and whether deletions of it were told to be held.
    unreadable: Option<(i64, bool)>,
    /// What it holds; None: as its status says.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    namespace: String,
    claims: Vec<String>,
}

/// A policy on its way to the instances.
#[derive(Debug)]
struct PolicyChange {
    hash: String,
    since: Instant,
    enforced: bool,
}

impl Memory {
    /// The resource with the newest status that is known.
    pub async fn newest(&self, resource: &Arc<ResilientService>) -> Arc<ResilientService> {
        newest(&self.0.lock().await.of, resource.clone())
    }

    /// The resource with the newest status that is known, and in it what it holds.
    pub async fn holding(&self, resource: Arc<ResilientService>) -> Arc<ResilientService> {
        holding(&self.0.lock().await.of, resource)
    }

    /// Each with the newest status that is known, and in it what it holds.
    pub async fn all_holding(&self, resources: Vec<Arc<ResilientService>>) -> Vec<Arc<ResilientService>> {
        let all = self.0.lock().await;
        resources.into_iter().map(|resource| holding(&all.of, resource)).collect()
    }

    /// The UIDs of those that hold one of these, as far as no status may say so yet.
    pub async fn holders(&self, claims: &[Claim]) -> BTreeSet<String> {
        let all = self.0.lock().await;
        claims.iter().filter_map(|claim| all.holders.get(&claim.to_string())).flatten().cloned().collect()
    }

    /// Takes what an accepted resource asks for, before any of it is applied; its status says so only after.
    /// False, and nothing is taken: another one of `live` took some of it since it was judged.
    pub async fn take(&self, resource: &ResilientService, live: impl FnOnce() -> BTreeSet<String>) -> bool {
        let (uid, namespace) = (resource.uid().unwrap_or_default(), resource.namespace().unwrap_or_default());
        let mut claims = resource.status.as_ref().map(|status| status.claims.clone()).unwrap_or_default();
        let mut new = claims::asked(resource);
        new.retain(|claim| !claims.contains(&claim.to_string()));
        let new: Vec<(String, Claim)> = new.into_iter().map(|claim| (claim.to_string(), claim)).collect();
        if new.is_empty() {
            return true;
        }
        let mut all = self.0.lock().await;
        let keeps = |other: &String, claim: &Claim| {
            let held = all.of.get(other).and_then(|known| known.held.as_ref());
            *other != uid && held.is_some_and(|held| claim.is_exclusive(held.namespace == namespace))
        };
        let holders = new.iter().filter_map(|(text, claim)| Some((all.holders.get(text)?, claim)));
        let rivals: BTreeSet<&String> = holders
            .flat_map(|(holders, claim)| holders.iter().filter(move |other| keeps(other, claim)))
            .collect();
        if !rivals.is_empty() {
            let live = live();
            if rivals.into_iter().any(|rival| live.contains(rival)) {
                return false;
            }
        }
        claims.extend(new.into_iter().map(|(text, _)| text));
        all.hold(&uid, Held { namespace, claims });
        true
    }

    /// What it holds is what its status says.
    pub async fn holds(&self, resource: &ResilientService, status: &ResilientServiceStatus) {
        let namespace = resource.namespace().unwrap_or_default();
        let held = Held { namespace, claims: status.claims.clone() };
        self.0.lock().await.hold(&resource.uid().unwrap_or_default(), held);
    }

    /// The same, where something else is remembered. The status that was written is remembered no longer than it is
    /// believed.
    pub async fn still_holds(&self, resource: &ResilientService, status: &ResilientServiceStatus) {
        let (uid, now) = (resource.uid().unwrap_or_default(), Instant::now());
        let holds = self.0.lock().await.of.get_mut(&uid).is_some_and(|known| {
            known.written.take_if(|(at, _)| now.duration_since(*at) >= CACHE_LAG);
            known.held.is_some()
        });
        if holds {
            self.holds(resource, status).await;
        }
    }

    /// What was concluded of an old view is worth nothing: it holds what its status says.
    pub async fn doubt(&self, resource: &ResilientService) {
        self.0.lock().await.doubt(&resource.uid().unwrap_or_default());
    }

    /// This one was seen to exist as it is: no other of its name does.
    pub async fn exists(&self, resource: &ResilientService) {
        let current = Current { uid: resource.uid(), generation: resource.metadata.generation };
        self.1.lock().await.insert(model::ident(resource), current);
    }

    /// Is it the last of its name that was seen to exist, and no older than it was then?
    pub async fn is_current(&self, resource: &ResilientService) -> bool {
        let mut all = self.1.lock().await;
        let known = all.get_mut(&model::ident(resource)).filter(|known| known.uid == resource.uid());
        known.is_some_and(|known| {
            let newest = resource.metadata.generation.max(known.generation);
            known.generation = newest;
            newest == resource.metadata.generation
        })
    }

    /// How long the status must not be written yet.
    pub async fn status_wait(&self, resource: &ResilientService) -> Option<Duration> {
        let all = self.0.lock().await;
        let (at, _) = all.of.get(&resource.uid()?)?.written.as_ref()?;
        STATUS_INTERVAL.checked_sub(Instant::now().duration_since(*at)).filter(|wait| !wait.is_zero())
    }

    /// The status was written.
    pub async fn wrote(&self, resource: &ResilientService, status: &ResilientServiceStatus) {
        self.change(resource, |known| {
            known.written = Some((Instant::now(), status.clone()));
            known.put_off = None;
        })
        .await;
    }

    /// A status is put off, in the hope that a better one follows at once: for how long that has gone on, one
    /// edit after another.
    pub async fn put_off(&self, resource: &ResilientService) -> Duration {
        let now = Instant::now();
        self.change(resource, |known| now.duration_since(*known.put_off.get_or_insert(now))).await
    }

    /// A pass that began at `start` saw which policy is wanted and whether every instance runs it. Some, if it has
    /// just arrived everywhere for the first time: how long it was on its way.
    pub async fn policy(
        &self,
        resource: &ResilientService,
        hash: &str,
        start: Instant,
        enforced: bool,
    ) -> Option<Duration> {
        let before = resource.status.as_ref().and_then(|status| status.policy_hash.as_deref());
        // A process that starts does not know since when.
        let known = before == Some(hash);
        self.change(resource, |remembered| {
            let change = match &mut remembered.change {
                Some(change) if change.hash == hash => change,
                change => {
                    change.insert(PolicyChange { hash: hash.to_owned(), since: start, enforced: known })
                }
            };
            let arrived = enforced && !change.enforced;
            change.enforced |= enforced;
            arrived.then(|| Instant::now().duration_since(change.since))
        })
        .await
    }

    /// Is it settled who has what it waits for? When to look again, if not: the later the longer that is so.
    pub async fn unsettled(&self, resource: &ResilientService, unsettled: bool) -> Option<Duration> {
        let now = Instant::now();
        self.change(resource, |known| {
            known.unsettled = unsettled.then(|| known.unsettled.unwrap_or(now));
            let so_far = now.duration_since(known.unsettled?);
            Some((so_far / 2).clamp(SETTLES, RESYNC))
        })
        .await
    }

    /// It cannot be decoded as it is now, and deletions of it are held or not. What of both is news?
    pub async fn unreadable(&self, resource: &ResilientService, is_held: bool) -> (bool, bool) {
        let now = (resource.metadata.generation.unwrap_or_default(), is_held);
        let before = self.change(resource, |known| known.unreadable.replace(now)).await;
        (before.map(|before| before.0) != Some(now.0), is_held && before != Some(now))
    }

    /// A pass failed: how long to wait.
    pub async fn failed(&self, resource: &ResilientService) -> Duration {
        let failures = self
            .change(resource, |known| {
                known.failures = known.failures.saturating_add(1);
                known.failures
            })
            .await;
        backoff::jittered(backoff::base(failures), fastrand::f64())
    }

    /// A pass succeeded.
    pub async fn succeeded(&self, resource: &ResilientService) {
        self.change(resource, |known| known.failures = 0).await;
    }

    /// The resource is gone.
    pub async fn forget(&self, resource: &ResilientService) {
        self.0.lock().await.forget(&resource.uid().unwrap_or_default());
        let (mut all, ident) = (self.1.lock().await, model::ident(resource));
        if all.get(&ident).is_some_and(|current| current.uid == resource.uid()) {
            all.remove(&ident);
        }
    }

    async fn change<T>(&self, resource: &ResilientService, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut all = self.0.lock().await;
        change(all.of.entry(resource.uid().unwrap_or_default()).or_default())
    }
}

fn newest(all: &HashMap<String, Remembered>, resource: Arc<ResilientService>) -> Arc<ResilientService> {
    let written = resource.uid().and_then(|uid| all.get(&uid)?.written.as_ref());
    match written {
        Some((at, status)) if Instant::now().duration_since(*at) < CACHE_LAG => {
            let mut newest = ResilientService::clone(&resource);
            newest.status = Some(status.clone());
            Arc::new(newest)
        }
        _ => resource,
    }
}

fn holding(all: &HashMap<String, Remembered>, resource: Arc<ResilientService>) -> Arc<ResilientService> {
    let resource = newest(all, resource);
    let held = resource.uid().and_then(|uid| all.get(&uid)?.held.as_ref());
    let told = resource.status.as_ref().map(|status| &status.claims);
    match held {
        Some(held) if told != Some(&held.claims) => {
            let mut holding = ResilientService::clone(&resource);
            holding.status.get_or_insert_default().claims.clone_from(&held.claims);
            Arc::new(holding)
        }
        _ => resource,
    }
}
