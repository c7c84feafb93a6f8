//! Every rule of the resource's schema refuses something and accepts something else, as kube's CEL judges.

use std::collections::BTreeSet;

use kube::CustomResourceExt;
use kube::core::cel::{ErrorKind, validate_cel};
use serde_json::Value;

use super::ResilientService;
use crate::merge;

const RESERVED: &str = "consul is the name of Consul's own servers: choose another";
const DEADLY: &str =
    "with goMicro no tag may be exactly t or e: go-micro's clients end on it; choose a longer one";
const META: &str =
    "a key has letters, digits, - and _ only, at most 128, and does not begin with fusebox- or consul-";
const KEYS: &str = "a key has at most 253 characters and does not begin with /fusebox/";
const ENTRY_POINT: &str = "tls needs entryPoints.tls, the name of the entry point that serves HTTPS";
const TLS: &str =
    "entryPoints.tls needs tls, so that no route is served without a certificate of its own choice";
const NONE: &str = "name at least one of plain and tls";
const SAME: &str = "plain and tls must be two different entry points";
const CERTIFICATE: &str = "set exactly one of secretName and certResolver";
const MATCH: &str = "set exactly one of grpc and http";
const ANSWER: &str = "set either message, or contentType and body";
const MESSAGE: &str = "fallback.message needs match.grpc.method; for HTTP give contentType and body";
const BODY: &str = "fallback.body needs match.http; for a gRPC method give message";
const DURATION: &str = "must be between 1ms and 1h, like 500ms, 2s or 1m30s";
const METHODS_ACT: &str = "a candidate decides and does nothing: remove fallback from shadow.inbound.methods";
const OUTBOUND_ACTS: &str =
    "a candidate decides and does nothing: remove retry and fallback from shadow.outbound";
const COMMANDS_ACT: &str =
    "a candidate decides and does nothing: remove retry and fallback from shadow.outbound.commands";

/// What is said, and where it is refused with which words; nowhere: it is accepted.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)]);

const SPECS: &[Case] = &[
    ("consul: { serviceName: consul }", &[("consul.serviceName", RESERVED)]),
    ("consul: { serviceName: Consul }", &[("consul.serviceName", RESERVED)]),
    ("consul: { serviceName: consul.service }", &[]),
    ("consul: { goMicro: true, tags: [v1, t] }", &[("consul", DEADLY)]),
    ("consul: { goMicro: true, tags: [e] }", &[("consul", DEADLY)]),
    ("consul: { goMicro: true, tags: [te] }", &[]),
    ("consul: { goMicro: false, tags: [t, e] }", &[]),
    ("consul: { tags: [t, e] }", &[]),
    ("consul: { goMicro: true }", &[]),
    ("consul: { meta: { fusebox-owner: me } }", &[("consul.meta", META)]),
    ("consul: { meta: { team: shop, consul-version: '1' } }", &[("consul.meta", META)]),
    ("consul: { meta: { a.b: c } }", &[("consul.meta", META)]),
    ("consul: { meta: { '': c } }", &[("consul.meta", META)]),
    ("consul: { meta: { Team_1-a: shop, fusebox: yes, my-consul-: yes } }", &[]),
    ("config: { etcdKeys: { a: b, /fusebox/v1/test/epoch: '7' } }", &[("config.etcdKeys", KEYS)]),
    ("config: { etcdKeys: { /fuseboxes: b, a/fusebox/: c } }", &[]),
    ("gateway: { routes: [{ host: a.b }] }", &[]),
    ("gateway: { routes: [{ host: a.b }], tls: { secretName: s } }", &[("gateway", ENTRY_POINT)]),
    (
        "gateway: { routes: [{ host: a.b }], tls: { secretName: s }, entryPoints: { plain: web } }",
        &[("gateway", ENTRY_POINT)],
    ),
    ("gateway: { routes: [{ host: a.b }], tls: { secretName: s }, entryPoints: { tls: secure } }", &[]),
    ("gateway: { routes: [{ host: a.b }], tls: { certResolver: r }, entryPoints: { tls: secure } }", &[]),
    ("gateway: { routes: [{ host: a.b }], entryPoints: { tls: secure } }", &[("gateway", TLS)]),
    ("gateway: { routes: [{ host: a.b }], entryPoints: { plain: web } }", &[]),
    ("gateway: { routes: [{ host: a.b }], entryPoints: {} }", &[("gateway.entryPoints", NONE)]),
    (
        "gateway: { routes: [{ host: a.b }], tls: { secretName: s }, entryPoints: { plain: web, tls: web } }",
        &[("gateway.entryPoints", SAME)],
    ),
    (
        "gateway: { routes: [{ host: a.b }], tls: { secretName: s }, entryPoints: { plain: web, tls: secure } }",
        &[],
    ),
    (
        "gateway: { routes: [{ host: a.b }], tls: {}, entryPoints: { tls: secure } }",
        &[("gateway.tls", CERTIFICATE)],
    ),
    (
        "gateway: { routes: [{ host: a.b }], tls: { secretName: s, certResolver: r }, entryPoints: { tls: secure } }",
        &[("gateway.tls", CERTIFICATE)],
    ),
    ("shadow: { inbound: { timeout: 1s }, outbound: { timeout: 1s, commands: [{ name: a }] } }", &[]),
    ("shadow: { outbound: { retry: { maxAttempts: 2 } } }", &[("shadow", OUTBOUND_ACTS)]),
    ("shadow: { outbound: { fallback: { enabled: false } } }", &[("shadow", OUTBOUND_ACTS)]),
    ("shadow: { outbound: { commands: [{ name: a, retry: {} }] } }", &[("shadow", COMMANDS_ACT)]),
    (
        "shadow: { outbound: { commands: [{ name: a }, { name: b, fallback: { enabled: false } }] } }",
        &[("shadow", COMMANDS_ACT)],
    ),
    ("outbound: { retry: { maxAttempts: 2 }, commands: [{ name: a, fallback: { enabled: false } }] }", &[]),
];

