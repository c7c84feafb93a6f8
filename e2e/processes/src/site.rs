//! One Kubernetes with its operator, and the Consul and the etcd that it may share with others.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::chart::{self, Chart};
use crate::consul::Consul;
use crate::etcd::Etcd;
use crate::kubernetes::{ApiServer, User};
use crate::objects;
use crate::operator::Operator;
use crate::replica::Replica;
use crate::wires::Wires;

/// The namespace of the operator's release.
pub const NAMESPACE: &str = "fusebox";
/// The release's name.
pub const RELEASE: &str = "operator";
/// What the chart makes of it: the `ServiceAccount`'s name and the Lease's.
const FULL_NAME: &str = "operator-fusebox";
const TOKEN: &str = "operator";

/// What several sites may share.
#[derive(Clone)]
pub struct Servers {
    /// Consul.
    pub consul: Arc<Consul>,
    /// etcd, which is not the API server's.
    pub etcd: Arc<Etcd>,
}

impl Servers {
    /// New ones.
    pub async fn start() -> Self {
        let (consul, etcd) = tokio::join!(Consul::start(&[]), Etcd::start());
        Self { consul: Arc::new(consul), etcd: Arc::new(etcd) }
    }
}

/// A Kubernetes with the operator's chart installed, the wires of its operator, and the program to run.
pub struct Site {
    /// The API server.
    pub kubernetes: ApiServer,
    /// What it may share.
    pub servers: Servers,
    /// What the operator sends.
    pub wires: Wires,
    /// What the chart rendered.
    pub chart: Chart,
    program: PathBuf,
    first: Replica,
    folder: TempDir,
}

impl Site {
    /// A site with servers of its own, for the operator `program`, its chart rendered with `values`, to which the
    /// addresses are added.
    pub async fn start(program: &str, values: &Value) -> Self {
        Self::beside(&Servers::start().await, program, values).await
    }

    /// One that shares these servers.
    pub async fn beside(servers: &Servers, program: &str, values: &Value) -> Self {
        let account = format!("system:serviceaccount:{NAMESPACE}:{FULL_NAME}");
        let groups = format!("system:serviceaccounts,system:serviceaccounts:{NAMESPACE}");
        let user = User { name: &account, token: TOKEN, groups: &groups };
        let kubernetes = ApiServer::start(&[user]).await;
        let first = Replica::new("operator-0", &kubernetes, servers).await;
        let [_, consul, etcd] = first.urls();
        let mut values = values.clone();
        values["consul"]["address"] = json!(consul);
        values["etcd"]["endpoints"] = json!([etcd]);
        let chart = Chart::render(RELEASE, NAMESPACE, &values);
        let site = Self {
            kubernetes,
            servers: servers.clone(),
            wires: first.wires.clone(),
            chart,
            program: program.into(),
            first,
            folder: tempfile::tempdir().unwrap(),
        };
        site.kubernetes.apply(&objects::namespace(NAMESPACE)).await;
        for definition in chart::definitions() {
            site.kubernetes.apply(&definition).await;
        }
        site.grant().await;
        site
    }

    /// Gives the operator the rights of the chart again.
    pub async fn grant(&self) {
        for kind in ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"] {
            for object in self.chart.of_kind(kind) {
                self.kubernetes.apply(&in_release(object)).await;
            }
        }
    }

    /// The place of another replica.
    pub async fn replica(&self, pod: &str) -> Replica {
        Replica::new(pod, &self.kubernetes, &self.servers).await
    }

    /// Starts an operator with the chart's settings, and `more` on top; what it sends goes over the wires.
    pub async fn operator(&self, more: &[(&str, &str)]) -> Operator {
        self.operator_at(&self.first, more).await
    }

    /// Starts one in this place.
    pub async fn operator_at(&self, place: &Replica, more: &[(&str, &str)]) -> Operator {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = self.chart.environment();
        for (chart, own) in self.first.urls().iter().zip(place.urls()) {
            let named = environment.iter_mut().filter(|(_, value)| value == chart);
            named.for_each(|(_, value)| value.clone_from(&own));
        }
        let [kubernetes, ..] = place.urls();
        environment.extend([
            text("KUBECONFIG", &self.kubeconfig(&place.pod, &kubernetes)),
            text("POD_NAME", &place.pod),
            text("POD_NAMESPACE", NAMESPACE),
        ]);
        environment.extend(more.iter().map(|(name, value)| text(name, value)));
        let listen = format!("127.0.0.1:{}", free_port().await);
        let log = self.folder.path().join(format!("{}.log", place.pod));
        let operator = Operator::start(&self.program, &log, listen, &environment);
        place.wires.carry(operator.pid());
        operator
    }

    /// The path of a pod's configuration.
    fn kubeconfig(&self, pod: &str, server: &str) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "site", "cluster": { "server": server } }],
            "users": [{ "name": "operator", "user": { "token": TOKEN } }],
            "contexts": [{
                "name": "site",
                "context": { "cluster": "site", "user": "operator", "namespace": NAMESPACE },
            }],
            "current-context": "site",
        });
        let path = self.folder.path().join(format!("{pod}.kubeconfig"));
        std::fs::write(&path, config.to_string()).unwrap();
        path.display().to_string()
    }

    /// Takes away the Lease of an operator that was killed, as its running out would: the next one leads at once.
    pub async fn free_lease(&self) {
        let leases = Api::<Lease>::namespaced(self.kubernetes.admin(), NAMESPACE);
        match leases.delete(FULL_NAME, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            done => drop(done.unwrap()),
        }
    }
}

/// With the release's namespace, where Helm would add it.
pub fn in_release(object: &Value) -> Value {
    let mut object = object.clone();
    if !object["kind"].as_str().unwrap_or_default().starts_with("Cluster") {
        object["metadata"]["namespace"] = json!(NAMESPACE);
    }
    object
}

/// A port that nobody listens on.
pub async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}
