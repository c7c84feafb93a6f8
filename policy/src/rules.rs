//! Rules across the fields of a policy.

use crate::policy::{
    CommandPolicy, Inbound, MAX_ENTRIES, MethodPolicy, Millis, Outbound, Policy, RetryPolicy, SlowCall,
};

impl Policy {
    /// Rules across fields; a policy that breaks one is refused whole. The paths name the wire fields.
    pub fn violations(&self) -> Vec<String> {
        let mut found = [inbound(&self.inbound), outbound(&self.outbound)].concat();
        if let Some(shadow) = &self.shadow {
            let of = [shadow.inbound.as_ref().map(inbound), shadow.outbound.as_ref().map(outbound)];
            found.extend(of.into_iter().flatten().flatten().map(|line| format!("shadow.{line}")));
        }
        found
    }
}

fn inbound(section: &Inbound) -> Vec<String> {
    let mut found = Vec::new();
    if section.methods.len() > MAX_ENTRIES {
        found.push(format!("inbound.methods: at most {MAX_ENTRIES} methods"));
    }
    if section.default.fallback.is_some() {
        found.push("inbound: a fallback belongs to a method, whose answer it is".to_owned());
    }
    for (n, method) in section.methods.iter().enumerate() {
        found.extend(reached(&section.methods[..n], n, method));
        let answer = method.policy.fallback.as_ref().and_then(|answer| answer.violation(&method.matches));
        found.extend(answer.map(|wrong| format!("inbound.methods[{n}].fallback: {wrong}")));
    }
    found
}

/// What keeps requests from the `n`th method.
fn reached(earlier: &[MethodPolicy], n: usize, method: &MethodPolicy) -> Option<String> {
    let this = &method.matches;
    let mut earlier = earlier.iter().map(|earlier| &earlier.matches).enumerate();
    let (first, wider) = earlier.find(|(_, earlier)| earlier.covers(this))?;
    Some(if this.covers(wider) {
        format!("inbound.methods[{n}]: the same match as methods[{first}], which wins: remove one")
    } else {
        format!(
            "inbound.methods[{n}]: {this} is never reached, as methods[{first}], {wider}, comes first and \
             matches all of it: move it before methods[{first}], or remove it"
        )
    })
}

fn outbound(section: &Outbound) -> Vec<String> {
    let mut found = Vec::new();
    if section.commands.len() > MAX_ENTRIES {
        found.push(format!("outbound.commands: at most {MAX_ENTRIES} commands"));
    }
    let commands = section.commands.iter().map(|(name, policy)| (name.as_str(), policy));
    for (name, policy) in std::iter::once(("default", &section.default)).chain(commands) {
        found.extend(command(policy).into_iter().map(|line| format!("outbound {name}: {line}")));
    }
    found
}

