//! Is the resource in order, by itself and beside the others? Pure.

use std::collections::{BTreeMap, BTreeSet};

use fusebox_policy::merge;
use fusebox_policy::v1alpha1::{ConsulSpec, GatewaySpec, ResilientServiceSpec, TlsSpec};
use fusebox_policy::wire::{MAX_POLICY_BYTES, PolicyDocument};

use super::conditions::reasons;
use super::observe::Snapshot;
use crate::claims::{self, Lost};

/// The longest name: it is also the value of a label.
const MAX_NAME: usize = 63;
/// The largest config document, in bytes.
const MAX_CONFIG_BYTES: usize = 64 * 1024;

/// Which raw etcd keys a namespace may use: namespace to prefixes. Empty: none.
pub type AllowedPrefixes = BTreeMap<String, Vec<String>>;

/// What is to be published of a resource that is in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// The policy.
    pub policy: PolicyDocument,
    /// The config document as it will be read.
    pub config: Option<String>,
    /// Raw keys and their values.
    pub raw: BTreeMap<String, String>,
}

/// Why a resource is not accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Invalid, Conflict or `KeyNotAllowed`.
    pub reason: &'static str,
    /// All that is wrong, for a person.
    pub message: String,
    /// What it asks for or holds and another resource has by right.
    pub lost: Vec<Lost>,
}

/// Judges what was seen.
pub fn validate(seen: &Snapshot, allowed: &AllowedPrefixes) -> Result<Valid, Refusal> {
    let spec = &seen.resource.spec;
    let refuse = |reason, lines: Vec<String>| {
        Err(Refusal { reason, message: lines.join("; "), lost: seen.rivals.lost.clone() })
    };
    let (valid, wrong) = content(seen, spec);
    let valid = match valid {
        Some(valid) if wrong.is_empty() => valid,
        _ => return refuse(reasons::INVALID, wrong),
    };
    let asked = claims::asked(&seen.resource);
    let conflicts: Vec<String> =
        seen.rivals.lost.iter().filter(|lost| asked.contains(&lost.claim)).map(Lost::message).collect();
    if !conflicts.is_empty() {
        return refuse(reasons::CONFLICT, conflicts);
    }
    let namespace = &seen.ident.namespace;
    let prefixes = allowed.get(namespace).map(Vec::as_slice).unwrap_or_default();
    let outside: Vec<String> = (valid.raw.keys())
        .filter(|key| !prefixes.iter().any(|prefix| !prefix.is_empty() && key.starts_with(prefix)))
        .map(|key| {
            format!(
                "config.etcdKeys: {key} is under no prefix that namespace {namespace} may write: ask the \
                 platform to add one to the operator chart's value etcd.allowedKeyPrefixes.{namespace}"
            )
        })
        .collect();
    if outside.is_empty() { Ok(valid) } else { refuse(reasons::KEY_NOT_ALLOWED, outside) }
}

fn content(seen: &Snapshot, spec: &ResilientServiceSpec) -> (Option<Valid>, Vec<String>) {
    let mut wrong = Vec::new();
    if seen.ident.name.len() > MAX_NAME {
        wrong.push(format!("metadata.name: at most {MAX_NAME} characters"));
    }
    let policy = merge::policy(spec)
        .map(|policy| PolicyDocument::new(seen.uid.clone(), policy))
        .map_err(|found| wrong.extend(found))
        .ok();
    if policy.as_ref().is_some_and(|policy| policy.to_json().len() > MAX_POLICY_BYTES) {
        wrong.push(format!("the merged policy has more than {MAX_POLICY_BYTES} bytes"));
    }
    // The schema sees a serviceName, not the Service's name that it defaults to.
    if claims::consul_name(&seen.resource).is_some_and(|name| name.eq_ignore_ascii_case("consul")) {
        wrong.push(
            "consul is the name of Consul's own servers: set another spec.consul.serviceName".to_owned(),
        );
    }
    spec.gateway.iter().for_each(|gateway| routes(gateway, &mut wrong));
    spec.consul.iter().for_each(|consul| tags(consul, &mut wrong));
    let document = spec.config.as_ref().and_then(|config| config.document.as_ref());
    let config = document.map(ToString::to_string);
    if document.is_some_and(|document| !document.is_object()) {
        wrong.push("config.document: must be an object".to_owned());
    }
    if config.as_ref().is_some_and(|config| config.len() > MAX_CONFIG_BYTES) {
        wrong.push(format!("config.document: more than {MAX_CONFIG_BYTES} bytes as JSON"));
    }
    let mut raw = BTreeMap::new();
    for (key, value) in spec.config.iter().flat_map(|config| &config.etcd_keys) {
        if key.is_empty() || key.starts_with("/fusebox/") {
            wrong.push(format!("config.etcdKeys: {key:?} is empty or begins with /fusebox/"));
        }
        raw.insert(key.clone(), value.0.clone());
    }
    (policy.map(|policy| Valid { policy, config, raw }), wrong)
}

/// The schema says it too; a client of go-micro that reads such a tag ends.
fn tags(consul: &ConsulSpec, wrong: &mut Vec<String>) {
    let deadly = |tag: &&String| matches!(tag.as_str(), "t" | "e");
    if let (Some(true), Some(tag)) = (consul.go_micro, consul.tags.iter().find(deadly)) {
        wrong.push(format!(
            "consul.tags: with goMicro no tag may be exactly {tag}, as go-micro's clients end on it: choose a longer one"
        ));
    }
}

fn routes(gateway: &GatewaySpec, wrong: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (n, route) in gateway.routes.iter().enumerate() {
        let path = claims::path_of(route);
        // The schema's patterns admit neither; a rule is no place to rely on one check.
        if [&route.host, &path].into_iter().any(|text| text.contains(['`', '\n', '\r'])) {
            wrong.push(format!("gateway.routes[{n}]: a host or path may hold no backtick and no line break"));
        }
        if !seen.insert((route.host.clone(), path)) {
            wrong
                .push(format!("gateway.routes[{n}]: the same host and path as an earlier route: remove one"));
        }
    }
    let both = |tls: &TlsSpec| tls.secret_name.is_some() == tls.cert_resolver.is_some();
    if gateway.tls.as_ref().is_some_and(both) {
        wrong.push("gateway.tls: set exactly one of secretName and certResolver".to_owned());
    }
    let tls_entry = gateway.entry_points.as_ref().is_some_and(|entry| entry.tls.is_some());
    if tls_entry != gateway.tls.is_some() {
        wrong.push("gateway: tls and entryPoints.tls need each other".to_owned());
    }
}
