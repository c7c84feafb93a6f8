//! What the rules of the resource's schema refuse, when it is new and when it is edited.

use std::collections::BTreeSet;

use fusebox_policy::v1alpha1::ResilientService;
use fusebox_processes::ApiServer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::core::response::StatusCause;
use kube::{Api, CustomResourceExt};
use serde_json::{Map, Value};

use super::Recording;
use super::script::{NAMES, Step};
use crate::model;
use crate::world::ClusterWorld;

const BAD: &str = "inbound: { timeout: 0s }";
const GOOD: &str = "inbound: { timeout: 1h }";

/// Each rule once at least, and its neighbours that pass.
const SPECS: [&str; 42] = [
    BAD,
    "inbound: { timeout: 1h1ms }",
    GOOD,
    "inbound: { methods: [{ match: {} }] }",
    "inbound: { methods: [{ match: { http: { pathPrefix: / } } }, \
     { match: { grpc: { service: a.B }, http: { pathPrefix: / } } }] }",
    "inbound: { methods: [{ match: { http: { pathPrefix: / } }, fallback: {} }] }",
    "inbound: { methods: [{ match: { http: { pathPrefix: / } }, fallback: { body: '' } }] }",
    "inbound: { methods: [{ match: { http: { pathPrefix: / } }, fallback: { message: {} } }] }",
    "inbound: { methods: [{ match: { http: { pathPrefix: / } }, fallback: { contentType: a/b, body: '' } }] }",
    "inbound: { methods: [{ match: { grpc: { service: a.B } }, fallback: { message: {} } }] }",
    "inbound: { methods: [{ match: { grpc: { service: a.B, method: C } }, fallback: { message: {}, body: c } }] }",
    "inbound: { methods: [{ match: { grpc: { service: a.B, method: C } }, fallback: { contentType: a/b, body: c } }] }",
    "inbound: { methods: [{ match: { grpc: { service: a.B, method: C } }, fallback: { message: {} } }] }",
    "outbound: { timeout: 0s, circuitBreaker: { rollingWindow: 2h, sleepWindow: 1m30s, slowCall: { threshold: 0ms } } }",
    "outbound: { commands: [{ name: a }, { name: b, timeout: 0s, retry: { perTryTimeout: 61m } }] }",
    "outbound: { commands: [{ name: a }, { name: b, timeout: 1s500ms, retry: { perTryTimeout: 1s } }] }",
    "shadow: { outbound: { timeout: 0s } }",
    "shadow: { outbound: { retry: { maxAttempts: 2 } } }",
    "shadow: { outbound: { commands: [{ name: a, fallback: { enabled: false } }] } }",
    "shadow: { inbound: { methods: [{ match: {}, fallback: { body: c } }] } }",
    "shadow: { inbound: { methods: [{ match: { http: { pathPrefix: / } } }] }, outbound: { commands: [{ name: a }] } }",
    "consul: { serviceName: Consul }",
    "consul: { serviceName: consul.service }",
    "consul: { goMicro: true, tags: [v1, t] }",
    "consul: { goMicro: false, tags: [e] }",
    "consul: { meta: { a.b: c } }",
    "consul: { meta: { fusebox-owner: me } }",
    "consul: { meta: { Team_1-a: shop, my-consul-: b } }",
    "gateway: { routes: [{ host: a.b }] }",
    "gateway: { routes: [{ host: a.b }], tls: { secretName: s } }",
    "gateway: { routes: [{ host: a.b }], tls: {}, entryPoints: {} }",
    "gateway: { routes: [{ host: a.b }], tls: { secretName: s, certResolver: r }, entryPoints: { tls: x } }",
    "gateway: { routes: [{ host: a.b }], entryPoints: { tls: x } }",
    "gateway: { routes: [{ host: a.b }], tls: { secretName: s }, entryPoints: { plain: x, tls: x } }",
    "gateway: { routes: [{ host: a.b }], tls: { certResolver: r }, entryPoints: { plain: x, tls: y } }",
    "config: { etcdKeys: { a: b, /fusebox/c: d } }",
    "config: { etcdKeys: { '': b } }",
    "config: { etcdKeys: { a/fusebox/: b } }",
    "consul: { serviceName: CONSUL, meta: { consul-a: b } }, inbound: { timeout: 0h }, \
     config: { etcdKeys: { /fusebox/: c } }",
    "inbound: { methods: [{ match: { http: { pathPrefix: / } }, timeout: 0s }] }, \
     outbound: { retry: { perTryTimeout: 0s } }",
    "shadow: { inbound: { methods: [{ match: { http: { pathPrefix: / } }, fallback: { message: {} } }] }, \
     outbound: { fallback: {}, commands: [{ name: a, retry: {} }] } }",
    "inbound: {}, outbound: {}, shadow: {}, consul: {}, config: {}",
];

