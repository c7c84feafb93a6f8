//! Consul's catalog over its HTTP API: six requests, no agent.
//!
//! # Guarantees
//! - What is written is written by a transaction whose first operation compares the epoch key.
//! - Entries are on nodes of our own, marked with the cluster; a node without the mark is never written to.
//!
//! # Caveats
//! - Nothing runs the checks: the operator sets them from the readiness of the endpoints. While it is away,
//!   they stay as they were, until the [dead man](crate::deadman) turns their node critical.

mod api;
mod drift;
#[cfg(test)]
mod election;
mod http;
#[cfg(test)]
mod part_tests;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use fusebox_policy::wire::Epoch;
use tokio::sync::{Mutex, watch};

pub use http::{ConsulConfig, Http};

use crate::intents::Intents;
use crate::model::{Entry, mark};
use crate::ports::{
    Answer, CatalogOp, ConsulCatalog, EpochStore, Fence, NodeView, Owner, TxnError, Unavailable,
};
use api::{Check, KvPair, ListedNode, NodeServices, TxnErrors};

/// The adapter.
pub struct Consul {
    http: Http,
    cluster: String,
    /// By node: was it removed by this process, so that somebody may still believe in it? Held during a
    /// transaction, so that a node is not removed while an entry is written to it.
    reaped: Mutex<HashMap<String, Arc<Mutex<bool>>>>,
    /// The nodes that exist, as far as they were read or written.
    there: watch::Sender<BTreeSet<String>>,
    /// How many entries of this cluster are on a node, as it was last read whole.
    counts: watch::Sender<HashMap<String, usize>>,
    /// What each entry and check was last meant to be.
    intents: Intents,
}

impl Consul {
    /// For one cluster's entries.
    pub fn new(http: Http, cluster: &str) -> Self {
        Self {
            http: http.of_cluster(cluster),
            cluster: cluster.to_owned(),
            reaped: Mutex::default(),
            there: watch::Sender::default(),
            counts: watch::Sender::default(),
            intents: Intents::default(),
        }
    }

    /// How often Consul was found to be back after calls had been refused.
    pub fn back(&self) -> watch::Receiver<u64> {
        self.http.back()
    }

    /// Asks whether it is back, whenever callers are refused; for ever.
    pub async fn keep_asking(&self) {
        self.http.keep_asking().await;
    }

    fn epoch_key(&self) -> String {
        format!("fusebox/{}/epoch", self.cluster)
    }

    async fn read_node(&self, node: &str) -> Result<NodeView, Unavailable> {
        let view = self.filtered(node, "", "").await?;
        self.counted(node, &view);
        Ok(view)
    }

