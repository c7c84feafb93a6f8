//! Traefik's `IngressRoute` objects, written by server-side apply.
//!
//! # Guarantees
//! - An object that is not owned by the resource in question is neither written nor removed: each write is
//!   preceded by a look, and takes place only if the object is still as it was then.
//! - Where there was none, what somebody else creates at the same moment is not overwritten: a value of
//!   theirs that differs from ours is a conflict.

use std::collections::BTreeMap;

use fusebox_policy::v1alpha1::{GROUP, ResilientService};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Resource};
use serde_json::json;

use super::routes::Kept;
use super::{MANAGER, told};
use crate::gate::Gate;
use crate::ports::{Answer, Owner, Route, RouteError, RouteStore, RouteView};

/// The label that says by whom an object is kept.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The adapter.
pub struct Traefik {
    client: Client,
    kind: ApiResource,
    gate: Gate,
    kept: Kept,
}

impl Traefik {
    /// Nothing is sent yet. `kept` is filled by [`follow_drift`](super::routes::follow_drift).
    pub fn new(client: Client, kept: Kept) -> Self {
        Self { client, kind: kind(), gate: Gate::restless("the Kubernetes API"), kept }
    }

    fn api(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &self.kind)
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Option<DynamicObject>, RouteError> {
        match self.api(namespace).get(name).await {
            Ok(object) => Ok(Some(object)),
            // A missing object is named in the answer; a missing kind is not.
            Err(kube::Error::Api(status))
                if status.code == 404
                    && status.details.as_ref().is_some_and(|details| details.name == name) =>
            {
                Ok(None)
            }
            Err(error) => Err(route_error(&error)),
        }
    }
}

/// `IngressRoute`.
pub fn kind() -> ApiResource {
    let kind = GroupVersionKind::gvk("traefik.io", "v1alpha1", "IngressRoute");
    ApiResource::from_gvk_with_plural(&kind, "ingressroutes")
}

fn route_error(error: &kube::Error) -> RouteError {
    match error {
        kube::Error::Api(status) if status.code == 404 => RouteError::CrdsMissing,
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            RouteError::Refused(status.message.clone())
        }
        error => told(error).into(),
    }
}

/// The UID of the resource of ours that owns an object.
fn owner(object: &DynamicObject) -> Option<String> {
    reference(&object.metadata).map(|owner| owner.uid.clone())
}

/// The name of the resource of ours that owns an object.
pub fn owner_name(metadata: &ObjectMeta) -> Option<String> {
    reference(metadata).map(|owner| owner.name.clone())
}

fn reference(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let kind = ResilientService::kind(&());
    let ours = |reference: &&OwnerReference| {
        reference.kind == kind && reference.api_version.split('/').next() == Some(GROUP)
    };
    metadata.owner_references.iter().flatten().find(ours)
}

impl RouteStore for Traefik {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        names: &'a [String],
        wanted: bool,
    ) -> Answer<'a, Result<BTreeMap<String, RouteView>, RouteError>> {
        Box::pin(self.gate.run(async move {
            let mut found = BTreeMap::new();
            if !wanted && self.kept.none_of(namespace, names) {
                return Ok(found);
            }
            for name in names {
                if let Some(mut object) = self.get(namespace, name).await? {
                    let view = RouteView { owner: owner(&object), spec: object.data["spec"].take() };
                    found.insert(name.clone(), view);
                }
            }
            Ok(found)
        }))
    }

    fn apply<'a>(&'a self, of: &'a Owner, route: &'a Route) -> Answer<'a, Result<(), RouteError>> {
        let mut object = json!({
            "apiVersion": self.kind.api_version,
            "kind": self.kind.kind,
            "metadata": {
                "name": route.name,
                "labels": {
                    (MANAGED_BY): MANAGER,
                    "fusebox.dev/service": of.ident.name,
                },
                "ownerReferences": [{
                    "apiVersion": ResilientService::api_version(&()),
                    "kind": ResilientService::kind(&()),
                    "name": of.ident.name,
                    "uid": of.uid,
                    "controller": true,
                }],
            },
            "spec": route.spec,
        });
        Box::pin(self.gate.run(async move {
            let there = self.get(&of.ident.namespace, &route.name).await?;
            if there.as_ref().is_some_and(|there| owner(there).as_ref() != Some(&of.uid)) {
                return Err(RouteError::Refused(format!(
                    "IngressRoute {} belongs to somebody else: rename or remove it",
                    route.name
                )));
            }
            let mut params = PatchParams::apply(MANAGER);
            if let Some(there) = there {
                object["metadata"]["resourceVersion"] = json!(there.metadata.resource_version);
                params = params.force();
            }
            let api = self.api(&of.ident.namespace);
            let done = api.patch(&route.name, &params, &Patch::Apply(object)).await;
            done.map(|_| ()).map_err(|error| route_error(&error))
        }))
    }

    fn delete<'a>(&'a self, of: &'a Owner, name: &'a str) -> Answer<'a, Result<(), RouteError>> {
        Box::pin(self.gate.run(async move {
            let there = self.get(&of.ident.namespace, name).await?;
            let Some(there) = there.filter(|there| owner(there).as_ref() == Some(&of.uid)) else {
                return Ok(());
            };
            let only_this = Preconditions { uid: there.metadata.uid, resource_version: None };
            let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
            match self.api(&of.ident.namespace).delete(name, &params).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(route_error(&error)),
            }
        }))
    }
}
