//! Kubernetes and Traefik's objects in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{FINALIZER, ResilientService, ResilientServiceStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{Crash, Faults};
use crate::model::{self, Endpoint, ServiceView};
use crate::ports::{
    Answer, ClusterState, Finalizer, Notice, Owner, Route, RouteError, RouteStore, RouteView, Standing,
    Unavailable,
};

type Resources = BTreeMap<Ident, ResilientService>;
type Services = BTreeMap<Ident, (ServiceView, Vec<Endpoint>)>;

/// Resources, Services, endpoints.
#[derive(Debug)]
pub struct ClusterWorld {
    /// Its trouble.
    pub faults: Faults,
    /// By identity.
    pub resources: Mutex<Resources>,
    /// What the caches do not show yet.
    pub unseen: Mutex<BTreeSet<Ident>>,
    /// How often the API server was asked for all resources.
    pub fresh_lists: AtomicUsize,
    /// By namespace and name, with their endpoints.
    pub services: Mutex<Services>,
    /// What the watches delivered, if that is not what there is.
    pub cache: Mutex<Option<Cache>>,
    /// What was told, in order.
    pub notices: Mutex<Vec<Notice>>,
}

/// What the watches delivered.
#[derive(Clone, Debug)]
pub struct Cache {
    /// By identity.
    pub resources: Resources,
    /// By namespace and name, with their endpoints.
    pub services: Services,
}

impl ClusterWorld {
    /// An empty one.
    pub fn new(crash: &Arc<Crash>) -> Self {
        Self {
            faults: Faults::of(crash),
            resources: Mutex::default(),
            unseen: Mutex::default(),
            fresh_lists: AtomicUsize::new(0),
            services: Mutex::default(),
            cache: Mutex::default(),
            notices: Mutex::default(),
        }
    }

    /// The same for another process.
    pub fn copy(&self, crash: &Arc<Crash>) -> Self {
        let now = self.now();
        let (resources, services) = (Mutex::new(now.resources), Mutex::new(now.services));
        Self { resources, services, ..Self::new(crash) }
    }

    /// What there is.
    pub fn now(&self) -> Cache {
        Cache {
            resources: self.resources.try_lock().unwrap().clone(),
            services: self.services.try_lock().unwrap().clone(),
        }
    }

    /// What the watches delivered.
    pub fn shown(&self) -> Cache {
        let mut shown = self.cache.try_lock().unwrap().clone().unwrap_or_else(|| self.now());
        let unseen = self.unseen.try_lock().unwrap();
        shown.resources.retain(|of, _| !unseen.contains(of));
        shown
    }

    /// As `kubectl delete` does: who has a finalizer stays, with another generation.
    pub fn delete(&self, of: &Ident, at: Timestamp) {
        self.others(of, |there| {
            let metadata = &mut there.metadata;
            if metadata.deletion_timestamp.is_none() {
                metadata.deletion_timestamp = Some(Time(at));
                metadata.generation = metadata.generation.map(|generation| generation + 1);
            }
        });
    }

    /// Somebody writes an object, if it is there.
    pub fn others(&self, of: &Ident, change: impl FnOnce(&mut ResilientService)) {
        let there = self.resources.try_lock().unwrap().get(of).cloned();
        if let Some(there) = there {
            let _ = self.change(&there, change);
        }
    }

    fn change(
        &self,
        of: &ResilientService,
        change: impl FnOnce(&mut ResilientService),
    ) -> Result<(), Unavailable> {
        let mut all = self.resources.try_lock().unwrap();
        let ident = model::ident(of);
        let Some(there) = all.get_mut(&ident).filter(|there| there.uid() == of.uid()) else {
            return Err(Unavailable("not found".into()));
        };
        change(there);
        if there.metadata.deletion_timestamp.is_some() && there.finalizers().is_empty() {
            all.remove(&ident);
        }
        Ok(())
    }
}

