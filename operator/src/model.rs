//! The operator's view of Kubernetes and Consul objects: only what decides.

use std::collections::{BTreeMap, HashMap};

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::ResilientService;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

/// How many catalog nodes carry the entries of a cluster: reading one resource's entries costs one of them.
pub const SHARDS: u64 = 16;

/// The identity of a resource.
pub fn ident(resource: &ResilientService) -> Ident {
    Ident::new(resource.namespace().unwrap_or_default(), resource.name_any())
}

/// The catalog node of a resource: always the same one.
pub fn shard_node(cluster: &str, of: &Ident) -> String {
    let digest = Sha256::digest(of.to_string().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    format!("fusebox-{cluster}-{}", u64::from_be_bytes(first) % SHARDS)
}

/// Is this the name of a node for entries of this cluster? However many shards there were when it was made.
pub fn is_shard_node(cluster: &str, node: &str) -> bool {
    let number = node.strip_prefix("fusebox-").and_then(|rest| rest.strip_prefix(cluster)?.strip_prefix('-'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// The address type of its primary family: IPv4 or IPv6.
    pub family: String,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty for the only port of a Service.
    pub name: String,
    /// The Service's own number.
    pub number: u16,
    /// What is spoken there.
    pub app_protocol: Option<String>,
}

impl ServicePort {
    /// The scheme Traefik uses towards it: cleartext HTTP/2 where gRPC or h2c is declared.
    pub fn scheme(&self) -> &'static str {
        let by_protocol = matches!(self.app_protocol.as_deref(), Some("kubernetes.io/h2c" | "grpc" | "h2c"));
        let by_name = ["grpc", "h2c"].iter().any(|kind| {
            self.name == *kind || self.name.strip_prefix(kind).is_some_and(|r| r.starts_with('-'))
        });
        if by_protocol || (self.app_protocol.is_none() && by_name) { "h2c" } else { "http" }
    }
}

impl ServiceView {
    /// From the API object.
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            Some(ServicePort { name: port.name.unwrap_or_default(), number, app_protocol: port.app_protocol })
        });
        let family = spec.ip_families.and_then(|families| families.into_iter().next());
        Self {
            name: service.name_any(),
            ports: ports.collect(),
            family: family.unwrap_or_else(|| "IPv4".to_owned()),
        }
    }

    /// The port that is meant, or what a person should do.
    pub fn port(&self, wanted: Option<&IntOrString>) -> Result<&ServicePort, String> {
        let known = || {
            let all = self.ports.iter().map(|p| match p.name.as_str() {
                "" => p.number.to_string(),
                name => format!("{name} ({})", p.number),
            });
            match all.collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => "it has none".to_owned(),
                some => format!("it has {some}"),
            }
        };
        let found = match wanted {
            None if self.ports.len() == 1 => self.ports.first(),
            None => {
                return Err(format!(
                    "Service {} does not have exactly one port: name one in spec.service.port; {}",
                    self.name,
                    known()
                ));
            }
            Some(IntOrString::Int(number)) => self.ports.iter().find(|p| i32::from(p.number) == *number),
            Some(IntOrString::String(name)) => {
                let by_name = self.ports.iter().find(|p| p.name == *name);
                by_name.or_else(|| self.ports.iter().find(|p| p.number.to_string() == *name))
            }
        };
        found.ok_or_else(|| {
            let wanted = wanted.map(display_port).unwrap_or_default();
            format!("Service {} has no port {wanted}: {}", self.name, known())
        })
    }
}

fn display_port(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

/// An instance of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its pod's UID, or its address where no pod stands behind it.
    pub instance: String,
    /// The name a person knows it by: its pod's name, or its address.
    pub display: String,
    /// Its address.
    pub address: String,
    /// Its ports by the names of the Service's ports.
    pub ports: BTreeMap<String, u16>,
    /// Should it get traffic? Kubernetes says: unknown means yes.
    pub ready: bool,
}

/// The instances in these slices, one per pod: a pod may be in two slices while it moves between them.
pub fn endpoints<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>, family: &str) -> Vec<Endpoint> {
    let mut found: HashMap<String, Endpoint> = HashMap::new();
    for slice in slices.into_iter().filter(|slice| slice.address_type == family) {
        let ports: BTreeMap<String, u16> = (slice.ports.iter().flatten())
            .filter_map(|p| Some((p.name.clone().unwrap_or_default(), u16::try_from(p.port?).ok()?)))
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(address) = endpoint.addresses.first() else { continue };
            let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            let instance = pod.and_then(|pod| pod.uid.clone()).unwrap_or_else(|| address.clone());
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            let new = Endpoint {
                display: pod.and_then(|pod| pod.name.clone()).unwrap_or_else(|| address.clone()),
                address: address.clone(),
                ports: ports.clone(),
                ready,
                instance: instance.clone(),
            };
            found
                .entry(instance)
                .and_modify(|known| {
                    known.ready |= ready;
                    known.ports.extend(ports.clone());
                })
                .or_insert(new);
        }
    }
    let mut all: Vec<_> = found.into_values().collect();
    all.sort_by(|a, b| a.instance.cmp(&b.instance));
    all
}

/// The names of the marks in Consul's metadata.
pub mod mark {
    /// The UID of the resource that an entry belongs to.
    pub const OWNER: &str = "fusebox-owner";
    /// The cluster that a node or entry belongs to.
    pub const CLUSTER: &str = "fusebox-cluster";
    /// The resource, for people.
    pub const RESOURCE: &str = "fusebox-resource";
    /// The instance: its pod's UID, or its address.
    pub const INSTANCE: &str = "fusebox-instance";
    /// The Service that an entry follows.
    pub const SERVICE: &str = "fusebox-service";
    /// The name of the port of that Service.
    pub const PORT: &str = "fusebox-port";
    /// Every mark begins so.
    pub const PREFIX: &str = "fusebox-";
}

