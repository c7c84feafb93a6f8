//! Kubernetes: what the watches delivered, and our writes to resources and their Events.

mod guarded;
pub mod herald;
pub mod home;
mod index;
mod labels;
pub mod lease;
pub mod news;
pub mod routes;
mod spare;
#[cfg(test)]
mod tests;
pub mod traefik;
pub mod watch;
#[cfg(test)]
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{FINALIZER, ResilientService, ResilientServiceStatus};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event, EventType, Reporter};
use kube::runtime::reflector::{ObjectRef, Store, store::WriterDropped};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use crate::claims::{self, Claim};
use crate::gate::Gate;
use crate::model::{self, Endpoint, ServiceView};
use crate::ports::{Answer, ClusterState, Finalizer, Notice, Standing, Unavailable};

pub use guarded::{Guarded, Undecodable};
use herald::Herald;
use index::Index;

/// The field manager of everything we write.
pub const MANAGER: &str = "fusebox-operator";
/// The label that names the Service of a slice.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// How many resources the API server is asked for at once.
const PAGE: u32 = 500;
/// The longest note of an Event, in bytes.
const MAX_NOTE: usize = 1000;

/// The caches.
#[derive(Clone)]
pub struct Stores {
    /// Resources.
    pub resources: Store<Guarded>,
    /// Services.
    pub services: Store<Service>,
    /// Slices.
    pub slices: Store<EndpointSlice>,
    /// Resources by what they have.
    by: Index<Guarded, By>,
    /// Slices by the namespace and name of their Service.
    slices_of: Index<EndpointSlice, (String, String)>,
}

/// What a resource is looked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum By {
    Uid(String),
    /// What it asks for or holds; a Service is one of its namespace.
    Claim(Option<String>, Claim),
}

impl By {
    fn claim(namespace: &str, claim: &Claim) -> Self {
        let namespace = matches!(claim, Claim::Service(_)).then(|| namespace.to_owned());
        Self::Claim(namespace, claim.clone())
    }

    fn all(resource: &Guarded) -> Vec<Self> {
        let namespace = resource.namespace().unwrap_or_default();
        let of = resource.holder();
        let claims = [claims::asked(of), claims::held(of)].concat().into_iter();
        let claims = claims.map(|claim| Self::claim(&namespace, &claim));
        resource.uid().map(Self::Uid).into_iter().chain(claims).collect()
    }
}

impl Stores {
    /// Of these caches; the indexes are to see what the watches deliver.
    pub fn new(resources: Store<Guarded>, services: Store<Service>, slices: Store<EndpointSlice>) -> Self {
        let service = |slice: &EndpointSlice| {
            let name = slice.labels().get(SERVICE_LABEL);
            name.map(|name| (slice.namespace().unwrap_or_default(), name.clone())).into_iter().collect()
        };
        Self { resources, services, slices, by: Index::new(By::all), slices_of: Index::new(service) }
    }

    /// The resources that ask for or hold one of `claims` as one of the namespace would.
    fn claimants(&self, namespace: &str, claims: &[Claim]) -> Vec<Arc<Guarded>> {
        let by: Vec<By> = claims.iter().map(|claim| By::claim(namespace, claim)).collect();
        self.by.find(&self.resources, &by)
    }

    /// Waits until every kind has delivered its first full list: a missing Service must be missing, not just not
    /// seen yet. An error: a watch ended, so it never will.
    pub async fn first_lists(&self) -> Result<(), WriterDropped> {
        self.resources.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.slices.wait_until_ready().await
    }
}

/// The adapter.
pub struct Cluster {
    client: Client,
    stores: Stores,
    herald: Herald,
    gate: Gate,
}

impl Cluster {
    /// `instance` is this process, for the Events.
    pub fn new(client: Client, stores: Stores, instance: &str) -> Self {
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(instance.to_owned()) };
        let herald = Herald::start(client.clone(), reporter);
        Self { client, stores, herald, gate: Gate::restless("the Kubernetes API") }
    }

    fn api(&self, of: &ResilientService) -> Api<ResilientService> {
        Api::namespaced(self.client.clone(), &of.namespace().unwrap_or_default())
    }

    /// A JSON patch, which tests whose status it is: the API server takes an apply for the status of another object of
    /// the same name, whatever its UID says.
    async fn patch_status(&self, of: &ResilientService, patch: String) -> Result<(), kube::Error> {
        let all = ResilientService::url_path(&(), of.namespace().as_deref());
        let request = http::Request::patch(format!("{all}/{}/status?fieldManager={MANAGER}", of.name_any()))
            .header(http::header::CONTENT_TYPE, "application/json-patch+json")
            .body(patch.into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.client.request::<PartialObjectMeta<ResilientService>>(request).await.map(drop)
    }

    /// Sets the finalizers of the object as it is now, if it still is the one that is meant.
    async fn write_finalizer(
        &self,
        resource: &ResilientService,
        present: bool,
    ) -> Result<Finalizer, kube::Error> {
        let (api, name) = (self.api(resource), resource.name_any());
        let Some(now) = api.get_metadata_opt(&name).await?.filter(|now| now.uid() == resource.uid()) else {
            return Ok(Finalizer::Gone);
        };
        let set = now.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
        if present && now.metadata.deletion_timestamp.is_some() {
            return Ok(Finalizer::Gone);
        }
        if present == set {
            return Ok(Finalizer::Set);
        }
        let mut finalizers = now.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        if present {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = json!({ "metadata": {
            "uid": now.uid(),
            "resourceVersion": now.resource_version(),
            "finalizers": finalizers,
        } });
        api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| Finalizer::Set)
    }
}

