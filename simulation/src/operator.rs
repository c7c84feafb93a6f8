//! The operator as far as Enforced goes: its own code for reports and verdicts, a short one for publishing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fusebox::etcd::Link;
use fusebox_operator::etcd::Reports;
use fusebox_operator::model::Endpoint;
use fusebox_operator::ports::{NodeView, StoreView, Unavailable};
use fusebox_operator::reconcile::enforcement::{Enforcement, published};
use fusebox_operator::reconcile::observe::{Rivals, Snapshot};
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceSpec, ResilientServiceStatus};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::policies::document;

/// What the operator sees of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Which policy the resource asks for, and which generation of it that is.
    pub wanted: (u64, u64),
    /// The instances.
    pub endpoints: Vec<Endpoint>,
}

/// What it wrote: the last condition Enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Of which generation.
    pub generation: u64,
    /// Which policy that one asked for.
    pub number: u64,
    /// Is it True?
    pub enforced: bool,
    /// Its reason and message.
    pub why: String,
    policy_hash: Option<String>,
}

/// The way to the published policy.
pub trait Store: Send + 'static {
    /// The document that is there.
    fn read(&mut self, of: &Ident) -> impl Future<Output = Result<Option<String>, Unavailable>> + Send;
    /// Writes it; false: another process is the writer.
    fn publish(&mut self, of: &Ident, json: &str) -> impl Future<Output = Result<bool, Unavailable>> + Send;
}

/// A process.
pub struct Operator {
    of: Ident,
    reports: Reports,
    tasks: [JoinHandle<()>; 2],
    ends: Box<dyn Fn() + Send + Sync>,
}

impl Operator {
    /// Starts one.
    pub fn start(
        of: &Ident,
        keys: Keys,
        link: impl Link,
        store: impl Store,
        cluster: watch::Receiver<Cluster>,
        told: watch::Sender<Told>,
    ) -> Self {
        let reports = Reports::default();
        let (wake, mut woken) = mpsc::unbounded_channel();
        let follow = tokio::spawn(reports.clone().follow(link, keys, wake));
        let mut work = Work { of: of.clone(), store, reports: reports.clone(), told, cluster };
        let passes = tokio::spawn(async move {
            loop {
                let next = work.pass().await;
                tokio::select! {
                    _ = woken.recv() => {}
                    changed = work.cluster.changed() => if changed.is_err() { return },
                    () = sleep_until(next) => {}
                }
            }
        });
        Self { of: of.clone(), reports, tasks: [follow, passes], ends: Box::new(|| ()) }
    }

    /// What else ends with it.
    #[must_use]
    pub fn ends_with(self, ends: impl Fn() + Send + Sync + 'static) -> Self {
        Self { ends: Box::new(ends), ..self }
    }

    /// Does it have the reports, and believe them?
    pub fn has_reports(&self) -> bool {
        self.reports.of(&self.of).is_some()
    }

    /// SIGKILL.
    pub fn kill(self) {
        (self.ends)();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// As the real one's.
const RESYNC: Duration = Duration::from_secs(30);
/// As the real one's, between two statuses.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Before a failed pass is tried again.
const AGAIN: Duration = Duration::from_secs(2);

struct Work<S> {
    of: Ident,
    store: S,
    reports: Reports,
    told: watch::Sender<Told>,
    cluster: watch::Receiver<Cluster>,
}

impl<S: Store> Work<S> {
    /// When the next pass is due if nothing happens.
    async fn pass(&mut self) -> Instant {
        let store = self.store.read(&self.of).await;
        let cluster = self.cluster.borrow_and_update().clone();
        let (number, generation) = cluster.wanted;
        let document = document(number);
        let json = document.to_json();
        let is_published = match &store {
            Ok(there) if there.as_deref() == Some(&json) => true,
            Ok(_) => self.store.publish(&self.of, &json).await.unwrap_or(false),
            Err(_) => false,
        };
        let seen = self.snapshot(cluster.endpoints, store);
        let wanted = document.hash.to_string();
        let hash = published(&seen, Some(&wanted), is_published);
        let enforcement = Enforcement::of(&seen, hash.as_deref());
        let verdict = enforcement.verdict();
        let is_current = hash.as_deref() == Some(wanted.as_str());
        let told = Told {
            generation,
            number,
            enforced: is_current && verdict.status == "True",
            why: format!("{}: {}", verdict.reason, verdict.message),
            policy_hash: hash,
        };
        let after = if is_published { RESYNC } else { AGAIN };
        if *self.told.borrow() != told {
            self.told.send_replace(told);
            // At most once a second; what is due by then is judged anew.
            sleep(STATUS_INTERVAL).await;
        }
        Instant::now() + after
    }

    fn snapshot(&self, endpoints: Vec<Endpoint>, store: Result<Option<String>, Unavailable>) -> Snapshot {
        let spec = json!({ "service": { "name": "user" } });
        // Whole as it is.
        let spec: ResilientServiceSpec = serde_json::from_value(spec).unwrap_or_else(|_| unreachable!());
        let mut resource = ResilientService::new(&self.of.name, spec);
        resource.status = Some(ResilientServiceStatus {
            policy_hash: self.told.borrow().policy_hash.clone(),
            ..ResilientServiceStatus::default()
        });
        Snapshot {
            resource: Arc::new(resource),
            ident: self.of.clone(),
            uid: "uid".to_owned(),
            node: String::new(),
            rivals: Rivals::default(),
            live: BTreeSet::new(),
            service: None,
            endpoints,
            sources: BTreeMap::new(),
            reports: self.reports.of(&self.of),
            catalog: Ok(NodeView::default()),
            store: store.map(|policy| StoreView { policy, ..StoreView::default() }),
            routes: Ok(BTreeMap::new()),
        }
    }
}
