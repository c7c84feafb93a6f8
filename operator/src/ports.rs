//! What the pipeline needs from the world, as traits: adapters to the real parts beside it, in-memory
//! worlds in the tests.
//!
//! # Guarantees
//! - Every future ends: an adapter gives up after its deadline and says [`Unavailable`].
//! - `transact` is all or nothing, and does nothing if the epoch key is not at `fence`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceStatus};
use fusebox_policy::wire::{Claim, Epoch, Report};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use crate::claims;
use crate::model::{self, Endpoint, Entry, ServiceView};

/// A future of a port.
pub type Answer<'a, T> = BoxFuture<'a, T>;

/// A backend did not answer, or refused us as a whole (wrong token, wrong certificate).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Where an epoch key stood when it was last seen: Consul's `ModifyIndex`, etcd's `mod_revision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(pub u64);

/// Why a transaction did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    /// The epoch key moved.
    #[error("the epoch key is not where this process left it")]
    Fenced,
    /// These operations, by their place, were refused.
    #[error("refused: {0:?}")]
    Refused(Vec<(usize, String)>),
    /// No answer: it may have happened or not.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A store that keeps an epoch key.
pub trait EpochStore: Send + Sync {
    /// The epoch and where it stands, read consistently.
    fn read_epoch(&self) -> Answer<'_, Result<Option<(Epoch, Fence)>, Unavailable>>;

    /// Writes `epoch` if the key still stands at `expected` (None: is absent). False: somebody was faster.
    fn swap_epoch<'a>(
        &'a self,
        expected: Option<Fence>,
        epoch: &'a Epoch,
    ) -> Answer<'a, Result<bool, Unavailable>>;
}

/// A catalog node of ours and what is on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Does it exist?
    pub exists: bool,
    /// Does it exist without our mark? Then it is never touched.
    pub foreign: bool,
    /// What is registered on it, by service id.
    pub entries: BTreeMap<String, Entry>,
    /// How many entries of this cluster are on it beside `entries`, as far as is known.
    pub others: usize,
}

/// One operation on a catalog node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogOp {
    /// Create our node.
    EnsureNode,
    /// Write a service and its check.
    Register(Entry),
    /// Change the check alone.
    SetCheck {
        /// The service id.
        id: String,
        /// The service's name: Consul asks the token for the right to write it.
        name: String,
        /// The state.
        passing: bool,
    },
    /// Remove a service and its check. Consul wants the name beside the id.
    Deregister {
        /// The service id.
        id: String,
        /// The service's name.
        name: String,
    },
    /// Remove our node if nothing is on it any more.
    ReapNode,
}

/// Consul's catalog.
pub trait ConsulCatalog: EpochStore {
    /// The names of the nodes that carry this cluster's mark, read consistently.
    fn nodes(&self) -> Answer<'_, Result<Vec<String>, Unavailable>>;

    /// A node and everything on it, read consistently.
    fn node<'a>(&'a self, node: &'a str) -> Answer<'a, Result<NodeView, Unavailable>>;

    /// A node and of what is on it all that concerns a resource, read consistently: entries of its UID, of its name, and
    /// with an id that has its UID in it. It may be all.
    fn part<'a>(&'a self, node: &'a str, of: &'a Owner) -> Answer<'a, Result<NodeView, Unavailable>> {
        let _ = of;
        self.node(node)
    }

    /// Applies all of `ops` or none.
    fn transact<'a>(
        &'a self,
        fence: Fence,
        node: &'a str,
        ops: &'a [CatalogOp],
    ) -> Answer<'a, Result<(), TxnError>>;
}

/// What etcd holds of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreView {
    /// The policy document.
    pub policy: Option<String>,
    /// The config document.
    pub config: Option<String>,
    /// The number of ready instances.
    pub fleet: Option<String>,
    /// The list of raw keys it holds.
    pub held: Vec<String>,
    /// Each raw key that it holds or wants.
    pub raw: BTreeMap<String, RawView>,
}

/// A raw key in etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawView {
    /// Its value, if it exists.
    pub value: Option<String>,
    /// Who claimed it.
    pub claim: Option<Claim>,
}

