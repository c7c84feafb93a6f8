//! What has to change in etcd.

use std::collections::BTreeSet;

use fusebox_policy::keys::Keys;
use fusebox_policy::wire::Claim;

use crate::ports::{StoreOp, StoreView};
use crate::reconcile::conditions::{Obstacle, reasons};
use crate::reconcile::desired::{Desired, Published};
use crate::reconcile::observe::Snapshot;

/// The most operations in an etcd transaction; etcd itself allows 128.
const MAX_STORE_OPS: usize = 118;

/// The transactions that make etcd as desired: one, unless it would be too large. What is released goes
/// last, and after all of it the list that names it, so that a crash in between forgets no key.
pub fn changes(
    cluster: &str,
    seen: &Snapshot,
    desired: &Desired,
    found: &mut Vec<Obstacle>,
) -> Vec<Vec<StoreOp>> {
    let there = match &seen.store {
        Ok(there) => there,
        Err(error) => {
            found.push(Obstacle::transient(reasons::ETCD_UNAVAILABLE, error.to_string()));
            return Vec::new();
        }
    };
    let Some(goal) = &desired.store.goal else { return Vec::new() };
    let keys = Keys::new(cluster);
    let mut write = Vec::new();
    for (key, there, wanted) in [
        (keys.policy(&seen.ident), &there.policy, &goal.policy),
        (keys.config(&seen.ident), &there.config, &goal.config),
        (keys.fleet(&seen.ident), &there.fleet, &goal.fleet),
    ] {
        match wanted {
            Some(wanted) if there.as_ref() != Some(wanted) => write.push(StoreOp::Put(key, wanted.clone())),
            None if there.is_some() => write.push(StoreOp::Delete(key)),
            _ => {}
        }
    }
    let raw = raw(cluster, seen, there, goal, found);
    write.extend(raw.write);
    let list = |held: &BTreeSet<&String>| {
        let key = keys.raw(&seen.ident);
        let same = held.iter().copied().eq(&there.held);
        let value = || serde_json::to_string(held).unwrap_or_default();
        (!same).then(|| if held.is_empty() { StoreOp::Delete(key) } else { StoreOp::Put(key, value()) })
    };
    let weight: usize = write.iter().chain(&raw.release).map(StoreOp::weight).sum();
    let batches = if weight < MAX_STORE_OPS {
        vec![[write, raw.release, list(&raw.held).into_iter().collect()].concat()]
    } else {
        // Too much for one transaction: first what is new, so that nothing is missing in between.
        let union: BTreeSet<&String> = raw.held.iter().copied().chain(&there.held).collect();
        let mut releases = cut(raw.release);
        match releases.last_mut() {
            Some(end) => end.extend(list(&raw.held)),
            None => releases.extend(list(&raw.held).map(|list| vec![list])),
        }
        [vec![[write, list(&union).into_iter().collect()].concat()], releases].concat()
    };
    batches.into_iter().filter(|batch| !batch.is_empty()).collect()
}

/// In transactions that leave room for one operation more.
fn cut(ops: Vec<StoreOp>) -> Vec<Vec<StoreOp>> {
    let mut batches: Vec<Vec<StoreOp>> = Vec::new();
    for op in ops {
        let weight = |batch: &[StoreOp]| batch.iter().map(StoreOp::weight).sum::<usize>();
        match batches.last_mut() {
            Some(batch) if weight(batch) + op.weight() < MAX_STORE_OPS => batch.push(op),
            _ => batches.push(vec![op]),
        }
    }
    batches
}

/// Whose a raw key is, by its claim.
enum Whose<'a> {
    Ours,
    Anothers,
    Nobodys,
    /// Of a resource of this cluster that is gone, its finalizer taken off by hand.
    Dead(&'a Claim),
}

struct Raw<'a> {
    write: Vec<StoreOp>,
    release: Vec<StoreOp>,
    held: BTreeSet<&'a String>,
}

fn raw<'a>(
    cluster: &str,
    seen: &Snapshot,
    there: &StoreView,
    goal: &'a Published,
    found: &mut Vec<Obstacle>,
) -> Raw<'a> {
    let mut raw = Raw { write: Vec::new(), release: Vec::new(), held: BTreeSet::new() };
    let whose = |key: &str| match there.raw.get(key).and_then(|view| view.claim.as_ref()) {
        None => Whose::Nobodys,
        Some(claim) if claim.cluster != cluster => Whose::Anothers,
        Some(claim) if claim.uid == seen.uid => Whose::Ours,
        Some(claim) if seen.live.contains(&claim.uid) => Whose::Anothers,
        Some(claim) => Whose::Dead(claim),
    };
    for (key, value) in &goal.raw {
        let current = there.raw.get(key).and_then(|view| view.value.as_ref());
        match (whose(key), current) {
            (Whose::Ours, Some(current)) if current == value => {}
            (Whose::Ours, _) => raw.write.push(StoreOp::PutRaw(key.clone(), value.clone())),
            (Whose::Dead(claim), _) => {
                raw.write.push(StoreOp::TakeOver(key.clone(), value.clone(), claim.clone()));
            }
            (Whose::Nobodys, None) => raw.write.push(StoreOp::Claim(key.clone(), value.clone())),
            (Whose::Anothers, _) | (Whose::Nobodys, Some(_)) => {
                found.push(Obstacle::transient(
                    reasons::KEY_TAKEN,
                    format!(
                        "config.etcdKeys: {key} exists in etcd and was not written for this resource: \
                         choose another key, or, if nobody uses it, remove it there and its claim {} if there \
                         is one",
                        Keys::raw_claim(key)
                    ),
                ));
                continue;
            }
        }
        raw.held.insert(key);
    }
    let gone = there.held.iter().filter(|key| !goal.raw.contains_key(*key));
    raw.release = gone
        .filter_map(|key| match whose(key) {
            Whose::Ours => Some(StoreOp::Release(key.clone())),
            // Of another of this name, before.
            Whose::Dead(claim) => Some(StoreOp::Reap(key.clone(), claim.clone())),
            Whose::Anothers | Whose::Nobodys => None,
        })
        .collect();
    raw
}
