//! etcd: policies, config documents and raw keys out, reports in.
//!
//! # Guarantees
//! - One change of a resource is one transaction, which compares the epoch key; reads are linearizable.
//! - A raw key and its claim are created together or not at all, and written only while the claim is ours.

mod drift;
mod inventory;
mod reports;

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{Client, Compare, CompareOp, GetResponse, Txn, TxnOp, TxnOpResponse};
use fusebox::etcd::{EtcdConfig, connect};
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::wire::{Claim, Epoch};
use tokio::sync::Mutex;

pub use drift::follow_drift;
pub use reports::{Changed, Reports};

use crate::gate::Gate;
use crate::intents::Intents;
use crate::ports::{
    Answer, EpochStore, Fence, Inventory, PolicyStore, RawView, Reported, StoreOp, StoreView, TxnError,
    Unavailable,
};

/// How many raw keys are read at once: two reads each, and etcd takes 128 in a transaction.
const KEYS_A_READ: usize = 60;

/// What etcd says to a user without a right, and what is to be done about it.
const DENIED: &str = "etcdserver: permission denied";
const REFUSED: &str = "etcd refuses a key to the operator's user: its role lacks a right of docs/etcd.md, or a \
                       prefix was taken out of allowedKeyPrefixes while a resource still holds keys under it";

/// What etcd says to every write since it was full, until somebody disarms its alarm, and what is to be done about it.
const FULL: &str = "etcdserver: mvcc: database space exceeded";
const MAKE_ROOM: &str = "etcd is out of space: it takes no writes, and what it holds stays in force. Make room by \
                         `etcdctl compact --physical <revision>` and `etcdctl defrag`, or start it with a larger \
                         --quota-backend-bytes; then `etcdctl alarm disarm`";

/// What a failure of etcd's says to a person.
fn told(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) => match status.message() {
            DENIED => REFUSED.to_owned(),
            FULL => MAKE_ROOM.to_owned(),
            // Its own text is for whoever debugs the client.
            message => format!("{}: {message}", status.code()),
        },
        error => error.to_string(),
    }
}

/// The adapter.
pub struct Etcd {
    config: EtcdConfig,
    keys: Keys,
    allowed: Vec<String>,
    client: Mutex<Option<Client>>,
    gate: Gate,
    reports: Reports,
    intents: Intents,
}

impl Etcd {
    /// For one cluster's keys, and the raw keys under the `allowed` prefixes. Nothing is sent yet.
    pub fn new(config: EtcdConfig, cluster: &str, allowed: Vec<String>, reports: Reports) -> Self {
        let (keys, gate) = (Keys::new(cluster), Gate::new("etcd"));
        Self { config, keys, allowed, client: Mutex::default(), gate, reports, intents: Intents::default() }
    }

    /// What it writes from now on.
    pub fn intents(&self) -> Intents {
        self.intents.clone()
    }

    /// One transaction. After a failure the next one connects anew: with a rotated password, to a moved
    /// address.
    async fn txn(&self, txn: Txn) -> Result<(bool, Vec<TxnOpResponse>), Unavailable> {
        let failed = |error: &dyn std::fmt::Display| {
            Unavailable(format!("etcd at {}: {error}", self.config.endpoints().join(", ")))
        };
        // Boxed: the future of a connection is large.
        let done = self
            .gate
            .run(Box::pin(async {
                let mut held = self.client.lock().await;
                let mut client = match &*held {
                    Some(client) => client.clone(),
                    None => held.insert(connect(&self.config).await.map_err(|error| failed(&error))?).clone(),
                };
                drop(held);
                let done = client.txn(txn).await.map_err(|error| failed(&told(&error)))?;
                Ok((done.succeeded(), done.op_responses()))
            }))
            .await;
        if done.is_err() {
            *self.client.lock().await = None;
        }
        done
    }

    /// The values of these keys, in order, at one revision.
    async fn get(&self, keys: impl IntoIterator<Item = String>) -> Result<Vec<Option<String>>, Unavailable> {
        let gets: Vec<TxnOp> = keys.into_iter().map(|key| TxnOp::get(key, None)).collect();
        let (_, answers) = self.txn(Txn::new().and_then(gets)).await?;
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
        let epoch = self.keys.epoch();
        self.mean(claim, ops);
        let (compares, writes) = txn(&epoch, fence, claim, ops);
        let txn = Txn::new().when(compares).and_then(writes).or_else([TxnOp::get(epoch, None)]);
        let (succeeded, answers) = self.txn(txn).await?;
        if succeeded {
            return Ok(());
        }
        let stands = answers.first().and_then(value).map(|(_, at)| at);
        if stands != Some(fence) {
            return Err(TxnError::Fenced);
        }
        let keys: Vec<&str> = ops.iter().filter_map(guarded).collect();
        let why = format!("one of the keys {} or its claim was changed meanwhile", keys.join(", "));
        Err(TxnError::Refused(vec![(0, why)]))
    }
}

