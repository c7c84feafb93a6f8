//! What a transaction of several resources' changes compares and writes, which of them go together, and whose
//! comparison failed. Pure.
//!
//! # Guarantees
//! - A change is in one transaction as a whole; no key is in two changes of one transaction.
//! - The epoch key's revision and, as far as it is known, its value are compared in each: a restored etcd may come to
//!   the same revision again.
//! - Who is told of a failed comparison is whose it was, by what was read in the same transaction.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use fusebox_policy::keys::Keys;
use fusebox_policy::wire::Claim;

use crate::ports::{Fence, StoreOp};

/// The most comparisons, reads or writes of a transaction; etcd takes 128 of each.
pub const MAX_OPS: usize = 120;
/// How many of them are the epoch key's.
const OF_THE_EPOCH: usize = 2;
/// The most bytes of keys and values; etcd takes 1.5 MiB in a request. What is larger by itself goes alone.
pub const MAX_BYTES: usize = 1 << 20;

/// What a key must be for a change to take place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Is {
    /// Not there.
    Absent,
    /// Not written since.
    At(Fence),
    /// Of this value.
    Valued(String),
}

/// All that one caller wants done to etcd at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where the epoch key must stand.
    pub fence: Fence,
    /// What must be so.
    pub guards: Vec<(String, Is)>,
    /// What is put; None: what is deleted.
    pub writes: Vec<(String, Option<String>)>,
}

/// A key as it was found: its value and where it stands.
pub type Found = Option<(String, Fence)>;

impl Change {
    /// Of a resource; `claim` is its mark on raw keys.
    pub fn of(fence: Fence, claim: &Claim, ops: &[StoreOp]) -> Self {
        let json = |claim: &Claim| serde_json::to_string(claim).unwrap_or_default();
        let mine = json(claim);
        let mut change = Self { fence, guards: Vec::new(), writes: Vec::new() };
        for op in ops {
            let (StoreOp::Put(key, _)
            | StoreOp::Delete(key)
            | StoreOp::DeleteAt(key, _)
            | StoreOp::Claim(key, _)
            | StoreOp::TakeOver(key, ..)
            | StoreOp::PutRaw(key, _)
            | StoreOp::Release(key)
            | StoreOp::Reap(key, _)) = op;
            let mark = Keys::raw_claim(key);
            match op {
                StoreOp::Put(..) | StoreOp::Delete(_) => {}
                StoreOp::DeleteAt(_, at) => change.guards.push((key.clone(), Is::At(*at))),
                StoreOp::Claim(..) => {
                    change.guards.extend([(key.clone(), Is::Absent), (mark.clone(), Is::Absent)]);
                }
                StoreOp::TakeOver(_, _, from) | StoreOp::Reap(_, from) => {
                    change.guards.push((mark.clone(), Is::Valued(json(from))));
                }
                StoreOp::PutRaw(..) | StoreOp::Release(_) => {
                    change.guards.push((mark.clone(), Is::Valued(mine.clone())));
                }
            }
            change.writes.push((
                key.clone(),
                match op {
                    StoreOp::Put(_, value)
                    | StoreOp::Claim(_, value)
                    | StoreOp::TakeOver(_, value, _)
                    | StoreOp::PutRaw(_, value) => Some(value.clone()),
                    StoreOp::Delete(_) | StoreOp::DeleteAt(..) | StoreOp::Release(_) | StoreOp::Reap(..) => {
                        None
                    }
                },
            ));
            match op {
                StoreOp::Claim(..) | StoreOp::TakeOver(..) => change.writes.push((mark, Some(mine.clone()))),
                StoreOp::Release(_) | StoreOp::Reap(..) => change.writes.push((mark, None)),
                _ => {}
            }
        }
        change
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        self.guards.iter().map(|(key, _)| key).chain(self.writes.iter().map(|(key, _)| key))
    }

    fn bytes(&self) -> usize {
        let guarded = self
            .guards
            .iter()
            .map(|(key, is)| key.len() + if let Is::Valued(value) = is { value.len() } else { 0 });
        let written =
            self.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len));
        guarded.chain(written).sum()
    }
}

