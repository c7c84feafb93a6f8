//! What should be on each plane. Pure.
//!
//! A resource that is not accepted writes nothing new: see [`withheld`].

mod go_micro;
mod vanished;
mod withheld;

use std::collections::BTreeMap;

use fusebox_policy::v1alpha1::{ResilientServiceSpec, RouteSpec};
use fusebox_policy::wire::{Fleet, PolicyDocument};
use serde_json::{Value, json};

use super::conditions::{Obstacle, reasons};
use super::observe::{ROUTES, Snapshot, route_name};
use super::validate::{Refusal, Valid};
use crate::claims;
use crate::model::{Endpoint, Entry, ServicePort, ServiceView, mark};
use crate::ports::Route;

pub use vanished::vanished;

/// What should be on one plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane<T> {
    /// All that should be there. None: leave what is there.
    pub goal: Option<T>,
    /// Did the resource ask for something here?
    pub requested: bool,
    /// Why the goal is not what the resource asks for.
    pub blocked: Option<Obstacle>,
}

impl<T: Default> Plane<T> {
    fn set(goal: T) -> Self {
        Self { goal: Some(goal), requested: true, blocked: None }
    }

    fn nothing() -> Self {
        Self { goal: Some(T::default()), requested: false, blocked: None }
    }

    fn blocked(goal: Option<T>, obstacle: Obstacle) -> Self {
        Self { goal, requested: true, blocked: Some(obstacle) }
    }
}

/// What should be in etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The policy document.
    pub policy: Option<String>,
    /// The config document.
    pub config: Option<String>,
    /// How many instances share the policy's rate limits; None where it shares none.
    pub fleet: Option<String>,
    /// Raw keys and their values.
    pub raw: BTreeMap<String, String>,
}

/// What should be everywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Consul.
    pub catalog: Plane<Vec<Entry>>,
    /// Traefik.
    pub routes: Plane<Vec<Route>>,
    /// etcd.
    pub store: Plane<Published>,
}

impl Desired {
    /// Of a resource that is going: nothing anywhere.
    pub fn nothing() -> Self {
        Self { catalog: Plane::nothing(), routes: Plane::nothing(), store: Plane::nothing() }
    }
}

/// From what was seen and how it was judged.
pub fn desired(cluster: &str, seen: &Snapshot, judged: &Result<Valid, Refusal>) -> Desired {
    match judged {
        Ok(valid) => Desired {
            catalog: catalog(cluster, seen),
            routes: routes(seen),
            store: Plane::set(Published {
                policy: Some(valid.policy.to_json()),
                config: valid.config.clone(),
                fleet: fleet(&valid.policy, &seen.endpoints),
                raw: valid.raw.clone(),
            }),
        },
        Err(refusal) => withheld::withheld(cluster, seen, refusal),
    }
}

/// The number of ready instances, for a policy with a rate limit that they share. For any other it is not
/// written, so that a change of an instance stays one operation in Consul.
fn fleet(policy: &PolicyDocument, instances: &[Endpoint]) -> Option<String> {
    let ready = instances.iter().filter(|instance| instance.ready).count();
    let fleet = Fleet { ready: u32::try_from(ready).unwrap_or(u32::MAX) };
    policy.policy().shares_rates().then(|| serde_json::to_string(&fleet).unwrap_or_default())
}

fn catalog(cluster: &str, seen: &Snapshot) -> Plane<Vec<Entry>> {
    let Some(name) = claims::consul_name(&seen.resource) else { return Plane::nothing() };
    match port(seen) {
        Err(obstacle) => Plane::blocked(Some(withheld::frozen(cluster, seen)), obstacle),
        Ok((service, port)) => {
            let consul = seen.resource.spec.consul.clone().unwrap_or_default();
            let meta = consul.meta.into_iter().map(|(key, value)| (key, value.0)).collect();
            let mut tags = consul.tags;
            if consul.go_micro == Some(true) {
                tags.splice(..0, go_micro::tags(&meta, seen.resource.spec.inbound.as_ref()));
            }
            let like = Like { name, service: &service.name, port: &port.name, tags: &tags, meta };
            Plane::set(seen.endpoints.iter().filter_map(|e| like.entry(cluster, seen, e)).collect())
        }
    }
}