/// A service instance in Consul's catalog, with its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The service id, also that of its check.
    pub id: String,
    /// The name to be found by.
    pub name: String,
    /// Where.
    pub address: String,
    /// Where.
    pub port: u16,
    /// In order.
    pub tags: Vec<String>,
    /// With our marks.
    pub meta: BTreeMap<String, String>,
    /// The check: None if it is missing.
    pub passing: Option<bool>,
}

impl Entry {
    /// Did this resource, in this cluster, register it?
    pub fn is_of(&self, cluster: &str, uid: &str) -> bool {
        self.owner(cluster) == Some(uid)
    }

    /// Did a resource of this cluster register it?
    pub fn is_in(&self, cluster: &str) -> bool {
        self.owner(cluster).is_some()
    }

    /// The UID of the resource that registered it, if it is one of this cluster.
    pub fn owner(&self, cluster: &str) -> Option<&str> {
        let ours = self.meta.get(mark::CLUSTER).is_some_and(|c| c == cluster);
        let owner = self.meta.get(mark::OWNER).filter(|owner| ours && !owner.is_empty());
        owner.map(String::as_str)
    }

    /// The instance it stands for.
    pub fn instance(&self) -> &str {
        self.meta.get(mark::INSTANCE).map(String::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(yaml: &str) -> EndpointSlice {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn a_pod_in_two_slices_is_one_instance() {
        let one = slice(
            "
addressType: IPv4
endpoints: [{ addresses: [10.0.0.1], conditions: { ready: false }, targetRef: { kind: Pod, uid: a, name: user-a } }]
ports: [{ name: grpc, port: 50051 }]
",
        );
        let two = slice(
            "
addressType: IPv4
endpoints:
- { addresses: [10.0.0.1], conditions: { ready: true }, targetRef: { kind: Pod, uid: a, name: user-a } }
- { addresses: [10.0.0.2] }
ports: [{ name: grpc, port: 50051 }]
",
        );
        let six = slice("{ addressType: IPv6, endpoints: [{ addresses: ['::1'] }], ports: [] }");
        let found = endpoints([&one, &two, &six], "IPv4");
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|e| e.ready && e.ports["grpc"] == 50051), "{found:?}");
        assert_eq!((found[0].instance.as_str(), found[1].display.as_str()), ("10.0.0.2", "user-a"));
    }

    fn view(ports: &[(&str, u16, Option<&str>)]) -> ServiceView {
        let ports = ports.iter().map(|(name, number, protocol)| ServicePort {
            name: (*name).to_owned(),
            number: *number,
            app_protocol: protocol.map(str::to_owned),
        });
        ServiceView { name: "user".into(), ports: ports.collect(), family: "IPv4".into() }
    }

    #[test]
    fn a_port_is_found_by_name_number_or_being_the_only_one() {
        let two = view(&[("grpc", 50051, None), ("http", 80, None)]);
        assert_eq!(two.port(Some(&IntOrString::String("http".into()))).unwrap().number, 80);
        assert_eq!(two.port(Some(&IntOrString::String("80".into()))).unwrap().number, 80);
        assert_eq!(two.port(Some(&IntOrString::Int(50051))).unwrap().name, "grpc");
        assert!(two.port(None).unwrap_err().contains("it has grpc (50051), http (80)"));
        assert!(two.port(Some(&IntOrString::Int(1))).unwrap_err().starts_with("Service user has no port 1"));
        assert_eq!(view(&[("", 80, None)]).port(None).unwrap().number, 80);
    }

    #[test]
    fn grpc_and_h2c_are_cleartext_http2() {
        for (name, protocol, scheme) in [
            ("grpc", None, "h2c"),
            ("grpc-web", None, "h2c"),
            ("h2c", None, "h2c"),
            ("http", Some("kubernetes.io/h2c"), "h2c"),
            ("grpc", Some("http"), "http"),
            ("http", None, "http"),
            ("grpcx", None, "http"),
        ] {
            assert_eq!(view(&[(name, 1, protocol)]).ports[0].scheme(), scheme, "{name} {protocol:?}");
        }
    }

    #[test]
    fn the_nodes_of_a_cluster_are_known_by_name() {
        let own = shard_node("demo", &Ident::new("shop", "user"));
        assert!(is_shard_node("demo", &own) && is_shard_node("demo", "fusebox-demo-15"));
        for other in ["fusebox-demo-canary", "fusebox-demo-2-3", "fusebox-demo-", "fusebox-demo2-3", "demo-3"]
        {
            assert!(!is_shard_node("demo", other), "{other}");
        }
    }

    #[test]
    fn a_resource_keeps_its_shard() {
        assert_eq!(
            shard_node("demo", &Ident::new("shop", "user")),
            shard_node("demo", &Ident::new("shop", "user"))
        );
        let all: std::collections::BTreeSet<_> =
            (0..200).map(|n| shard_node("demo", &Ident::new("shop", format!("user-{n}")))).collect();
        assert_eq!(all.len(), usize::try_from(SHARDS).unwrap());
        assert!(all.iter().all(|node| is_shard_node("demo", node) && !is_shard_node("dem", node)));
        for node in
            ["fusebox-demo-", "fusebox-demo-canary", "fusebox-demo-2-1", "fusebox-demo", "demo-1", "agent"]
        {
            assert!(!is_shard_node("demo", node), "{node}");
        }
    }
}
