//! etcd.

use std::collections::BTreeMap;
use std::sync::Arc;

use fusebox_policy::keys::{Ident, Key, Keys};
use fusebox_policy::wire::{Claim, Epoch};
use tokio::sync::Mutex;

use super::{Crash, EpochWorld, Faults};
use crate::ports::{
    Answer, Document, EpochStore, Fence, Inventory, PolicyStore, RawView, Reported, StoreOp, StoreView,
    TxnError, Unavailable,
};

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
    schema: Keys,
}

impl StoreWorld {
    /// An empty one.
    pub fn new(crash: &Arc<Crash>, cluster: &str) -> Self {
        Self {
            faults: Faults::of(crash),
            epoch: EpochWorld::default(),
            keys: Arc::default(),
            log: Mutex::default(),
            meanwhile: Mutex::default(),
            reports: Mutex::default(),
            schema: Keys::new(cluster),
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
            schema: self.schema.clone(),
        }
    }

    /// The same etcd, as another cluster's operators use it: with an epoch key of their own.
    pub fn of_another_cluster(&self, cluster: &str) -> Self {
        Self { keys: self.keys.clone(), ..Self::new(&Arc::default(), cluster) }
    }

    /// All keys.
    pub fn state(&self) -> BTreeMap<String, String> {
        self.keys.try_lock().unwrap().clone()
    }

    fn run(&self, claim: &Claim, ops: &[StoreOp]) -> Result<(), TxnError> {
        let mut keys = self.keys.try_lock().unwrap();
        let mine = serde_json::to_string(claim).unwrap();
        for (at, op) in ops.iter().enumerate() {
            let fits = match op {
                StoreOp::Put(..) | StoreOp::Delete(_) => true,
                StoreOp::DeleteAt(key, at) => keys.get(key).map(|value| stands(value)) == Some(*at),
                StoreOp::Claim(key, _) => {
                    !keys.contains_key(key) && !keys.contains_key(&Keys::raw_claim(key))
                }
                StoreOp::TakeOver(key, _, from) | StoreOp::Reap(key, from) => {
                    keys.get(&Keys::raw_claim(key)) == Some(&serde_json::to_string(from).unwrap())
                }
                StoreOp::PutRaw(key, _) | StoreOp::Release(key) => {
                    keys.get(&Keys::raw_claim(key)) == Some(&mine)
                }
            };
            if !fits {
                return Err(TxnError::Refused(vec![(at, format!("{op:?}"))]));
            }
        }
        let weight: usize = ops.iter().map(StoreOp::weight).sum();
        assert!(weight <= 120, "more than etcd takes");
        for op in ops {
            match op {
                StoreOp::Put(key, value) | StoreOp::PutRaw(key, value) => {
                    keys.insert(key.clone(), value.clone());
                }
                StoreOp::Delete(key) | StoreOp::DeleteAt(key, _) => {
                    keys.remove(key);
                }
                StoreOp::Claim(key, value) | StoreOp::TakeOver(key, value, _) => {
                    keys.insert(key.clone(), value.clone());
                    keys.insert(Keys::raw_claim(key), mine.clone());
                }
                StoreOp::Release(key) | StoreOp::Reap(key, _) => {
                    keys.remove(key);
                    keys.remove(&Keys::raw_claim(key));
                }
            }
        }
        self.log.try_lock().unwrap().extend_from_slice(ops);
        Ok(())
    }
}

/// Where a key stands: as long as its value is the same. Two writes of one value are not told apart.
fn stands(value: &str) -> Fence {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    Fence(hasher.finish())
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
            let held: Vec<String> = get(&self.schema.raw(of))
                .map(|list| serde_json::from_str(&list).unwrap())
                .unwrap_or_default();
            let raw = wanted.into_iter().chain(held.clone()).map(|key| {
                let claim = get(&Keys::raw_claim(&key)).map(|claim| serde_json::from_str(&claim).unwrap());
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
        Box::pin(async move {
            self.faults
                .write(
                    || {
                        if self.epoch.stands_at(fence) { self.run(claim, ops) } else { Err(TxnError::Fenced) }
                    },
                )
                .await
        })
    }

    fn inventory(&self) -> Answer<'_, Result<Inventory, Unavailable>> {
        Box::pin(async move {
            self.faults.read().await?;
            let mut keys = self.keys.try_lock().unwrap();
            let mut found = Inventory::default();
            for (key, value) in &*keys {
                if let Some(Key::Policy(of) | Key::Config(of) | Key::Fleet(of) | Key::Raw(of)) =
                    self.schema.parse(key)
                {
                    found.documents.push(Document {
                        of,
                        key: key.clone(),
                        at: stands(value),
                        holds: Vec::new(),
                    });
                }
                if let Some(raw) = key.strip_prefix(&Keys::raw_claim("")) {
                    found.claims.push((raw.to_owned(), serde_json::from_str(value).unwrap()));
                }
            }
            keys.extend(self.meanwhile.try_lock().unwrap().take());
            Ok(found)
        })
    }

    fn reports(&self, of: &Ident) -> Option<Reported> {
        self.faults.up().ok()?;
        Some(self.reports.try_lock().unwrap().get(of).cloned().unwrap_or_default())
    }
}
