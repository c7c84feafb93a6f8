//! One Kubernetes cluster and what its operators keep in Consul and etcd: all that lives longer than a process.

use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::ResilientService;
use jiff::Timestamp;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::judge::Judge;
use crate::reconcile::Settings;
use crate::world::{Cache, CatalogWorld, ClusterWorld, LeaseWorld, RouteWorld, SessionWorld, StoreWorld};

/// How many old versions a process may be shown at its start.
const HISTORY: usize = 40;
/// How long ago such a version was the newest one.
const STALE: Duration = Duration::from_secs(45);

/// What a watch tells of: all there is, and since when.
pub type Shown = (Instant, Arc<Cache>);

/// Which raw keys a cluster's resources may have.
pub fn key_prefix(cluster: &str) -> String {
    format!("{cluster}.user.")
}

pub struct Place {
    pub name: String,
    pub start: Instant,
    pub cluster: Arc<ClusterWorld>,
    pub routes: Arc<RouteWorld>,
    pub lease: Arc<LeaseWorld>,
    pub catalog: Arc<CatalogWorld>,
    pub store: Arc<StoreWorld>,
    pub sessions: Arc<SessionWorld>,
    pub judge: Mutex<Judge>,
    history: Mutex<Vec<Shown>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Shown>>>,
}

impl Place {
    pub fn new(name: &str, catalog: CatalogWorld, store: StoreWorld) -> Self {
        Self {
            name: name.to_owned(),
            start: Instant::now(),
            cluster: Arc::new(ClusterWorld::new(&Arc::default())),
            routes: Arc::new(RouteWorld::new(&Arc::default())),
            lease: Arc::default(),
            catalog: Arc::new(catalog),
            store: Arc::new(store),
            sessions: Arc::new(SessionWorld::new(true)),
            judge: Mutex::new(Judge::new(name)),
            history: Mutex::default(),
            watchers: Mutex::default(),
        }
    }

    pub fn settings(&self, remove_all_orphans: bool) -> Settings {
        Settings {
            cluster: self.name.clone(),
            allowed: [("shop".to_owned(), vec![self.key_prefix()])].into(),
            remove_all_orphans,
        }
    }

    /// Which raw keys its resources may have.
    pub fn key_prefix(&self) -> String {
        key_prefix(&self.name)
    }

    /// The wall clock's time.
    pub fn wall(&self) -> Timestamp {
        let second = Instant::now().duration_since(self.start).as_secs();
        Timestamp::from_second(1_800_000_000 + i64::try_from(second).unwrap()).unwrap()
    }

    /// Something in Kubernetes may have changed: the judge and the watches hear of it.
    pub fn publish(&self) {
        let now = Arc::new(self.cluster.now());
        self.judge.try_lock().unwrap().sees(&now);
        let mut history = self.history.try_lock().unwrap();
        history.push((Instant::now(), now.clone()));
        let too_many = history.len().saturating_sub(HISTORY);
        history.drain(..too_many);
        let mut watchers = self.watchers.try_lock().unwrap();
        watchers.retain(|watcher| watcher.send((Instant::now(), now.clone())).is_ok());
    }

    /// From now on.
    pub fn watch(&self) -> mpsc::UnboundedReceiver<Shown> {
        let (tell, told) = mpsc::unbounded_channel();
        self.watchers.try_lock().unwrap().push(tell);
        told
    }

    /// What there was so many changes ago, or as long ago as anything that is acted on is old.
    pub fn before(&self, changes: usize) -> Arc<Cache> {
        let history = self.history.try_lock().unwrap();
        let now = Instant::now();
        // It was the newest until the next one came.
        let stale = history.iter().skip(1).take_while(|(at, _)| now.duration_since(*at) > STALE).count();
        let at = history.len().saturating_sub(changes + 1).max(stale);
        history.get(at).map_or_else(|| Arc::new(self.cluster.now()), |(_, cache)| cache.clone())
    }

    /// A person changes Kubernetes.
    pub fn change<T>(&self, change: impl FnOnce(&ClusterWorld) -> T) -> T {
        let done = change(&self.cluster);
        self.publish();
        done
    }

    pub fn get(&self, of: &Ident) -> Option<ResilientService> {
        self.cluster.resources.try_lock().unwrap().get(of).cloned()
    }

    /// Writes of its operators so far, renewals not counted.
    pub fn writes(&self) -> [usize; 5] {
        [
            self.catalog.faults.writes(),
            self.store.faults.writes(),
            self.routes.faults.writes(),
            self.cluster.faults.writes(),
            self.sessions.writes(),
        ]
    }
}
