//! etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fusebox_policy::keys::{Ident, Key, Keys};
use fusebox_policy::wire::{Claim, Epoch};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Crash, EpochWorld, Faults};
use crate::etcd::outliers::Outliers;
use crate::ports::{
    Answer, Document, Ejected, EpochStore, Fence, Inventory, PolicyStore, RawView, Reported, StoreOp,
    StoreView, TxnError, Unavailable,
};

/// How many operations etcd takes in a transaction.
const MAX_OPS: usize = 128;

/// Keys and values.
#[derive(Debug)]
pub struct StoreWorld {
    /// Its trouble.
    pub faults: Faults,
    /// The epoch key.
    pub epoch: EpochWorld,
    /// Everything else.
    pub keys: Arc<Mutex<BTreeMap<String, String>>>,
    /// Every operation that took place, in order.
    pub log: Mutex<Vec<StoreOp>>,
    /// Runs between a reading of everything and its answer, once.
    pub meanwhile: Mutex<Option<(String, String)>>,
    /// What instances report, by resource and instance.
    pub reports: Mutex<BTreeMap<Ident, Reported>>,
    /// What callers have ejected.
    pub outliers: Mutex<Outliers>,
    /// When each key was written last.
    revisions: Mutex<Revisions>,
    schema: Keys,
    allowed: Vec<String>,
}

impl StoreWorld {
    /// An empty one; raw keys may begin with `allowed`.
    pub fn new(crash: &Arc<Crash>, cluster: &str, allowed: &[&str]) -> Self {
        Self {
            faults: Faults::of(crash),
            epoch: EpochWorld::default(),
            keys: Arc::default(),
            log: Mutex::default(),
            meanwhile: Mutex::default(),
            reports: Mutex::default(),
            outliers: Mutex::default(),
            revisions: Mutex::default(),
            schema: Keys::new(cluster),
            allowed: allowed.iter().map(|&prefix| prefix.to_owned()).collect(),
        }
    }

    /// The same for another process.
    pub fn copy(&self, crash: &Arc<Crash>) -> Self {
        Self {
            faults: Faults::of(crash),
            epoch: self.epoch.copy(),
            keys: Arc::new(Mutex::new(self.state())),
            log: Mutex::default(),
            meanwhile: Mutex::default(),
            reports: Mutex::new(self.reports.try_lock().unwrap().clone()),
            outliers: Mutex::new(self.outliers.try_lock().unwrap().clone()),
            revisions: Mutex::new(self.revisions.try_lock().unwrap().clone()),
            schema: self.schema.clone(),
            allowed: self.allowed.clone(),
        }
    }

    /// The same etcd, as another cluster's operators use it: with an epoch key of their own.
    pub fn of_another_cluster(&self, cluster: &str, allowed: &[&str]) -> Self {
        Self { keys: self.keys.clone(), ..Self::new(&Arc::default(), cluster, allowed) }
    }

    /// All keys.
    pub fn state(&self) -> BTreeMap<String, String> {
        self.keys.try_lock().unwrap().clone()
    }

    /// Somebody writes a key, be it what it says already.
    pub fn put(&self, key: &str, value: &str) {
        self.keys.try_lock().unwrap().insert(key.to_owned(), value.to_owned());
        self.revisions.try_lock().unwrap().wrote(key, value);
    }

    /// Everything is lost.
    pub fn wipe(&self) {
        self.keys.try_lock().unwrap().clear();
        self.epoch.set(None);
    }

