//! What is remembered of each resource between reconciliations: failures in a row, and the status last
//! written, which the cache may not show yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceStatus};
use kube::ResourceExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::backoff;

/// The least time between two writes of one status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// For how long our own write is believed rather than the cache.
const CACHE_LAG: Duration = Duration::from_secs(5);

/// By UID.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    failures: u32,
    written: Option<(Instant, ResilientServiceStatus)>,
    change: Option<PolicyChange>,
    /// Since when a status has been put off.
    put_off: Option<Instant>,
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
        newest(&*self.0.lock().await, resource.clone())
    }

    /// Each with the newest status that is known.
    pub async fn newest_of(&self, resources: Vec<Arc<ResilientService>>) -> Vec<Arc<ResilientService>> {
        let all = self.0.lock().await;
        resources.into_iter().map(|resource| newest(&all, resource)).collect()
    }

    /// How long the status must not be written yet.
    pub async fn status_wait(&self, resource: &ResilientService) -> Option<Duration> {
        let all = self.0.lock().await;
        let (at, _) = all.get(&resource.uid()?)?.written.as_ref()?;
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
        self.0.lock().await.remove(&resource.uid().unwrap_or_default());
    }

    async fn change<T>(&self, resource: &ResilientService, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut all = self.0.lock().await;
        change(all.entry(resource.uid().unwrap_or_default()).or_default())
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
