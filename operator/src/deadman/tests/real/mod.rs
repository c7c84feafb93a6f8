//! On real servers.

mod catalog;
mod experiment;
mod facts;
mod stale;

use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::wire::Epoch;
use fusebox_processes::consul as server;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::consul::{Consul, ConsulConfig, Http};
use crate::deadman::Keeper;
use crate::deadman::port::{Check, Sessions};
use crate::metrics::DeadManMetrics;
use crate::model::{Entry, mark};
use crate::ports::{CatalogOp, ConsulCatalog, EpochStore, Fence};

/// Consul's shortest.
const TTL: Duration = Duration::from_secs(10);
const NODE: &str = "fusebox-demo-3";
const SERVICE: &str = "/v1/health/service/user.service";

fn adapter(server: &server::Consul, token: Option<&str>) -> Consul {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let token_file = token.map(|token| server.write("token", token));
    let config = ConsulConfig { address: server.url(), token_file, ca_file: None };
    Consul::new(Http::new(&config).unwrap(), "demo")
}

fn entry(id: &str) -> Entry {
    Entry {
        id: id.into(),
        name: "user.service".into(),
        address: "10.0.0.1".into(),
        port: 50051,
        tags: Vec::new(),
        meta: [(mark::CLUSTER.to_owned(), "demo".to_owned())].into(),
        passing: Some(true),
    }
}

async fn fence(consul: &Consul) -> Fence {
    let epoch = Epoch { epoch: 1, holder: "me".into(), ..Epoch::default() };
    if consul.read_epoch().await.unwrap().is_none() {
        assert!(consul.swap_epoch(None, &epoch).await.unwrap());
    }
    consul.read_epoch().await.unwrap().unwrap().1
}

/// What the operator does for two instances.
async fn register(consul: &Consul) {
    let ops =
        [CatalogOp::EnsureNode, CatalogOp::Register(entry("demo-1")), CatalogOp::Register(entry("demo-2"))];
    consul.transact(fence(consul).await, NODE, &ops).await.unwrap();
}

async fn check(consul: &Consul) -> Option<Check> {
    let nodes = consul.look().await.unwrap();
    nodes.into_iter().find(|node| node.name == NODE)?.check
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(Instant::now() - start < Duration::from_mins(2), "never: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A process of the operator.
struct Process {
    leads: watch::Sender<bool>,
    metrics: DeadManMetrics,
    running: JoinHandle<()>,
}

impl Process {
    fn start(server: &server::Consul, leads: bool, ttl: Duration) -> Self {
        let (leads, told) = watch::channel(leads);
        let metrics = DeadManMetrics::default();
        let keeper = Keeper::new(Arc::new(adapter(server, None)), metrics.clone(), ttl);
        Self { leads, metrics, running: tokio::spawn(keeper.run(told)) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.running.abort();
    }
}
