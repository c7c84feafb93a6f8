use super::*;
use crate::policy::{RateScope, Volume};

fn spec(yaml: &str) -> ResilientServiceSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn a_command_inherits_field_by_field() {
    let policy = policy(&spec(
        "
service: { name: user }
outbound:
  timeout: 300ms
  circuitBreaker: { errorPercentThreshold: 25, sleepWindow: 2s }
  commands:
  - { name: find_user, timeout: 250ms, circuitBreaker: { sleepWindow: 1s }, fallback: { enabled: false } }
  - { name: other }
",
    ))
    .unwrap();
    let (find, other) = (&policy.outbound.commands["find_user"], &policy.outbound.commands["other"]);
    let breaker = find.circuit_breaker.clone().unwrap();
    assert_eq!(find.timeout_ms.map(u64::from), Some(250));
    assert_eq!((breaker.error_percent_threshold.get(), u64::from(breaker.sleep_window_ms)), (25, 1000));
    assert_eq!(breaker.request_volume_threshold.get(), 20, "Hystrix's default");
    assert!(!find.fallback_enabled && other.fallback_enabled);
    assert_eq!(other, &policy.outbound.default);
}

#[test]
fn a_method_inherits_from_its_section() {
    let policy = policy(&spec(
        "
service: { name: user }
inbound:
  timeout: 1s
  maxConcurrentRequests: 100
  methods:
  - { match: { http: { method: GET, pathPrefix: /users } }, timeout: 400ms }
",
    ))
    .unwrap();
    let method = &policy.inbound.methods[0].policy;
    assert_eq!(method.timeout_ms.map(u64::from), Some(400));
    assert_eq!(method.max_concurrent_requests.map(u64::from), Some(100));
}

#[test]
fn a_slash_at_the_end_of_a_prefix_means_nothing() {
    let of = |prefix: &str| {
        let methods = format!("[{{ match: {{ http: {{ pathPrefix: {prefix} }} }} }}]");
        policy(&spec(&format!("{{ service: {{ name: user }}, inbound: {{ methods: {methods} }} }}")))
    };
    assert_eq!(of("/users/"), of("/users"));
    assert_eq!(of("/").unwrap().inbound.methods[0].matches.to_string(), "* /");
    let twice = policy(&spec(
        "
service: { name: user }
inbound: { methods: [{ match: { http: { pathPrefix: /a } } }, { match: { http: { pathPrefix: /a/ } } }] }
",
    ));
    assert!(twice.unwrap_err()[0].contains("the same match as methods[0]"));
}