    /// Of a node with many entries only those that concern `of`: so what is sent and read is the same, however many
    /// there are. Consul goes through them all.
    async fn read_part(&self, node: &str, of: &Owner) -> Result<NodeView, Unavailable> {
        let known = self.counts.borrow().get(node).copied();
        let Some(known) = known else { return self.read_node(node).await };
        let (uid, name) = (&of.uid, of.ident.to_string());
        let services = format!(
            r#"Meta["{}"] == "{uid}" or Meta["{}"] == "{name}" or ID contains "{uid}""#,
            mark::OWNER,
            mark::RESOURCE
        );
        let mut view = self.filtered(node, &services, &format!(r#"ServiceID contains "{uid}""#)).await?;
        view.entries.retain(|id, entry| {
            let says = |key, what: &str| entry.meta.get(key).is_some_and(|value| value == what);
            says(mark::OWNER, uid) || says(mark::RESOURCE, &name) || id.contains(uid)
        });
        let here = view.entries.values().filter(|entry| entry.is_in(&self.cluster)).count();
        view.others = if view.exists { known.saturating_sub(here) } else { 0 };
        Ok(view)
    }

    /// A node and what is on it, as far as these filters let it pass.
    async fn filtered(&self, node: &str, services: &str, checks: &str) -> Result<NodeView, Unavailable> {
        let path = |of: &str, filter: &str| {
            let filter =
                if filter.is_empty() { String::new() } else { format!("&filter={}", http::encode(filter)) };
            format!("/v1/{of}/{}?consistent{filter}", http::encode(node))
        };
        let (services, checks) = (path("catalog/node-services", services), path("health/node", checks));
        // Both to their end: after a silence one is let through to ask whether Consul is back. Ended because the other
        // was not, it would never tell.
        let (services, checks) =
            tokio::join!(self.http.get::<NodeServices>(&services), self.http.get::<Vec<Check>>(&checks));
        let view = self.view(services?, &states(checks?.unwrap_or_default()));
        self.exists(node, view.exists);
        Ok(view)
    }

    /// All of a node was read.
    fn counted(&self, node: &str, whole: &NodeView) {
        let count = whole.entries.values().filter(|entry| entry.is_in(&self.cluster)).count();
        self.counts.send_modify(|counts| {
            counts.insert(node.to_owned(), count);
        });
    }

    /// A node as its services and the states of its checks say.
    fn view(&self, services: Option<NodeServices>, checks: &BTreeMap<String, bool>) -> NodeView {
        let Some((node, services)) = services.and_then(|both| Some((both.node?, both.services))) else {
            return NodeView::default();
        };
        let meta = node.meta.unwrap_or_default();
        let entries = services.unwrap_or_default().into_iter().map(|service| {
            let entry = service.into_entry(checks);
            (entry.id.clone(), entry)
        });
        NodeView {
            exists: true,
            foreign: meta.get(mark::CLUSTER) != Some(&self.cluster),
            entries: entries.collect(),
            others: 0,
        }
    }

    fn exists(&self, node: &str, exists: bool) {
        self.there.send_if_modified(
            |all| {
                if exists { all.insert(node.to_owned()) } else { all.remove(node) }
            },
        );
    }

    async fn reaped(&self, node: &str) -> Arc<Mutex<bool>> {
        self.reaped.lock().await.entry(node.to_owned()).or_default().clone()
    }

    async fn write(&self, fence: Fence, node: &str, ops: &[CatalogOp]) -> Result<(), TxnError> {
        let reaped = self.reaped(node).await;
        let mut reaped = reaped.lock().await;
        let mut ops: Vec<(usize, &CatalogOp)> = ops.iter().enumerate().collect();
        if ops.iter().any(|(_, op)| **op == CatalogOp::ReapNode) && !self.empties(node, &ops).await? {
            ops.retain(|(_, op)| **op != CatalogOp::ReapNode);
        }
        if *reaped && ops.iter().any(|(_, op)| matches!(op, CatalogOp::Register(_))) {
            ops.insert(0, (0, &CatalogOp::EnsureNode));
        }
        for (_, op) in &ops {
            match op {
                CatalogOp::Register(entry) => drift::meant(&self.intents, entry),
                CatalogOp::SetCheck { id, passing, .. } => drift::meant_check(&self.intents, id, *passing),
                CatalogOp::Deregister { id, .. } => drift::meant_gone(&self.intents, id),
                CatalogOp::EnsureNode | CatalogOp::ReapNode => {}
            }
        }
        if let Err(error) = self.send(fence, node, &ops).await {
            // It may come late, after others were decided on: then the watch is to tell.
            for (_, op) in &ops {
                match op {
                    CatalogOp::Register(Entry { id, .. })
                    | CatalogOp::SetCheck { id, .. }
                    | CatalogOp::Deregister { id, .. } => drift::doubt(&self.intents, id),
                    CatalogOp::EnsureNode | CatalogOp::ReapNode => {}
                }
            }
            return Err(error);
        }
        if ops.iter().any(|(_, op)| **op == CatalogOp::ReapNode) {
            *reaped = true;
            self.exists(node, false);
        } else if ops.iter().any(|(_, op)| **op == CatalogOp::EnsureNode) {
            *reaped = false;
            self.exists(node, true);
        }
        Ok(())
    }

    async fn send(&self, fence: Fence, node: &str, ops: &[(usize, &CatalogOp)]) -> Result<(), TxnError> {
        let mut wire = vec![api::check_index(&self.epoch_key(), fence)];
        let mut origin = vec![None];
        for (at, op) in ops {
            for op in api::operations(&self.cluster, node, op) {
                wire.push(op);
                origin.push(Some(*at));
            }
        }
        let (status, body) = self.http.put("/v1/txn", serde_json::Value::Array(wire).to_string()).await?;
        if status == 409 {
            let errors: TxnErrors = http::parse("/v1/txn", &body)?;
            return Err(self.refused(&errors, &origin));
        }
        self.http.good("/v1/txn", status, &body)?;
        Ok(())
    }

    /// Is our node empty after these operations? Read now, since another resource may have come to it.
    async fn empties(&self, node: &str, ops: &[(usize, &CatalogOp)]) -> Result<bool, Unavailable> {
        let there = self.read_node(node).await?;
        let goes = |id: &String| {
            ops.iter().any(|(_, op)| matches!(op, CatalogOp::Deregister { id: gone, .. } if gone == id))
        };
        let comes = ops.iter().any(|(_, op)| matches!(op, CatalogOp::Register(_)));
        Ok(there.exists && !there.foreign && !comes && there.entries.keys().all(goes))
    }

    /// Consul names the operations in the way; the first of all is our fence.
    fn refused(&self, errors: &TxnErrors, origin: &[Option<usize>]) -> TxnError {
        let errors = errors.errors.as_deref().unwrap_or_default();
        if let Some(fence) = errors.iter().find(|error| error.op_index == 0) {
            let what = self.http.explained(&fence.what);
            // Not to be read is not to have moved.
            return if what == fence.what {
                TxnError::Fenced
            } else {
                Unavailable(format!("Consul refused the epoch key: {what}")).into()
            };
        }
        let mut refused: BTreeMap<usize, String> = BTreeMap::new();
        for error in errors {
            if let Some(Some(at)) = origin.get(error.op_index) {
                refused.entry(*at).or_insert_with(|| self.http.explained(&error.what));
            }
        }
        if refused.is_empty() {
            return Unavailable("Consul rolled a transaction back without saying why".to_owned()).into();
        }
        TxnError::Refused(refused.into_iter().collect())
    }
}

/// Which checks are passing.
fn states(checks: Vec<Check>) -> BTreeMap<String, bool> {
    checks.into_iter().map(|check| (check.check_id, check.status == "passing")).collect()
}

impl EpochStore for Consul {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        Box::pin(async {
            let path = format!("/v1/kv/{}?consistent", http::encode_path(&self.epoch_key()));
            let Some(pair) =
                self.http.get::<Vec<KvPair>>(&path).await?.and_then(|pairs| pairs.into_iter().next())
            else {
                return Ok(None);
            };
            let value = BASE64.decode(pair.value.unwrap_or_default()).unwrap_or_default();
            // What is there but no epoch has no holder: it is raised.
            let epoch = serde_json::from_slice(&value)
                .unwrap_or_else(|_| Epoch { holder: "nobody: not an epoch".to_owned(), ..Epoch::default() });
            Ok(Some((epoch, Fence(pair.modify_index))))
        })
    }

    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(async move {
            let index = expected.map_or(0, |fence| fence.0);
            let path = format!("/v1/kv/{}?cas={index}", http::encode_path(&self.epoch_key()));
            let value = serde_json::to_string(epoch).unwrap_or_default();
            let (status, body) = self.http.put(&path, value).await?;
            self.http.good(&path, status, &body)?;
            Ok(body.trim_ascii() == b"true")
        })
    }
}

