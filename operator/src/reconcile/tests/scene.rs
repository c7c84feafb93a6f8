//! A cluster to play in.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::v1alpha1::ResilientService;
use fusebox_policy::wire::{Claim, PolicyDocument, Report};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use crate::epoch::{Fenced, Signals};
use crate::model::{Endpoint, Entry, ServicePort, ServiceView, mark, shard_node};
use crate::ports::{NodeView, RouteView};
use crate::reconcile::deletions::Deletions;
use crate::reconcile::memory::Memory;
use crate::reconcile::{Context, Done, Settings, reconcile};
use crate::world::{CatalogWorld, ClusterWorld, Crash, RouteWorld, StoreWorld, TenureWorld};

/// The cluster's name.
pub const CLUSTER: &str = "test";

/// A resource that uses everything.
pub const FULL: &str = "
service: { name: user-service, port: grpc }
outbound: { timeout: 300ms, commands: [{ name: find_user, timeout: 250ms }] }
consul: { serviceName: user.service, tags: [v1], meta: { team: shop } }
gateway:
  entryPoints: { plain: web, tls: websecure }
  routes: [{ host: api.example.com, pathPrefix: /users }]
  tls: { secretName: api-cert }
config:
  document: { service: { user: { timeout: 1000 } } }
  etcdKeys: { service.user.timeout: '1000' }
";

pub fn user() -> Ident {
    Ident::new("shop", "user")
}

pub struct Scene {
    pub crash: Arc<Crash>,
    pub catalog: Arc<CatalogWorld>,
    pub store: Arc<StoreWorld>,
    pub routes: Arc<RouteWorld>,
    pub cluster: Arc<ClusterWorld>,
    pub context: Context,
    pub signals: Arc<Signals>,
    pub tenure: Arc<TenureWorld>,
    starts: u32,
    clock: AtomicI64,
}

impl Scene {
    /// A cluster with the Service user-service (grpc 50051, http 80) and no instance.
    pub fn new() -> Self {
        let crash = Arc::new(Crash::default());
        let catalog = Arc::new(CatalogWorld::new(&crash));
        let store = Arc::new(StoreWorld::new(&crash, CLUSTER, &["service.user."]));
        let routes = Arc::new(RouteWorld::new(&crash));
        let cluster = Arc::new(ClusterWorld::new(&crash));
        let tenure = Arc::<TenureWorld>::default();
        let (context, signals) = context(&catalog, &store, &routes, &cluster, &tenure, 1);
        let scene = Self {
            crash,
            catalog,
            store,
            routes,
            cluster,
            context,
            signals,
            tenure,
            starts: 1,
            clock: AtomicI64::new(2000),
        };
        scene.service("user-service");
        scene
    }

    /// A new process: all that it remembered is gone.
    pub fn restart(&mut self) {
        self.take_over();
    }

    /// A new process beside the one before, which is handed out.
    pub fn take_over(&mut self) -> Context {
        self.starts += 1;
        self.crash.restart();
        self.catalog.forget();
        self.tenure = Arc::default();
        let (catalog, store, routes, cluster) = (&self.catalog, &self.store, &self.routes, &self.cluster);
        let (new, signals) = context(catalog, store, routes, cluster, &self.tenure, self.starts);
        self.signals = signals;
        std::mem::replace(&mut self.context, new)
    }

    /// The same cluster at the same time, in another world; its process is still the writer.
    pub fn copy(&self) -> Self {
        let crash = Arc::new(Crash::default());
        let catalog = Arc::new(self.catalog.copy(&crash));
        let store = Arc::new(self.store.copy(&crash));
        let routes = Arc::new(self.routes.copy(&crash));
        let cluster = Arc::new(self.cluster.copy(&crash));
        let tenure = Arc::default();
        let (context, signals) = context(&catalog, &store, &routes, &cluster, &tenure, self.starts);
        let clock = AtomicI64::new(self.clock.load(SeqCst));
        Self { crash, catalog, store, routes, cluster, context, signals, tenure, starts: self.starts, clock }
    }

    /// Another process of the same operator, which has not written anything yet.
    pub fn process(&self, start: u32) -> (Context, Arc<Signals>) {
        context(&self.catalog, &self.store, &self.routes, &self.cluster, &Arc::default(), start)
    }

    pub fn service(&self, name: &str) {
        let port = |name: &str, number| ServicePort { name: name.into(), number, app_protocol: None };
        let ports = vec![port("grpc", 50051), port("http", 80)];
        let view = ServiceView { name: name.into(), ports, family: "IPv4".into() };
        self.cluster.services.try_lock().unwrap().insert(Ident::new("shop", name), (view, Vec::new()));
    }

    /// The instances of user-service: name and readiness.
    pub fn scale(&self, instances: &[(&str, bool)]) {
        self.scale_of("user-service", instances);
    }