/// Of a method: places in it.
const METHODS: &[Case] = &[
    ("match: {}", &[(".match", MATCH)]),
    ("match: { grpc: { service: a.B }, http: { pathPrefix: / } }", &[(".match", MATCH)]),
    ("match: { grpc: { service: a.B } }", &[]),
    ("match: { http: { pathPrefix: / } }", &[]),
    ("match: { grpc: { service: a.B } }, fallback: { message: {} }", &[("", MESSAGE)]),
    ("match: { http: { pathPrefix: / } }, fallback: { message: {} }", &[("", MESSAGE)]),
    ("match: { grpc: { service: a.B, method: C } }, fallback: { message: { a: 1 } }", &[]),
    ("match: { grpc: { service: a.B, method: C } }, fallback: { contentType: a/b, body: c }", &[("", BODY)]),
    ("match: { http: { pathPrefix: / } }, fallback: { contentType: a/b, body: '' }", &[]),
    ("match: { http: { pathPrefix: / } }, fallback: {}", &[(".fallback", ANSWER)]),
    ("match: { http: { pathPrefix: / } }, fallback: { body: c }", &[(".fallback", ANSWER)]),
    ("match: { http: { pathPrefix: / } }, fallback: { contentType: a/b }", &[(".fallback", ANSWER)]),
    (
        "match: { grpc: { service: a.B, method: C } }, fallback: { message: {}, contentType: a/b }",
        &[(".fallback", ANSWER)],
    ),
    (
        "match: { grpc: { service: a.B, method: C } }, fallback: { message: {}, body: c }",
        &[("", BODY), (".fallback", ANSWER)],
    ),
];