impl ConsulCatalog for Consul {
    fn nodes(&self) -> Answer<'_, Result<Vec<String>, Unavailable>> {
        Box::pin(async {
            let path = format!(
                "/v1/catalog/nodes?consistent&node-meta={}:{}",
                mark::CLUSTER,
                http::encode(&self.cluster)
            );
            let found = self.http.get::<Vec<ListedNode>>(&path).await?.unwrap_or_default();
            // Consul filters; what it would let pass by mistake is not ours all the same.
            let ours = |node: &ListedNode| {
                node.meta.iter().flatten().any(|(k, v)| k == mark::CLUSTER && *v == self.cluster)
            };
            Ok(found.into_iter().filter(ours).map(|node| node.node).collect())
        })
    }

    fn node<'a>(&'a self, node: &'a str) -> Answer<'a, Result<NodeView, Unavailable>> {
        Box::pin(self.read_node(node))
    }

    fn part<'a>(&'a self, node: &'a str, of: &'a Owner) -> Answer<'a, Result<NodeView, Unavailable>> {
        Box::pin(self.read_part(node, of))
    }

    fn transact<'a>(
        &'a self,
        fence: Fence,
        node: &'a str,
        ops: &'a [CatalogOp],
    ) -> Answer<'a, Result<(), TxnError>> {
        Box::pin(self.write(fence, node, ops))
    }
}