impl ClusterState for ClusterWorld {
    fn resources(&self) -> Vec<Arc<ResilientService>> {
        self.shown().resources.into_values().map(Arc::new).collect()
    }

    fn uids(&self) -> BTreeSet<String> {
        self.shown().resources.values().filter_map(ResourceExt::uid).collect()
    }

    fn fresh(&self) -> Answer<'_, Result<BTreeMap<Ident, String>, Unavailable>> {
        Box::pin(async move {
            self.faults.read().await?;
            self.fresh_lists.fetch_add(1, SeqCst);
            let all = self.resources.try_lock().unwrap();
            Ok(all.iter().filter_map(|(of, there)| Some((of.clone(), there.uid()?))).collect())
        })
    }

    fn service(&self, namespace: &str, name: &str) -> Option<ServiceView> {
        self.shown().services.remove(&Ident::new(namespace, name)).map(|(service, _)| service)
    }

    fn endpoints(&self, namespace: &str, service: &ServiceView) -> Vec<Endpoint> {
        let found = self.shown().services.remove(&Ident::new(namespace, &service.name));
        found.map(|(_, endpoints)| endpoints).unwrap_or_default()
    }

    fn standing<'a>(&'a self, resource: &'a ResilientService) -> Answer<'a, Result<Standing, Unavailable>> {
        Box::pin(async move {
            self.faults.read().await?;
            let all = self.resources.try_lock().unwrap();
            let now = all.get(&model::ident(resource));
            Ok(Standing::of(&resource.metadata, now.map(|now| &now.metadata)))
        })
    }

    fn set_finalizer<'a>(
        &'a self,
        resource: &'a ResilientService,
        present: bool,
    ) -> Answer<'a, Result<Finalizer, Unavailable>> {
        Box::pin(async move {
            // As the adapter: reads what is there, and writes only where that changes something.
            self.faults.read().await?;
            let there = self.resources.try_lock().unwrap().get(&model::ident(resource)).cloned();
            let Some(there) = there.filter(|there| there.uid() == resource.uid()) else {
                return Ok(Finalizer::Gone);
            };
            let set = there.finalizers().iter().any(|f| f == FINALIZER);
            if present && there.metadata.deletion_timestamp.is_some() {
                return Ok(Finalizer::Gone);
            }
            if present == set {
                return Ok(Finalizer::Set);
            }
            let change = |there: &mut ResilientService| {
                let finalizers = there.finalizers_mut();
                finalizers.retain(|f| f != FINALIZER);
                if present {
                    finalizers.push(FINALIZER.to_owned());
                }
            };
            self.faults.write(|| self.change(resource, change).map(|()| Finalizer::Set)).await
        })
    }

    fn write_status<'a>(
        &'a self,
        resource: &'a ResilientService,
        status: &'a ResilientServiceStatus,
    ) -> Answer<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            self.faults.write(|| self.change(resource, |there| there.status = Some(status.clone()))).await
        })
    }

    fn notify<'a>(&'a self, _: &'a ResilientService, notice: &'a Notice) -> Answer<'a, ()> {
        Box::pin(async move { self.notices.try_lock().unwrap().push(notice.clone()) })
    }
}

/// `IngressRoutes`.
#[derive(Debug)]
pub struct RouteWorld {
    /// Its trouble.
    pub faults: Faults,
    /// By namespace and name.
    pub objects: Mutex<BTreeMap<Ident, RouteView>>,
    /// Are Traefik's kinds unknown?
    pub crds_missing: AtomicBool,
    /// The fields of a spec that others own, as they wrote them.
    fields: Mutex<BTreeMap<Ident, BTreeMap<String, Value>>>,
}

impl RouteWorld {
    /// An empty one.
    pub fn new(crash: &Arc<Crash>) -> Self {
        let (objects, fields) = (Mutex::default(), Mutex::default());
        Self { faults: Faults::of(crash), objects, crds_missing: AtomicBool::default(), fields }
    }

