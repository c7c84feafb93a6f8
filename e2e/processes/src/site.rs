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
use crate::proxy::Proxy;
use crate::wires::{Server, Wires};

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
    proxies: [Proxy; 3],
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
        let wires = Wires::default();
        let proxy = |server, url: String, authority| {
            let wires = wires.clone();
            async move { Proxy::before(server, &url, authority, wires).await }
        };
        let proxies = [
            proxy(Server::Kubernetes, kubernetes.url(), kubernetes.authority()).await,
            proxy(Server::Consul, servers.consul.url(), "").await,
            proxy(Server::Etcd, servers.etcd.url(), "").await,
        ];
        let mut values = values.clone();
        values["consul"]["address"] = json!(proxies[1].url());
        values["etcd"]["endpoints"] = json!([proxies[2].url()]);
        let chart = Chart::render(RELEASE, NAMESPACE, &values);
        let site = Self {
            kubernetes,
            servers: servers.clone(),
            wires,
            chart,
            program: program.into(),
            proxies,
            folder: tempfile::tempdir().unwrap(),
        };
        site.kubernetes.apply(&objects::namespace(NAMESPACE)).await;
        for definition in chart::definitions() {
            site.kubernetes.apply(&definition).await;
        }
        site.grant().await;
        site.write_kubeconfig();
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

    fn write_kubeconfig(&self) {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "site", "cluster": { "server": self.proxies[0].url() } }],
            "users": [{ "name": "operator", "user": { "token": TOKEN } }],
            "contexts": [{
                "name": "site",
                "context": { "cluster": "site", "user": "operator", "namespace": NAMESPACE },
            }],
            "current-context": "site",
        });
        std::fs::write(self.folder.path().join("kubeconfig"), config.to_string()).unwrap();
    }

    /// Starts an operator with the chart's settings, and `more` on top; what it sends goes over the wires.
    pub async fn operator(&self, more: &[(&str, &str)]) -> Operator {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = self.chart.environment();
        environment.extend([
            ("KUBECONFIG".to_owned(), self.folder.path().join("kubeconfig").display().to_string()),
            text("POD_NAME", "operator-0"),
            text("POD_NAMESPACE", NAMESPACE),
        ]);
        environment.extend(more.iter().map(|(name, value)| text(name, value)));
        let listen = format!("127.0.0.1:{}", free_port().await);
        let log = self.folder.path().join("operator.log");
        let operator = Operator::start(&self.program, &log, listen, &environment);
        self.wires.carry(operator.pid());
        operator
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