/// Each place of a duration, and the duration in it.
const DURATIONS: &[(&str, &str)] = &[
    ("inbound.timeout", "inbound: { timeout: $ }"),
    (
        "inbound.methods[].timeout",
        "inbound: { methods: [{ match: { http: { pathPrefix: / } }, timeout: $ }] }",
    ),
    ("outbound.timeout", "outbound: { timeout: $ }"),
    ("outbound.retry.perTryTimeout", "outbound: { retry: { perTryTimeout: $ } }"),
    ("outbound.circuitBreaker.sleepWindow", "outbound: { circuitBreaker: { sleepWindow: $ } }"),
    ("outbound.circuitBreaker.rollingWindow", "outbound: { circuitBreaker: { rollingWindow: $ } }"),
    (
        "outbound.circuitBreaker.slowCall.threshold",
        "outbound: { circuitBreaker: { slowCall: { threshold: $, percent: 50 } } }",
    ),
    ("outbound.commands[].timeout", "outbound: { commands: [{ name: a, timeout: $ }] }"),
    (
        "outbound.commands[].retry.perTryTimeout",
        "outbound: { commands: [{ name: a, retry: { perTryTimeout: $ } }] }",
    ),
    (
        "outbound.commands[].circuitBreaker.sleepWindow",
        "outbound: { commands: [{ name: a, circuitBreaker: { sleepWindow: $ } }] }",
    ),
    (
        "outbound.commands[].circuitBreaker.rollingWindow",
        "outbound: { commands: [{ name: a, circuitBreaker: { rollingWindow: $ } }] }",
    ),
    (
        "outbound.commands[].circuitBreaker.slowCall.threshold",
        "outbound: { commands: [{ name: a, circuitBreaker: { slowCall: { threshold: $, percent: 50 } } }] }",
    ),
];

const REFUSED_DURATIONS: [&str; 4] = ["0s", "0h0ms", "1h1ms", "61m"];
const DURATIONS_WITHIN: [&str; 4] = ["1ms", "1s500ms", "1m30s", "1h"];

/// A place and a message.
type Rule = (String, String);

fn at(place: &str, message: &str) -> Rule {
    (format!("spec.{place}"), message.to_owned())
}

/// What is said twice, in force and of a candidate, where what only acts is refused as well.
fn twice(said: &str, refused: &[(String, &str)]) -> [(String, BTreeSet<Rule>); 2] {
    let mut of_candidate: BTreeSet<Rule> =
        refused.iter().map(|(place, message)| at(&format!("shadow.{place}"), message)).collect();
    let acts = said.contains("retry: {") || said.contains("fallback: {");
    let message = match (said.starts_with("inbound"), said.contains("commands")) {
        (true, _) => METHODS_ACT,
        (_, true) => COMMANDS_ACT,
        _ => OUTBOUND_ACTS,
    };
    of_candidate.extend(acts.then(|| at("shadow", message)));
    let in_force = refused.iter().map(|(place, message)| at(place, message)).collect();
    [(said.to_owned(), in_force), (format!("shadow: {{ {said} }}"), of_candidate)]
}

/// Every spec with all that it is refused for.
fn cases() -> Vec<(String, BTreeSet<Rule>)> {
    let specs = SPECS.iter().map(|(said, refused)| {
        ((*said).to_owned(), refused.iter().map(|(place, message)| at(place, message)).collect())
    });
    let long = |length: usize, in_it: &str| in_it.replace('$', &"k".repeat(length));
    let lengths = [
        (long(128, "consul: { meta: { $: v } }"), BTreeSet::new()),
        (long(129, "consul: { meta: { $: v } }"), [at("consul.meta", META)].into()),
        (long(253, "config: { etcdKeys: { $: v } }"), BTreeSet::new()),
        (long(254, "config: { etcdKeys: { $: v } }"), [at("config.etcdKeys", KEYS)].into()),
    ];
    let methods = METHODS.iter().flat_map(|(said, refused)| {
        let refused: Vec<_> =
            refused.iter().map(|(place, message)| (format!("inbound.methods[]{place}"), *message)).collect();
        twice(&format!("inbound: {{ methods: [{{ {said} }}] }}"), &refused)
    });
    let durations = DURATIONS.iter().flat_map(|(place, said)| {
        let refused = REFUSED_DURATIONS.map(|text| (text, vec![((*place).to_owned(), DURATION)]));
        let accepted = DURATIONS_WITHIN.map(|text| (text, Vec::new()));
        let both = refused.into_iter().chain(accepted);
        both.flat_map(|(text, refused)| twice(&said.replace('$', text), &refused))
    });
    specs.chain(lengths).chain(methods).chain(durations).collect()
}