    /// The same for another process.
    pub fn copy(&self, crash: &Arc<Crash>) -> Self {
        let crds_missing = AtomicBool::new(self.crds_missing.load(SeqCst));
        let fields = Mutex::new(self.fields.try_lock().unwrap().clone());
        Self { faults: Faults::of(crash), objects: Mutex::new(self.state()), crds_missing, fields }
    }

    /// Somebody else creates one, if there is none.
    pub fn theirs(&self, at: &Ident, spec: Value) {
        let mut objects = self.objects.try_lock().unwrap();
        objects.entry(at.clone()).or_insert(RouteView { owner: None, spec });
    }

    /// Somebody else applies a field of its spec, by force.
    pub fn set_field(&self, at: &Ident, field: &str, value: Value) {
        if let Some(there) = self.objects.try_lock().unwrap().get_mut(at) {
            there.spec[field] = value.clone();
            let mut fields = self.fields.try_lock().unwrap();
            fields.entry(at.clone()).or_default().insert(field.to_owned(), value);
        }
    }

    /// Somebody deletes it.
    pub fn lose(&self, at: &Ident) {
        self.objects.try_lock().unwrap().remove(at);
        self.fields.try_lock().unwrap().remove(at);
    }

    /// As server-side apply by force: what others own stays, unless we say something else.
    fn merged(&self, at: &Ident, mut spec: Value) -> Value {
        if let Some(theirs) = self.fields.try_lock().unwrap().get_mut(at) {
            theirs.retain(|field, value| match spec.get(field) {
                Some(ours) => ours == value,
                None => {
                    spec[field] = value.clone();
                    true
                }
            });
        }
        spec
    }

    /// All objects.
    pub fn state(&self) -> BTreeMap<Ident, RouteView> {
        self.objects.try_lock().unwrap().clone()
    }
}

impl RouteStore for RouteWorld {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        names: &'a [String],
    ) -> Answer<'a, Result<BTreeMap<String, RouteView>, RouteError>> {
        Box::pin(async move {
            self.faults.read().await?;
            if self.crds_missing.load(SeqCst) {
                return Err(RouteError::CrdsMissing);
            }
            let objects = self.objects.try_lock().unwrap();
            let found = names
                .iter()
                .filter_map(|name| Some((name.clone(), objects.get(&Ident::new(namespace, name))?.clone())));
            Ok(found.collect())
        })
    }

    // As the adapter: what does not belong to `owner` is neither written nor removed.
    fn apply<'a>(&'a self, owner: &'a Owner, route: &'a Route) -> Answer<'a, Result<(), RouteError>> {
        Box::pin(async move {
            let write = || {
                let mut objects = self.objects.try_lock().unwrap();
                let at = Ident::new(&owner.ident.namespace, &route.name);
                if objects.get(&at).is_some_and(|there| there.owner.as_ref() != Some(&owner.uid)) {
                    return Err(RouteError::Refused("belongs to somebody else".into()));
                }
                // Whoever deleted it deleted what others wrote into it.
                if !objects.contains_key(&at) {
                    self.fields.try_lock().unwrap().remove(&at);
                }
                let spec = self.merged(&at, route.spec.clone());
                objects.insert(at, RouteView { owner: Some(owner.uid.clone()), spec });
                Ok(())
            };
            self.faults.write(write).await
        })
    }

    fn delete<'a>(&'a self, owner: &'a Owner, name: &'a str) -> Answer<'a, Result<(), RouteError>> {
        Box::pin(async move {
            let write = || {
                let mut objects = self.objects.try_lock().unwrap();
                let at = Ident::new(&owner.ident.namespace, name);
                if objects.get(&at).is_some_and(|there| there.owner.as_ref() == Some(&owner.uid)) {
                    objects.remove(&at);
                }
                Ok(())
            };
            self.faults.write(write).await
        })
    }
}
