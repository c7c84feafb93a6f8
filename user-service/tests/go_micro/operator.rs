//! What the operator does for a resource: its own steps from the resource to the operations, and its own adapter
//! of Consul. Only what would come from Kubernetes is made up here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use fusebox_operator::consul::{Consul as Adapter, ConsulConfig, Http};
use fusebox_operator::model::{Endpoint, Entry, ServicePort, ServiceView, shard_node};
use fusebox_operator::ports::{CatalogOp, ConsulCatalog as _, EpochStore as _, Fence, StoreView};
use fusebox_operator::reconcile::desired::desired;
use fusebox_operator::reconcile::observe::{Rivals, Snapshot};
use fusebox_operator::reconcile::plan::{Direction, Effect, plan};
use fusebox_operator::reconcile::validate::{AllowedPrefixes, validate};
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::v1alpha1::ResilientService;
use fusebox_policy::wire::Epoch;

use crate::consul::Consul;
use crate::etcd::Etcd;

pub const CLUSTER: &str = "test";

/// A Consul, an etcd, and an operator that writes to both.
pub struct Operator {
    pub consul: Consul,
    pub etcd: Etcd,
    adapter: Adapter,
    fence: Fence,
}

impl Operator {
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (consul, etcd) = tokio::join!(Consul::start(&[]), Etcd::start());
        let config = ConsulConfig { address: consul.url(), ..ConsulConfig::default() };
        let adapter = Adapter::new(Http::new(&config).unwrap(), CLUSTER);
        let epoch = Epoch { epoch: 1, holder: "me".into(), ..Epoch::default() };
        assert!(adapter.swap_epoch(None, &epoch).await.unwrap());
        let (_, fence) = adapter.read_epoch().await.unwrap().unwrap();
        Self { consul, etcd, adapter, fence }
    }

    /// What a pass sees of a resource whose Service has this one instance.
    async fn observe(&self, yaml: &str, instance: Option<(SocketAddr, bool)>) -> Snapshot {
        let mut resource: ResilientService = serde_saphyr::from_str(yaml).unwrap();
        resource.metadata.uid = Some("cr-uid".to_owned());
        let ident = fusebox_operator::model::ident(&resource);
        let node = shard_node(CLUSTER, &ident);
        let port = ServicePort { name: "grpc".to_owned(), number: 50051, app_protocol: None };
        let endpoint = |(address, ready): (SocketAddr, bool)| Endpoint {
            instance: "pod-uid".to_owned(),
            display: "user-0".to_owned(),
            address: address.ip().to_string(),
            ports: [("grpc".to_owned(), address.port())].into(),
            ready,
        };
        Snapshot {
            uid: "cr-uid".to_owned(),
            rivals: Rivals::default(),
            live: ["cr-uid".to_owned()].into(),
            service: Some(ServiceView {
                name: resource.spec.service.name.clone(),
                ports: vec![port],
                family: "IPv4".to_owned(),
            }),
            endpoints: instance.into_iter().map(endpoint).collect(),
            sources: BTreeMap::new(),
            reports: None,
            catalog: self.adapter.node(&node).await,
            store: Ok(StoreView::default()),
            routes: Ok(BTreeMap::new()),
            resource: Arc::new(resource),
            ident,
            node,
        }
    }

    /// Publishes the policy of a resource.
    pub async fn publish(&self, yaml: &str) -> Ident {
        let seen = self.observe(yaml, None).await;
        let judged = validate(&seen, &AllowedPrefixes::new());
        let policy = desired(CLUSTER, &seen, &judged).store.goal.unwrap().policy.expect("it is accepted");
        let mut client = self.etcd.client().await;
        client.put(Keys::new(CLUSTER).policy(&seen.ident), policy, None).await.unwrap();
        seen.ident
    }

    /// Registers the instance of a resource as it is, and says what it took.
    pub async fn register(&self, yaml: &str, instance: SocketAddr, ready: bool) -> Vec<CatalogOp> {
        let seen = self.observe(yaml, Some((instance, ready))).await;
        let judged = validate(&seen, &AllowedPrefixes::new());
        let wanted = desired(CLUSTER, &seen, &judged);
        let mut done = Vec::new();
        for effect in plan(CLUSTER, &seen, &wanted, Direction::Converge).effects {
            if let Effect::Catalog(ops) = effect {
                self.adapter.transact(self.fence, &seen.node, &ops).await.unwrap();
                done.extend(ops);
            }
        }
        done
    }

    /// Writes an entry that no resource declares.
    pub async fn plant(&self, entry: Entry) {
        let ops = [CatalogOp::EnsureNode, CatalogOp::Register(entry)];
        self.adapter.transact(self.fence, "fusebox-test-0", &ops).await.unwrap();
    }
}