/// Each spec as an edit, and as a new object; and what there is in between.
pub fn script() -> Vec<Step> {
    let [user, two] = NAMES;
    let first = [
        Step::Declare(user, BAD),
        Step::Show(0, user),
        Step::Declare(user, GOOD),
        Step::Show(0, user),
        Step::Declare(user, GOOD),
        Step::Show(0, user),
        Step::Declare(user, BAD),
        Step::Show(0, user),
        Step::Delete(user),
        Step::Create(user),
    ];
    let each = SPECS.iter().flat_map(|spec| {
        [
            Step::Declare(user, spec),
            Step::Show(0, user),
            Step::Declare(two, spec),
            Step::Show(1, two),
            Step::Delete(two),
        ]
    });
    first.into_iter().chain(each).collect()
}

pub fn declared(name: &str, namespace: &str, said: &str) -> ResilientService {
    let spec = serde_saphyr::from_str(&format!("{{ service: {{ name: s }}, {said} }}")).unwrap();
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    ResilientService { metadata, spec, status: None }
}

/// By its number of edits it has a UID of its own.
pub fn in_memory(cluster: &ClusterWorld, mut new: ResilientService, edits: usize) -> Result<(), String> {
    cluster.admits(&new)?;
    let mut all = cluster.resources.try_lock().unwrap();
    let at = model::ident(&new);
    match all.get_mut(&at) {
        Some(there) if there.spec == new.spec => {}
        Some(there) => {
            there.spec = new.spec;
            there.metadata.generation = there.metadata.generation.map(|generation| generation + 1);
        }
        None => {
            new.metadata.uid = Some(format!("uid-{edits}"));
            new.metadata.generation = Some(1);
            all.insert(at, new);
        }
    }
    Ok(())
}

pub async fn on_server(server: &ApiServer, mut new: ResilientService) -> Result<(), String> {
    let (name, namespace) = (new.metadata.name.clone().unwrap(), new.metadata.namespace.clone().unwrap());
    let all = Api::<ResilientService>::namespaced(server.admin(), &namespace);
    let done = match all.get_opt(&name).await.unwrap() {
        Some(there) => {
            new.metadata = there.metadata;
            all.replace(&name, &PostParams::default(), &new).await
        }
        None => all.create(&PostParams::default(), &new).await,
    };
    match done {
        Err(kube::Error::Api(status)) if status.code == 422 => {
            let mut lines: Vec<_> = status.details.unwrap().causes.iter().map(told).collect();
            lines.sort();
            Err(lines.join("; "))
        }
        done => {
            done.unwrap();
            Ok(())
        }
    }
}

/// The field and the rule's message, without the type of the value that the server puts between.
fn told(cause: &StatusCause) -> String {
    let said = cause.message.strip_prefix("Invalid value: \"").and_then(|said| said.split_once("\": "));
    format!("{}: {}", cause.field, said.map_or(cause.message.as_str(), |(_, message)| message))
}

fn messages(of: &Value, found: &mut BTreeSet<String>) {
    let rules = of.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    found.extend(rules.map(|rule| rule["message"].as_str().unwrap().to_owned()));
    let fields = of.as_object().into_iter().flat_map(Map::values);
    for part in fields.chain(of.as_array().into_iter().flatten()) {
        messages(part, found);
    }
}

/// So that one that is added is asked of the server as well.
#[test]
fn every_rule_has_refused_something_on_the_server() {
    let mut all = BTreeSet::new();
    messages(&serde_json::to_value(ResilientService::crd()).unwrap(), &mut all);
    let kept = Recording::kept("kubernetes");
    let never: Vec<_> = all.iter().filter(|message| !kept.tells(message)).collect();
    assert!(!all.is_empty() && never.is_empty(), "give them a spec in the script: {never:#?}");
}
