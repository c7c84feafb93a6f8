//! Every field of the resource's schema with values that mean something, so that a field that is added without
//! one fails here; and each one acts.

use fusebox_policy::v1alpha1::ResilientService;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::scene::{Scene, user};
use super::workloads::State;

/// A section with all of a policy for calls, shared by active and shadow, but for what only acts.
const INBOUND: &str = "
timeout: 1s
maxConcurrentRequests: 100
rateLimit: { requestsPerSecond: 500, burst: 50, scope: Instance }
methods:
- match: { grpc: { service: user.v1.UserService, method: GetUser } }
  timeout: 500ms
  maxConcurrentRequests: 20
  rateLimit: { requestsPerSecond: 100, burst: 10, scope: Instance }
  fallback: { message: { greeting: hi } }
- match: { http: { method: GET, pathPrefix: /users } }
  fallback: { contentType: text/plain, body: hello }
";

const OUTBOUND: &str = "
timeout: 300ms
maxConcurrentRequests: 30
rateLimit: { requestsPerSecond: 400, burst: 40, scope: Instance }
circuitBreaker: { errorPercentThreshold: 25, requestVolumeThreshold: 20, sleepWindow: 5s, rollingWindow: 10s,
  halfOpenProbes: 1, consecutiveFailures: 0, slowCall: { threshold: 200ms, percent: 50 }, countRejections: false, mode: Enforce }
retry: { maxAttempts: 2, perTryTimeout: 100ms, budgetPercent: 10 }
errors: { ignore: [NOT_FOUND], count: [INVALID_ARGUMENT] }
fallback: { enabled: true, maxConcurrentRequests: 10 }
commands:
- name: find_user
  timeout: 250ms
  maxConcurrentRequests: 25
  rateLimit: { requestsPerSecond: 300, burst: 30, scope: Instance }
  circuitBreaker: { errorPercentThreshold: 30, requestVolumeThreshold: 10, sleepWindow: 6s, rollingWindow: 20s,
    halfOpenProbes: 2, consecutiveFailures: 5, slowCall: { threshold: 150ms, percent: 60 }, countRejections: true, mode: Enforce }
  retry: { maxAttempts: 3, perTryTimeout: 90ms, budgetPercent: 15 }
  errors: { ignore: ['404'], count: [ALREADY_EXISTS] }
  fallback: { enabled: true, maxConcurrentRequests: 5 }
";

const REST: &str = "
service: { name: user-service, port: grpc }
consul: { serviceName: user.service, tags: [v1], meta: { team: shop } }
gateway:
  entryPoints: { plain: web, tls: websecure }
  routes: [{ host: api.example.com, pathPrefix: /users, port: grpc }]
  tls: { secretName: api-cert }
config:
  document: { service: { user: { timeout: 1000 } } }
  etcdKeys: { service.user.timeout: '1000' }
";

/// Says all that can be said.
pub fn base() -> Value {
    let yaml = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    let mut all = yaml(REST);
    all["inbound"] = yaml(INBOUND);
    all["outbound"] = yaml(OUTBOUND);
    all["shadow"] = json!({ "inbound": yaml(INBOUND), "outbound": yaml(OUTBOUND) });
    let [inbound, outbound] = ["inbound", "outbound"].map(|section| all["shadow"][section].clone());
    all["shadow"]["inbound"]["methods"] =
        inbound["methods"].as_array().unwrap().iter().map(deciding).collect();
    all["shadow"]["outbound"] = deciding(&outbound);
    all["shadow"]["outbound"]["commands"] =
        outbound["commands"].as_array().unwrap().iter().map(deciding).collect();
    all
}

