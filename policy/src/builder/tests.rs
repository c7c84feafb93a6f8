use std::time::Duration;

use super::*;
use crate::policy::{BreakerMode, BreakerPolicy, CommandPolicy, ErrorCode, RateScope, ServerPolicy};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn wrong(builder: PolicyBuilder<'_>) -> Vec<String> {
    builder.build().unwrap_err().violations().to_vec()
}

#[test]
fn what_is_not_said_is_not_limited() {
    let policy = PolicyBuilder::new().command("c", |command| command).build().unwrap();
    assert_eq!(policy.outbound.commands["c"], CommandPolicy::default());
    assert_eq!(policy.inbound.default, ServerPolicy::default());
    let breaker = PolicyBuilder::new().command("c", |c| c.circuit_breaker(|b| b)).build().unwrap();
    let breaker = breaker.outbound.commands["c"].circuit_breaker.clone();
    assert_eq!(breaker, Some(BreakerPolicy::default()));
}

/// The whole of what can be said, against the document that says the same.
#[test]
fn every_field_arrives() {
    let policy = PolicyBuilder::new()
        .command("c", |command| {
            command
                .timeout(ms(250))
                .max_concurrent_requests(100)
                .rate_limit(|r| r.requests_per_second(50).burst(7).scope(RateScope::Service))
                .circuit_breaker(|b| {
                    b.error_percent_threshold(25)
                        .request_volume_threshold(4)
                        .sleep_window(ms(100))
                        .rolling_window(ms(2000))
                        .half_open_probes(2)
                        .consecutive_failures(5)
                        .slow_call(ms(200), 60)
                        .count_rejections(true)
                        .mode(BreakerMode::ForcedClosed)
                })
                .retry(|r| r.max_attempts(3).per_try_timeout(ms(80)).budget_percent(10))
                .ignore_errors(["NOT_FOUND"])
                .count_errors([ErrorCode::Http(404)])
                .fallback_enabled(false)
                .fallback_max_concurrent_requests(3)
        })
        .method(MethodMatch::grpc("a.S", "Get"), |method| {
            method
                .timeout(ms(500))
                .max_concurrent_requests(9)
                .rate_limit(|r| r.requests_per_second(25))
                .fallback_message("{}")
        })
        .method(MethodMatch::http_path("/a/"), |method| method.fallback_body("text/plain", "hello"))
        .build()
        .unwrap();
    let expected = r#"{
        "inbound": {"default": {}, "methods": [
            {"match": {"grpc": {"service": "a.S", "method": "Get"}}, "policy": {
                "timeoutMs": 500, "maxConcurrentRequests": 9,
                "rateLimit": {"requestsPerSecond": 25, "burst": 2},
                "fallback": {"message": {"json": "{}"}}}},
            {"match": {"http": {"pathPrefix": "/a"}}, "policy": {
                "fallback": {"body": {"contentType": "text/plain", "body": "hello"}}}}]},
        "outbound": {"default": {}, "commands": {"c": {
            "timeoutMs": 250, "maxConcurrentRequests": 100,
            "rateLimit": {"requestsPerSecond": 50, "burst": 7, "scope": "Service"},
            "circuitBreaker": {"errorPercentThreshold": 25, "requestVolumeThreshold": 4, "sleepWindowMs": 100,
                "rollingWindowMs": 2000, "halfOpenProbes": 2, "consecutiveFailures": 5,
                "slowCall": {"thresholdMs": 200, "percent": 60}, "countRejections": true,
                "mode": "ForcedClosed"},
            "retry": {"maxAttempts": 3, "perTryTimeoutMs": 80, "budgetPercent": 10},
            "errors": {"ignore": ["NOT_FOUND"], "count": ["404"]},
            "fallbackEnabled": false, "fallbackMaxConcurrentRequests": 3}}}}"#;
    assert_eq!(policy, serde_json::from_str(expected).unwrap());
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_field_and_value() {
    let builder = PolicyBuilder::new()
        .command("find user", |c| c)
        .command("c", |command| {
            command
                .timeout(Duration::ZERO)
                .max_concurrent_requests(0)
                .rate_limit(|r| r.burst(1))
                .circuit_breaker(|b| {
                    b.error_percent_threshold(130)
                        .sleep_window(Duration::from_micros(1500))
                        .slow_call(ms(1), 0)
                })
                .retry(|r| r.max_attempts(11).budget_percent(101))
                .ignore_errors(["NotFound"])
        })
        .command("c", |c| c)
        .method(MethodMatch::http("get", "users"), |m| m.timeout(Duration::from_secs(3601)))
        .method(MethodMatch::grpc("", "Get"), |m| m.max_concurrent_requests(u64::MAX));
    let found = wrong(builder);
    let expected = [
        "inbound.methods[0].timeout: a duration must be 1 to 3600000 ms, but is 3601000",
        "inbound.methods[0].match: an HTTP method is 1 to 16 capitals like GET, not \"get\"",
        "inbound.methods[1].maxConcurrentRequests: a concurrency limit must be 1 to 1000000, but is \
         18446744073709551615",
        "inbound.methods[1].match: a gRPC service is named like user.v1.UserService, not \"\"",
        "outbound: a command's name is 1 to 63 letters, digits, _, . or -, unlike \"find user\"",
        "outbound c: errors.ignore: \"NotFound\" is no error code: write a gRPC code like NOT_FOUND, or an HTTP \
         status from 400 to 599 like \"404\"",
        "outbound c: timeout: a duration must be 1 to 3600000 ms, but is 0",
        "outbound c: maxConcurrentRequests: a concurrency limit must be 1 to 1000000, but is 0",
        "outbound c: rateLimit: requestsPerSecond is needed",
        "outbound c: circuitBreaker.slowCall.percent: a percentage must be 1 to 100, but is 0",
        "outbound c: circuitBreaker.errorPercentThreshold: a percentage must be 1 to 100, but is 130",
        "outbound c: circuitBreaker.sleepWindow: a duration must be whole milliseconds, but is 1.5ms",
        "outbound c: retry.budgetPercent: a percentage must be 1 to 100, but is 101",
        "outbound c: retry.maxAttempts: the number of attempts must be 2 to 10, but is 11",
        "outbound c: named twice",
    ];
    assert_eq!(found, expected);
}

