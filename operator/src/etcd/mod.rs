//! etcd: policies, config documents and raw keys out, reports in.
//!
//! # Guarantees
//! - One change of a resource is in one transaction, maybe with others' changes, which compares the epoch key; reads
//!   are linearizable.
//! - A raw key and its claim are created together or not at all, and written only while the claim is ours.

mod batch;
mod commit;
mod drift;
mod inventory;
mod link;
pub mod outliers;
mod reports;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use fusebox::etcd::EtcdConfig;
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::wire::{Claim, Epoch};
use tokio::sync::watch;

pub use drift::follow_drift;
pub use reports::{Changed, Reports};

use crate::gate::DEADLINE;
use crate::group::Group;
use crate::intents::Intents;
use crate::ports::{
    Answer, Ejected, EpochStore, Fence, Inventory, PolicyStore, RawView, Reported, StoreOp, StoreView,
    TxnError, Unavailable,
};
use batch::{Change, revision};
use commit::Commit;
use link::{Link, value};

/// How many raw keys are read at once: two reads each, and etcd takes 128 in a transaction.
const KEYS_A_READ: usize = 60;

/// The adapter.
pub struct Etcd {
    link: Arc<Link>,
    commit: Group<Commit>,
    keys: Keys,
    allowed: Vec<String>,
    reports: Reports,
    intents: Intents,
}

impl Etcd {
    /// For one cluster's keys, and the raw keys under the `allowed` prefixes. Nothing is sent yet.
    pub fn new(config: EtcdConfig, cluster: &str, allowed: Vec<String>, reports: Reports) -> Self {
        let (keys, link) = (Keys::new(cluster), Arc::new(Link::new(config)));
        let commit = Group::new(Commit::new(link.clone(), keys.epoch()));
        Self { link, commit, keys, allowed, reports, intents: Intents::default() }
    }

    /// How often etcd was found to be back after calls had been refused.
    pub fn back(&self) -> watch::Receiver<u64> {
        self.link.back()
    }

    /// Asks whether it is back, whenever callers are refused; for ever.
    pub async fn keep_asking(&self) {
        self.link.keep_asking(&self.keys.epoch()).await;
    }

    /// What it writes from now on.
    pub fn intents(&self) -> Intents {
        self.intents.clone()
    }

    /// The values of these keys, in order, at one revision.
    async fn get(&self, keys: impl IntoIterator<Item = String>) -> Result<Vec<Option<String>>, Unavailable> {
        let gets: Vec<TxnOp> = keys.into_iter().map(|key| TxnOp::get(key, None)).collect();
        let (_, answers) = self.link.txn(Txn::new().and_then(gets)).await?;
        Ok(answers.iter().map(|answer| value(answer).map(|(value, _)| value)).collect())
    }

