//! What the watches of one process delivered, and whom that wakes: the product's rules over a cache in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceStatus};
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::{sleep, sleep_until};

use super::place::{Place, Shown};
use super::wired::{Link, now};
use crate::claims::{self, Claim};
use crate::kubernetes::Guarded;
use crate::kubernetes::news::News;
use crate::kubernetes::watch::concerned;
use crate::model::{Endpoint, ServiceView};
use crate::ports::{Answer, ClusterState, Finalizer, Notice, Standing, Unavailable};
use crate::world::{Cache, Weather};

/// How a process's watches are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// How late they show resources.
    pub resources: Duration,
    /// How late they show Services and endpoints.
    pub services: Duration,
    /// Events are missing until they begin anew.
    pub broken: bool,
}

/// One process's caches.
pub struct View {
    seen: Mutex<Cache>,
    news: Mutex<News>,
    wake: mpsc::UnboundedSender<Ident>,
    listed: Notify,
}

impl View {
    pub fn new(wake: mpsc::UnboundedSender<Ident>) -> Self {
        let nothing = Cache { resources: BTreeMap::new(), services: BTreeMap::new() };
        Self { seen: Mutex::new(nothing), news: Mutex::default(), wake, listed: Notify::new() }
    }

    /// The first lists arrive, one after the other.
    async fn list(&self, first: &Cache) {
        let resources_first = fastrand::bool();
        for resources in [resources_first, !resources_first] {
            sleep(Duration::from_millis(fastrand::u64(50..4000))).await;
            if resources {
                self.show_resources(&first.resources);
            } else {
                self.show_services(&first.services);
            }
        }
        self.listed.notify_one();
    }

    /// Once every kind has delivered its first list.
    pub async fn first_lists(&self) {
        self.listed.notified().await;
    }

    fn look<T>(&self, look: impl FnOnce(&Cache) -> T) -> T {
        look(&self.seen.try_lock().unwrap())
    }

    pub fn get(&self, of: &Ident) -> Option<Arc<ResilientService>> {
        self.look(|seen| seen.resources.get(of).cloned().map(Arc::new))
    }

    pub fn wake_all(&self) {
        for of in self.look(|seen| seen.resources.keys().cloned().collect::<Vec<_>>()) {
            let _ = self.wake.send(of);
        }
    }

    /// Shows resources.
    fn show_resources(&self, new: &BTreeMap<Ident, ResilientService>) {
        let before = std::mem::replace(&mut self.seen.try_lock().unwrap().resources, new.clone());
        let mut news = self.news.try_lock().unwrap();
        let gone = before.iter().filter(|(of, _)| !new.contains_key(of)).map(|(_, gone)| gone);
        let gone: Vec<Event<Guarded>> = gone.map(|gone| Event::Delete(guarded(gone))).collect();
        let there = new.values().map(|there| Event::Apply(guarded(there)));
        let changes: Vec<_> = gone.into_iter().chain(there).flat_map(|event| news.of(event)).collect();
        if changes.is_empty() {
            return;
        }
        let all: Vec<Arc<Guarded>> = new.values().map(|there| Arc::new(guarded(there))).collect();
        // In order: the sets of the product have none.
        let woken: BTreeSet<Ident> = concerned(&changes, |_, _| all.clone())
            .into_iter()
            .map(|of| Ident::new(of.namespace.unwrap_or_default(), of.name))
            .collect();
        for of in woken {
            let _ = self.wake.send(of);
        }
    }

    /// Shows Services and their endpoints.
    fn show_services(&self, new: &BTreeMap<Ident, (ServiceView, Vec<Endpoint>)>) {
        let mut seen = self.seen.try_lock().unwrap();
        let names: BTreeSet<&Ident> = seen.services.keys().chain(new.keys()).collect();
        let changed: Vec<&Ident> =
            names.into_iter().filter(|of| seen.services.get(of) != new.get(of)).collect();
        let uses = |resource: &ResilientService| {
            let claims = [claims::asked(resource), claims::held(resource)].concat();
            let namespace = resource.namespace().unwrap_or_default();
            let is_one =
                |of: &&Ident| of.namespace == namespace && claims.contains(&Claim::Service(of.name.clone()));
            changed.iter().any(is_one)
        };
        for (of, _) in seen.resources.iter().filter(|(_, resource)| uses(resource)) {
            let _ = self.wake.send(of.clone());
        }
        seen.services.clone_from(new);
    }