/// The Service and the port of it that is meant.
fn port(seen: &Snapshot) -> Result<(&ServiceView, &ServicePort), Obstacle> {
    let service = service(seen)?;
    let port = service.port(seen.resource.spec.service.port.as_ref());
    Ok((service, port.map_err(|why| Obstacle::lasting(reasons::PORT_NOT_FOUND, why))?))
}

fn service(seen: &Snapshot) -> Result<&ServiceView, Obstacle> {
    seen.service.as_ref().ok_or_else(|| {
        Obstacle::lasting(
            reasons::SERVICE_NOT_FOUND,
            format!(
                "there is no Service {} in namespace {}: create it, or correct spec.service.name",
                seen.resource.spec.service.name, seen.ident.namespace
            ),
        )
    })
}

/// The common part of a resource's entries.
struct Like<'a> {
    name: &'a str,
    service: &'a str,
    port: &'a str,
    tags: &'a [String],
    meta: BTreeMap<String, String>,
}

impl Like<'_> {
    /// None where the instance does not serve the port.
    fn entry(&self, cluster: &str, seen: &Snapshot, of: &Endpoint) -> Option<Entry> {
        let port = *of.ports.get(self.port)?;
        let mut meta = self.meta.clone();
        for (key, value) in [
            (mark::OWNER, seen.uid.clone()),
            (mark::CLUSTER, cluster.to_owned()),
            (mark::RESOURCE, seen.ident.to_string()),
            (mark::INSTANCE, of.instance.clone()),
            (mark::SERVICE, self.service.to_owned()),
            (mark::PORT, self.port.to_owned()),
        ] {
            meta.insert(key.to_owned(), value);
        }
        Some(Entry {
            id: format!("{cluster}-{}-{}-{port}", seen.uid, of.instance),
            name: self.name.to_owned(),
            address: of.address.clone(),
            port,
            tags: self.tags.to_vec(),
            meta,
            passing: Some(of.ready),
        })
    }
}

fn routes(seen: &Snapshot) -> Plane<Vec<Route>> {
    let spec = &seen.resource.spec;
    let Some(gateway) = &spec.gateway else { return Plane::nothing() };
    let rules: Result<Vec<Value>, Obstacle> =
        gateway.routes.iter().map(|route| rule(seen, spec, route)).collect();
    let rules = match rules {
        Ok(rules) => rules,
        Err(obstacle) => return Plane::blocked(None, obstacle),
    };
    let (plain, tls) = match &gateway.entry_points {
        None => (Some("web"), None),
        Some(entry) => (entry.plain.as_deref(), entry.tls.as_deref()),
    };
    let mut wanted = Vec::new();
    if let Some(entry) = plain {
        let spec = json!({ "entryPoints": [entry], "routes": rules });
        wanted.push(Route { name: route_name(&seen.ident, ROUTES[0]), spec });
    }
    if let (Some(entry), Some(tls)) = (tls, &gateway.tls) {
        let tls = match (&tls.secret_name, &tls.cert_resolver) {
            (Some(secret), _) => json!({ "secretName": secret }),
            (None, Some(resolver)) => json!({ "certResolver": resolver }),
            (None, None) => json!({}),
        };
        let spec = json!({ "entryPoints": [entry], "routes": rules, "tls": tls });
        wanted.push(Route { name: route_name(&seen.ident, ROUTES[1]), spec });
    }
    Plane::set(wanted)
}

fn rule(seen: &Snapshot, spec: &ResilientServiceSpec, route: &RouteSpec) -> Result<Value, Obstacle> {
    let service = service(seen)?;
    let port = service.port(route.port.as_ref().or(spec.service.port.as_ref()));
    let port = port.map_err(|why| Obstacle::lasting(reasons::PORT_NOT_FOUND, why))?;
    Ok(json!({
        "kind": "Rule",
        "match": matcher(&route.host, &claims::path_of(route)),
        "services": [{ "name": service.name, "port": port.number, "scheme": port.scheme() }],
    }))
}

/// A Traefik rule of fixed shape: nothing a person wrote is in it but quoted. `path` means whole elements.
fn matcher(host: &str, path: &str) -> String {
    if path.is_empty() {
        format!("Host(`{host}`)")
    } else {
        format!("Host(`{host}`) && (Path(`{path}`) || PathPrefix(`{path}/`))")
    }
}