/// How many of the first of these go out in one transaction. At least one, if there is one.
pub fn together<'a>(waiting: impl Iterator<Item = &'a Change>) -> usize {
    let (mut guards, mut writes, mut bytes) = (OF_THE_EPOCH, 0, 0);
    let (mut keys, mut fence) = (BTreeSet::new(), None);
    let fits = |change: &&'a Change| {
        guards += change.guards.len();
        writes += change.writes.len();
        bytes += change.bytes();
        let alone = fence.is_none();
        let first = *fence.get_or_insert(change.fence);
        let apart = alone || !change.keys().any(|key| keys.contains(key));
        keys.extend(change.keys());
        alone
            || (guards <= MAX_OPS
                && writes <= MAX_OPS
                && bytes <= MAX_BYTES
                && apart
                && change.fence == first)
    };
    waiting.take_while(fits).count()
}

/// The transaction. Where a comparison fails, it reads what was compared: the epoch key, then each guard's.
pub fn txn(epoch: &str, own: Option<&str>, changes: &[&Change]) -> Txn {
    Txn::new().when(compares(epoch, own, changes)).and_then(writes(changes)).or_else(reads(epoch, changes))
}

fn compares(epoch: &str, own: Option<&str>, changes: &[&Change]) -> Vec<Compare> {
    let fence = changes.iter().map(|change| revision(change.fence)).take(1);
    let guards = changes.iter().flat_map(|change| &change.guards).map(|(key, is)| match is {
        Is::Absent => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Is::At(at) => Compare::mod_revision(key.as_str(), CompareOp::Equal, revision(*at)),
        Is::Valued(value) => Compare::value(key.as_str(), CompareOp::Equal, value.as_str()),
    });
    fence
        .map(|at| Compare::mod_revision(epoch, CompareOp::Equal, at))
        .chain(own.map(|own| Compare::value(epoch, CompareOp::Equal, own)))
        .chain(guards)
        .collect()
}

fn writes(changes: &[&Change]) -> Vec<TxnOp> {
    let writes = changes.iter().flat_map(|change| &change.writes).map(|(key, value)| match value {
        Some(value) => TxnOp::put(key.as_str(), value.as_str(), None),
        None => TxnOp::delete(key.as_str(), None),
    });
    writes.collect()
}

fn reads(epoch: &str, changes: &[&Change]) -> Vec<TxnOp> {
    let guards = changes.iter().flat_map(|change| &change.guards).map(|(key, is)| {
        let valued = matches!(is, Is::Valued(_));
        TxnOp::get(key.as_str(), (!valued).then(|| GetOptions::new().with_keys_only()))
    });
    [TxnOp::get(epoch, None)].into_iter().chain(guards).collect()
}

/// Why a transaction did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The epoch key is another: none of the changes can take place.
    Fenced,
    /// Of each change the keys that are not as it was compared.
    Guarded(Vec<Vec<String>>),
}

/// From what the transaction read instead.
pub fn why(own: Option<&str>, changes: &[&Change], found: Vec<Found>) -> Why {
    let mut found = found.into_iter();
    let epoch = found.next().flatten();
    let is_ours = |(value, at): &(String, Fence)| {
        changes.iter().all(|change| change.fence == *at) && own.is_none_or(|own| own == value)
    };
    if !epoch.as_ref().is_some_and(is_ours) {
        return Why::Fenced;
    }
    let wrong = changes.iter().map(|change| {
        let found = change.guards.iter().map(|guard| (guard, found.next().flatten()));
        let wrong = found.filter(|((_, is), found)| match (is, found) {
            (Is::Absent, found) => found.is_some(),
            (Is::At(at), found) => found.as_ref().map(|(_, at)| at) != Some(at),
            (Is::Valued(value), found) => found.as_ref().map(|(value, _)| value) != Some(value),
        });
        wrong.map(|((key, _), _)| key.clone()).collect()
    });
    Why::Guarded(wrong.collect())
}

/// As etcd counts.
pub fn revision(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
