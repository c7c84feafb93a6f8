//! Reads everything a decision needs: the caches, the three backends. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::ResilientService;
use kube::ResourceExt;

use super::Context;
use crate::claims::{self, Claim, Lost};
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
    /// Who else asks for what it asks for or holds.
    pub rivals: Rivals,
    /// Of the UIDs that were found in Consul and etcd those of resources that exist: the claim of another UID of this
    /// cluster is dead.
    pub live: BTreeSet<String>,
    /// Its Service.
    pub service: Option<ServiceView>,
    /// Its instances.
    pub endpoints: Vec<Endpoint>,
    /// The instances of each Service that its Consul entries came from; without such entries, of what it holds.
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
    // A gateway may have been taken away, and then the watch knows its routes; to it is left neither what is held still,
    // as somebody may have taken our label off, nor anything on the way out.
    let holds_routes =
        || claims::held(resource).iter().any(|held| matches!(held, Claim::Route(..) | Claim::Host(_)));
    let wanted_routes =
        resource.spec.gateway.is_some() || resource.metadata.deletion_timestamp.is_some() || holds_routes();
    let (catalog, store, routes) = tokio::join!(
        context.consul.store.part(&node, &owner),
        context.etcd.store.read(&ident, wanted),
        context.routes.read(&ident.namespace, &names, wanted_routes),
    );
    // The caches are read after the backends, so that what is decided is decided on the newest endpoints.
    let resource = context.memory.holding(resource.clone()).await;
    let mut rivals = rivals(context, &resource).await;
    rivals.taken = taken(context, &resource, catalog.as_ref().ok()).await;
    let service = context.cluster.service(&ident.namespace, &resource.spec.service.name);
    let endpoints =
        service.as_ref().map(|s| context.cluster.endpoints(&ident.namespace, s)).unwrap_or_default();
    let uid = owner.uid;
    Snapshot {
        sources: sources(context, &resource, &uid, catalog.as_ref().ok()),
        uid,
        live: live(context, catalog.as_ref().ok(), store.as_ref().ok()),
        rivals,
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

/// At how many older ones, that may have to wait themselves, a pass looks more closely.
const MAX_OLDER: usize = 32;

/// What a resource asks for or holds and another one has by right, and whom it need not wait for.
#[derive(Clone, Debug, Default)]
pub struct Rivals {
    /// What it may not have.
    pub lost: Vec<Lost>,
    /// Older ones that ask for the same and have to wait themselves, as it seems.
    pub waiting: Vec<Arc<ResilientService>>,
    /// Under what it is registered though it neither asks for it nor holds it, and another one does: a Consul that was
    /// restored has again what was let go of since.
    pub taken: Vec<Claim>,
    /// Is the watches' word on who holds what another than this process's own, or is it an older one that only asks for
    /// it? Then a pass beside this one takes it at this moment, or lets go of it, or is refused for something that is
    /// nothing to this one, and nobody may tell when it is done.
    pub unsettled: bool,
}

/// By the caches and what this process knows.
pub async fn rivals(context: &Context, resource: &ResilientService) -> Rivals {
    let all = claimants(context, resource).await;
    let (mut looked_at, mut uids, mut waiting) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    loop {
        let lost = claims::lost(resource, all.iter().map(Arc::as_ref), &uids);
        let next = lost.iter().find(|lost| !lost.held && !looked_at.contains(&lost.by));
        let next = next.filter(|_| looked_at.len() < MAX_OLDER).map(|lost| lost.by.clone());
        let Some(uid) = next else {
            let unsettled = is_unsettled(context, resource, &lost);
            return Rivals { lost, waiting, unsettled, ..Rivals::default() };
        };
        if let Some(one) = all.iter().find(|one| one.uid().as_ref() == Some(&uid))
            && (claims::stands_back(one)
                || claims::is_held_off(one, claimants(context, one).await.iter().map(Arc::as_ref)))
        {
            waiting.push(one.clone());
            uids.insert(uid.clone());
        }
        looked_at.insert(uid);
    }
}

/// Has somebody what it lost only by asking, or as far as this process knows and by no status that a watch has shown?
fn is_unsettled(context: &Context, of: &ResilientService, lost: &[Lost]) -> bool {
    if lost.is_empty() {
        return false;
    }
    let holders: BTreeSet<String> = lost.iter().map(|lost| lost.by.clone()).collect();
    let shown = context.cluster.claimants(&of.namespace().unwrap_or_default(), &[], &holders);
    let is_shown = |lost: &Lost| {
        let holder = shown.iter().find(|one| one.uid().as_ref() == Some(&lost.by));
        holder.is_some_and(|one| claims::held(one).contains(&lost.claim))
    };
    lost.iter().any(|lost| !is_shown(lost))
}

/// Those that ask for or hold something of what it asks for or holds, as far as this process knows.
async fn claimants(context: &Context, of: &ResilientService) -> Vec<Arc<ResilientService>> {
    claiming(context, of, &[claims::asked(of), claims::held(of)].concat()).await
}

/// Those that ask for or hold one of these, each as seen from the namespace of `of`.
async fn claiming(context: &Context, of: &ResilientService, claims: &[Claim]) -> Vec<Arc<ResilientService>> {
    let holders = context.memory.holders(claims).await;
    let namespace = of.namespace().unwrap_or_default();
    context.memory.all_holding(context.cluster.claimants(&namespace, claims, &holders)).await
}

/// The names in Consul that it has entries under and another one holds.
async fn taken(context: &Context, of: &ResilientService, node: Option<&NodeView>) -> Vec<Claim> {
    let (uid, cluster) = (of.uid().unwrap_or_default(), &context.settings.cluster);
    let own = node.into_iter().flat_map(|node| node.entries.values()).filter(|e| e.is_of(cluster, &uid));
    let mut names: BTreeSet<Claim> =
        own.map(|entry| Claim::ConsulName(entry.name.to_ascii_lowercase())).collect();
    [claims::asked(of), claims::held(of)].concat().iter().for_each(|mine| _ = names.remove(mine));
    let mut names: Vec<Claim> = names.into_iter().collect();
    if names.is_empty() {
        return names;
    }
    let others = claiming(context, of, &names).await;
    let holds =
        |name: &Claim| others.iter().any(|one| one.uid() != of.uid() && claims::held(one).contains(name));
    names.retain(holds);
    names
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
    resource: &ResilientService,
    uid: &str,
    node: Option<&NodeView>,
) -> BTreeMap<String, Vec<Endpoint>> {
    let namespace = resource.namespace().unwrap_or_default();
    let own = node.into_iter().flat_map(|node| node.entries.values());
    let own = own.filter(|entry| entry.is_of(&context.settings.cluster, uid));
    let mut names: BTreeSet<String> =
        own.filter_map(|entry| entry.meta.get(mark::SERVICE).cloned()).collect();
    if names.is_empty() {
        names.extend(claims::held(resource).into_iter().filter_map(|claim| match claim {
            Claim::Service(name) => Some(name),
            _ => None,
        }));
    }
    let endpoints = |name: &String| {
        let service = context.cluster.service(&namespace, name)?;
        Some(context.cluster.endpoints(&namespace, &service))
    };
    names.into_iter().map(|name| (name.clone(), endpoints(&name).unwrap_or_default())).collect()
}
