//! Deletions that nobody commanded, within their budget: see [`crate::budget`].

use std::collections::BTreeSet;

use fusebox_policy::v1alpha1::{PROCEED_ANNOTATION, ResilientService};
use kube::ResourceExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Context;
use super::conditions::{Obstacle, reasons};
use super::desired::{Desired, vanished};
use super::observe::Snapshot;
use crate::budget::{Budget, LEAST, PERCENT, WINDOW};
use crate::metrics::Backend;
use crate::model::Entry;

/// The budgets of this process.
#[derive(Debug, Default)]
pub struct Deletions {
    /// Of entries in Consul, by node.
    pub catalog: Mutex<Budget>,
    /// Of what etcd holds of resources.
    pub store: Mutex<Budget>,
}

/// May all of its instances that vanish be deregistered, however many they are?
pub fn may_proceed(resource: &ResilientService) -> bool {
    resource.annotations().get(PROCEED_ANNOTATION).is_some_and(|value| value == "true")
}

/// Keeps what vanished, if that is more than may be deleted on inference.
pub async fn hold(context: &Context, seen: &Snapshot, desired: &mut Desired) {
    let Ok(node) = &seen.catalog else { return };
    let cluster = &context.settings.cluster;
    let vanished = vanished(cluster, seen, desired);
    let mut budget = context.deletions.catalog.lock().await;
    let here = node.entries.values().filter(|entry| entry.is_in(cluster)).count();
    budget.count(&seen.node, here + node.others);
    let may_go = if may_proceed(&seen.resource) {
        budget.withdraw(&seen.uid);
        true
    } else {
        let what: BTreeSet<_> = vanished.iter().map(|e| (seen.node.clone(), e.id.clone())).collect();
        budget.ask(&seen.uid, what, Instant::now())
    };
    context.metrics.held(Backend::Consul, budget.held());
    if !may_go {
        let held: Vec<Entry> = vanished.into_iter().cloned().collect();
        let why = Obstacle::lasting(reasons::DELETIONS_HELD, message(seen, held.len()));
        desired.hold(held, &why);
    }
}

/// Waits something of it for the budget?
pub fn is_held(desired: &Desired) -> bool {
    desired.catalog.blocked.as_ref().is_some_and(|why| why.reason == reasons::DELETIONS_HELD)
}

/// Without the numbers of the whole cluster, which change while nothing of this resource does.
fn message(seen: &Snapshot, held: usize) -> String {
    let (they, are) = if held == 1 { ("1 instance", "is") } else { (&*format!("{held} instances"), "are") };
    format!(
        "{they} vanished from the EndpointSlices while ready, and {are} kept in Consul as before: in the whole \
         cluster more vanished within {} s than the larger of {LEAST} and {PERCENT} % of what is registered, so the \
         view of Kubernetes may be wrong. This ends by itself when they are back, or when fewer are missing. If \
         they are gone for good: kubectl annotate rsvc -n {} {} {PROCEED_ANNOTATION}=true",
        WINDOW.as_secs(),
        seen.ident.namespace,
        seen.ident.name
    )
}
