//! The operator as far as Enforced goes: its own code for reports and verdicts, a short one for publishing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fusebox::etcd::Link;
use fusebox_operator::etcd::Reports;
use fusebox_operator::model::Endpoint;
use fusebox_operator::ports::{NodeView, StoreView, Unavailable};
use fusebox_operator::reconcile::enforcement::{Enforcement, published};
use fusebox_operator::reconcile::observe::Snapshot;
use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceSpec, ResilientServiceStatus};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::policies::{document, keys};
use crate::wire::{Life, Session, Wire};

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
    /// Is it True?
    pub enforced: bool,
    /// Its reason and message.
    pub why: String,
    policy_hash: Option<String>,
}

/// A process.
#[derive(Debug)]
pub struct Operator {
    tasks: [JoinHandle<()>; 2],
    wire: Wire,
}

impl Operator {
    /// Starts one, over this wire.
    pub fn start(
        of: &Ident,
        wire: Wire,
        cluster: watch::Receiver<Cluster>,
        told: Arc<watch::Sender<Told>>,
    ) -> Self {
        let reports = Reports::default();
        let (wake, mut woken) = mpsc::unbounded_channel();
        let follow = tokio::spawn(reports.clone().follow(wire.clone(), keys(), wake));
        let work = Work {
            of: of.clone(),
            wire: wire.clone(),
            connection: None,
            epoch: None,
            reports,
            told,
            cluster,
        };
        let passes = tokio::spawn(async move {
            let mut work = work;
            loop {
                let next = work.pass().await;
                tokio::select! {
                    _ = woken.recv() => {}
                    changed = work.cluster.changed() => if changed.is_err() { return },
                    () = sleep_until(next) => {}
                }
            }
        });
        Self { tasks: [follow, passes], wire }
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.wire.live(Life::Dead);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// As the real one's.
const RESYNC: Duration = Duration::from_secs(30);
/// As the real one's, between two statuses.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// As the real one's, for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Before a failed pass is tried again.
const AGAIN: Duration = Duration::from_secs(2);

struct Work {
    of: Ident,
    wire: Wire,
    connection: Option<Session>,
    /// Who writes: as the epoch key of the real one.
    epoch: Option<u64>,
    reports: Reports,
    told: Arc<watch::Sender<Told>>,
    cluster: watch::Receiver<Cluster>,
}

impl Work {
    /// When the next pass is due if nothing happens.
    async fn pass(&mut self) -> Instant {
        let key = keys().policy(&self.of);
        let store = self.ask(move |etcd| etcd.get(&key)).await;
        let cluster = self.cluster.borrow_and_update().clone();
        let (number, generation) = cluster.wanted;
        let document = document(number);
        let there = store.as_ref().ok().and_then(|found| found.as_ref()).map(|(value, _)| value.clone());
        let is_there = there.as_deref() == Some(document.to_json().as_bytes());
        let is_published = store.is_ok() && (is_there || self.publish(&document.to_json()).await);
        let seen = self.snapshot(cluster.endpoints, store.map(|_| there));
        let wanted = document.hash.to_string();
        let hash = published(&seen, Some(&wanted), is_published);
        let enforcement = Enforcement::of(&seen, hash.as_deref());
        let verdict = enforcement.verdict();
        let is_current = hash.as_deref() == Some(wanted.as_str());
        let told = Told {
            generation,
            enforced: is_current && verdict.status == "True",
            why: format!("{}: {}", verdict.reason, verdict.message),
            policy_hash: hash,
        };
        let after = if is_published { RESYNC } else { AGAIN };
        if *self.told.borrow() == told {
            return Instant::now() + after;
        }
        // Written at most once a second; what is due by then is judged anew.
        self.told.send_replace(told);
        tokio::time::sleep(STATUS_INTERVAL).await;
        Instant::now() + after
    }

    /// Writes the policy, if no other process writes.
    async fn publish(&mut self, json: &str) -> bool {
        let (key, json, mine) = (keys().policy(&self.of), json.as_bytes().to_vec(), self.epoch);
        let write = move |etcd: &crate::etcd::Etcd| {
            let epoch =
                etcd.get(&keys().epoch()).and_then(|(value, _)| serde_json::from_slice::<u64>(&value).ok());
            let mine = match mine {
                Some(mine) if epoch == Some(mine) => mine,
                // Deposed: another took over. Lower or none: the store was restored.
                Some(mine) if epoch.is_some_and(|epoch| epoch > mine) => return (Some(mine), false),
                _ => epoch.max(mine).unwrap_or_default() + 1,
            };
            etcd.put(&keys().epoch(), mine.to_string().into_bytes(), 0);
            (Some(mine), etcd.put(&key, json, 0))
        };
        match self.ask(write).await {
            Ok((epoch, written)) => {
                self.epoch = epoch;
                written
            }
            Err(_) => false,
        }
    }

    async fn ask<T: Send + 'static>(
        &mut self,
        request: impl FnOnce(&crate::etcd::Etcd) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let asked = async {
            let connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.wire.open().await?,
            };
            let answer = connection.call(request).await?;
            Ok::<_, fusebox::etcd::EtcdError>((connection, answer))
        };
        match timeout(ANSWER, asked).await {
            Ok(Ok((connection, answer))) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Ok(Err(error)) => Err(Unavailable(error.to_string())),
            Err(_) => Err(Unavailable("no answer".to_owned())),
        }
    }

    fn snapshot(&self, endpoints: Vec<Endpoint>, store: Result<Option<Vec<u8>>, Unavailable>) -> Snapshot {
        let spec = json!({ "service": { "name": "user" } });
        // Whole as it is.
        let spec: ResilientServiceSpec = serde_json::from_value(spec).unwrap_or_else(|_| unreachable!());
        let mut resource = ResilientService::new(&self.of.name, spec);
        resource.status = Some(ResilientServiceStatus {
            policy_hash: self.told.borrow().policy_hash.clone(),
            ..ResilientServiceStatus::default()
        });
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Snapshot {
            resource: Arc::new(resource),
            ident: self.of.clone(),
            uid: "uid".to_owned(),
            node: String::new(),
            lost: Vec::new(),
            live: BTreeSet::new(),
            service: None,
            endpoints,
            sources: BTreeMap::new(),
            reports: self.reports.of(&self.of),
            catalog: Ok(NodeView::default()),
            store: store.map(|policy| StoreView { policy: policy.map(text), ..StoreView::default() }),
            routes: Ok(BTreeMap::new()),
        }
    }
}