/// Without what only acts.
fn deciding(of: &Value) -> Value {
    let fields = of.as_object().unwrap().iter().filter(|(name, _)| !ONLY_ACTS.contains(&name.as_str()));
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Meaning nothing in a candidate, these are refused there.
const ONLY_ACTS: [&str; 2] = ["retry", "fallback"];

/// Other values of each field, none of them that of [`base`]. A path under `shadow` is that without it.
const VALUES: &[(&str, &[&str])] = &[
    (".service.name", &["two"]),
    (".service.port", &["http", "80"]),
    (".consul.serviceName", &["people.service", "Other"]),
    (".consul.tags[]", &["[v2]", "[v1, canary]", "[]"]),
    (".consul.meta{}", &["{ team: other }", "{ team: shop, tier: gold }", "{}"]),
    (".consul.goMicro", &["true"]),
    (".gateway.entryPoints.plain", &["public"]),
    (".gateway.entryPoints.tls", &["public-tls"]),
    (".gateway.routes[].host", &["www.example.com"]),
    (".gateway.routes[].pathPrefix", &["/people", "/"]),
    (".gateway.routes[].port", &["http", "80"]),
    (".gateway.tls.secretName", &["other-cert"]),
    (".gateway.tls.certResolver", &["letsencrypt"]),
    (".config.document", &["{ a: 1 }", "{}"]),
    (".config.etcdKeys{}", &["{ service.user.timeout: '7' }", "{ service.user.limit: '5' }", "{}"]),
    (".inbound.timeout", &["2s"]),
    (".inbound.maxConcurrentRequests", &["101"]),
    (".inbound.rateLimit.requestsPerSecond", &["501"]),
    (".inbound.rateLimit.burst", &["51"]),
    (".inbound.rateLimit.scope", &["Service"]),
    (".inbound.methods[].timeout", &["400ms"]),
    (".inbound.methods[].maxConcurrentRequests", &["21"]),
    (".inbound.methods[].rateLimit.requestsPerSecond", &["101"]),
    (".inbound.methods[].rateLimit.burst", &["11"]),
    (".inbound.methods[].rateLimit.scope", &["Service"]),
    (".inbound.methods[].match.grpc.service", &["user.v2.UserService"]),
    (".inbound.methods[].match.grpc.method", &["ListUsers"]),
    (".inbound.methods[].match.http.method", &["POST"]),
    (".inbound.methods[].match.http.pathPrefix", &["/people"]),
    (".inbound.methods[].fallback.message", &["{ greeting: hello }"]),
    (".inbound.methods[].fallback.contentType", &["application/json"]),
    (".inbound.methods[].fallback.body", &["'{}'"]),
    (".outbound.circuitBreaker.countRejections", &["true"]),
    (".outbound.commands[].circuitBreaker.countRejections", &["false"]),
    (".outbound.timeout", &["350ms"]),
    (".outbound.maxConcurrentRequests", &["31"]),
    (".outbound.rateLimit.requestsPerSecond", &["401"]),
    (".outbound.rateLimit.burst", &["41"]),
    (".outbound.rateLimit.scope", &["Service"]),
    (".outbound.commands[].name", &["get_user"]),
    (".outbound.commands[].timeout", &["260ms"]),
    (".outbound.commands[].maxConcurrentRequests", &["26"]),
    (".outbound.commands[].rateLimit.requestsPerSecond", &["301"]),
    (".outbound.commands[].rateLimit.burst", &["31"]),
    (".outbound.commands[].rateLimit.scope", &["Service"]),
];

/// Those of a section and of a command.
const OF_BOTH: &[(&str, &[&str])] = &[
    (".circuitBreaker.errorPercentThreshold", &["40"]),
    (".circuitBreaker.requestVolumeThreshold", &["15"]),
    (".circuitBreaker.sleepWindow", &["7s"]),
    (".circuitBreaker.rollingWindow", &["30s"]),
    (".circuitBreaker.halfOpenProbes", &["3"]),
    (".circuitBreaker.consecutiveFailures", &["7"]),
    (".circuitBreaker.slowCall.threshold", &["120ms"]),
    (".circuitBreaker.slowCall.percent", &["70"]),
    (".circuitBreaker.mode", &["ForcedOpen", "ForcedClosed", "Disabled"]),
    (".retry.maxAttempts", &["4"]),
    (".retry.perTryTimeout", &["80ms"]),
    (".retry.budgetPercent", &["25"]),
    (".errors.ignore[]", &["[FAILED_PRECONDITION]", "[]"]),
    (".errors.count[]", &["[OUT_OF_RANGE]", "[]"]),
    (".fallback.enabled", &["false"]),
    (".fallback.maxConcurrentRequests", &["8"]),
];

fn values(path: &str) -> Vec<Value> {
    let active = path.strip_prefix(".shadow").unwrap_or(path);
    let of_both = active.strip_prefix(".outbound.commands[]").or_else(|| active.strip_prefix(".outbound"));
    let found = VALUES.iter().find(|(of, _)| *of == active);
    let found = found.or_else(|| OF_BOTH.iter().find(|(of, _)| Some(*of) == of_both));
    let (_, texts) = found.unwrap_or_else(|| panic!("{path} is in the schema: give it a value here"));
    texts.iter().map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

fn only_acts(path: &str) -> bool {
    path.starts_with(".shadow.") && ONLY_ACTS.iter().any(|part| path.contains(&format!(".{part}.")))
}

fn schema() -> Value {
    let crd = serde_json::to_value(ResilientService::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

fn leaves(path: &str, of: &Value, found: &mut Vec<String>) {
    if of.get("x-kubernetes-preserve-unknown-fields").is_some() {
        found.push(path.to_owned());
    } else if let Some(fields) = of["properties"].as_object() {
        fields.iter().for_each(|(name, field)| leaves(&format!("{path}.{name}"), field, found));
    } else if of["items"].get("properties").is_some() {
        leaves(&format!("{path}[]"), &of["items"], found);
    } else if of.get("items").is_some() {
        found.push(format!("{path}[]"));
    } else if of.get("additionalProperties").is_some() {
        found.push(format!("{path}{{}}"));
    } else {
        found.push(path.to_owned());
    }
}

/// Every field that has a value of its own.
pub fn fields() -> Vec<String> {
    let mut found = Vec::new();
    leaves("", &schema(), &mut found);
    found
}

/// Every field with each of its other values, but for those that are refused whatever they say.
pub fn choices() -> Vec<(String, Value)> {
    let of = |field: String| values(&field).into_iter().map(move |value| (field.clone(), value));
    fields().into_iter().filter(|field| !only_acts(field)).flat_map(of).collect()
}

/// The object that has or may have the field, and the field's name in it: of a list, the first object that has
/// it, else the first that may.
fn place<'a>(spec: &'a mut Value, path: &'a str) -> Option<(&'a mut Value, &'a str)> {
    let Some((first, rest)) = path.trim_start_matches('.').split_once('.') else {
        let name = path.trim_start_matches('.');
        return spec.is_object().then_some((spec, name.trim_end_matches("[]").trim_end_matches("{}")));
    };
    let Some(list) = first.strip_suffix("[]") else { return place(spec.get_mut(first)?, rest) };
    let all = spec.get_mut(list)?.as_array_mut()?;
    let has = |one: &mut Value| place(one, rest).is_some_and(|(object, name)| object.get(name).is_some());
    let at =
        all.iter_mut().position(has).or_else(|| all.iter_mut().position(|one| place(one, rest).is_some()));
    place(all.get_mut(at?)?, rest)
}

/// Sets a field, or takes it away. False: there is no place for it.
pub fn set(spec: &mut Value, path: &str, value: Option<&Value>) -> bool {
    let Some((object, name)) = place(spec, path) else { return false };
    let Some(object) = object.as_object_mut() else { return false };
    match value {
        Some(value) => object.insert(name.to_owned(), value.clone()),
        None => object.remove(name),
    };
    // Of these two there is one.
    let other = [("certResolver", "secretName"), ("secretName", "certResolver")];
    if let Some((_, other)) = other.iter().find(|(one, _)| *one == name && value.is_some()) {
        object.remove(*other);
    }
    true
}

/// A cluster with instances, and nothing declared.
pub fn start() -> Scene {
    let scene = Scene::new();
    scene.foreign();
    scene.service("two");
    scene.scale_of("two", &[("t", true)]);
    scene.scale(&[("a", true), ("b", false)]);
    scene
}

#[tokio::test(start_paused = true)]
async fn every_field_of_the_schema_acts_and_goes_back_without_a_trace() {
    let scene = start();
    let put = async |spec: &Value| {
        scene.put(&user(), &spec.to_string());
        scene.settle_all().await;
        State::of(&scene)
    };
    let wanted = put(&base()).await;
    assert_eq!(scene.told(&user(), "Ready"), "True/Ready", "{:?}", scene.condition(&user(), "Ready"));
    let admitted = |spec: &Value| scene.admits(&user(), &spec.to_string());
    let (mut acts, mut refused) = (0, 0);
    for (field, value) in choices() {
        let mut spec = base();
        assert!(set(&mut spec, &field, Some(&value)), "{field} has a place");
        assert_ne!(spec, base(), "{field}: {value} is what it is already");
        let state = put(&spec).await;
        if state.clone().planes() == wanted.clone().planes() {
            let why = scene.condition(&user(), "Accepted");
            assert_eq!(why.status, "False", "{field}: {value} does nothing and nothing is said of it");
            assert!(why.message.len() > 20, "{field}: {why:?}");
            refused += 1;
        } else {
            assert_eq!(admitted(&spec), Ok(()), "{field}: {value} acts, if it ever comes to the operator");
            acts += 1;
        }
        assert_eq!(put(&base()).await, wanted, "{field}: {value} and back");
        assert!(scene.foreign_is_untouched(), "{field}");
    }
    let elsewhere: Vec<String> = fields().into_iter().filter(|field| only_acts(field)).collect();
    for field in &elsewhere {
        let (mut spec, mut made) = (base(), json!({}));
        let (parent, name) = field.rsplit_once('.').unwrap();
        made[name] = values(field).remove(0);
        assert!(set(&mut spec, parent, Some(&made)), "{parent} has a place");
        let message = admitted(&spec).unwrap_err();
        assert!(message.contains("decides and does nothing"), "{field}: {message}");
        // As it would be beside an older definition.
        put(&spec).await;
        let why = scene.condition(&user(), "Accepted");
        assert!(
            why.status == "False" && why.message.contains("decides and does nothing"),
            "{field}: {why:?}"
        );
        assert_eq!(put(&base()).await, wanted, "{field} and back");
    }
    println!(
        "fields: {}, of which {} of spec.shadow are refused; values of the others: {}, of which {acts} act, {refused} \
         are refused with a message",
        fields().len(),
        elsewhere.len(),
        choices().len(),
    );
}
