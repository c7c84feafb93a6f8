//! What is there now.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::Road;

/// A node as the API server tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Node {
    /// Its name, which is its container's too.
    pub name: String,
    /// Whether its kubelet reports it ready.
    pub ready: bool,
    /// The kubelet's version.
    pub version: String,
    /// Its address in the cluster's network.
    pub address: String,
}

/// The state of the cluster.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Whether it was brought up whole and every node is ready.
    pub up: bool,
    /// How its nodes come to be; none without a cluster.
    pub road: Option<Road>,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Images loaded into the nodes, and their digests.
    pub images: BTreeMap<String, String>,
    /// Addresses on the host, by what is behind them.
    pub addresses: BTreeMap<String, String>,
    /// Its folder.
    pub state: PathBuf,
}
