//! What would be deregistered on inference alone. Pure.

use std::collections::BTreeSet;

use super::{Desired, withheld};
use crate::claims;
use crate::model::{Entry, mark};
use crate::reconcile::conditions::Obstacle;
use crate::reconcile::observe::Snapshot;

/// The entries that are to go for no other reason than that their instance is in no slice any more, while callers
/// still are sent to it. Not among them, since somebody said so: what the spec does not ask for any more, under a
/// name, Service or port of an earlier generation, and what another resource has by right. Nor, since nobody loses
/// anything: an instance that is registered otherwise, and one whose check is critical, as it is of every instance
/// that Kubernetes shut down in order.
pub fn vanished<'a>(cluster: &str, seen: &'a Snapshot, desired: &Desired) -> Vec<&'a Entry> {
    let (Ok(node), Some(goal)) = (&seen.catalog, &desired.catalog.goal) else { return Vec::new() };
    // What is not asked for and yet stays was registered by an earlier generation.
    let is_wanted = desired.catalog.requested || desired.catalog.blocked.is_some();
    if !is_wanted || node.foreign {
        return Vec::new();
    }
    let stays: BTreeSet<&str> = goal.iter().map(Entry::instance).collect();
    let lost = seen.rivals.lost.iter().map(|lost| &lost.claim).chain(&seen.rivals.taken);
    let lost = |entry: &Entry| lost.clone().any(|claim| withheld::is_entry_of(entry, claim));
    let asked = |entry: &Entry| match desired.catalog.blocked {
        Some(_) => !lost(entry),
        None => is_asked_for(seen, entry),
    };
    let own = node.entries.values().filter(|entry| entry.is_of(cluster, &seen.uid));
    own.filter(|entry| entry.passing != Some(false) && !stays.contains(entry.instance()) && asked(entry))
        .collect()
}

/// Would the spec register it, if its instance were there?
fn is_asked_for(seen: &Snapshot, entry: &Entry) -> bool {
    let wanted = &seen.resource.spec.service;
    let port = seen.service.as_ref().and_then(|service| service.port(wanted.port.as_ref()).ok());
    claims::consul_name(&seen.resource) == Some(&entry.name)
        && entry.meta.get(mark::SERVICE) == Some(&wanted.name)
        && entry.meta.get(mark::PORT) == port.map(|port| &port.name)
}

impl Desired {
    /// These stay as they are, for this reason.
    pub fn hold(&mut self, entries: impl IntoIterator<Item = Entry>, why: &Obstacle) {
        self.catalog.goal.get_or_insert_default().extend(entries);
        let also = self.catalog.blocked.take().map(|before| format!("; {}", before.message));
        let message = format!("{}{}", why.message, also.unwrap_or_default());
        self.catalog.blocked = Some(Obstacle { message, ..*why });
    }
}
