//! Kubernetes and Traefik's objects in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{FINALIZER, ResilientService, ResilientServiceStatus};
use kube::ResourceExt;
use tokio::sync::Mutex;

use super::{Crash, Faults};
use crate::model::{self, Endpoint, ServiceView};
use crate::ports::{
    Answer, ClusterState, Finalizer, Notice, Owner, Route, RouteError, RouteStore, RouteView, Unavailable,
};

/// Resources, Services, endpoints.
#[derive(Debug)]
pub struct ClusterWorld {
    /// Its trouble.
    pub faults: Faults,
    /// By identity.
    pub resources: Mutex<BTreeMap<Ident, ResilientService>>,
    /// What the caches do not show yet.
    pub unseen: Mutex<BTreeSet<Ident>>,
    /// How often the API server was asked for all resources.
    pub fresh_lists: AtomicUsize,
    /// By namespace and name, with their endpoints.
    pub services: Mutex<BTreeMap<Ident, (ServiceView, Vec<Endpoint>)>>,
    /// What was told, in order.
    pub notices: Mutex<Vec<Notice>>,
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
            notices: Mutex::default(),
        }
    }

    fn cached(&self) -> BTreeMap<Ident, ResilientService> {
        let unseen = self.unseen.try_lock().unwrap();
        let mut all = self.resources.try_lock().unwrap().clone();
        all.retain(|of, _| !unseen.contains(of));
        all
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
        self.cached().into_values().map(Arc::new).collect()
    }

    fn uids(&self) -> BTreeSet<String> {
        self.cached().values().filter_map(ResourceExt::uid).collect()
    }

    fn fresh(&self) -> Answer<'_, Result<BTreeMap<Ident, String>, Unavailable>> {
        Box::pin(async move {
            self.faults.read()?;
            self.fresh_lists.fetch_add(1, SeqCst);
            let all = self.resources.try_lock().unwrap();
            Ok(all.iter().filter_map(|(of, there)| Some((of.clone(), there.uid()?))).collect())
        })
    }

    fn service(&self, namespace: &str, name: &str) -> Option<ServiceView> {
        let services = self.services.try_lock().unwrap();
        services.get(&Ident::new(namespace, name)).map(|(service, _)| service.clone())
    }

    fn endpoints(&self, namespace: &str, service: &ServiceView) -> Vec<Endpoint> {
        let services = self.services.try_lock().unwrap();
        let found = services.get(&Ident::new(namespace, &service.name));
        found.map(|(_, endpoints)| endpoints.clone()).unwrap_or_default()
    }

    fn set_finalizer<'a>(
        &'a self,
        resource: &'a ResilientService,
        present: bool,
    ) -> Answer<'a, Result<Finalizer, Unavailable>> {
        Box::pin(async move {
            // As the adapter: reads what is there, and writes only where that changes something.
            self.faults.read()?;
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
            self.faults.write(|| {
                self.change(resource, |there| {
                    let finalizers = there.finalizers_mut();
                    finalizers.retain(|f| f != FINALIZER);
                    if present {
                        finalizers.push(FINALIZER.to_owned());
                    }
                })
                .map(|()| Finalizer::Set)
            })
        })
    }

    fn write_status<'a>(
        &'a self,
        resource: &'a ResilientService,
        status: &'a ResilientServiceStatus,
    ) -> Answer<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            self.faults.write(|| self.change(resource, |there| there.status = Some(status.clone())))
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
}

impl RouteWorld {
    /// An empty one.
    pub fn new(crash: &Arc<Crash>) -> Self {
        Self { faults: Faults::of(crash), objects: Mutex::default(), crds_missing: AtomicBool::default() }
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
            self.faults.read()?;
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

    fn apply<'a>(&'a self, owner: &'a Owner, route: &'a Route) -> Answer<'a, Result<(), RouteError>> {
        Box::pin(async move {
            self.faults.write(|| {
                let view = RouteView { owner: Some(owner.uid.clone()), spec: route.spec.clone() };
                let at = Ident::new(&owner.ident.namespace, &route.name);
                self.objects.try_lock().unwrap().insert(at, view);
                Ok(())
            })
        })
    }

    fn delete<'a>(&'a self, owner: &'a Owner, name: &'a str) -> Answer<'a, Result<(), RouteError>> {
        Box::pin(async move {
            self.faults.write(|| {
                self.objects.try_lock().unwrap().remove(&Ident::new(&owner.ident.namespace, name));
                Ok(())
            })
        })
    }
}
