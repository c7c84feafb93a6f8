//! A replica's place at a site.

use crate::kubernetes::ApiServer;
use crate::proxy::Proxy;
use crate::site::Servers;
use crate::wires::{Server, Wires};

/// Wires of its own to the servers of its site.
pub struct Replica {
    /// What it sends.
    pub wires: Wires,
    pub(crate) pod: String,
    proxies: [Proxy; 3],
}

impl Replica {
    pub(crate) async fn new(pod: &str, kubernetes: &ApiServer, servers: &Servers) -> Self {
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
        Self { wires, pod: pod.to_owned(), proxies }
    }

    /// Where the API server, Consul and etcd are for it.
    pub(crate) fn urls(&self) -> [String; 3] {
        self.proxies.each_ref().map(Proxy::url)
    }
}
