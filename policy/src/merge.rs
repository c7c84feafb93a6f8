//! From what a person declared to the policy that is published: inheritance resolved, all values checked.
//!
//! A method or command starts from its section, objects merge field by field, lists replace.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::Policy;
use crate::duration::GoDuration;
use crate::policy::{
    BreakerPolicy, CommandPolicy, Inbound, MethodMatch, MethodPolicy, Millis, OutOfRange, Outbound,
    ServerPolicy,
};
use crate::v1alpha1::{CircuitBreakerSpec, InboundSpec, MatchSpec, OutboundSpec, ResilientServiceSpec};

/// The policy of a resource, or everything that is wrong with it: each line names its field.
pub fn policy(spec: &ResilientServiceSpec) -> Result<Policy, Vec<String>> {
    let mut wrong = Violations::default();
    let policy = Policy {
        inbound: spec.inbound.as_ref().map(|i| inbound(i, &mut wrong)).unwrap_or_default(),
        outbound: spec.outbound.as_ref().map(|o| outbound(o, &mut wrong)).unwrap_or_default(),
        shadow: None,
    };
    wrong.0.extend(policy.violations());
    if wrong.0.is_empty() { Ok(policy) } else { Err(wrong.0) }
}

#[derive(Default)]
struct Violations(Vec<String>);

impl Violations {
    /// The value, or a note of what is wrong with the field at `path`.
    fn note<T, E: Display>(&mut self, path: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.0.push(format!("{path}: {error}"))).ok()
    }

    fn millis(&mut self, path: &str, duration: Option<&GoDuration>) -> Option<Millis> {
        let duration = duration.map(GoDuration::parse)?;
        let duration = self.note(path, duration)?;
        self.note(path, Millis::try_from(duration))
    }

    fn number<T: TryFrom<u64, Error = OutOfRange>>(&mut self, path: &str, value: Option<u32>) -> Option<T> {
        let value = T::try_from(value?.into());
        self.note(path, value)
    }
}

fn inbound(spec: &InboundSpec, wrong: &mut Violations) -> Inbound {
    let default = ServerPolicy {
        timeout_ms: wrong.millis("inbound.timeout", spec.timeout.as_ref()),
        max_concurrent_requests: wrong.number("inbound.maxConcurrentRequests", spec.max_concurrent_requests),
        ..ServerPolicy::default()
    };
    let methods = spec.methods.iter().enumerate().filter_map(|(n, method)| {
        let at = format!("inbound.methods[{n}]");
        let timeout = wrong.millis(&format!("{at}.timeout"), method.timeout.as_ref());
        let limit = wrong.number(&format!("{at}.maxConcurrentRequests"), method.max_concurrent_requests);
        let matches = method_match(&method.matches);
        Some(MethodPolicy {
            matches: wrong.note(&format!("{at}.match"), matches)?,
            policy: ServerPolicy {
                timeout_ms: timeout.or(default.timeout_ms),
                max_concurrent_requests: limit.or(default.max_concurrent_requests),
                ..ServerPolicy::default()
            },
        })
    });
    let methods = methods.collect();
    Inbound { default, methods }
}

fn method_match(spec: &MatchSpec) -> Result<MethodMatch, &'static str> {
    match (&spec.grpc, &spec.http) {
        (Some(grpc), None) => {
            Ok(MethodMatch::Grpc { service: grpc.service.clone(), method: grpc.method.clone() })
        }
        (None, Some(http)) => {
            // `/users/` means what `/users` means, and is the same method.
            let path_prefix = match http.path_prefix.trim_end_matches('/') {
                "" => "/",
                prefix => prefix,
            };
            Ok(MethodMatch::Http { method: http.method.clone(), path_prefix: path_prefix.to_owned() })
        }
        _ => Err("set exactly one of grpc and http"),
    }
}

fn outbound(spec: &OutboundSpec, wrong: &mut Violations) -> Outbound {
    let section = spec.circuit_breaker.as_ref();
    let fallback = spec.fallback.as_ref().is_none_or(|fallback| fallback.enabled);
    let default = CommandPolicy {
        timeout_ms: wrong.millis("outbound.timeout", spec.timeout.as_ref()),
        max_concurrent_requests: wrong.number("outbound.maxConcurrentRequests", spec.max_concurrent_requests),
        circuit_breaker: breaker("outbound.circuitBreaker", None, section, wrong),
        fallback_enabled: fallback,
        ..CommandPolicy::default()
    };
    let mut commands = BTreeMap::new();
    for command in &spec.commands {
        let at = format!("outbound.commands[{}]", command.name);
        let timeout = wrong.millis(&format!("{at}.timeout"), command.timeout.as_ref());
        let limit = wrong.number(&format!("{at}.maxConcurrentRequests"), command.max_concurrent_requests);
        let own = command.circuit_breaker.as_ref();
        let merged = CommandPolicy {
            timeout_ms: timeout.or(default.timeout_ms),
            max_concurrent_requests: limit.or(default.max_concurrent_requests),
            circuit_breaker: breaker(&format!("{at}.circuitBreaker"), section, own, wrong),
            fallback_enabled: command.fallback.as_ref().map_or(fallback, |fallback| fallback.enabled),
            ..CommandPolicy::default()
        };
        if commands.insert(command.name.clone(), merged).is_some() {
            wrong.0.push(format!("{at}: named twice"));
        }
    }
    Outbound { default, commands }
}

fn breaker(
    at: &str,
    section: Option<&CircuitBreakerSpec>,
    own: Option<&CircuitBreakerSpec>,
    wrong: &mut Violations,
) -> Option<BreakerPolicy> {
    let empty = CircuitBreakerSpec::default();
    let (section, own) = match (section, own) {
        (None, None) => return None,
        (section, own) => (section.unwrap_or(&empty), own.unwrap_or(&empty)),
    };
    let default = BreakerPolicy::default();
    Some(BreakerPolicy {
        error_percent_threshold: wrong
            .number(
                &format!("{at}.errorPercentThreshold"),
                own.error_percent_threshold.or(section.error_percent_threshold),
            )
            .unwrap_or(default.error_percent_threshold),
        request_volume_threshold: wrong
            .number(
                &format!("{at}.requestVolumeThreshold"),
                own.request_volume_threshold.or(section.request_volume_threshold),
            )
            .unwrap_or(default.request_volume_threshold),
        sleep_window_ms: wrong
            .millis(&format!("{at}.sleepWindow"), own.sleep_window.as_ref().or(section.sleep_window.as_ref()))
            .unwrap_or(default.sleep_window_ms),
        rolling_window_ms: wrong
            .millis(
                &format!("{at}.rollingWindow"),
                own.rolling_window.as_ref().or(section.rolling_window.as_ref()),
            )
            .unwrap_or(default.rolling_window_ms),
        half_open_probes: wrong
            .number(&format!("{at}.halfOpenProbes"), own.half_open_probes.or(section.half_open_probes))
            .unwrap_or(default.half_open_probes),
        mode: own.mode.or(section.mode).unwrap_or_default(),
        ..default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
