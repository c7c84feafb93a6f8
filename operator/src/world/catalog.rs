//! Consul.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fusebox_policy::wire::Epoch;
use tokio::sync::Mutex;

use super::{Crash, EpochWorld, Faults};
use crate::model::Entry;
use crate::ports::{Answer, CatalogOp, ConsulCatalog, EpochStore, Fence, NodeView, TxnError, Unavailable};

/// How many operations Consul takes in a transaction.
const MAX_OPS: usize = 128;
/// How it refuses a service without a name.
const NAMELESS: &str = "Must provide service name (Service.Service) when service ID is provided";

/// Nodes and their entries.
#[derive(Debug)]
pub struct CatalogWorld {
    /// Its trouble.
    pub faults: Faults,
    /// The epoch key.
    pub epoch: EpochWorld,
    /// By name.
    pub nodes: Arc<Mutex<BTreeMap<String, NodeView>>>,
    /// Service ids that are refused.
    pub refused: Mutex<Vec<String>>,
    /// Every operation that took place, in order.
    pub log: Mutex<Vec<CatalogOp>>,
    /// The nodes that the process removed.
    removed: Mutex<BTreeSet<String>>,
}

impl CatalogWorld {
    /// An empty one.
    pub fn new(crash: &Arc<Crash>) -> Self {
        Self {
            faults: Faults::of(crash),
            epoch: EpochWorld::default(),
            nodes: Arc::default(),
            refused: Mutex::default(),
            log: Mutex::default(),
            removed: Mutex::default(),
        }
    }

    /// The same for another process.
    pub fn copy(&self, crash: &Arc<Crash>) -> Self {
        Self {
            epoch: self.epoch.copy(),
            nodes: Arc::new(Mutex::new(self.state())),
            refused: Mutex::new(self.refused.try_lock().unwrap().clone()),
            ..Self::new(crash)
        }
    }

    /// The same Consul, as another cluster's operators use it: with an epoch key of their own.
    pub fn of_another_cluster(&self) -> Self {
        Self { nodes: self.nodes.clone(), ..Self::new(&Arc::default()) }
    }

    /// All nodes.
    pub fn state(&self) -> BTreeMap<String, NodeView> {
        self.nodes.try_lock().unwrap().clone()
    }

    fn run(&self, fence: Fence, node: &str, ops: &[CatalogOp]) -> Result<(), TxnError> {
        let mut nodes = self.nodes.try_lock().unwrap();
        let mut removed = self.removed.try_lock().unwrap();
        // As the adapter: only what nothing is on, and nothing comes to, is removed; and comes back with an entry.
        let registers = ops.iter().any(|op| matches!(op, CatalogOp::Register(_)));
        let reaps = !registers && nodes.get(node).is_some_and(|there| is_emptied(there, ops));
        let ensures = registers && removed.contains(node);
        let weight =
            ops.iter().map(|op| 1 + usize::from(matches!(op, CatalogOp::Register(_)))).sum::<usize>();
        if 1 + weight > MAX_OPS {
            return Err(Unavailable("too many operations".into()).into());
        }
        // Consul looks at each operation by itself first, and then at the fence.
        let nameless = |(at, op): (usize, &CatalogOp)| {
            let (CatalogOp::Register(Entry { name, .. }) | CatalogOp::Deregister { name, .. }) = op else {
                return None;
            };
            name.is_empty().then(|| (at, NAMELESS.to_owned()))
        };
        let refused: Vec<_> = ops.iter().enumerate().filter_map(nameless).collect();
        if !refused.is_empty() {
            return Err(TxnError::Refused(refused));
        }
        if !self.epoch.stands_at(fence) {
            return Err(TxnError::Fenced);
        }
        let mut next = nodes.clone();
        if ensures {
            // Others may have made it again, with what is theirs on it.
            let _ = self.step(&mut next, node, &CatalogOp::EnsureNode);
        }
        let mut refused = Vec::new();
        for (at, op) in ops.iter().enumerate().filter(|(_, op)| reaps || **op != CatalogOp::ReapNode) {
            if let Err(why) = self.step(&mut next, node, op) {
                refused.push((at, why.to_owned()));
            }
        }
        if !refused.is_empty() {
            return Err(TxnError::Refused(refused));
        }
        if reaps && ops.contains(&CatalogOp::ReapNode) {
            removed.insert(node.to_owned());
        } else if ensures || ops.contains(&CatalogOp::EnsureNode) {
            removed.remove(node);
        }
        *nodes = next;
        self.log.try_lock().unwrap().extend_from_slice(ops);
        Ok(())
    }

