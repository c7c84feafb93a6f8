//! Which entries of Consul's answer are called: pure.
//!
//! - A critical check of the entry, or of its node, takes it out: so does maintenance mode, which is one.
//! - A warning keeps it in, as in go-micro, with the weight that it declares for that.
//! - The **dead man** of a node of Fusebox's operator is no such check: critical, it says that the operator
//!   vouches for none of the node's entries any more, not that they are gone. They stay, marked as stale.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::micro;
use crate::discovery::Endpoint;

/// The operator's check of a node that turns critical by itself when the operator is gone
/// (docs/architecture.md, Consul's dead man).
const DEAD_MAN: &str = "fusebox-dead-man";
/// Where an entry or its node says its zone.
const ZONES: [&str; 2] = ["zone", "topology.kubernetes.io/zone"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
    #[serde(default)]
    meta: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default, rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default)]
    passing: u32,
    #[serde(default)]
    warning: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default, rename = "CheckID")]
    id: String,
    #[serde(default)]
    status: String,
    /// Empty: of the node.
    #[serde(default, rename = "ServiceID")]
    service: String,
}

impl Check {
    fn is_dead_man(&self) -> bool {
        self.service.is_empty() && self.id == DEAD_MAN
    }
}

/// The instances to call.
pub(super) fn instances(json: &[u8]) -> Result<Vec<Endpoint>, String> {
    let entries: Vec<Entry> =
        serde_json::from_slice(json).map_err(|error| format!("Consul's list of instances: {error}"))?;
    Ok(entries.into_iter().filter_map(endpoint).collect())
}

/// None: not to be called, by its checks, or because it has no port or no IP address, of its own or its node's.
fn endpoint(entry: Entry) -> Option<Endpoint> {
    let Entry { node, service, checks } = entry;
    let checks = checks.unwrap_or_default();
    let any = |status: &str, dead_man: bool| {
        checks.iter().any(|check| check.is_dead_man() == dead_man && check.status == status)
    };
    let host = if service.address.is_empty() { &node.address } else { &service.address };
    let address = SocketAddr::new(host.parse::<IpAddr>().ok()?, service.port);
    if any("critical", false) || service.port == 0 {
        return None;
    }
    let micro = micro::read(service.tags.as_deref().unwrap_or_default());
    let mut metadata = service.meta.unwrap_or_default();
    metadata.extend(micro.metadata);
    let tag = |tag: &String| tag.strip_prefix("zone=").map(str::to_owned);
    let node = node.meta.unwrap_or_default();
    let zone = ZONES.iter().find_map(|key| metadata.get(*key)).cloned();
    let zone = zone.or_else(|| service.tags.iter().flatten().find_map(tag));
    let zone = zone.or_else(|| ZONES.iter().find_map(|key| node.get(*key)).cloned());
    let weight = match (service.weights, any("warning", false)) {
        (Some(weights), true) => weights.warning,
        (Some(weights), false) => weights.passing,
        (None, _) => 1,
    };
    Some(Endpoint {
        id: service.id,
        weight: u16::try_from(weight.max(1)).unwrap_or(u16::MAX),
        zone,
        version: micro.version.or_else(|| metadata.get("version").cloned()),
        metadata,
        methods: micro.methods,
        stale: any("critical", true),
        ..Endpoint::new(address)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(entries: &Value) -> Vec<Endpoint> {
        instances(entries.to_string().as_bytes()).unwrap()
    }

    fn with(checks: &Value) -> Vec<Endpoint> {
        read(&json!([{
            "Node": { "Node": "fusebox-demo-3", "Address": "10.0.0.9" },
            "Service": { "ID": "a", "Address": "10.1.0.2", "Port": 50051, "Weights": { "Passing": 5, "Warning": 2 } },
            "Checks": checks,
        }]))
    }

    #[test]
    fn addresses_are_the_services_else_the_nodes() {
        let found = read(&json!([
            { "Node": { "Address": "10.0.0.9" }, "Service": { "ID": "b", "Address": "10.1.0.2", "Port": 50051 }, "Checks": [] },
            { "Node": { "Address": "10.0.0.9" }, "Service": { "ID": "a", "Address": "", "Port": 50051, "Tags": null, "Meta": null } },
            { "Node": { "Address": "fd00::1", "Meta": null }, "Service": { "ID": "c", "Port": 1 }, "Checks": null },
            { "Node": { "Address": "somewhere" }, "Service": { "ID": "d", "Address": "", "Port": 1 } },
            { "Node": { "Address": "10.0.0.9" }, "Service": { "ID": "e", "Address": "", "Port": 0 } },
        ]));
        let found: Vec<_> = found.iter().map(|e| format!("{} {}", e.id, e.address)).collect();
        assert_eq!(found, ["b 10.1.0.2:50051", "a 10.0.0.9:50051", "c [fd00::1]:1"]);
        assert!(instances(b"rpc error").unwrap_err().starts_with("Consul's list of instances:"));
    }

    #[test]
    fn checks_decide_and_the_dead_man_only_says_that_nobody_vouches() {
        let own = |status: &str| json!({ "CheckID": "c", "Status": status, "ServiceID": "a" });
        let node = |id: &str, status: &str| json!({ "CheckID": id, "Status": status, "ServiceID": "" });
        let seen = |checks: Value| with(&checks).first().map(|e| (e.weight, e.stale));
        assert_eq!(seen(json!([own("passing"), node(DEAD_MAN, "passing")])), Some((5, false)));
        assert_eq!(seen(json!([own("warning")])), Some((2, false)), "as go-micro has it");
        assert_eq!(seen(json!([own("critical")])), None);
        assert_eq!(seen(json!([own("passing"), node("serfHealth", "critical")])), None);
        assert_eq!(seen(json!([own("passing"), node("_node_maintenance", "critical")])), None);
        assert_eq!(
            seen(json!([own("passing"), node(DEAD_MAN, "critical")])),
            Some((5, true)),
            "stale, not gone"
        );
        assert_eq!(seen(json!([own("critical"), node(DEAD_MAN, "critical")])), None);
        let named_alike = json!({ "CheckID": DEAD_MAN, "Status": "critical", "ServiceID": "a" });
        assert_eq!(seen(json!([named_alike])), None, "an entry's own check of that name is none");
    }

    #[test]
    fn zone_version_and_metadata_are_read_from_wherever_they_are() {
        let of = |service: Value, node: Value| {
            let mut entry = json!([{ "Node": { "Address": "10.0.0.9", "Meta": node }, "Service": service }]);
            entry[0]["Service"]["Port"] = json!(1);
            read(&entry).remove(0)
        };
        let zone = |service, node| of(service, node).zone;
        assert_eq!(zone(json!({}), json!({})), None);
        assert_eq!(zone(json!({}), json!({ "topology.kubernetes.io/zone": "a" })).as_deref(), Some("a"));
        assert_eq!(zone(json!({ "Tags": ["x", "zone=b"] }), json!({ "zone": "a" })).as_deref(), Some("b"));
        assert_eq!(
            zone(json!({ "Meta": { "zone": "c" }, "Tags": ["zone=b"] }), json!({})).as_deref(),
            Some("c")
        );
        let found = of(
            json!({ "Meta": { "version": "v2", "team": "shop" }, "Tags": ["v=1.0", "t={\"protocol\":\"grpc\"}"] }),
            json!({}),
        );
        assert_eq!(found.version.as_deref(), Some("1.0"), "go-micro's tag is what go-micro goes by");
        let metadata: Vec<_> = found.metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(metadata, ["protocol=grpc", "team=shop", "version=v2"]);
    }
}
