//! The cluster's ports on the host, all on 127.0.0.1, mapped from the control-plane node.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// A port of the control-plane node and where the host has it.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// What is behind it.
    pub what: &'static str,
    /// The port of the node: a host port or a `NodePort`.
    pub node: u16,
    /// The port of 127.0.0.1.
    pub host: u16,
}

/// Traefik's plain entry point.
pub const TRAEFIK_WEB: Port = Port { what: "Traefik web", node: 80, host: 18080 };
/// Traefik's TLS entry point.
pub const TRAEFIK_WEBSECURE: Port = Port { what: "Traefik websecure", node: 443, host: 18443 };
/// Consul's HTTP API.
pub const CONSUL: Port = Port { what: "Consul HTTP", node: 30500, host: 18500 };
/// etcd's client port.
pub const ETCD: Port = Port { what: "etcd client", node: 30379, host: 12379 };
/// The operator's health and metrics.
pub const OPERATOR: Port = Port { what: "operator metrics", node: 30808, host: 18808 };

/// All of them.
pub const ALL: [Port; 5] = [TRAEFIK_WEB, TRAEFIK_WEBSECURE, CONSUL, ETCD, OPERATOR];

impl Port {
    /// Its address on the host.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.host)
    }
}

/// Fail in plain words where another program has one of the ports.
pub(crate) fn free() -> Result<()> {
    for port in ALL {
        if TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port.host))).is_err() {
            bail!(
                "port {} of 127.0.0.1 ({}) is taken by another program: end it, then try again",
                port.host,
                port.what
            );
        }
    }
    Ok(())
}