    async fn view(&self, of: &Ident, wanted: Vec<String>) -> Result<StoreView, Unavailable> {
        let keys = &self.keys;
        let own = [keys.policy(of), keys.config(of), keys.fleet(of), keys.raw(of)];
        let mut own = self.get(own).await?.into_iter();
        let mut next = || own.next().flatten();
        let (policy, config, fleet, held) = (next(), next(), next(), next());
        // A list that cannot be read names no key; it is written anew.
        let held: Vec<String> = held.and_then(|list| serde_json::from_str(&list).ok()).unwrap_or_default();
        // A key that nobody may declare is none that the operator's role lets it read: asking would be refused.
        let wanted = wanted
            .into_iter()
            .filter(|key| self.allowed.iter().any(|prefix| !prefix.is_empty() && key.starts_with(prefix)));
        let names: Vec<String> = wanted.chain(held.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let mut raw = BTreeMap::new();
        for names in names.chunks(KEYS_A_READ) {
            let keys = names.iter().flat_map(|name| [name.clone(), Keys::raw_claim(name)]);
            let mut values = self.get(keys).await?.into_iter();
            for name in names {
                let (value, claim) = (values.next().flatten(), values.next().flatten());
                // A claim that cannot be read is somebody else's.
                let unreadable = || Claim { cluster: String::new(), uid: String::new() };
                let claim = claim.map(|claim| serde_json::from_str(&claim).unwrap_or_else(|_| unreadable()));
                raw.insert(name.clone(), RawView { value, claim });
            }
        }
        Ok(StoreView { policy, config, fleet, held, raw })
    }

    async fn write(&self, fence: Fence, claim: &Claim, ops: &[StoreOp]) -> Result<(), TxnError> {
        for (key, value) in meant(claim, ops) {
            self.intents.meant(key, value.as_deref().map(str::as_bytes));
        }
        let silent = || {
            let silence = format!("etcd gave no answer within {} s", DEADLINE.as_secs());
            Err(Unavailable(silence).into())
        };
        let done = self.commit.run(Change::of(fence, claim, ops)).await.unwrap_or_else(silent);
        if done.is_err() {
            // It may come late, after others were decided on: then the watch is to tell.
            for (key, _) in meant(claim, ops) {
                self.intents.doubt(&key);
            }
        }
        done
    }
}

/// What `ops` are meant to lead to, key by key; None: absent.
fn meant(claim: &Claim, ops: &[StoreOp]) -> Vec<(String, Option<String>)> {
    let claim = serde_json::to_string(claim).unwrap_or_default();
    let mut all = Vec::new();
    let mut meant = |key: &str, value: Option<&str>| all.push((key.to_owned(), value.map(str::to_owned)));
    for op in ops {
        match op {
            StoreOp::Put(key, value) | StoreOp::PutRaw(key, value) => meant(key, Some(value)),
            StoreOp::Delete(key) | StoreOp::DeleteAt(key, _) => meant(key, None),
            StoreOp::Claim(key, value) | StoreOp::TakeOver(key, value, _) => {
                meant(key, Some(value));
                meant(&Keys::raw_claim(key), Some(&claim));
            }
            StoreOp::Release(key) | StoreOp::Reap(key, _) => {
                meant(key, None);
                meant(&Keys::raw_claim(key), None);
            }
        }
    }
    all
}

impl EpochStore for Etcd {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        Box::pin(async {
            let get = TxnOp::get(self.keys.epoch(), None);
            let (_, answers) = self.link.txn(Txn::new().and_then([get])).await?;
            Ok(answers.first().and_then(value).map(|(json, at)| {
                // What is there but no epoch has no holder: it is raised.
                let nobody = |_| Epoch { holder: "nobody: not an epoch".to_owned(), ..Epoch::default() };
                let epoch = serde_json::from_str(&json).unwrap_or_else(nobody);
                self.commit.sink().seen(&epoch, &json);
                (epoch, at)
            }))
        })
    }

    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(async move {
            let key = self.keys.epoch();
            // A key that is absent has the revision 0.
            let at = expected.map_or(0, revision);
            let json = serde_json::to_string(epoch).unwrap_or_default();
            let put = TxnOp::put(key.as_str(), json.as_str(), None);
            let txn = Txn::new().when([Compare::mod_revision(key, CompareOp::Equal, at)]).and_then([put]);
            let before = self.commit.sink().raises(epoch, &json);
            let (succeeded, _) = self.link.txn(txn).await?;
            if !succeeded {
                self.commit.sink().raised_nothing(before);
            }
            Ok(succeeded)
        })
    }
}

impl PolicyStore for Etcd {
    fn read<'a>(&'a self, of: &'a Ident, wanted: Vec<String>) -> Answer<'a, Result<StoreView, Unavailable>> {
        Box::pin(self.view(of, wanted))
    }

    fn transact<'a>(
        &'a self,
        fence: Fence,
        claim: &'a Claim,
        ops: &'a [StoreOp],
    ) -> Answer<'a, Result<(), TxnError>> {
        Box::pin(self.write(fence, claim, ops))
    }

    fn inventory(&self) -> Answer<'_, Result<Inventory, Unavailable>> {
        Box::pin(self.all())
    }

    fn reports(&self, of: &Ident) -> Option<Reported> {
        self.reports.of(of)
    }

    fn outliers(&self, name: &str) -> Option<Arc<Ejected>> {
        self.reports.outliers(name)
    }
}

#[cfg(test)]
mod tests;
