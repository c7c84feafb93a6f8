//! Reads everything a decision needs: the caches, the three backends. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::ResilientService;
use kube::ResourceExt;

use super::Context;
use crate::claims::{self, Lost};
use crate::model::{self, Endpoint, ServiceView, mark};
use crate::ports::{NodeView, Owner, Reported, RouteError, RouteView, StoreView, Unavailable};

/// The suffixes of a resource's two route objects, one per entry point.
pub const ROUTES: [&str; 2] = ["plain", "tls"];

/// What was seen.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The resource, with what it holds as far as this process knows.
    pub resource: Arc<ResilientService>,
    /// Its namespace and name.
    pub ident: Ident,
    /// Its UID.
    pub uid: String,
    /// Its catalog node.
    pub node: String,
    /// What it asks for or holds and another resource has by right.
    pub lost: Vec<Lost>,
    /// Of the UIDs that were found in Consul and etcd those of resources that exist: the claim of another UID of this
    /// cluster is dead.
    pub live: BTreeSet<String>,
    /// Its Service.
    pub service: Option<ServiceView>,
    /// Its instances.
    pub endpoints: Vec<Endpoint>,
    /// The instances of each Service that its Consul entries came from.
    pub sources: BTreeMap<String, Vec<Endpoint>>,
    /// What they report; None while reports cannot be read.
    pub reports: Option<Reported>,
    /// Its catalog node.
    pub catalog: Result<NodeView, Unavailable>,
    /// What etcd holds of it.
    pub store: Result<StoreView, Unavailable>,
    /// Its route objects.
    pub routes: Result<BTreeMap<String, RouteView>, RouteError>,
}

impl Snapshot {
    /// Whom its route objects belong to.
    pub fn owner(&self) -> Owner {
        Owner { ident: self.ident.clone(), uid: self.uid.clone() }
    }
}

/// The name of a resource's route object.
pub fn route_name(of: &Ident, suffix: &str) -> String {
    format!("fusebox-{}-{suffix}", of.name)
}

/// Looks at the world. A backend that does not answer is part of what is seen.
pub async fn observe(context: &Context, resource: &Arc<ResilientService>) -> Snapshot {
    let ident = model::ident(resource);
    let node = model::shard_node(&context.settings.cluster, &ident);
    let owner = Owner { ident: ident.clone(), uid: resource.uid().unwrap_or_default() };
    let names = ROUTES.map(|suffix| route_name(&ident, suffix));
    let wanted = resource.spec.config.iter().flat_map(|c| c.etcd_keys.keys().cloned()).collect();
    // A gateway may have been taken away, and then the watch knows its routes; on the way out nothing is left to it.
    let wanted_routes = resource.spec.gateway.is_some() || resource.metadata.deletion_timestamp.is_some();
    let (catalog, store, routes) = tokio::join!(
        context.consul.store.part(&node, &owner),
        context.etcd.store.read(&ident, wanted),
        context.routes.read(&ident.namespace, &names, wanted_routes),
    );
    // The caches are read after the backends, so that what is decided is decided on the newest endpoints.
    let resource = context.memory.holding(resource.clone()).await;
    let lost = lost(context, &resource).await;
    let service = context.cluster.service(&ident.namespace, &resource.spec.service.name);
    let endpoints =
        service.as_ref().map(|s| context.cluster.endpoints(&ident.namespace, s)).unwrap_or_default();
    let uid = owner.uid;
    Snapshot {
        sources: sources(context, &ident, &uid, catalog.as_ref().ok()),
        uid,
        live: live(context, catalog.as_ref().ok(), store.as_ref().ok()),
        lost,
        service,
        endpoints,
        reports: context.etcd.store.reports(&ident),
        catalog,
        store,
        routes,
        resource,
        ident,
        node,
    }
}

/// What it asks for or holds and another resource has by right, by the caches and what this process knows.
pub async fn lost(context: &Context, resource: &ResilientService) -> Vec<Lost> {
    let claims = [claims::asked(resource), claims::held(resource)].concat();
    let holders = context.memory.holders(&claims).await;
    let namespace = resource.namespace().unwrap_or_default();
    let all = context.cluster.claimants(&namespace, &claims, &holders);
    let all = context.memory.all_holding(all).await;
    claims::lost(resource, all.iter().map(Arc::as_ref))
}

fn live(context: &Context, node: Option<&NodeView>, store: Option<&StoreView>) -> BTreeSet<String> {
    let entries = node.into_iter().flat_map(|node| node.entries.values());
    let owners = entries.filter_map(|entry| entry.meta.get(mark::OWNER));
    let raw = store.into_iter().flat_map(|store| store.raw.values());
    let claims = raw.filter_map(|raw| raw.claim.as_ref()).map(|claim| &claim.uid);
    let found: BTreeSet<&String> = owners.chain(claims).collect();
    found.into_iter().filter(|uid| context.cluster.exists(uid)).cloned().collect()
}

fn sources(
    context: &Context,
    ident: &Ident,
    uid: &str,
    node: Option<&NodeView>,
) -> BTreeMap<String, Vec<Endpoint>> {
    let own = node.into_iter().flat_map(|node| node.entries.values());
    let own = own.filter(|entry| entry.is_of(&context.settings.cluster, uid));
    let names: BTreeSet<&String> = own.filter_map(|entry| entry.meta.get(mark::SERVICE)).collect();
    let endpoints = |name: &String| {
        let service = context.cluster.service(&ident.namespace, name)?;
        Some(context.cluster.endpoints(&ident.namespace, &service))
    };
    names.into_iter().map(|name| (name.clone(), endpoints(name).unwrap_or_default())).collect()
}