    /// So many ready instances of a Service.
    pub fn many(&self, service: &str, range: std::ops::Range<usize>) {
        let names: Vec<String> = range.map(|n| format!("{service}-{n:03}")).collect();
        self.scale_of(service, &names.iter().map(|name| (name.as_str(), true)).collect::<Vec<_>>());
    }

    /// The instances of a Service: name and readiness.
    pub fn scale_of(&self, service: &str, instances: &[(&str, bool)]) {
        let endpoints = instances.iter().enumerate().map(|(n, (name, ready))| Endpoint {
            instance: format!("uid-{name}"),
            display: (*name).to_owned(),
            address: format!("10.0.0.{n}"),
            ports: [("grpc".to_owned(), 50051), ("http".to_owned(), 8080)].into(),
            ready: *ready,
        });
        let mut services = self.cluster.services.try_lock().unwrap();
        services.get_mut(&Ident::new("shop", service)).unwrap().1 = endpoints.collect();
    }

    /// Creates or edits a resource; a second later than the ones before.
    pub fn put(&self, of: &Ident, spec: &str) {
        let mut all = self.cluster.resources.try_lock().unwrap();
        let age = i64::try_from(all.len()).unwrap();
        let spec = serde_saphyr::from_str(spec).unwrap();
        let resource = all.entry(of.clone()).or_insert_with(|| {
            let mut new = ResilientService::new(&of.name, spec_of("service: { name: x }"));
            new.metadata.namespace = Some(of.namespace.clone());
            new.metadata.uid = Some(format!("cr-{}-{}", of.namespace, of.name));
            new.metadata.creation_timestamp = Some(Time(Timestamp::from_second(age).unwrap()));
            new
        });
        resource.spec = spec;
        resource.metadata.generation = Some(resource.metadata.generation.unwrap_or_default() + 1);
    }

    /// Does the API server take it?
    pub fn admits(&self, of: &Ident, spec: &str) -> Result<(), String> {
        let mut new = ResilientService::new(&of.name, spec_of(spec));
        new.metadata.namespace = Some(of.namespace.clone());
        self.cluster.admits(&new)
    }

    /// As [`put`](Self::put), if the API server takes it; else all stays.
    pub fn apply(&self, of: &Ident, spec: &str) -> Result<(), String> {
        self.admits(of, spec)?;
        self.put(of, spec);
        Ok(())
    }

    /// As `kubectl delete` does.
    pub fn delete(&self, of: &Ident) {
        self.cluster.delete(of, Timestamp::from_second(1000).unwrap());
    }

    pub fn annotate(&self, of: &Ident, key: &str, value: &str) {
        let mut all = self.cluster.resources.try_lock().unwrap();
        all.get_mut(of).unwrap().annotations_mut().insert(key.to_owned(), value.to_owned());
    }

    pub fn get(&self, of: &Ident) -> Option<ResilientService> {
        self.cluster.resources.try_lock().unwrap().get(of).cloned()
    }

    /// What the watches show of a resource.
    pub fn shown(&self, of: &Ident) -> Option<Arc<ResilientService>> {
        self.cluster.shown().resources.remove(of).map(Arc::new)
    }

    /// A minute later.
    pub async fn later(&self) -> Timestamp {
        self.later_by(60).await
    }

    async fn later_by(&self, seconds: u64) -> Timestamp {
        tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
        Timestamp::from_second(self.clock.fetch_add(60, SeqCst)).unwrap()
    }

    /// One pass, a minute after the one before.
    pub async fn pass(&self, of: &Ident) -> Option<Done> {
        self.pass_after(60, of).await
    }

    /// One pass, so many seconds after the one before.
    pub async fn pass_after(&self, seconds: u64, of: &Ident) -> Option<Done> {
        let now = self.later_by(seconds).await;
        Some(reconcile(&self.context, &self.shown(of)?, now).await)
    }

    /// Passes until nothing is done any more.
    pub async fn settle(&self, of: &Ident) {
        for _ in 0..10 {
            match self.pass(of).await {
                Some(Done { effects, .. }) if effects > 0 => {}
                _ => return,
            }
        }
        panic!("does not settle");
    }

    pub fn condition(&self, of: &Ident, name: &str) -> Condition {
        let status = self.get(of).unwrap().status.unwrap_or_default();
        status.conditions.into_iter().find(|condition| condition.type_ == name).unwrap()
    }

    /// Status and reason of a condition, as `False/Conflict`.
    pub fn told(&self, of: &Ident, name: &str) -> String {
        let condition = self.condition(of, name);
        format!("{}/{}", condition.status, condition.reason)
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.catalog.state().into_values().flat_map(|node| node.entries.into_values()).collect()
    }

    /// The names of the instances that are registered, with `+` for passing and `-` for critical.
    pub fn registered(&self) -> Vec<String> {
        let of = |entry: &Entry| {
            format!("{}{}", if entry.passing == Some(true) { "+" } else { "-" }, &entry.meta[mark::INSTANCE])
        };
        self.entries().iter().map(of).collect()
    }