#[test]
fn rules_across_fields_are_told_as_well() {
    let builder = PolicyBuilder::new()
        .command("c", |c| c.timeout(ms(20_000)).circuit_breaker(|b| b).max_concurrent_requests(0))
        .method(MethodMatch::http_path("/"), |m| m)
        .method(MethodMatch::http("GET", "/users"), |m| m);
    let found = wrong(builder);
    assert!(found.len() == 3 && found[0].contains("maxConcurrentRequests"), "{found:?}");
    assert!(found[1].starts_with("inbound.methods[1]: GET /users is never reached"), "{found:?}");
    assert!(found[2].starts_with("outbound c: timeout 20000ms is longer"), "{found:?}");
}

#[test]
fn the_error_reads_as_a_list() {
    let one = PolicyBuilder::new().command("c", |c| c.timeout(Duration::ZERO));
    assert_eq!(
        one.build().unwrap_err().to_string(),
        "the policy is invalid: outbound c: timeout: a duration must be 1 to 3600000 ms, but is 0"
    );
    let two = PolicyBuilder::new()
        .default_command(|c| c.retry(|r| r))
        .command("", |c| c.max_concurrent_requests(1));
    assert_eq!(
        two.build().unwrap_err().to_string(),
        "the policy is invalid in 2 places:\n  \
         outbound: a command's name is 1 to 63 letters, digits, _, . or -, unlike \"\"\n  \
         outbound default: retry: maxAttempts is needed"
    );
}

