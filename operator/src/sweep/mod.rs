//! What belongs to this cluster and to no resource any more: because a finalizer was taken off by hand, a clean-up was
//! abandoned, a namespace was forced away, or a backend was restored from an old backup. Looked for every 30 s.
//!
//! # Guarantees
//! - Nothing is removed that does not carry this cluster's mark and the UID or the name of a resource that does not
//!   exist: neither in the caches nor, read after it was found, in the API server's store.
//! - A document in etcd that somebody wrote meanwhile stays.
//! - Every write is fenced, and within the budget of deletions.
//!
//! # Caveats
//! - Route objects are not looked for: Kubernetes collects what has an owner that is gone.

mod orphans;

use std::collections::BTreeMap;
use std::time::Duration;

use fusebox_policy::wire::Claim;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::budget::{Budget, Item};
use crate::metrics::Backend;
use crate::model;
use crate::ports::{CatalogOp, Inventory, NodeView, StoreOp, TxnError, Unavailable};
use crate::reconcile::Context;
use crate::reconcile::apply::{catalog, fence_and};
use crate::reconcile::plan::MAX_CATALOG_OPS;
use orphans::{Live, Orphans};

/// How often: what is left is gone within twice that.
const EVERY: Duration = Duration::from_secs(30);
/// Who asks for the deletion of orphans.
const WHO: &str = "orphans";
/// The part of etcd that its budget counts in.
const STORE: &str = "etcd";
/// How many raw keys a transaction releases.
const KEYS_A_WRITE: usize = 50;

