//! Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{FINALIZER, ResilientService, ResilientServiceStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use tokio::sync::Mutex;

use super::{Crash, Faults};
use crate::model::{self, Endpoint, ServiceView};
use crate::ports::{Answer, ClusterState, Finalizer, Notice, Standing, Unavailable};

type Resources = BTreeMap<Ident, ResilientService>;
type Services = BTreeMap<Ident, (ServiceView, Vec<Endpoint>)>;

/// Resources, Services, endpoints.
#[derive(Debug)]
pub struct ClusterWorld {
    /// Its trouble.
    pub faults: Faults,
    /// By identity.
    pub resources: Mutex<Resources>,
    /// How many more there are that nobody looks at.
    pub more: AtomicUsize,
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
            more: AtomicUsize::new(0),
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

    fn count(&self) -> usize {
        self.shown().resources.len() + self.more.load(SeqCst)
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
            Ok(Standing::of(resource, all.get(&model::ident(resource))))
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