/// One operation on etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Write a key of ours.
    Put(String, String),
    /// Remove a key of ours.
    Delete(String),
    /// Remove a key of ours that nobody wrote since it stood there.
    DeleteAt(String, Fence),
    /// Create a raw key and its claim, if neither exists.
    Claim(String, String),
    /// Write a raw key that is claimed as given, and claim it for us.
    TakeOver(String, String, Claim),
    /// Write a raw key that is claimed by us.
    PutRaw(String, String),
    /// Remove a raw key that is claimed by us, and the claim.
    Release(String),
    /// Remove a raw key that is claimed as given, and the claim.
    Reap(String, Claim),
}

impl StoreOp {
    /// How many operations of an etcd transaction it takes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Put(..) | Self::Delete(_) | Self::DeleteAt(..) | Self::PutRaw(..) => 1,
            Self::Claim(..) | Self::TakeOver(..) | Self::Release(_) | Self::Reap(..) => 2,
        }
    }
}

/// A key that etcd holds for a resource, and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The resource.
    pub of: Ident,
    /// The key.
    pub key: String,
    /// When it was written last.
    pub at: Fence,
    /// The raw keys that it names, if it is the list of those.
    pub holds: Vec<String>,
}

/// All that etcd holds of this cluster's resources, but for what instances report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Policies, config documents, fleets and lists of raw keys.
    pub documents: Vec<Document>,
    /// Raw keys and who claimed them, be it another cluster.
    pub claims: Vec<(String, Claim)>,
}

/// What the instances of a resource report, by instance: a pod's UID, or an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Under a living lease.
    pub live: BTreeMap<String, Report>,
    /// Reports that ended, as far as this process has seen it, and when.
    pub ended: BTreeMap<String, Timestamp>,
}

/// An endpoint that callers have ejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Since when this process knows of it.
    pub since: Timestamp,
    /// Why it was ejected first, for a person.
    pub reason: String,
    /// The first few of the callers, by name.
    pub callers: Vec<Ident>,
    /// How many callers there are.
    pub services: usize,
    /// How many instances of theirs.
    pub instances: usize,
}

/// The endpoints that callers have ejected of those that they found under one name.
pub type Ejected = BTreeMap<SocketAddr, Outlier>;

/// etcd.
pub trait PolicyStore: EpochStore {
    /// What is published of a resource, and the state of the raw keys it wants.
    fn read<'a>(&'a self, of: &'a Ident, wanted: Vec<String>) -> Answer<'a, Result<StoreView, Unavailable>>;

    /// Applies all of `ops` or none; `claim` is the mark on raw keys. A raw key in the way is `Refused`.
    fn transact<'a>(
        &'a self,
        fence: Fence,
        claim: &'a Claim,
        ops: &'a [StoreOp],
    ) -> Answer<'a, Result<(), TxnError>>;

    /// What it holds of all resources, read consistently key by key. Of raw keys only those that may be declared.
    fn inventory(&self) -> Answer<'_, Result<Inventory, Unavailable>>;

    /// What the instances of a resource report; None while reports cannot be read.
    fn reports(&self, of: &Ident) -> Option<Reported>;

    /// What callers report to have ejected of a name in Consul; None while reports cannot be read.
    fn outliers(&self, name: &str) -> Option<Arc<Ejected>>;
}

/// A route object as it is in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    /// The UID of the resource that owns it, if one of ours does.
    pub owner: Option<String>,
    /// Its spec.
    pub spec: Value,
}

/// A route object to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: Value,
}

/// The resource that route objects belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Where.
    pub ident: Ident,
    /// The UID.
    pub uid: String,
}

/// Why routes could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The API server does not know Traefik's kinds.
    #[error("Traefik's custom resources are not installed in this cluster")]
    CrdsMissing,
    /// The API server refused this object.
    #[error("{0}")]
    Refused(String),
    /// The API server did not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Traefik's route objects.
