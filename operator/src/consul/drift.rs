//! Who changed what is on our nodes: two blocking queries for each that exists, its services and its checks.
//!
//! # Guarantees
//! - An index that goes backwards (a restored or replaced server) is begun anew: the answer to it is the whole, and is
//!   compared with what was there before.
//! - However fast Consul answers, a query follows the one before after half a second at the earliest, and the later the
//!   more there is on the node; after errors later and later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use futures::{Stream, StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::api::{Check, NodeServices};
use super::{Consul, http};
use crate::drift::{Drifted, Tell};
use crate::intents::Intents;
use crate::model::{Entry, mark};
use crate::reconcile::backoff;

/// The least time between the beginnings of two queries of one kind for one node; up to half as much is added.
const SPACING: Duration = Duration::from_millis(500);

/// What is added to it for each entry there: an answer has them all. Ten thousand on nodes that all change would be
/// read, sent and compared sixteen thousand times a second for each of the two questions.
const PER_ENTRY: Duration = Duration::from_millis(5);

/// The least time between two queries for a node with so many entries.
fn spacing(entries: usize) -> Duration {
    SPACING + PER_ENTRY.saturating_mul(u32::try_from(entries).unwrap_or(u32::MAX))
}

/// The index to ask for next; 0: do not wait, tell all.
fn next_index(before: u64, answered: u64) -> u64 {
    // An index of 0 would turn the wait into a loop: Consul says never to ask for one again.
    if answered < before { 0 } else { answered.max(1) }
}

/// What an entry is meant to be, without its check.
pub(super) fn meant(intents: &Intents, entry: &Entry) {
    intents.meant(service_key(&entry.id), Some(&content(entry)));
    meant_check(intents, &entry.id, entry.passing.unwrap_or_default());
}

/// What its check is meant to be.
pub(super) fn meant_check(intents: &Intents, id: &str, passing: bool) {
    intents.meant(check_key(id), Some(&[passing.into()]));
}

/// It is meant to be gone.
pub(super) fn meant_gone(intents: &Intents, id: &str) {
    intents.meant(service_key(id), None);
    intents.meant(check_key(id), None);
}

/// Nobody knows what became of a write of it.
pub(super) fn doubt(intents: &Intents, id: &str) {
    intents.doubt(&service_key(id));
    intents.doubt(&check_key(id));
}

fn service_key(id: &str) -> String {
    format!("service/{id}")
}

fn check_key(id: &str) -> String {
    format!("check/{id}")
}

fn content(entry: &Entry) -> Vec<u8> {
    let Entry { name, address, port, tags, meta, .. } = entry;
    format!("{:?}", (name, address, port, tags, meta)).into_bytes()
}

/// What was on a node.
#[derive(Debug, Default)]
struct Known {
    services: Option<BTreeMap<String, Entry>>,
    checks: Option<BTreeMap<String, bool>>,
}

impl Known {
    /// Whose entries are not as they were, nor as we meant them.
    fn services(
        &mut self,
        cluster: &str,
        intents: &Intents,
        now: BTreeMap<String, Entry>,
    ) -> BTreeSet<Ident> {
        let before = self.services.replace(now);
        let (Some(before), Some(now)) = (before, &self.services) else { return BTreeSet::new() };
        let ids: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let changed = ids.into_iter().filter(|id| match (before.get(*id), now.get(*id)) {
            (Some(was), Some(is)) if was == is => {
                intents.stays(&service_key(id), || content(is));
                false
            }
            (_, is) => !intents.fits(&service_key(id), is.map(content).as_deref()),
        });
        // As it was and as it is: somebody may have taken the mark off.
        let forms = changed.flat_map(|id| before.get(id).into_iter().chain(now.get(id)));
        forms.filter_map(|entry| owner(cluster, entry)).collect()
    }