/// Sweeps until `stop`. The caches must have had their first lists.
pub async fn run(context: &Context, mut stop: watch::Receiver<bool>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sweeping = async {
        loop {
            tick.tick().await;
            sweep(context).await;
        }
    };
    tokio::select! {
        () = sweeping => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Looks once, and removes what it may.
pub async fn sweep(context: &Context) {
    if context.deposed().is_some() {
        return;
    }
    let (nodes, inventory) = tokio::join!(nodes(context), context.etcd.store.inventory());
    let nodes = read("Consul", nodes);
    let inventory = read("etcd", inventory);
    count(context, nodes.as_ref(), inventory.as_ref()).await;
    let cluster = &context.settings.cluster;
    let cached = Live::cached(context.cluster.as_ref());
    let mut found = Orphans::find(cluster, nodes.as_ref(), inventory.as_ref(), &cached);
    if found.has_owners() {
        // Whoever wrote what was found existed by then: who is not there now is gone for good.
        match context.cluster.fresh().await {
            Ok(fresh) => {
                found = Orphans::find(cluster, nodes.as_ref(), inventory.as_ref(), &cached.and(fresh));
            }
            Err(error) => {
                tracing::warn!(%error, "what seems to belong to nobody stays until Kubernetes can be asked");
                return;
            }
        }
    }
    if let Some(nodes) = &nodes {
        sweep_consul(context, nodes, &found).await;
    }
    if inventory.is_some() {
        sweep_etcd(context, &found).await;
    }
}

/// The nodes of this cluster and what is on them.
async fn nodes(context: &Context) -> Result<BTreeMap<String, NodeView>, Unavailable> {
    let consul = &context.consul.store;
    let mut all = BTreeMap::new();
    for name in consul.nodes().await? {
        if model::is_shard_node(&context.settings.cluster, &name) {
            let node = consul.node(&name).await?;
            all.insert(name, node);
        }
    }
    Ok(all)
}

/// What was read; the passes tell people of a backend that is gone.
fn read<T>(of: &str, what: Result<T, Unavailable>) -> Option<T> {
    what.inspect_err(|error| tracing::debug!(%error, "no orphans can be looked for in {of}")).ok()
}

/// The base of the budgets, and who may still hold something of them.
async fn count(context: &Context, nodes: Option<&BTreeMap<String, NodeView>>, inventory: Option<&Inventory>) {
    let cluster = &context.settings.cluster;
    let alive = context.cluster.uids();
    let mut budget = context.deletions.catalog.lock().await;
    budget.keep(|who| who == WHO || alive.contains(who));
    if let Some(nodes) = nodes {
        let ours = |node: &NodeView| node.entries.values().filter(|entry| entry.is_in(cluster)).count();
        budget.count_all(nodes.iter().map(|(name, node)| (name.clone(), ours(node))));
    }
    context.metrics.held(Backend::Consul, budget.held());
    drop(budget);
    if let Some(inventory) = inventory {
        let ours = inventory.claims.iter().filter(|(_, claim)| claim.cluster == *cluster).count();
        context.deletions.store.lock().await.count(STORE, inventory.documents.len() + ours);
    }
}

/// May all of it go?
async fn may_go(
    context: &Context,
    budget: &Mutex<Budget>,
    backend: Backend,
    what: impl Iterator<Item = Item>,
) -> bool {
    let mut budget = budget.lock().await;
    let may_go = if context.settings.remove_all_orphans {
        budget.withdraw(WHO);
        true
    } else {
        budget.ask(WHO, what.collect(), Instant::now())
    };
    context.metrics.held(backend, budget.held());
    may_go
}

fn tell_held(of: &str, owners: &[String]) {
    tracing::warn!(
        owners = owners.join(", "),
        "what these resources left in {of} stays: it is more than may be deleted at once without a word, so this \
         cluster's API server may be the wrong one or an old one. If they are gone for good, start the operator once \
         with --remove-all-orphans (the chart's value removeAllOrphans)"
    );
}

async fn sweep_consul(context: &Context, nodes: &BTreeMap<String, NodeView>, found: &Orphans<'_>) {
    // What is critical is used by nobody.
    let used = found.entries.iter().filter(|(_, entry)| entry.passing != Some(false));
    let used = used.map(|(node, entry)| ((*node).to_owned(), entry.id.clone()));
    if !may_go(context, &context.deletions.catalog, Backend::Consul, used).await {
        tell_held("Consul", &found.owners(&context.settings.cluster));
        return;
    }
    for (name, node) in nodes {
        let orphans: Vec<_> =
            found.entries.iter().filter(|(of, _)| of == name).map(|(_, entry)| entry).collect();
        let mut ops: Vec<CatalogOp> = (orphans.iter())
            .map(|entry| CatalogOp::Deregister { id: entry.id.clone(), name: entry.name.clone() })
            .collect();
        if found.empty.contains(&name.as_str()) || (!ops.is_empty() && ops.len() == node.entries.len()) {
            ops.push(CatalogOp::ReapNode);
        }
        for ops in ops.chunks(MAX_CATALOG_OPS) {
            let removed: Vec<&str> = ops
                .iter()
                .filter_map(|op| match op {
                    CatalogOp::Deregister { id, .. } => Some(id.as_str()),
                    _ => None,
                })
                .collect();
            match catalog(&context.consul, name, ops.to_vec()).await {
                Ok(refused) => {
                    let count = removed.len().saturating_sub(refused.len());
                    context.metrics.orphans_removed(Backend::Consul, count);
                    if !removed.is_empty() {
                        tracing::info!(
                            node = name,
                            entries = removed.join(", "),
                            refused = refused.len(),
                            "deregistered: the resource they belong to does not exist"
                        );
                    }
                }
                Err(why) => {
                    tracing::warn!(node = name, "orphans stay for now: {}", why.message);
                    break;
                }
            }
        }
    }
}

async fn sweep_etcd(context: &Context, found: &Orphans<'_>) {
    let documents = found.documents.values().flatten().map(|document| document.key.clone());
    let raw = found.claims.values().flatten().map(|key| (*key).to_owned());
    let what = documents.chain(raw).map(|key| (STORE.to_owned(), key));
    if !may_go(context, &context.deletions.store, Backend::Etcd, what).await {
        let names = found.documents.keys().map(ToString::to_string);
        tell_held("etcd", &names.chain(found.claims.keys().map(|uid| (*uid).to_owned())).collect::<Vec<_>>());
        return;
    }
    for (uid, keys) in &found.claims {
        for keys in keys.chunks(KEYS_A_WRITE) {
            let ops = keys.iter().map(|key| StoreOp::Release((*key).to_owned())).collect();
            write(context, uid, ops, &keys.join(", ")).await;
        }
    }
    for (of, documents) in &found.documents {
        let ops = documents.iter().map(|d| StoreOp::DeleteAt(d.key.clone(), d.at)).collect();
        let keys = documents.iter().map(|document| match document.holds.as_slice() {
            [] => document.key.clone(),
            // Some may lie under a prefix that is not allowed any more: then this is their only trace.
            held => format!("{} (which named {})", document.key, held.join(", ")),
        });
        let keys: Vec<String> = keys.collect();
        // Documents carry no UID to compare: they are compared with what was read.
        write(context, &of.to_string(), ops, &keys.join(", ")).await;
    }
}

/// One transaction of deletions, as `uid`, whose claims they are.
async fn write(context: &Context, uid: &str, ops: Vec<StoreOp>, keys: &str) {
    let claim = Claim { cluster: context.settings.cluster.clone(), uid: uid.to_owned() };
    let store = &context.etcd;
    match fence_and(store, |fence| store.store.transact(fence, &claim, &ops)).await {
        Ok(()) => {
            context.metrics.orphans_removed(Backend::Etcd, ops.len());
            tracing::info!(
                owner = uid,
                keys,
                "removed from etcd: the resource they belong to does not exist"
            );
        }
        Err(TxnError::Refused(_)) => {
            tracing::info!(owner = uid, keys, "these keys were written meanwhile; they are looked at again");
        }
        Err(error) => tracing::warn!(owner = uid, keys, %error, "orphans stay in etcd for now"),
    }
}
