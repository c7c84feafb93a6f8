//! Consul.

use std::collections::BTreeMap;
use std::sync::Arc;

use fusebox_policy::wire::Epoch;
use tokio::sync::Mutex;

use super::{Crash, EpochWorld, Faults};
use crate::ports::{Answer, CatalogOp, ConsulCatalog, EpochStore, Fence, NodeView, TxnError, Unavailable};

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

    fn run(&self, node: &str, ops: &[CatalogOp]) -> Result<(), TxnError> {
        let mut nodes = self.nodes.try_lock().unwrap();
        let mut next = nodes.clone();
        for (at, op) in ops.iter().enumerate() {
            let refuse = |why: &str| Err(TxnError::Refused(vec![(at, why.to_owned())]));
            match op {
                CatalogOp::EnsureNode => next.entry(node.into()).or_default().exists = true,
                CatalogOp::Register(entry) if self.refused.try_lock().unwrap().contains(&entry.id) => {
                    return refuse("invalid service");
                }
                CatalogOp::Register(entry) => match next.get_mut(node) {
                    Some(there) => {
                        there.entries.insert(entry.id.clone(), entry.clone());
                    }
                    None => return refuse("missing node registration"),
                },
                CatalogOp::SetCheck { id, passing, .. } => {
                    match next.get_mut(node).and_then(|n| n.entries.get_mut(id)) {
                        Some(entry) => entry.passing = Some(*passing),
                        None => return refuse("missing service registration"),
                    }
                }
                CatalogOp::Deregister { id, name } => {
                    let there = next.get(node).and_then(|node| node.entries.get(id));
                    if name.is_empty() || there.is_some_and(|there| there.name != *name) {
                        return refuse(
                            "Must provide service name (Service.Service) when service ID is provided",
                        );
                    }
                    next.get_mut(node).map(|node| node.entries.remove(id));
                }
                CatalogOp::ReapNode => {
                    if next.get(node).is_some_and(|node| node.entries.is_empty()) {
                        next.remove(node);
                    }
                }
            }
        }
        *nodes = next;
        self.log.try_lock().unwrap().extend_from_slice(ops);
        Ok(())
    }
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
        Box::pin(async move { self.faults.write(|| Ok(self.epoch.swap(expected, epoch))).await })
    }
}

impl ConsulCatalog for CatalogWorld {
    fn nodes(&self) -> Answer<'_, Result<Vec<String>, Unavailable>> {
        Box::pin(async move {
            self.faults.read().await?;
            let nodes = self.nodes.try_lock().unwrap();
            Ok(nodes.keys().cloned().collect())
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
        Box::pin(async move {
            self.faults
                .write(
                    || {
                        if self.epoch.stands_at(fence) { self.run(node, ops) } else { Err(TxnError::Fenced) }
                    },
                )
                .await
        })
    }
}