impl Etcd {
    /// Remembers what `ops` are meant to lead to.
    fn mean(&self, claim: &Claim, ops: &[StoreOp]) {
        let claim = serde_json::to_string(claim).unwrap_or_default();
        let meant = |key: &str, value: Option<&str>| self.intents.meant(key, value.map(str::as_bytes));
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
    }
}

/// The key of which more than the epoch is compared.
fn guarded(op: &StoreOp) -> Option<&str> {
    match op {
        StoreOp::DeleteAt(key, _)
        | StoreOp::Claim(key, _)
        | StoreOp::TakeOver(key, ..)
        | StoreOp::PutRaw(key, _)
        | StoreOp::Release(key)
        | StoreOp::Reap(key, _) => Some(key),
        StoreOp::Put(..) | StoreOp::Delete(_) => None,
    }
}

/// What is compared and what is written.
fn txn(epoch: &str, fence: Fence, claim: &Claim, ops: &[StoreOp]) -> (Vec<Compare>, Vec<TxnOp>) {
    let json = |claim: &Claim| serde_json::to_string(claim).unwrap_or_default();
    let mine = json(claim);
    let absent = |key: String| Compare::create_revision(key, CompareOp::Equal, 0);
    let claimed = |key: &str, by: String| Compare::value(Keys::raw_claim(key), CompareOp::Equal, by);
    let owned = |key: &str| claimed(key, mine.clone());
    let mut compares = vec![Compare::mod_revision(epoch, CompareOp::Equal, revision(fence))];
    let mut writes = Vec::new();
    for op in ops {
        match op {
            StoreOp::Put(key, value) => writes.push(TxnOp::put(key.as_str(), value.as_str(), None)),
            StoreOp::Delete(key) => writes.push(TxnOp::delete(key.as_str(), None)),
            StoreOp::DeleteAt(key, at) => {
                compares.push(Compare::mod_revision(key.as_str(), CompareOp::Equal, revision(*at)));
                writes.push(TxnOp::delete(key.as_str(), None));
            }
            StoreOp::Claim(key, value) => {
                compares.extend([absent(key.clone()), absent(Keys::raw_claim(key))]);
                writes.push(TxnOp::put(key.as_str(), value.as_str(), None));
                writes.push(TxnOp::put(Keys::raw_claim(key), mine.as_str(), None));
            }
            StoreOp::TakeOver(key, value, from) => {
                compares.push(claimed(key, json(from)));
                writes.push(TxnOp::put(key.as_str(), value.as_str(), None));
                writes.push(TxnOp::put(Keys::raw_claim(key), mine.as_str(), None));
            }
            StoreOp::PutRaw(key, value) => {
                compares.push(owned(key));
                writes.push(TxnOp::put(key.as_str(), value.as_str(), None));
            }
            StoreOp::Release(key) | StoreOp::Reap(key, _) => {
                compares.push(if let StoreOp::Reap(_, from) = op {
                    claimed(key, json(from))
                } else {
                    owned(key)
                });
                writes.push(TxnOp::delete(key.as_str(), None));
                writes.push(TxnOp::delete(Keys::raw_claim(key), None));
            }
        }
    }
    (compares, writes)
}

fn revision(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}

/// The value a read found, and the revision it was written at.
fn value(answer: &TxnOpResponse) -> Option<(String, Fence)> {
    let TxnOpResponse::Get(found) = answer else { return None };
    let kv = GetResponse::kvs(found).first()?;
    let at = Fence(u64::try_from(kv.mod_revision()).unwrap_or_default());
    Some((String::from_utf8_lossy(kv.value()).into_owned(), at))
}

impl EpochStore for Etcd {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        Box::pin(async {
            let get = TxnOp::get(self.keys.epoch(), None);
            let (_, answers) = self.txn(Txn::new().and_then([get])).await?;
            Ok(answers.first().and_then(value).map(|(json, at)| {
                // What is there but no epoch has no holder: it is raised.
                let nobody = |_| Epoch { holder: "nobody: not an epoch".to_owned(), ..Epoch::default() };
                (serde_json::from_str(&json).unwrap_or_else(nobody), at)
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
            let put = TxnOp::put(key.as_str(), serde_json::to_string(epoch).unwrap_or_default(), None);
            let txn = Txn::new().when([Compare::mod_revision(key, CompareOp::Equal, at)]).and_then([put]);
            self.txn(txn).await.map(|(succeeded, _)| succeeded)
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
}

#[cfg(test)]
mod tests;