    /// Whose checks are not as they were, nor as we meant them.
    fn checks(&mut self, cluster: &str, intents: &Intents, now: BTreeMap<String, bool>) -> BTreeSet<Ident> {
        let before = self.checks.replace(now);
        let (Some(before), Some(now)) = (before, &self.checks) else { return BTreeSet::new() };
        let ids: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let state = |passing: bool| vec![u8::from(passing)];
        let changed = ids.into_iter().filter(|id| match (before.get(*id), now.get(*id)) {
            (Some(was), Some(is)) if was == is => {
                intents.stays(&check_key(id), || state(*is));
                false
            }
            (_, is) => !intents.fits(&check_key(id), is.copied().map(state).as_deref()),
        });
        let entries = changed.filter_map(|id| self.services.as_ref()?.get(id));
        entries.filter_map(|entry| owner(cluster, entry)).collect()
    }
}

/// The resource that registered it, if it is one of this cluster.
fn owner(cluster: &str, entry: &Entry) -> Option<Ident> {
    entry.owner(cluster)?;
    entry.meta.get(mark::RESOURCE)?.parse().ok()
}

/// An answer to one of the two questions.
enum Seen {
    Services(Option<NodeServices>),
    Checks(Option<Vec<Check>>),
}

impl Consul {
    /// Follows every node that exists, as far as the passes have seen, for ever.
    pub async fn follow_drift(self: Arc<Self>, tell: Tell) {
        let mut there = self.there.subscribe();
        let (mut tasks, mut following) = (JoinSet::new(), HashMap::new());
        loop {
            let nodes = there.borrow_and_update().clone();
            following.retain(|node, task: &mut tokio::task::AbortHandle| {
                let stays = nodes.contains(node);
                if !stays {
                    task.abort();
                }
                stays
            });
            for node in nodes {
                following.entry(node).or_insert_with_key(|node| {
                    tasks.spawn(self.clone().follow_node(node.clone(), tell.clone()))
                });
            }
            while tasks.try_join_next().is_some() {}
            if there.changed().await.is_err() {
                return;
            }
        }
    }

    async fn follow_node(self: Arc<Self>, node: String, tell: Tell) {
        let services = self.answers("catalog/node-services", &node).map(Seen::Services);
        let checks = self.answers("health/node", &node).map(Seen::Checks);
        let mut answers = std::pin::pin!(stream::select(services, checks));
        let mut known = Known::default();
        while let Some(seen) = answers.next().await {
            let changed = match seen {
                Seen::Services(found) => {
                    let now = self.view(found, &BTreeMap::new());
                    self.counted(&node, &now);
                    let entries = if now.foreign { BTreeMap::new() } else { now.entries };
                    known.services(&self.cluster, &self.intents, entries)
                }
                Seen::Checks(found) => {
                    known.checks(&self.cluster, &self.intents, super::states(found.unwrap_or_default()))
                }
            };
            for of in changed {
                let _ = tell.send(Drifted::Of(of));
            }
        }
    }

    /// What Consul says to this question about a node, again whenever that may have changed.
    fn answers<T: DeserializeOwned>(&self, of: &str, node: &str) -> impl Stream<Item = Option<T>> {
        let path = format!("/v1/{of}/{}", http::encode(node));
        stream::unfold(
            (path, 0, 0, Instant::now()),
            async move |(path, mut index, mut failures, mut earliest)| {
                loop {
                    sleep_until(earliest).await;
                    let began = Instant::now();
                    let answer = self.http.wait_for(&path, index).await;
                    let entries = self.counts.borrow().get(node).copied().unwrap_or_default();
                    earliest = began + spacing(entries).mul_f64(1.0 + fastrand::f64() / 2.0);
                    match answer {
                        Ok((answered, found)) => {
                            failures = 0;
                            let before = index;
                            index = next_index(before, answered);
                            // Else the wait ended without a change.
                            if answered != before {
                                return Some((found, (path, index, failures, earliest)));
                            }
                        }
                        Err(error) => {
                            failures += 1;
                            tracing::debug!(path, %error, "a watch of Consul is interrupted");
                            sleep(backoff::jittered(backoff::base(failures), fastrand::f64())).await;
                        }
                    }
                }
            },
        )
    }
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod followed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_goes_forwards_or_begins_anew() {
        for (before, answered, next) in
            [(0, 7, 7), (7, 7, 7), (7, 9, 9), (9, 8, 0), (9, 0, 0), (0, 0, 1), (1, 0, 0)]
        {
            assert_eq!(next_index(before, answered), next, "{before} {answered}");
        }
    }

