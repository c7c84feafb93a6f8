//! Consul's JSON, only what is used.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{Entry, mark};
use crate::ports::{CatalogOp, Fence};

/// The address of our nodes. Nothing listens there and nobody should ask: each entry has its own.
pub const PLACEHOLDER: &str = "127.0.0.1";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KvPair {
    pub value: Option<String>,
    pub modify_index: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeServices {
    pub node: Option<Node>,
    pub services: Option<Vec<Service>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    pub meta: Option<BTreeMap<String, String>>,
}

/// Of the list of all nodes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedNode {
    pub node: String,
    pub meta: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Service")]
    pub name: String,
    pub tags: Option<Vec<String>>,
    pub meta: Option<BTreeMap<String, String>>,
    // What is empty or zero may be left out: a service without a port must not keep its node from being read.
    #[serde(default)]
    pub address: String,
    #[serde(default)]
    pub port: u16,
}

impl Service {
    /// With its check, by the checks of its node.
    pub fn into_entry(self, checks: &BTreeMap<String, bool>) -> Entry {
        Entry {
            passing: checks.get(&self.id).copied(),
            id: self.id,
            name: self.name,
            address: self.address,
            port: self.port,
            tags: self.tags.unwrap_or_default(),
            meta: self.meta.unwrap_or_default(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct Check {
    #[serde(rename = "CheckID")]
    pub check_id: String,
    #[serde(rename = "Status")]
    pub status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TxnErrors {
    pub errors: Option<Vec<OpError>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpError {
    pub op_index: usize,
    pub what: String,
}

/// The fence.
pub fn check_index(key: &str, fence: Fence) -> Value {
    json!({ "KV": { "Verb": "check-index", "Key": key, "Index": fence.0 } })
}

/// The operations of a transaction that make up `op`.
pub fn operations(cluster: &str, node: &str, op: &CatalogOp) -> Vec<Value> {
    match op {
        CatalogOp::EnsureNode => vec![json!({ "Node": { "Verb": "set", "Node": {
            "Node": node,
            "Address": PLACEHOLDER,
            "Meta": { (mark::CLUSTER): cluster },
        } } })],
        CatalogOp::Register(entry) => vec![
            json!({ "Service": { "Verb": "set", "Node": node, "Service": {
                "ID": entry.id,
                "Service": entry.name,
                "Address": entry.address,
                "Port": entry.port,
                "Tags": entry.tags,
                "Meta": entry.meta,
            } } }),
            check(node, &entry.id, &entry.name, entry.passing.unwrap_or_default()),
        ],
        CatalogOp::SetCheck { id, name, passing } => vec![check(node, id, name, *passing)],
        CatalogOp::Deregister { id, name } => {
            vec![
                json!({ "Service": { "Verb": "delete", "Node": node, "Service": { "ID": id, "Service": name } } }),
            ]
        }
        CatalogOp::ReapNode => vec![json!({ "Node": { "Verb": "delete", "Node": { "Node": node } } })],
    }
}

/// With the name of its service, by which Consul judges the right to write it.
fn check(node: &str, id: &str, name: &str, passing: bool) -> Value {
    let (status, output) =
        if passing { ("passing", "ready in Kubernetes") } else { ("critical", "not ready in Kubernetes") };
    json!({ "Check": { "Verb": "set", "Check": {
        "Node": node,
        "CheckID": id,
        "ServiceID": id,
        "ServiceName": name,
        "Name": "Ready in Kubernetes",
        "Notes": "Set by the Fusebox operator from the EndpointSlices.",
        "Status": status,
        "Output": output,
    } } })
}
