//! Who holds what: a Service, a Consul name, a host, a host and path, a raw key belong to one resource.
//!
//! Computed anew from all cached resources, so a claim ends with its resource or with the edit that drops
//! it. The oldest resource holds, by creation and then by UID. A resource that is being deleted holds until
//! it is gone, since what it applied is still there.

use fusebox_policy::v1alpha1::{ResilientService, RouteSpec};
use kube::ResourceExt;

/// Something that only one resource may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A Service of the namespace.
    Service(String),
    /// A name in Consul.
    ConsulName(String),
    /// Requests for a host and a path under it.
    Route(String, String),
    /// A host; belongs to a namespace.
    Host(String),
    /// A raw etcd key.
    RawKey(String),
}

/// A claim that an older resource holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What.
    pub claim: Claim,
    /// The holder's name, if it is of the same namespace.
    pub holder: Option<String>,
}

impl Lost {
    /// For a person. Another namespace's resource is not named.
    pub fn message(&self) -> String {
        let (what, way_out) = match &self.claim {
            Claim::Service(name) => (format!("Service {name}"), "remove one of the two"),
            Claim::ConsulName(name) => {
                (format!("the Consul name {name}"), "choose another spec.consul.serviceName")
            }
            Claim::Route(host, path) if path.is_empty() => {
                (format!("the route {host}"), "choose another host or pathPrefix")
            }
            Claim::Route(host, path) => {
                (format!("the route {host}{path}"), "choose another host or pathPrefix")
            }
            Claim::Host(host) => (format!("the host {host}"), "choose another host"),
            Claim::RawKey(key) => (format!("the etcd key {key}"), "choose another key"),
        };
        let holder = match &self.holder {
            Some(name) => format!("ResilientService {name}, which is older"),
            None => "an older resource of another namespace".to_owned(),
        };
        format!("{what} belongs to {holder}: {way_out}")
    }
}

/// The path of a route as whole elements: no slash at its end, empty for every path.
pub fn path_of(route: &RouteSpec) -> String {
    route.path_prefix.as_deref().unwrap_or_default().trim_end_matches('/').to_owned()
}

/// The name that a resource registers in Consul.
pub fn consul_name(resource: &ResilientService) -> Option<&str> {
    let consul = resource.spec.consul.as_ref()?;
    Some(consul.service_name.as_deref().unwrap_or(&resource.spec.service.name))
}

/// What `me` claims and an older one of `all` holds.
pub fn lost<'a>(me: &ResilientService, all: impl IntoIterator<Item = &'a ResilientService>) -> Vec<Lost> {
    let mine = claims(me);
    let mut lost: Vec<Lost> = Vec::new();
    for other in all.into_iter().filter(|other| precedes(other, me)) {
        let same_namespace = other.namespace() == me.namespace();
        for claim in claims(other) {
            let collides = mine.contains(&claim)
                && match claim {
                    Claim::Service(_) => same_namespace,
                    Claim::Host(_) => !same_namespace,
                    Claim::ConsulName(_) | Claim::Route(..) | Claim::RawKey(_) => true,
                };
            if collides && !lost.iter().any(|known| known.claim == claim) {
                lost.push(Lost { claim, holder: same_namespace.then(|| other.name_any()) });
            }
        }
    }
    lost
}

fn precedes(other: &ResilientService, me: &ResilientService) -> bool {
    let age = |r: &ResilientService| (r.creation_timestamp().map(|t| t.0), r.uid());
    other.uid() != me.uid() && age(other) < age(me)
}

fn claims(of: &ResilientService) -> Vec<Claim> {
    let spec = &of.spec;
    let mut all = vec![Claim::Service(spec.service.name.clone())];
    all.extend(consul_name(of).map(|name| Claim::ConsulName(name.to_owned())));
    for route in spec.gateway.iter().flat_map(|gateway| &gateway.routes) {
        all.push(Claim::Host(route.host.clone()));
        all.push(Claim::Route(route.host.clone(), path_of(route)));
    }
    all.extend(spec.config.iter().flat_map(|c| c.etcd_keys.keys()).map(|key| Claim::RawKey(key.clone())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(namespace: &str, name: &str, second: u8, spec: &str) -> ResilientService {
        serde_saphyr::from_str(&format!(
            "
apiVersion: fusebox.dev/v1alpha1
kind: ResilientService
metadata: {{ name: {name}, namespace: {namespace}, uid: uid-{namespace}-{name}, creationTimestamp: '2026-11-24T21:00:{second:02}Z' }}
spec: {spec}
"
        ))
        .unwrap()
    }

    fn messages(me: &ResilientService, all: &[&ResilientService]) -> Vec<String> {
        lost(me, all.iter().copied()).iter().map(Lost::message).collect()
    }

    #[test]
    fn the_oldest_holds_and_the_younger_is_told_by_whom() {
        let old = resource("shop", "a", 1, "{ service: { name: user } }");
        let new = resource("shop", "b", 2, "{ service: { name: user } }");
        let elsewhere = resource("other", "c", 0, "{ service: { name: user } }");
        let all = [&old, &new, &elsewhere];
        assert!(messages(&old, &all).is_empty());
        assert_eq!(
            messages(&new, &all),
            ["Service user belongs to ResilientService a, which is older: remove one of the two"]
        );
    }

    #[test]
    fn equal_age_is_decided_by_uid() {
        let a = resource("shop", "a", 1, "{ service: { name: user } }");
        let b = resource("shop", "b", 1, "{ service: { name: user } }");
        assert!(messages(&a, &[&a, &b]).is_empty());
        assert_eq!(messages(&b, &[&a, &b]).len(), 1);
    }

    #[test]
    fn a_consul_name_is_of_all_namespaces_and_the_holder_is_not_named() {
        let old =
            resource("secret", "a", 1, "{ service: { name: x }, consul: { serviceName: user.service } }");
        let new = resource("shop", "b", 2, "{ service: { name: user.service }, consul: {} }");
        let found = messages(&new, &[&old, &new]);
        assert!(found.len() == 1 && found[0].starts_with("the Consul name user.service"), "{found:?}");
        assert!(!found[0].contains("secret"));
    }

    #[test]
    fn a_host_belongs_to_a_namespace_and_a_path_to_a_resource() {
        let route = |path: &str| {
            format!(
                "{{ service: {{ name: s{path} }}, gateway: {{ routes: [{{ host: a.io, pathPrefix: /{path} }}] }} }}"
            )
        };
        let old = resource("shop", "a", 1, &route("users"));
        let beside = resource("shop", "b", 2, &route("orders"));
        let same = resource("shop", "c", 3, &route("users/"));
        let elsewhere = resource("other", "d", 4, &route("x"));
        let all = [&old, &beside, &same, &elsewhere];
        assert!(messages(&beside, &all).is_empty());
        assert_eq!(lost(&same, all).len(), 1);
        assert_eq!(lost(&elsewhere, all)[0].claim, Claim::Host("a.io".into()));
    }

    #[test]
    fn a_raw_key_is_of_all_namespaces() {
        let spec = |n: u8| format!("{{ service: {{ name: s{n} }}, config: {{ etcdKeys: {{ k: '1' }} }} }}");
        let (old, new) = (resource("a", "a", 1, &spec(1)), resource("b", "b", 2, &spec(2)));
        assert_eq!(lost(&new, [&old, &new])[0].claim, Claim::RawKey("k".into()));
    }
}