pub trait RouteStore: Send + Sync {
    /// The objects of these names that exist. Where none is `wanted`, none need be found that a watch will tell of.
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        names: &'a [String],
        wanted: bool,
    ) -> Answer<'a, Result<BTreeMap<String, RouteView>, RouteError>>;

    /// Creates or changes one.
    fn apply<'a>(&'a self, owner: &'a Owner, route: &'a Route) -> Answer<'a, Result<(), RouteError>>;

    /// Removes one, if it still belongs to `owner`.
    fn delete<'a>(&'a self, owner: &'a Owner, name: &'a str) -> Answer<'a, Result<(), RouteError>>;
}

/// Something that a person should see in `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Normal or Warning.
    pub warning: bool,
    /// The reason, in one word.
    pub reason: String,
    /// What it is about, in one word.
    pub action: String,
    /// For a person.
    pub message: String,
}

/// What became of a write of our finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// It is as it should be.
    Set,
    /// The object is gone, is another of the same name, or takes no finalizer any more as it is being
    /// deleted.
    Gone,
}

/// What became of an object since a watch showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is as shown, but for what its status tells beside its claims.
    AsShown,
    /// It was edited, or holds something else.
    Edited,
    /// It is gone, or is another of the same name.
    Gone,
}

impl Standing {
    /// From the object as shown and as it is.
    pub fn of(shown: &ResilientService, now: Option<&ResilientService>) -> Self {
        let held = |of| claims::held(of).into_iter().collect::<BTreeSet<_>>();
        match now.filter(|now| now.metadata.uid == shown.metadata.uid) {
            None => Self::Gone,
            Some(now) if now.metadata.generation != shown.metadata.generation => Self::Edited,
            Some(now) if held(now) != held(shown) => Self::Edited,
            Some(_) => Self::AsShown,
        }
    }
}

/// The Kubernetes cluster: what the watches delivered, and our writes.
pub trait ClusterState: Send + Sync {
    /// Every resource that can be decoded.
    fn resources(&self) -> Vec<Arc<ResilientService>>;

    /// The UIDs of all resources, those that cannot be decoded among them.
    fn uids(&self) -> BTreeSet<String>;

    /// The resources that ask for or hold one of `claims`, as one of `namespace` would, and those of these UIDs, as far as
    /// they can be decoded. Maybe others with them.
    fn claimants(
        &self,
        namespace: &str,
        claims: &[claims::Claim],
        uids: &BTreeSet<String>,
    ) -> Vec<Arc<ResilientService>> {
        let _ = (namespace, claims, uids);
        self.resources()
    }

    /// Is there a resource of this UID, be it one that cannot be decoded?
    fn exists(&self, uid: &str) -> bool {
        self.uids().contains(uid)
    }

    /// The names of all resources that can be decoded.
    fn names(&self) -> BTreeSet<Ident> {
        self.resources().iter().map(|resource| model::ident(resource)).collect()
    }

    /// How many resources there are.
    fn count(&self) -> usize {
        self.uids().len()
    }

    /// The UIDs of all resources by name, not from the caches: read consistently from the API server, now.
    fn fresh(&self) -> Answer<'_, Result<BTreeMap<Ident, String>, Unavailable>>;

    /// A Service.
    fn service(&self, namespace: &str, name: &str) -> Option<ServiceView>;

    /// The endpoints of a Service, from all its slices of the primary address family, one per instance.
    fn endpoints(&self, namespace: &str, service: &ServiceView) -> Vec<Endpoint>;

    /// What became of the object since, read anew: the watches may be behind.
    fn standing<'a>(&'a self, resource: &'a ResilientService) -> Answer<'a, Result<Standing, Unavailable>>;

    /// Sets or removes our finalizer, if the object still is the one that is meant.
    fn set_finalizer<'a>(
        &'a self,
        resource: &'a ResilientService,
        present: bool,
    ) -> Answer<'a, Result<Finalizer, Unavailable>>;

    /// Writes the status.
    fn write_status<'a>(
        &'a self,
        resource: &'a ResilientService,
        status: &'a ResilientServiceStatus,
    ) -> Answer<'a, Result<(), Unavailable>>;

    /// Publishes an Event; its failure is logged and forgotten.
    fn notify<'a>(&'a self, resource: &'a ResilientService, notice: &'a Notice) -> Answer<'a, ()>;
}