fn command(policy: &CommandPolicy) -> Vec<String> {
    let mut found = policy.errors.violations();
    let breaker = policy.circuit_breaker.as_ref();
    if breaker.is_some_and(|breaker| breaker.rolling_window_ms < Millis(1000)) {
        found.push("circuitBreaker.rollingWindow must be at least 1s, ten buckets of 100ms".to_owned());
    }
    let Some(timeout) = policy.timeout_ms else { return found };
    if let Some(breaker) = breaker
        && timeout > breaker.rolling_window_ms
    {
        found.push(format!(
            "timeout {}ms is longer than circuitBreaker.rollingWindow {}ms, so the breaker could never see {} \
             timeouts together: shorten the timeout or lengthen the window",
            timeout.0, breaker.rolling_window_ms.0, breaker.request_volume_threshold.0
        ));
    }
    if let Some(SlowCall { threshold_ms, .. }) = breaker.and_then(|breaker| breaker.slow_call)
        && threshold_ms >= timeout
    {
        found.push(format!(
            "circuitBreaker.slowCall.threshold {}ms is not shorter than timeout {}ms, so no call but one that \
             timed out could be slow: shorten the threshold or lengthen the timeout",
            threshold_ms.0, timeout.0
        ));
    }
    if let Some(RetryPolicy { per_try_timeout_ms: Some(each), .. }) = policy.retry
        && each > timeout
    {
        found.push(format!(
            "retry.perTryTimeout {}ms is longer than timeout {}ms, which holds for all tries together: shorten \
             the one or lengthen the other",
            each.0, timeout.0
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{ErrorCode, MethodMatch, ServerPolicy, Shadow, StaticAnswer};

    #[test]
    fn the_compiled_in_policy_is_valid() {
        assert_eq!(Policy::compiled_in().violations(), Vec::<String>::new());
    }

    #[test]
    fn a_timeout_longer_than_the_window_is_a_violation() {
        let mut policy = Policy::compiled_in();
        policy.outbound.default.timeout_ms = Some(Millis(20_000));
        let found = policy.violations();
        assert!(found.len() == 1 && found[0].contains("timeout 20000ms is longer"), "{found:?}");
    }

    #[test]
    fn a_method_that_an_earlier_one_covers_is_a_violation() {
        let grpc = |service: &str, method: Option<&str>| MethodMatch::Grpc {
            service: service.into(),
            method: method.map(Into::into),
        };
        let http = |method: Option<&str>, path_prefix: &str| MethodMatch::Http {
            method: method.map(Into::into),
            path_prefix: path_prefix.into(),
        };
        let violations = |methods: Vec<MethodMatch>| {
            let mut policy = Policy::compiled_in();
            let policy_of = |matches| MethodPolicy { matches, policy: ServerPolicy::default() };
            policy.inbound.methods = methods.into_iter().map(policy_of).collect();
            policy.violations()
        };
        assert_eq!(
            violations(vec![http(None, "/a"), grpc("user.v1.U", None), grpc("user.v1.U", Some("Get"))]),
            [
                "inbound.methods[2]: user.v1.U/Get is never reached, as methods[1], user.v1.U/*, comes first and \
              matches all of it: move it before methods[1], or remove it"
            ]
        );
        assert_eq!(
            violations(vec![http(Some("GET"), "/users"), http(Some("GET"), "/users/")]),
            ["inbound.methods[1]: the same match as methods[0], which wins: remove one"]
        );
        let narrow_first = vec![grpc("user.v1.U", Some("Get")), http(Some("GET"), "/a/b"), http(None, "/a")];
        assert_eq!(violations(narrow_first), Vec::<String>::new());
    }

    #[test]
    fn what_the_timeout_cuts_short_is_a_violation() {
        let with = |timeout: Option<u64>| {
            let mut policy = Policy::compiled_in();
            let command = &mut policy.outbound.default;
            command.timeout_ms = timeout.map(Millis);
            command.retry = Some(
                serde_json::from_str(r#"{"maxAttempts":2,"perTryTimeoutMs":200,"budgetPercent":20}"#)
                    .unwrap(),
            );
            let breaker = command.circuit_breaker.as_mut().unwrap();
            breaker.slow_call = Some(serde_json::from_str(r#"{"thresholdMs":200,"percent":50}"#).unwrap());
            policy.violations()
        };
        assert_eq!((with(None), with(Some(201))), (vec![], vec![]));
        let equal = with(Some(200));
        assert!(
            equal.len() == 1 && equal[0].contains("slowCall.threshold 200ms is not shorter"),
            "{equal:?}"
        );
        let shorter = with(Some(199));
        assert!(
            shorter.len() == 2 && shorter[1].contains("perTryTimeout 200ms is longer than timeout 199ms"),
            "{shorter:?}"
        );
    }

    #[test]
    fn an_answer_belongs_to_a_method() {
        let message = StaticAnswer::Message { json: "{}".into() };
        let mut policy = Policy::compiled_in();
        policy.inbound.default.fallback = Some(message.clone());
        policy.inbound.methods.push(MethodPolicy {
            matches: MethodMatch::Grpc { service: "a.S".into(), method: None },
            policy: ServerPolicy { fallback: Some(message), ..ServerPolicy::default() },
        });
        assert_eq!(
            policy.violations(),
            [
                "inbound: a fallback belongs to a method, whose answer it is",
                "inbound.methods[0].fallback: message needs match.grpc.method, as each method of a service has \
                 its own"
            ]
        );
    }

    #[test]
    fn a_shadow_keeps_the_same_rules() {
        let mut outbound = Policy::compiled_in().outbound;
        outbound.default.errors.ignore.insert(ErrorCode::Http(404));
        outbound.default.errors.count.insert(ErrorCode::Http(404));
        let mut policy = Policy::compiled_in();
        policy.shadow = Some(Shadow { inbound: None, outbound: Some(outbound) });
        assert_eq!(
            policy.violations(),
            ["shadow.outbound default: errors: 404 cannot be both ignored and counted"]
        );
    }
}