    fn run(&self, fence: Fence, claim: &Claim, ops: &[StoreOp]) -> Result<(), TxnError> {
        let mut keys = self.keys.try_lock().unwrap();
        let mut revisions = self.revisions.try_lock().unwrap();
        revisions.follow(&keys);
        let mine = serde_json::to_string(claim).unwrap();
        // Before it compares anything.
        well_formed(ops)?;
        if !self.epoch.stands_at(fence) {
            return Err(TxnError::Fenced);
        }
        let is = |key: &str, by: &str| keys.get(&Keys::raw_claim(key)).is_some_and(|claim| claim == by);
        let fits = |op: &StoreOp| match op {
            StoreOp::Put(..) | StoreOp::Delete(_) => true,
            StoreOp::DeleteAt(key, at) => revisions.of(key) == Some(*at),
            StoreOp::Claim(key, _) => !keys.contains_key(key) && !keys.contains_key(&Keys::raw_claim(key)),
            StoreOp::TakeOver(key, _, from) | StoreOp::Reap(key, from) => {
                is(key, &serde_json::to_string(from).unwrap())
            }
            StoreOp::PutRaw(key, _) | StoreOp::Release(key) => is(key, &mine),
        };
        if let Some(op) = ops.iter().find(|op| !fits(op)) {
            // etcd does not say which.
            return Err(TxnError::Refused(vec![(0, format!("{op:?}"))]));
        }
        for op in ops {
            let (written, deleted) = touched(op);
            for key in deleted {
                keys.remove(&key);
            }
            for (key, value) in written {
                let value = value.unwrap_or(&mine);
                revisions.wrote(&key, value);
                keys.insert(key, value.to_owned());
            }
        }
        revisions.follow(&keys);
        self.log.try_lock().unwrap().extend_from_slice(ops);
        Ok(())
    }
}

/// Where each key stood when it was written last.
#[derive(Clone, Debug, Default)]
struct Revisions {
    last: u64,
    of: BTreeMap<String, (String, u64)>,
}

impl Revisions {
    fn wrote(&mut self, key: &str, value: &str) {
        // The first revision of an etcd has no key.
        self.last = self.last.max(1) + 1;
        self.of.insert(key.to_owned(), (value.to_owned(), self.last));
    }

    /// A test may have changed what is there.
    fn follow(&mut self, keys: &BTreeMap<String, String>) {
        self.of.retain(|key, _| keys.contains_key(key));
        for (key, value) in keys {
            if self.of.get(key).is_none_or(|(known, _)| known != value) {
                self.wrote(key, value);
            }
        }
    }

    fn of(&self, key: &str) -> Option<Fence> {
        self.of.get(key).map(|(_, at)| Fence(*at))
    }
}

/// The keys that an operation writes, with their values, None for the claim of who writes; and those it deletes.
fn touched(op: &StoreOp) -> (Vec<(String, Option<&str>)>, Vec<String>) {
    match op {
        StoreOp::Put(key, value) | StoreOp::PutRaw(key, value) => {
            (vec![(key.clone(), Some(value))], Vec::new())
        }
        StoreOp::Delete(key) | StoreOp::DeleteAt(key, _) => (Vec::new(), vec![key.clone()]),
        StoreOp::Claim(key, value) | StoreOp::TakeOver(key, value, _) => {
            (vec![(key.clone(), Some(value)), (Keys::raw_claim(key), None)], Vec::new())
        }
        StoreOp::Release(key) | StoreOp::Reap(key, _) => {
            (Vec::new(), vec![key.clone(), Keys::raw_claim(key)])
        }
    }
}

/// What etcd takes: no key written twice, or written and deleted, and so many operations.
fn well_formed(ops: &[StoreOp]) -> Result<(), Unavailable> {
    let all: Vec<_> = ops.iter().map(touched).collect();
    let written: Vec<&String> =
        all.iter().flat_map(|(written, _)| written.iter().map(|(key, _)| key)).collect();
    let deleted: BTreeSet<&String> = all.iter().flat_map(|(_, deleted)| deleted).collect();
    let once: BTreeSet<&String> = written.iter().copied().collect();
    if once.len() < written.len() || once.intersection(&deleted).next().is_some() {
        return Err(Unavailable("duplicate key given in txn request".into()));
    }
    let weight: usize = ops.iter().map(StoreOp::weight).sum();
    if weight > MAX_OPS {
        return Err(Unavailable("too many operations in txn request".into()));
    }
    Ok(())
}