/// An error of the API server without its debugging text.
pub fn told(error: &kube::Error) -> Unavailable {
    Unavailable(match error {
        kube::Error::Api(status) => {
            format!("the Kubernetes API answered {}: {}", status.code, status.message)
        }
        error => format!("the Kubernetes API: {error}"),
    })
}

impl ClusterState for Cluster {
    fn resources(&self) -> Vec<Arc<ResilientService>> {
        let all = self.stores.resources.state();
        all.into_iter().filter_map(|guarded| guarded.0.as_ref().ok().cloned().map(Arc::new)).collect()
    }

    fn uids(&self) -> BTreeSet<String> {
        self.stores.resources.state().iter().filter_map(|guarded| guarded.uid()).collect()
    }

    fn claimants(
        &self,
        namespace: &str,
        claims: &[Claim],
        uids: &BTreeSet<String>,
    ) -> Vec<Arc<ResilientService>> {
        let claims = claims.iter().map(|claim| By::claim(namespace, claim));
        let by: Vec<By> = claims.chain(uids.iter().cloned().map(By::Uid)).collect();
        let found = self.stores.by.find(&self.stores.resources, &by);
        found.into_iter().map(|guarded| Arc::new(guarded.holder().clone())).collect()
    }

    fn exists(&self, uid: &str) -> bool {
        self.stores.by.has(&By::Uid(uid.to_owned()))
    }

    fn names(&self) -> BTreeSet<Ident> {
        let all = self.stores.resources.state();
        let names = all.iter().filter(|guarded| guarded.0.is_ok());
        names.map(|of| Ident::new(of.namespace().unwrap_or_default(), of.name_any())).collect()
    }

    fn count(&self) -> usize {
        self.stores.resources.len()
    }

    fn fresh(&self) -> Answer<'_, Result<BTreeMap<Ident, String>, Unavailable>> {
        Box::pin(self.gate.run(async move {
            let api = Api::<ResilientService>::all(self.client.clone());
            // Without a resourceVersion: what a quorum of the API server's store says.
            let mut page = ListParams::default().limit(PAGE);
            let mut all = BTreeMap::new();
            loop {
                let found = api.list_metadata(&page).await.map_err(|error| told(&error))?;
                all.extend(found.items.iter().filter_map(|object| {
                    let of = Ident::new(object.namespace().unwrap_or_default(), object.name_any());
                    Some((of, object.uid()?))
                }));
                match found.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => return Ok(all),
                }
            }
        }))
    }

    fn service(&self, namespace: &str, name: &str) -> Option<ServiceView> {
        let found = self.stores.services.get(&ObjectRef::new(name).within(namespace))?;
        Some(ServiceView::of(&found))
    }

    fn endpoints(&self, namespace: &str, service: &ServiceView) -> Vec<Endpoint> {
        let of = (namespace.to_owned(), service.name.clone());
        let slices = self.stores.slices_of.find(&self.stores.slices, [&of]);
        model::endpoints(slices.iter().map(Arc::as_ref), &service.family)
    }

    fn standing<'a>(&'a self, resource: &'a ResilientService) -> Answer<'a, Result<Standing, Unavailable>> {
        Box::pin(self.gate.run(async move {
            let namespace = resource.namespace().unwrap_or_default();
            let api = Api::<Guarded>::namespaced(self.client.clone(), &namespace);
            let now = api.get_opt(&resource.name_any()).await.map_err(|error| told(&error))?;
            Ok(Standing::of(resource, now.as_ref().map(Guarded::holder)))
        }))
    }

    fn set_finalizer<'a>(
        &'a self,
        resource: &'a ResilientService,
        present: bool,
    ) -> Answer<'a, Result<Finalizer, Unavailable>> {
        Box::pin(
            self.gate.run(async move {
                self.write_finalizer(resource, present).await.map_err(|error| told(&error))
            }),
        )
    }

    fn write_status<'a>(
        &'a self,
        resource: &'a ResilientService,
        status: &'a ResilientServiceStatus,
    ) -> Answer<'a, Result<(), Unavailable>> {
        let patch = json!([
            { "op": "test", "path": "/metadata/uid", "value": resource.uid() },
            { "op": "add", "path": "/status", "value": status },
        ]);
        Box::pin(self.gate.run(async move {
            let done = self.patch_status(resource, patch.to_string()).await;
            done.map_err(|error| told(&error))
        }))
    }

    fn notify<'a>(&'a self, resource: &'a ResilientService, notice: &'a Notice) -> Answer<'a, ()> {
        let mut note = notice.message.clone();
        if note.len() > MAX_NOTE {
            let end = (0..=MAX_NOTE).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
            note.truncate(end);
            note.push('…');
        }
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.clone(),
            note: Some(note),
            action: notice.action.clone(),
            secondary: None,
        };
        self.herald.tell(event, resource.object_ref(&()));
        Box::pin(std::future::ready(()))
    }
}