    pub fn document(&self, of: &Ident) -> Option<PolicyDocument> {
        let document = self.store.state().get(&Keys::new(CLUSTER).policy(of)).cloned()?;
        Some(PolicyDocument::from_json(document.as_bytes()).unwrap())
    }

    /// An instance reports what is given, of the published policy or of none.
    pub fn report(&self, of: &Ident, instance: &str, published: bool, change: impl FnOnce(&mut Report)) {
        let mut report = Report {
            instance: instance.to_owned(),
            boot: "boot".into(),
            library: "fusebox test".into(),
            hash: published.then(|| self.document(of).unwrap().hash),
            applied_at: Timestamp::from_second(1500).unwrap(),
            rejected: None,
            server_layer: Some(true),
            unknown_commands: Vec::new(),
            breakers: Vec::new(),
            shadow: Vec::new(),
            outliers: Vec::new(),
        };
        change(&mut report);
        let caller = (of.clone(), format!("uid-{instance}"));
        let now = Timestamp::from_second(self.clock.load(SeqCst)).unwrap();
        let mut outliers = self.store.outliers.try_lock().unwrap();
        outliers.say(caller, report.outliers.clone(), now, tokio::time::Instant::now());
        let mut all = self.store.reports.try_lock().unwrap();
        all.entry(of.clone()).or_default().live.insert(format!("uid-{instance}"), report);
    }

    /// The lease of an instance's report ends.
    pub fn report_ends(&self, of: &Ident, instance: &str) {
        let mut all = self.store.reports.try_lock().unwrap();
        let reported = all.entry(of.clone()).or_default();
        let instance = format!("uid-{instance}");
        reported.live.remove(&instance);
        reported.ended.insert(instance, Timestamp::from_second(1600).unwrap());
    }

    /// Things of others in every backend, some of them on our own node.
    pub fn foreign(&self) {
        let theirs = |id: &str, meta: &[(&str, &str)]| Entry {
            id: id.into(),
            name: "user.service".into(),
            address: "192.0.2.1".into(),
            port: 1,
            tags: Vec::new(),
            meta: meta.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            passing: Some(true),
        };
        let entries = [
            theirs("unmarked", &[]),
            theirs("other-cluster", &[(mark::OWNER, "cr-shop-user"), (mark::CLUSTER, "other")]),
            theirs("other-resource", &[(mark::OWNER, "cr-shop-other"), (mark::CLUSTER, CLUSTER)]),
        ];
        let mut nodes = self.catalog.nodes.try_lock().unwrap();
        let node = nodes.entry(shard_node(CLUSTER, &user())).or_default();
        node.exists = true;
        node.entries.extend(entries.into_iter().map(|entry| (entry.id.clone(), entry)));
        nodes.insert("real-agent".into(), NodeView { exists: true, foreign: true, ..NodeView::default() });
        let mut keys = self.store.keys.try_lock().unwrap();
        let claim = serde_json::to_string(&Claim { cluster: "other".into(), uid: "1".into() }).unwrap();
        for (key, value) in [
            ("service.user.foreign", "1"),
            ("/fusebox/v1/claims/raw/service.user.foreign", claim.as_str()),
            ("/fusebox/v1/other/policy/shop/user", "{}"),
            ("/fusebox/v1/test/policy/shop/user2", "{}"),
        ] {
            keys.insert(key.into(), value.into());
        }
        let mut objects = self.routes.objects.try_lock().unwrap();
        let view = RouteView { owner: None, spec: serde_json::json!({ "routes": [] }) };
        objects.insert(Ident::new("shop", "fusebox-user"), view);
    }
}

fn spec_of(yaml: &str) -> fusebox_policy::v1alpha1::ResilientServiceSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

fn context(
    catalog: &Arc<CatalogWorld>,
    store: &Arc<StoreWorld>,
    routes: &Arc<RouteWorld>,
    cluster: &Arc<ClusterWorld>,
    tenure: &Arc<TenureWorld>,
    start: u32,
) -> (Context, Arc<Signals>) {
    let signals = Arc::new(Signals::new(tenure.clone()));
    let me = format!("operator-{start}");
    let context = Context {
        settings: Settings {
            cluster: CLUSTER.into(),
            allowed: [("shop".to_owned(), vec!["service.user.".to_owned()])].into(),
            remove_all_orphans: false,
        },
        cluster: cluster.clone(),
        consul: Fenced::new(catalog.clone(), "Consul", &me, signals.clone()),
        etcd: Fenced::new(store.clone(), "etcd", &me, signals.clone()),
        routes: routes.clone(),
        metrics: Arc::default(),
        memory: Memory::default(),
        deletions: Deletions::default(),
    };
    (context, signals)
}