    fn step(
        &self,
        nodes: &mut BTreeMap<String, NodeView>,
        node: &str,
        op: &CatalogOp,
    ) -> Result<(), &'static str> {
        let there = nodes.get_mut(node).filter(|there| there.exists);
        match op {
            CatalogOp::EnsureNode => {
                let there = nodes.entry(node.to_owned()).or_default();
                (there.exists, there.foreign) = (true, false);
            }
            CatalogOp::Register(entry) => {
                if self.refused.try_lock().unwrap().contains(&entry.id) {
                    return Err("invalid service");
                }
                let passing = Some(entry.passing.unwrap_or_default());
                let there = there.ok_or("Missing node registration")?;
                there.entries.insert(entry.id.clone(), Entry { passing, ..entry.clone() });
            }
            CatalogOp::SetCheck { id, passing, .. } => {
                let there = there.ok_or("Missing node registration")?;
                there.entries.get_mut(id).ok_or("Missing service registration")?.passing = Some(*passing);
            }
            CatalogOp::Deregister { id, .. } => {
                there.and_then(|there| there.entries.remove(id));
            }
            CatalogOp::ReapNode => {
                nodes.remove(node);
            }
        }
        Ok(())
    }

    /// Another process remembers nothing of the nodes that this one removed.
    pub fn forget(&self) {
        self.removed.try_lock().unwrap().clear();
    }
}

/// Is our node empty after these?
fn is_emptied(there: &NodeView, ops: &[CatalogOp]) -> bool {
    let goes =
        |id: &String| ops.iter().any(|op| matches!(op, CatalogOp::Deregister { id: gone, .. } if gone == id));
    there.exists && !there.foreign && there.entries.keys().all(goes)
}

impl EpochStore for CatalogWorld {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        Box::pin(async { self.faults.read().await.map(|()| self.epoch.read()) })
    }

    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>> {
        let swap = move || {
            // What says the same already stays where it is.
            let same = self.epoch.read().is_some_and(|(is, at)| Some(at) == expected && is == *epoch);
            Ok(same || self.epoch.swap(expected, epoch))
        };
        Box::pin(async move { self.faults.write(swap).await })
    }
}

impl ConsulCatalog for CatalogWorld {
    fn nodes(&self) -> Answer<'_, Result<Vec<String>, Unavailable>> {
        Box::pin(async move {
            self.faults.read().await?;
            let nodes = self.nodes.try_lock().unwrap();
            let ours = nodes.iter().filter(|(_, node)| node.exists && !node.foreign);
            Ok(ours.map(|(name, _)| name.clone()).collect())
        })
    }

    fn node<'a>(&'a self, node: &'a str) -> Answer<'a, Result<NodeView, Unavailable>> {
        Box::pin(async move {
            self.faults.read().await?;
            Ok(self.nodes.try_lock().unwrap().get(node).cloned().unwrap_or_default())
        })
    }

    fn transact<'a>(
        &'a self,
        fence: Fence,
        node: &'a str,
        ops: &'a [CatalogOp],
    ) -> Answer<'a, Result<(), TxnError>> {
        Box::pin(async move { self.faults.write(|| self.run(fence, node, ops)).await })
    }
}