    /// The first lists, and what comes after.
    pub async fn watch(
        &self,
        place: &Place,
        old: usize,
        sight: watch::Receiver<Sight>,
        api: watch::Sender<Weather>,
    ) {
        let (resources, services) = (place.watch(), place.watch());
        self.list(&place.before(old)).await;
        place.publish();
        tokio::join!(
            self.follow(resources, sight.clone(), api.clone(), true),
            self.follow(services, sight, api, false)
        );
    }

    /// Follows the API server's resources, or its Services, for as long as the process lives.
    async fn follow(
        &self,
        mut told: mpsc::UnboundedReceiver<Shown>,
        sight: watch::Receiver<Sight>,
        api: watch::Sender<Weather>,
        resources: bool,
    ) {
        while let Some((at, cache)) = told.recv().await {
            let now = *sight.borrow();
            if now.broken || api.borrow().down {
                continue;
            }
            sleep_until(at + if resources { now.resources } else { now.services }).await;
            if resources {
                self.show_resources(&cache.resources);
            } else {
                self.show_services(&cache.services);
            }
        }
        std::future::pending::<()>().await;
    }
}

fn guarded(resource: &ResilientService) -> Guarded {
    Guarded(Ok(resource.clone()))
}

/// Kubernetes as one process sees and reaches it.
pub struct Kube {
    pub view: Arc<View>,
    pub link: Link,
}

impl Kube {
    /// A write of `me`; the watches hear of it.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Place) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.link
            .write(move |place, me| {
                let before = place.cluster.faults.writes();
                let done = write(place);
                if place.cluster.faults.writes() != before {
                    place.judge.try_lock().unwrap().note(place, me, "kubernetes");
                    place.publish();
                }
                done
            })
            .await
    }
}

impl ClusterState for Kube {
    fn resources(&self) -> Vec<Arc<ResilientService>> {
        self.view.look(|seen| seen.resources.values().cloned().map(Arc::new).collect())
    }

    fn uids(&self) -> BTreeSet<String> {
        self.view.look(|seen| seen.resources.values().filter_map(ResourceExt::uid).collect())
    }

    fn fresh(&self) -> Answer<'_, Result<BTreeMap<Ident, String>, Unavailable>> {
        Box::pin(async { self.link.ask(|place, _| now(place.cluster.fresh())).await? })
    }

    fn service(&self, namespace: &str, name: &str) -> Option<ServiceView> {
        let of = Ident::new(namespace, name);
        self.view.look(|seen| seen.services.get(&of).map(|(service, _)| service.clone()))
    }

    fn endpoints(&self, namespace: &str, service: &ServiceView) -> Vec<Endpoint> {
        let of = Ident::new(namespace, &service.name);
        self.view.look(|seen| seen.services.get(&of).map(|(_, all)| all.clone()).unwrap_or_default())
    }

    fn standing<'a>(&'a self, resource: &'a ResilientService) -> Answer<'a, Result<Standing, Unavailable>> {
        let resource = resource.clone();
        Box::pin(async { self.link.ask(move |place, _| now(place.cluster.standing(&resource))).await? })
    }

    fn set_finalizer<'a>(
        &'a self,
        resource: &'a ResilientService,
        present: bool,
    ) -> Answer<'a, Result<Finalizer, Unavailable>> {
        let resource = resource.clone();
        Box::pin(async move {
            self.write(move |place| now(place.cluster.set_finalizer(&resource, present))).await?
        })
    }

    fn write_status<'a>(
        &'a self,
        resource: &'a ResilientService,
        status: &'a ResilientServiceStatus,
    ) -> Answer<'a, Result<(), Unavailable>> {
        let (resource, status) = (resource.clone(), status.clone());
        Box::pin(async move {
            self.write(move |place| now(place.cluster.write_status(&resource, &status))).await?
        })
    }

    fn notify<'a>(&'a self, _: &'a ResilientService, _: &'a Notice) -> Answer<'a, ()> {
        Box::pin(async {})
    }
}