#[test]
fn a_command_starts_from_the_default_whichever_was_said_first() {
    let policy = PolicyBuilder::new()
        .command("c", |c| c.circuit_breaker(|b| b.error_percent_threshold(25)).retry(|r| r.max_attempts(1)))
        .method(MethodMatch::http_path("/a"), |m| m.max_concurrent_requests(5))
        .default_command(|c| {
            c.timeout(ms(100))
                .circuit_breaker(|b| b.request_volume_threshold(7))
                .retry(|r| r.max_attempts(2))
                .rate_limit(|r| r.requests_per_second(100))
        })
        .default_method(|m| m.timeout(ms(200)))
        .build()
        .unwrap();
    let command = &policy.outbound.commands["c"];
    assert_eq!((command.timeout_ms, command.retry), (policy.outbound.default.timeout_ms, None));
    assert_eq!(command.rate_limit.unwrap().burst.get(), 10);
    let breaker = command.circuit_breaker.as_ref().unwrap();
    assert_eq!((breaker.error_percent_threshold.get(), breaker.request_volume_threshold.get()), (25, 7));
    assert!(policy.outbound.default.retry.is_some());
    assert_eq!(policy.inbound.methods[0].policy.timeout_ms, policy.inbound.default.timeout_ms);
}

#[test]
fn what_is_wrong_with_the_default_is_told_once() {
    let builder = PolicyBuilder::new()
        .default_command(|c| c.max_concurrent_requests(0))
        .command("c", |c| c)
        .default_method(|m| m.max_concurrent_requests(0))
        .method(MethodMatch::http_path("/"), |m| m)
        .shadow(|shadow| shadow.command("c", |c| c.timeout(Duration::ZERO)));
    let limit = "maxConcurrentRequests: a concurrency limit must be 1 to 1000000, but is 0";
    assert_eq!(
        wrong(builder),
        [
            format!("inbound.default.{limit}"),
            format!("outbound default: {limit}"),
            "shadow.outbound c: timeout: a duration must be 1 to 3600000 ms, but is 0".to_owned(),
        ]
    );
}

/// Field by field over the policy, and without what could only act.
#[test]
fn a_shadow_is_the_policy_with_changes() {
    let policy = PolicyBuilder::new()
        .default_command(|c| c.timeout(ms(100)).fallback_enabled(false))
        .command("c", |c| c.max_concurrent_requests(5).retry(|r| r.max_attempts(2)))
        .method(MethodMatch::http_path("/"), |m| m.timeout(ms(500)).fallback_body("text/plain", ""))
        .shadow(|shadow| {
            shadow
                .default_command(|c| c.timeout(ms(50)))
                .command("c", |c| c.circuit_breaker(|b| b))
                .command("d", |c| c)
                .method(MethodMatch::http("GET", "/users"), |m| m.max_concurrent_requests(1))
                .method(MethodMatch::http_path("/"), |m| m.max_concurrent_requests(2))
        })
        .build()
        .unwrap();
    let shadow = policy.shadow.unwrap();
    let outbound = shadow.outbound.unwrap();
    let expected = PolicyBuilder::new()
        .default_command(|c| c.timeout(ms(50)))
        .command("c", |c| c.max_concurrent_requests(5).circuit_breaker(|b| b))
        .command("d", |c| c)
        .method(MethodMatch::http("GET", "/users"), |m| m.max_concurrent_requests(1))
        .method(MethodMatch::http_path("/"), |m| m.timeout(ms(500)).max_concurrent_requests(2))
        .build()
        .unwrap();
    assert_eq!(outbound, expected.outbound);
    assert_eq!(shadow.inbound.unwrap(), expected.inbound);
    assert_eq!(policy.outbound.commands["c"].circuit_breaker, None, "the policy itself stays");
}

#[test]
fn a_shadow_has_only_the_sections_that_it_names() {
    let outbound = PolicyBuilder::new().shadow(|shadow| shadow.command("c", |c| c)).build().unwrap();
    let shadow = outbound.shadow.unwrap();
    assert!(shadow.inbound.is_none() && shadow.outbound.is_some());
    assert_eq!(PolicyBuilder::new().shadow(|shadow| shadow).build().unwrap().shadow, None);
}

/// Values from around the builder can be borrowed and moved.
#[test]
fn declarations_may_borrow() {
    let (names, limit) = (vec!["a".to_owned(), "b".to_owned()], 3);
    let builder = names.iter().fold(PolicyBuilder::new(), |builder, name| {
        builder.command(name, |c| c.max_concurrent_requests(limit))
    });
    assert_eq!(builder.build().unwrap().outbound.commands.len(), 2);
}