fn schema() -> Value {
    let crd = serde_json::to_value(ResilientService::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn rules(place: &str, of: &Value, found: &mut BTreeSet<Rule>) {
    for rule in of["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let rule = (place.to_owned(), rule["message"].as_str().unwrap().to_owned());
        assert!(found.insert(rule.clone()), "two rules say {rule:?}");
    }
    for (name, field) in of["properties"].as_object().into_iter().flatten() {
        let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
        rules(&place, field, found);
    }
    if let Some(item) = of.get("items") {
        rules(&format!("{place}[]"), item, found);
    }
    if let Some(value) = of.get("additionalProperties") {
        rules(&format!("{place}{{}}"), value, found);
    }
}

/// Is there anything at the place?
fn is_there(place: &str, of: &Value) -> bool {
    let Some((list, rest)) = place.split_once("[]") else {
        return of.pointer(&format!("/{}", place.replace('.', "/"))).is_some();
    };
    let items = of.pointer(&format!("/{}", list.replace('.', "/"))).and_then(Value::as_array);
    let rest = rest.trim_start_matches('.');
    items.into_iter().flatten().any(|item| rest.is_empty() || is_there(rest, item))
}

/// A path without the places in lists.
fn place(path: &str) -> String {
    path.split('[')
        .map(|part| part.split_once(']').map_or(part, |(_, rest)| rest))
        .collect::<Vec<_>>()
        .join("[]")
}

fn refusals(of: &ResilientService, said: &str) -> BTreeSet<Rule> {
    let errors = validate_cel(of).err().into_iter().flatten();
    let told = errors.map(|error| {
        assert_eq!(error.kind, ErrorKind::ValidationFailure, "{said}: cannot be judged: {error}");
        (place(&error.field_path), error.message)
    });
    told.collect()
}

#[test]
fn every_rule_refuses_something_and_accepts_something_else() {
    let (mut all, schema) = (BTreeSet::new(), schema());
    rules("", &schema, &mut all);
    // None is in a part of the schema that is not walked.
    let places: BTreeSet<_> = all.iter().map(|(place, _)| place).collect();
    assert_eq!(schema.to_string().matches("x-kubernetes-validations").count(), places.len());
    let rest = jsonschema::validator_for(&schema).unwrap();
    let (mut refused, mut accepted) = (BTreeSet::new(), BTreeSet::new());
    let cases = cases();
    for (said, wanted) in &cases {
        let spec = serde_saphyr::from_str(&format!("{{ service: {{ name: user }}, {said} }}")).unwrap();
        let resource = ResilientService::new("user", spec);
        let json = serde_json::to_value(&resource).unwrap();
        // Nothing but a rule refuses it.
        assert_eq!(rest.validate(&json).err().map(|error| error.to_string()), None, "{said}");
        let found = refusals(&resource, said);
        assert_eq!(&found, wanted, "{said}");
        // Our own reading of a policy is no less strict.
        if found.iter().any(|(place, _)| !["consul", "config", "gateway"].iter().any(|of| place.contains(of)))
        {
            assert!(merge::policy(&resource.spec).is_err(), "{said}: refused by the schema alone");
        }
        accepted.extend(all.difference(&found).filter(|(place, _)| is_there(place, &json)).cloned());
        refused.extend(found);
    }
    let never = |by: &BTreeSet<Rule>| all.difference(by).cloned().collect::<Vec<_>>();
    assert!(never(&refused).is_empty(), "give them a spec that they refuse: {:#?}", never(&refused));
    assert!(never(&accepted).is_empty(), "give them a spec that they accept: {:#?}", never(&accepted));
    println!("{} rules, {} specs", all.len(), cases.len());
}
