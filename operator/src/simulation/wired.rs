//! The backends as one process reaches them: over wires that lose, delay and cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use fusebox_policy::wire::{Claim, Epoch};
use futures::FutureExt;

use super::place::Place;
use crate::deadman::port::{Node, Renewal, Session, Sessions};
use crate::gate::Gate;
use crate::ports::{
    Answer, CatalogOp, ConsulCatalog, Ejected, EpochStore, Fence, Inventory, NodeView, Owner, PolicyStore,
    Reported, Route, RouteError, RouteStore, RouteView, StoreOp, StoreView, TxnError, Unavailable,
};
use crate::world::Wire;

/// A process's way to one backend. What it sends is on its way, whatever becomes of it.
#[derive(Clone)]
pub struct Link {
    pub place: Arc<Place>,
    pub wire: Wire,
    /// The process.
    pub me: String,
    /// Its own.
    pub gate: Arc<Gate>,
}

impl Link {
    /// Asks; the answer of a world in memory is there at once.
    pub async fn ask<T: Send + 'static>(
        &self,
        serve: impl FnOnce(&Place, &str) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (place, me) = (self.place.clone(), self.me.clone());
        let call = self.wire.call(move || serve(&place, &me));
        // Boxed: the library's futures are large.
        Box::pin(self.gate.ask(call, |error: &Unavailable| Some(error.0.clone()))).await
    }

    /// Asks whether a backend is back that callers are refused at.
    pub async fn keep_asking(&self) {
        self.gate.keep_asking(|| self.ask(|_, _| ())).await;
    }

    /// As [`Self::ask`], for a write: between the last look at the clock and its way the process may stand still.
    pub async fn write<T: Send + 'static>(
        &self,
        serve: impl FnOnce(&Place, &str) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.wire.ice.may_freeze().await;
        self.ask(serve).await
    }
}

/// A world's answer.
pub fn now<T>(answer: Answer<'_, T>) -> T {
    answer.now_or_never().unwrap()
}

pub struct Consul(pub Link);
pub struct Etcd(pub Link);
pub struct Routes(pub Link);

impl EpochStore for Consul {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        Box::pin(self.0.ask(|place, _| place.catalog.epoch.read()))
    }

    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>> {
        let epoch = epoch.clone();
        Box::pin(async move {
            self.0
                .write(move |place, me| {
                    let done = now(place.catalog.swap_epoch(expected, &epoch))?;
                    place.judge.try_lock().unwrap().raised(place, 0, me, done, &epoch);
                    Ok(done)
                })
                .await?
        })
    }
}

impl ConsulCatalog for Consul {
    fn nodes(&self) -> Answer<'_, Result<Vec<String>, Unavailable>> {
        Box::pin(async { self.0.ask(|place, _| now(place.catalog.nodes())).await? })
    }

    fn node<'a>(&'a self, node: &'a str) -> Answer<'a, Result<NodeView, Unavailable>> {
        let node = node.to_owned();
        Box::pin(async { self.0.ask(move |place, _| now(place.catalog.node(&node))).await? })
    }

    fn transact<'a>(
        &'a self,
        fence: Fence,
        node: &'a str,
        ops: &'a [CatalogOp],
    ) -> Answer<'a, Result<(), TxnError>> {
        let (node, ops) = (node.to_owned(), ops.to_vec());
        Box::pin(async move {
            self.0
                .write(move |place, me| {
                    let before = place.catalog.state();
                    let done = now(place.catalog.transact(fence, &node, &ops));
                    let mut judge = place.judge.try_lock().unwrap();
                    judge.arrived(place, 0, me, done.is_ok());
                    if done.is_ok() {
                        judge.catalog(place, me, &node, &ops, &before);
                        sync_nodes(place);
                    }
                    done
                })
                .await?
        })
    }
}

/// The dead men's nodes are those of the catalog.
pub fn sync_nodes(place: &Place) {
    let nodes = place.catalog.state();
    let known = place.sessions.nodes();
    let ours = |name: &str| crate::model::is_shard_node(&place.name, name);
    for gone in known.iter().filter(|node| !nodes.contains_key(&node.name)) {
        place.sessions.reap_node(&gone.name);
    }
    for new in nodes.keys().filter(|name| ours(name) && !known.iter().any(|node| node.name == **name)) {
        place.sessions.add_node(new);
    }
}

impl EpochStore for Etcd {
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>> {
        Box::pin(self.0.ask(|place, _| place.store.epoch.read()))
    }

    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>> {
        let epoch = epoch.clone();
        Box::pin(async move {
            self.0
                .write(move |place, me| {
                    let done = now(place.store.swap_epoch(expected, &epoch))?;
                    place.judge.try_lock().unwrap().raised(place, 1, me, done, &epoch);
                    Ok(done)
                })
                .await?
        })
    }
}