impl StoreWorld {
    fn is_allowed(&self, raw: &str) -> bool {
        self.allowed.iter().any(|prefix| raw.starts_with(prefix))
    }
}

impl EpochStore for StoreWorld {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        Box::pin(async { self.faults.read().await.map(|()| self.epoch.read()) })
    }

    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(async move { self.faults.write(|| Ok(self.epoch.swap(expected, epoch))).await })
    }
}

impl PolicyStore for StoreWorld {
    fn read<'a>(&'a self, of: &'a Ident, wanted: Vec<String>) -> Answer<'a, Result<StoreView, Unavailable>> {
        Box::pin(async move {
            self.faults.read().await?;
            let keys = self.keys.try_lock().unwrap();
            let get = |key: &str| keys.get(key).cloned();
            let held = get(&self.schema.raw(of)).and_then(|list| serde_json::from_str(&list).ok());
            let held: Vec<String> = held.unwrap_or_default();
            // As the adapter: what nobody may declare is not asked for.
            let wanted = wanted.into_iter().filter(|key| self.is_allowed(key));
            let raw = wanted.chain(held.clone()).map(|key| {
                let unreadable = || Claim { cluster: String::new(), uid: String::new() };
                let claim = get(&Keys::raw_claim(&key))
                    .map(|claim| serde_json::from_str(&claim).unwrap_or_else(|_| unreadable()));
                let view = RawView { value: get(&key), claim };
                (key, view)
            });
            Ok(StoreView {
                policy: get(&self.schema.policy(of)),
                config: get(&self.schema.config(of)),
                fleet: get(&self.schema.fleet(of)),
                raw: raw.collect(),
                held,
            })
        })
    }

    fn transact<'a>(
        &'a self,
        fence: Fence,
        claim: &'a Claim,
        ops: &'a [StoreOp],
    ) -> Answer<'a, Result<(), TxnError>> {
        Box::pin(async move { self.faults.write(|| self.run(fence, claim, ops)).await })
    }

    fn inventory(&self) -> Answer<'_, Result<Inventory, Unavailable>> {
        Box::pin(async move {
            self.faults.read().await?;
            let mut keys = self.keys.try_lock().unwrap();
            let mut revisions = self.revisions.try_lock().unwrap();
            revisions.follow(&keys);
            let mut found = Inventory::default();
            for (key, value) in &*keys {
                let parsed = self.schema.parse(key);
                let holds = matches!(parsed, Some(Key::Raw(_))).then(|| serde_json::from_str(value).ok());
                if let Some(Key::Policy(of) | Key::Config(of) | Key::Fleet(of) | Key::Raw(of)) = parsed {
                    found.documents.push(Document {
                        of,
                        key: key.clone(),
                        at: revisions.of(key).unwrap(),
                        holds: holds.flatten().unwrap_or_default(),
                    });
                }
                let raw = key.strip_prefix(&Keys::raw_claim("")).filter(|raw| self.is_allowed(raw));
                if let Some((raw, claim)) = raw.zip(serde_json::from_str(value).ok()) {
                    found.claims.push((raw.to_owned(), claim));
                }
            }
            // Kind by kind, as the adapter asks.
            let kind = |document: &Document| match self.schema.parse(&document.key) {
                Some(Key::Policy(_)) => 0,
                Some(Key::Config(_)) => 1,
                Some(Key::Fleet(_)) => 2,
                _ => 3,
            };
            found.documents.sort_by_key(kind);
            keys.extend(self.meanwhile.try_lock().unwrap().take());
            Ok(found)
        })
    }

    fn reports(&self, of: &Ident) -> Option<Reported> {
        self.faults.up().ok()?;
        Some(self.reports.try_lock().unwrap().get(of).cloned().unwrap_or_default())
    }

    fn outliers(&self, name: &str) -> Option<Arc<Ejected>> {
        self.faults.up().ok()?;
        let mut outliers = self.outliers.try_lock().unwrap();
        outliers.due(Instant::now());
        Some(outliers.of(name))
    }
}