    #[test]
    fn the_more_there_is_the_rarer_it_is_read() {
        for (entries, least) in [(0, 500), (100, 1000), (625, 3625)] {
            assert_eq!(spacing(entries), Duration::from_millis(least), "{entries}");
        }
    }

    fn entry(id: &str, cluster: &str, resource: &str, port: u16) -> Entry {
        let meta = [(mark::CLUSTER, cluster), (mark::OWNER, "uid"), (mark::RESOURCE, resource)];
        Entry {
            id: id.into(),
            name: "user".into(),
            address: "10.0.0.1".into(),
            port,
            tags: Vec::new(),
            meta: meta.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            passing: None,
        }
    }

    fn all(entries: &[Entry]) -> BTreeMap<String, Entry> {
        entries.iter().map(|entry| (entry.id.clone(), entry.clone())).collect()
    }

    #[test]
    fn a_change_that_we_did_not_mean_is_its_owners() {
        let (mut known, intents) = (Known::default(), Intents::default());
        let a = entry("a", "demo", "shop/a", 1);
        let b = entry("b", "demo", "shop/b", 1);
        let theirs = entry("c", "other", "shop/c", 1);
        let mut told = |now: &[Entry]| -> Vec<String> {
            known.services("demo", &intents, all(now)).iter().map(ToString::to_string).collect()
        };
        assert!(told(&[a.clone(), b.clone(), theirs.clone()]).is_empty(), "what was there before");
        assert!(told(&[a.clone(), b.clone()]).is_empty(), "not ours");
        assert_eq!(told(std::slice::from_ref(&a)), ["shop/b"], "deleted");
        let mut unmarked = a.clone();
        unmarked.meta.clear();
        assert_eq!(told(std::slice::from_ref(&unmarked)), ["shop/a"], "its mark was taken off");
        meant(&intents, &a);
        assert!(told(std::slice::from_ref(&a)).is_empty(), "healed by us");
        assert_eq!(told(&[entry("a", "demo", "shop/a", 2)]), ["shop/a"], "edited");
        meant_gone(&intents, "a");
        assert!(told(&[]).is_empty(), "removed by us");
        assert_eq!(told(std::slice::from_ref(&a)), ["shop/a"], "it came back");
    }

    #[test]
    fn what_came_and_went_between_two_looks_hides_nothing_later() {
        let (mut known, intents) = (Known::default(), Intents::default());
        let a = entry("a", "demo", "shop/a", 1);
        let services = |known: &mut Known, now: &[Entry]| known.services("demo", &intents, all(now)).len();
        let checks = |known: &mut Known, passing| {
            known.checks("demo", &intents, [("a".to_owned(), passing)].into()).len()
        };
        meant(&intents, &Entry { passing: Some(true), ..a.clone() });
        assert_eq!((services(&mut known, std::slice::from_ref(&a)), checks(&mut known, true)), (0, 0));
        meant_gone(&intents, "a");
        meant(&intents, &Entry { passing: Some(true), ..a.clone() });
        assert_eq!((services(&mut known, std::slice::from_ref(&a)), checks(&mut known, true)), (0, 0));
        assert_eq!((services(&mut known, &[]), services(&mut known, &[a])), (1, 0), "somebody deleted it");
        meant_check(&intents, "a", false);
        meant_check(&intents, "a", true);
        assert_eq!((checks(&mut known, true), checks(&mut known, false)), (0, 1), "turned critical");
    }

    #[test]
    fn a_check_is_its_entrys() {
        let (mut known, intents) = (Known::default(), Intents::default());
        known.services("demo", &intents, all(&[entry("a", "demo", "shop/a", 1)]));
        let mut told = |now: &[(&str, bool)]| {
            let now = now.iter().map(|(id, passing)| ((*id).to_owned(), *passing)).collect();
            known.checks("demo", &intents, now).len()
        };
        assert_eq!(told(&[("a", true), ("x", true)]), 0);
        assert_eq!(told(&[("a", true), ("x", false)]), 0, "not ours");
        assert_eq!(told(&[("a", false)]), 1, "turned critical");
        meant_check(&intents, "a", true);
        assert_eq!(told(&[("a", true)]), 0, "healed by us");
        assert_eq!(told(&[]), 1, "deleted");
    }
}