impl PolicyStore for Etcd {
    fn read<'a>(&'a self, of: &'a Ident, wanted: Vec<String>) -> Answer<'a, Result<StoreView, Unavailable>> {
        let of = of.clone();
        Box::pin(async { self.0.ask(move |place, _| now(place.store.read(&of, wanted))).await? })
    }

    fn transact<'a>(
        &'a self,
        fence: Fence,
        claim: &'a Claim,
        ops: &'a [StoreOp],
    ) -> Answer<'a, Result<(), TxnError>> {
        let (claim, ops) = (claim.clone(), ops.to_vec());
        Box::pin(async move {
            self.0
                .write(move |place, me| {
                    let done = now(place.store.transact(fence, &claim, &ops));
                    let mut judge = place.judge.try_lock().unwrap();
                    judge.arrived(place, 1, me, done.is_ok());
                    if done.is_ok() {
                        judge.store(place, me, &ops);
                    }
                    done
                })
                .await?
        })
    }

    fn inventory(&self) -> Answer<'_, Result<Inventory, Unavailable>> {
        Box::pin(async { self.0.ask(|place, _| now(place.store.inventory())).await? })
    }

    fn reports(&self, _: &Ident) -> Option<Reported> {
        Some(Reported::default())
    }

    fn outliers(&self, _: &str) -> Option<Arc<Ejected>> {
        Some(Arc::default())
    }
}

impl RouteStore for Routes {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        names: &'a [String],
        wanted: bool,
    ) -> Answer<'a, Result<BTreeMap<String, RouteView>, RouteError>> {
        let (namespace, names) = (namespace.to_owned(), names.to_vec());
        Box::pin(async move {
            self.0.ask(move |place, _| now(place.routes.read(&namespace, &names, wanted))).await?
        })
    }

    fn apply<'a>(&'a self, owner: &'a Owner, route: &'a Route) -> Answer<'a, Result<(), RouteError>> {
        let (owner, route) = (owner.clone(), route.clone());
        Box::pin(async move {
            self.0
                .write(move |place, me| {
                    let done = now(place.routes.apply(&owner, &route));
                    if done.is_ok() {
                        place.judge.try_lock().unwrap().route(place, me, &owner, &route.name, true);
                    }
                    done
                })
                .await?
        })
    }

    fn delete<'a>(&'a self, owner: &'a Owner, name: &'a str) -> Answer<'a, Result<(), RouteError>> {
        let (owner, name) = (owner.clone(), name.to_owned());
        Box::pin(async move {
            self.0
                .write(move |place, me| {
                    let done = now(place.routes.delete(&owner, &name));
                    if done.is_ok() {
                        place.judge.try_lock().unwrap().route(place, me, &owner, &name, false);
                    }
                    done
                })
                .await?
        })
    }
}

/// As in the adapter, the dead man's writes have no fence.
impl Sessions for Consul {
    fn look(&self) -> Answer<'_, Result<Vec<Node>, Unavailable>> {
        Box::pin(self.0.ask(|place, _| place.sessions.nodes()))
    }

    fn create<'a>(
        &'a self,
        node: &'a str,
        name: &'a str,
        ttl: Duration,
    ) -> Answer<'a, Result<Option<String>, Unavailable>> {
        let (node, name) = (node.to_owned(), name.to_owned());
        Box::pin(self.0.write(move |place, _| place.sessions.create(&node, &name, ttl)))
    }

    fn renew<'a>(&'a self, id: &'a str) -> Answer<'a, Result<Renewal, Unavailable>> {
        let id = id.to_owned();
        Box::pin(self.0.ask(move |place, _| place.sessions.renew(&id)))
    }

    fn arm<'a>(&'a self, node: &'a str, session: &'a Session) -> Answer<'a, Result<bool, Unavailable>> {
        let (node, session) = (node.to_owned(), session.clone());
        Box::pin(self.0.write(move |place, _| place.sessions.arm(&node, &session)))
    }

    fn disarm<'a>(&'a self, node: &'a str) -> Answer<'a, Result<(), Unavailable>> {
        let node = node.to_owned();
        Box::pin(self.0.write(move |place, _| place.sessions.disarm(&node)))
    }

    fn supported<'a>(&'a self, _: &'a str) -> Answer<'a, Result<bool, Unavailable>> {
        Box::pin(self.0.ask(|_, _| true))
    }
}