#[test]
fn every_wrong_field_is_named() {
    let wrong = policy(&spec(
        "
service: { name: user }
inbound: { timeout: 0s, methods: [{ match: {} }] }
outbound: { commands: [{ name: a, timeout: 10x }, { name: a }] }
",
    ))
    .unwrap_err();
    let all = wrong.join("\n");
    for part in [
        "inbound.timeout: 0s is out of range",
        "inbound.methods[0].match",
        "outbound.commands[a].timeout",
        "named twice",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
}

#[test]
fn no_section_is_no_limit() {
    let policy = policy(&spec("service: { name: user }")).unwrap();
    assert_eq!(policy.outbound.default, CommandPolicy::default());
    assert_eq!(policy.inbound, Inbound::default());
}

const GET: &str = "match: { grpc: { service: a.S, method: Get } }";

fn merged(sections: &str) -> Policy {
    policy(&spec(&format!("service: {{ name: user }}\n{sections}"))).unwrap()
}

fn wrong(sections: &str) -> Vec<String> {
    policy(&spec(&format!("service: {{ name: user }}\n{sections}"))).unwrap_err()
}

#[test]
fn a_rate_is_inherited_field_by_field_and_a_burst_follows_it() {
    let policy = merged(
        "
inbound:
  rateLimit: { requestsPerSecond: 500, scope: Service }
  methods:
  - { match: { http: { pathPrefix: /a } }, rateLimit: { requestsPerSecond: 5 } }
  - { match: { http: { pathPrefix: /b } }, rateLimit: { burst: 7 } }
  - { match: { http: { pathPrefix: /c } } }
",
    );
    let rates: Vec<_> = [&policy.inbound.default]
        .into_iter()
        .chain(policy.inbound.methods.iter().map(|method| &method.policy))
        .map(|policy| policy.rate_limit.unwrap())
        .map(|rate| (rate.requests_per_second.get(), rate.burst.get(), rate.scope))
        .collect();
    let service = RateScope::Service;
    assert_eq!(rates, [(500, 50, service), (5, 1, service), (500, 7, service), (500, 50, service)]);
    assert_eq!(
        wrong("inbound: { rateLimit: { burst: 5 } }"),
        ["inbound.rateLimit: requestsPerSecond is needed"]
    );
}

#[test]
fn a_command_inherits_a_rate_like_a_method() {
    let policy = merged(
        "
outbound:
  rateLimit: { requestsPerSecond: 500, burst: 7 }
  commands: [{ name: same }, { name: own, rateLimit: { requestsPerSecond: 5, scope: Service } }]
",
    );
    let of = |policy: &CommandPolicy| {
        let rate = policy.rate_limit.unwrap();
        (rate.requests_per_second.get(), rate.burst.get(), rate.scope)
    };
    let (same, own) = (&policy.outbound.commands["same"], &policy.outbound.commands["own"]);
    assert_eq!(of(&policy.outbound.default), of(same));
    assert_eq!((of(same), of(own)), ((500, 7, RateScope::Instance), (5, 7, RateScope::Service)));
    assert_eq!(
        wrong("outbound: { rateLimit: { burst: 7 } }"),
        ["outbound.rateLimit: requestsPerSecond is needed"]
    );
}

#[test]
fn an_answer_is_the_methods_own() {
    let policy = merged(&format!(
        "
inbound:
  methods:
  - {{ {GET}, fallback: {{ message: {{ name: nobody, age: 3 }} }} }}
  - {{ match: {{ http: {{ pathPrefix: /a }} }}, fallback: {{ contentType: text/plain, body: nobody }} }}
"
    ));
    let answers: Vec<_> = policy.inbound.methods.iter().map(|m| m.policy.fallback.clone().unwrap()).collect();
    let json = r#"{"age":3,"name":"nobody"}"#.to_owned();
    let (content_type, body) = ("text/plain".into(), "nobody".into());
    assert_eq!(answers, [StaticAnswer::Message { json }, StaticAnswer::Body { content_type, body }]);
    for fallback in ["{ contentType: text/plain }", "{ message: {}, contentType: a, body: b }", "{}"] {
        let found = wrong(&format!("inbound: {{ methods: [{{ {GET}, fallback: {fallback} }}] }}"));
        assert_eq!(found, ["inbound.methods[0].fallback: set either message, or contentType and body"]);
    }
    let found = wrong(&format!("inbound: {{ methods: [{{ {GET}, fallback: {{ message: [1] }} }}] }}"));
    assert_eq!(found, ["inbound.methods[0].fallback: message must be a JSON object"]);
}

#[test]
fn a_command_inherits_retries_and_may_do_without() {
    let policy = merged(
        "
outbound:
  timeout: 300ms
  retry: { maxAttempts: 3, perTryTimeout: 100ms }
  commands:
  - { name: same }
  - { name: fewer, retry: { maxAttempts: 2, budgetPercent: 5 } }
  - { name: none, retry: { maxAttempts: 1 } }
",
    );
    let of = |name: &str| {
        policy.outbound.commands[name].retry.map(|retry| {
            let each = retry.per_try_timeout_ms.map(u64::from);
            (retry.max_attempts.get(), each, retry.budget_percent.get())
        })
    };
    assert_eq!(of("same"), Some((3, Some(100), 20)), "Finagle's budget");
    assert_eq!((of("fewer"), of("none")), (Some((2, Some(100), 5)), None));
    assert_eq!(wrong("outbound: { retry: { budgetPercent: 5 } }"), ["outbound.retry: maxAttempts is needed"]);
    let found = wrong("outbound: { retry: { maxAttempts: 2, perTryTimeout: 3s }, timeout: 2s }");
    assert!(found.len() == 1 && found[0].contains("perTryTimeout 3000ms is longer"), "{found:?}");
}

#[test]
fn lists_of_codes_replace() {
    let policy = merged(
        "
outbound:
  errors: { ignore: [NOT_FOUND, '404'], count: [ALREADY_EXISTS] }
  commands:
  - { name: same }
  - { name: other, errors: { ignore: [] } }
",
    );
    let of = |name: &str| policy.outbound.commands[name].errors.clone();
    assert_eq!(of("same").ignore, [ErrorCode::Grpc(5), ErrorCode::Http(404)].into());
    assert_eq!((of("other").ignore.len(), of("other").count), (0, [ErrorCode::Grpc(6)].into()));
    let found = wrong("outbound: { errors: { ignore: [NOTFOUND] } }");
    assert!(found[0].starts_with("outbound.errors.ignore: \"NOTFOUND\" is no error code"), "{found:?}");
}

#[test]
fn a_breaker_has_its_further_reasons_only_where_they_are_given() {
    let policy = merged(
        "
outbound:
  circuitBreaker: { consecutiveFailures: 5, slowCall: { threshold: 200ms, percent: 50 }, countRejections: true }
  commands:
  - { name: same }
  - { name: less, circuitBreaker: { consecutiveFailures: 0, slowCall: { percent: 80 }, countRejections: false } }
",
    );
    let of = |name: &str| {
        let breaker = policy.outbound.commands[name].circuit_breaker.clone().unwrap();
        let slow = breaker.slow_call.map(|slow| (u64::from(slow.threshold_ms), slow.percent.get()));
        (breaker.consecutive_failures.map(Volume::get), slow, breaker.count_rejections)
    };
    assert_eq!(of("same"), (Some(5), Some((200, 50)), true));
    assert_eq!(of("less"), (None, Some((200, 80)), false));
    assert_eq!(
        wrong("outbound: { circuitBreaker: { slowCall: { percent: 80 } } }"),
        ["outbound.circuitBreaker.slowCall: threshold and percent are needed"]
    );
}

#[test]
fn a_fallback_may_be_limited_without_being_switched() {
    let policy = merged(
        "outbound: { fallback: { maxConcurrentRequests: 3 }, commands: [{ name: a, fallback: { enabled: false } }] }",
    );
    for (policy, enabled) in [(&policy.outbound.default, true), (&policy.outbound.commands["a"], false)] {
        let limit = policy.fallback_max_concurrent_requests.map(u64::from);
        assert_eq!((policy.fallback_enabled, limit), (enabled, Some(3)));
    }
    assert_eq!(CommandPolicy::default().fallback_max_concurrent_requests, None, "the library's default");
}

const ACTIVE: &str = "
inbound:
  timeout: 1s
  rateLimit: { requestsPerSecond: 100 }
  methods:
  - { match: { grpc: { service: a.S, method: Get } }, timeout: 500ms, fallback: { message: {} } }
  - { match: { grpc: { service: a.S } } }
outbound:
  timeout: 300ms
  retry: { maxAttempts: 2 }
  circuitBreaker: { errorPercentThreshold: 25 }
  commands:
  - { name: find_user, timeout: 250ms, fallback: { enabled: false, maxConcurrentRequests: 3 } }
";

#[test]
fn a_shadow_is_the_policy_with_what_it_changes() {
    let with = |shadow: &str| merged(&format!("{ACTIVE}shadow: {shadow}"));
    let active = merged(ACTIVE);
    let policy = with(
        "
  outbound:
    circuitBreaker: { sleepWindow: 1s }
    commands: [{ name: find_user, circuitBreaker: { errorPercentThreshold: 10 } }, { name: new, timeout: 1s }]
",
    );
    assert_eq!((&policy.inbound, &policy.outbound), (&active.inbound, &active.outbound));
    let shadow = policy.shadow.unwrap();
    assert_eq!(shadow.inbound, None, "a section that it does not name is no candidate");
    let outbound = shadow.outbound.unwrap();
    let of = |policy: &CommandPolicy| {
        let breaker = policy.circuit_breaker.clone().unwrap();
        let percent = breaker.error_percent_threshold.get();
        (policy.timeout_ms.map(u64::from), percent, u64::from(breaker.sleep_window_ms))
    };
    assert_eq!(of(&outbound.default), (Some(300), 25, 1000));
    assert_eq!(of(&outbound.commands["find_user"]), (Some(250), 10, 1000));
    assert_eq!(of(&outbound.commands["new"]), (Some(1000), 25, 1000));
    let acts = |policy: &CommandPolicy| {
        (policy.retry, policy.fallback_enabled, policy.fallback_max_concurrent_requests)
    };
    for policy in outbound.commands.values().chain([&outbound.default]) {
        assert_eq!(acts(policy), (None, true, None), "what could only act is left out");
    }
    assert_eq!(with("{}").shadow, None);
    assert_eq!(with("{ inbound: {} }").shadow.unwrap().inbound.unwrap().default, active.inbound.default);
}

#[test]
fn a_shadow_of_methods_takes_them_by_their_match() {
    let shadow = "
shadow:
  inbound:
    timeout: 2s
    methods:
    - { match: { grpc: { service: a.S, method: Get } }, rateLimit: { requestsPerSecond: 5 } }
    - { match: { grpc: { service: a.S, method: Put } }, timeout: 3s }
    - { match: { http: { pathPrefix: / } } }
";
    let inbound = merged(&format!("{ACTIVE}{shadow}")).shadow.unwrap().inbound.unwrap();
    let methods: Vec<_> = (inbound.methods.iter())
        .map(|method| {
            let (policy, name) = (&method.policy, method.matches.to_string());
            assert_eq!(policy.fallback, None);
            let rate = policy.rate_limit.unwrap().requests_per_second.get();
            (name, policy.timeout_ms.map(u64::from).unwrap(), rate)
        })
        .collect();
    let wanted = [("a.S/Get", 500, 5), ("a.S/Put", 3000, 100), ("a.S/*", 2000, 100), ("* /", 2000, 100)];
    assert_eq!(methods, wanted.map(|(name, timeout, rate)| (name.to_owned(), timeout, rate)));
}

#[test]
fn a_shadow_keeps_the_rules() {
    let find = |timeout: &str| format!("{{ name: find_user, timeout: {timeout} }}");
    let shadow = |commands: &str| {
        wrong(&format!("{ACTIVE}shadow: {{ outbound: {{ commands: [{commands}] }} }}")).join("\n")
    };
    assert!(shadow(&find("20s")).starts_with("shadow.outbound find_user: timeout 20000ms is longer"));
    assert!(shadow(&find("20x")).starts_with("shadow.outbound.commands[find_user].timeout: "));
    let twice = shadow(&format!("{}, {}", find("1s"), find("2s")));
    assert_eq!(twice, "shadow.outbound.commands[find_user]: named twice");
    let method = format!("{{ {GET} }}");
    let twice = wrong(&format!("{ACTIVE}shadow: {{ inbound: {{ methods: [{method}, {method}] }} }}"));
    assert!(twice.len() == 1 && twice[0].contains("the same match as methods[0]"), "{twice:?}");
}

#[test]
fn a_shadow_holds_nothing_that_only_acts() {
    let fallback = "fallback: { contentType: text/plain, body: b }";
    let method = format!("{{ match: {{ http: {{ pathPrefix: / }} }}, {fallback} }}");
    let found = wrong(&format!(
        "{ACTIVE}shadow: {{ inbound: {{ methods: [{method}] }}, outbound: {{ retry: {{ maxAttempts: 2 }}, \
         fallback: {{ enabled: true }}, commands: [{{ name: a, retry: {{ maxAttempts: 3 }} }}] }} }}"
    ));
    let fields =
        ["inbound.methods[0].fallback", "outbound.retry", "outbound.fallback", "outbound.commands[a].retry"];
    let expected = fields.map(|field| format!("shadow.{field}: {ONLY_ACTS}"));
    assert_eq!(found, expected);
}
