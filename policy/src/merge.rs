//! From what a person declared to the policy that is published: inheritance resolved, all values checked.
//!
//! A method or command starts from its section, a shadow from the active policy; objects merge field by
//! field, lists replace.

mod candidate;
mod over;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use over::Over;

use crate::Policy;
use crate::duration::GoDuration;
use crate::policy::{
    BreakerPolicy, CommandPolicy, ErrorClasses, ErrorCode, Inbound, MethodMatch, MethodPolicy, Millis,
    OutOfRange, Outbound, RETRY_BUDGET_PERCENT, RateLimit, RetryPolicy, ServerPolicy, Shadow, SlowCall,
    StaticAnswer,
};
use crate::v1alpha1::{
    AnswerSpec, CircuitBreakerSpec, CodeSpec, CommandSpec, InboundSpec, MatchSpec, MethodSpec, OutboundSpec,
    RateLimitSpec, ResilientServiceSpec, RetrySpec, ShadowSpec, SlowCallSpec,
};

/// The policy of a resource, or everything that is wrong with it: each line names its field.
pub fn policy(spec: &ResilientServiceSpec) -> Result<Policy, Vec<String>> {
    let mut wrong = Violations::default();
    let policy = Policy {
        inbound: spec.inbound.as_ref().map(|i| inbound(i, &mut wrong)).unwrap_or_default(),
        outbound: spec.outbound.as_ref().map(|o| outbound(o, &mut wrong)).unwrap_or_default(),
        shadow: spec.shadow.as_ref().and_then(|declared| shadow(declared, spec, &mut wrong)),
    };
    wrong.0.extend(policy.violations());
    if wrong.0.is_empty() { Ok(policy) } else { Err(wrong.0) }
}

/// None: the shadow names no section.
fn shadow(shadow: &ShadowSpec, active: &ResilientServiceSpec, wrong: &mut Violations) -> Option<Shadow> {
    let mut own = Violations::default();
    own.0.extend(only_acting(shadow).map(|field| format!("{field}: {ONLY_ACTS}")));
    let calls_in = shadow.inbound.as_ref().map(|i| candidate::inbound(i, active.inbound.as_ref()));
    let calls_out = shadow.outbound.as_ref().map(|o| candidate::outbound(o, active.outbound.as_ref()));
    let shadow = Shadow {
        inbound: calls_in.map(|spec| inbound(&spec, &mut own)),
        outbound: calls_out.map(|spec| outbound(&spec, &mut own)),
    };
    wrong.0.extend(own.0.into_iter().map(|line| format!("shadow.{line}")));
    (shadow != Shadow::default()).then_some(shadow)
}

const ONLY_ACTS: &str = "a candidate decides and does nothing, and this only acts: remove it";

/// The fields of a candidate that could do nothing.
fn only_acting(shadow: &ShadowSpec) -> impl Iterator<Item = String> {
    let methods = shadow.inbound.iter().flat_map(|inbound| inbound.methods.iter().enumerate());
    let methods = methods.filter(|(_, method)| method.fallback.is_some());
    let methods = methods.map(|(n, _)| format!("inbound.methods[{n}].fallback"));
    let acts = |retry: bool, fallback: bool| {
        [("retry", retry), ("fallback", fallback)]
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(field, _)| field)
    };
    let section = shadow.outbound.iter().flat_map(move |outbound| {
        acts(outbound.retry.is_some(), outbound.fallback.is_some()).map(|field| format!("outbound.{field}"))
    });
    let commands = shadow.outbound.iter().flat_map(|outbound| &outbound.commands).flat_map(move |command| {
        let at = format!("outbound.commands[{}]", command.name);
        acts(command.retry.is_some(), command.fallback.is_some()).map(move |field| format!("{at}.{field}"))
    });
    methods.chain(section).chain(commands)
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

    fn codes(&mut self, path: &str, codes: Option<&Vec<CodeSpec>>) -> BTreeSet<ErrorCode> {
        codes.into_iter().flatten().filter_map(|code| self.note(path, code.0.parse())).collect()
    }
}

fn inbound(spec: &InboundSpec, wrong: &mut Violations) -> Inbound {
    let section = spec.section();
    let default = server("inbound", &section, wrong);
    let methods = spec.methods.iter().enumerate().filter_map(|(n, method)| {
        let at = format!("inbound.methods[{n}]");
        let policy = server(&at, &method.over(&section), wrong);
        let matches = wrong.note(&format!("{at}.match"), method_match(&method.matches))?;
        Some(MethodPolicy { matches, policy })
    });
    let methods = methods.collect();
    Inbound { default, methods }
}

fn server(at: &str, spec: &MethodSpec, wrong: &mut Violations) -> ServerPolicy {
    ServerPolicy {
        timeout_ms: wrong.millis(&format!("{at}.timeout"), spec.timeout.as_ref()),
        max_concurrent_requests: wrong
            .number(&format!("{at}.maxConcurrentRequests"), spec.max_concurrent_requests),
        rate_limit: spec.rate_limit.as_ref().and_then(|spec| rate(&format!("{at}.rateLimit"), spec, wrong)),
        fallback: spec.fallback.as_ref().and_then(|spec| wrong.note(&format!("{at}.fallback"), answer(spec))),
    }
}

fn rate(at: &str, spec: &RateLimitSpec, wrong: &mut Violations) -> Option<RateLimit> {
    let Some(rate) = spec.requests_per_second else {
        wrong.0.push(format!("{at}: requestsPerSecond is needed"));
        return None;
    };
    let burst = spec.burst.unwrap_or((rate / 10).max(1));
    Some(RateLimit {
        requests_per_second: wrong.number(&format!("{at}.requestsPerSecond"), Some(rate))?,
        burst: wrong.number(&format!("{at}.burst"), Some(burst))?,
        scope: spec.scope.unwrap_or_default(),
    })
}

fn answer(spec: &AnswerSpec) -> Result<StaticAnswer, &'static str> {
    match (&spec.message, &spec.content_type, &spec.body) {
        (Some(message), None, None) => Ok(StaticAnswer::Message { json: message.to_string() }),
        (None, Some(content_type), Some(body)) => {
            Ok(StaticAnswer::Body { content_type: content_type.clone(), body: body.clone() })
        }
        _ => Err("set either message, or contentType and body"),
    }
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
    let section = spec.section();
    let default = command("outbound", &section, wrong);
    let mut commands = BTreeMap::new();
    for own in &spec.commands {
        let at = format!("outbound.commands[{}]", own.name);
        if commands.insert(own.name.clone(), command(&at, &own.over(&section), wrong)).is_some() {
            wrong.0.push(format!("{at}: named twice"));
        }
    }
    Outbound { default, commands }
}

fn command(at: &str, spec: &CommandSpec, wrong: &mut Violations) -> CommandPolicy {
    let breaker = spec.circuit_breaker.as_ref();
    let retries = spec.retry.as_ref();
    let fallback = spec.fallback.clone().unwrap_or_default();
    let errors = spec.errors.clone().unwrap_or_default();
    CommandPolicy {
        timeout_ms: wrong.millis(&format!("{at}.timeout"), spec.timeout.as_ref()),
        max_concurrent_requests: wrong
            .number(&format!("{at}.maxConcurrentRequests"), spec.max_concurrent_requests),
        rate_limit: spec.rate_limit.as_ref().and_then(|spec| rate(&format!("{at}.rateLimit"), spec, wrong)),
        circuit_breaker: breaker.map(|spec| self::breaker(&format!("{at}.circuitBreaker"), spec, wrong)),
        retry: retries.and_then(|spec| retry(&format!("{at}.retry"), spec, wrong)),
        errors: ErrorClasses {
            ignore: wrong.codes(&format!("{at}.errors.ignore"), errors.ignore.as_ref()),
            count: wrong.codes(&format!("{at}.errors.count"), errors.count.as_ref()),
        },
        fallback_enabled: fallback.enabled.unwrap_or(true),
        fallback_max_concurrent_requests: wrong
            .number(&format!("{at}.fallback.maxConcurrentRequests"), fallback.max_concurrent_requests),
    }
}

fn breaker(at: &str, spec: &CircuitBreakerSpec, wrong: &mut Violations) -> BreakerPolicy {
    let default = BreakerPolicy::default();
    BreakerPolicy {
        error_percent_threshold: wrong
            .number(&format!("{at}.errorPercentThreshold"), spec.error_percent_threshold)
            .unwrap_or(default.error_percent_threshold),
        request_volume_threshold: wrong
            .number(&format!("{at}.requestVolumeThreshold"), spec.request_volume_threshold)
            .unwrap_or(default.request_volume_threshold),
        sleep_window_ms: wrong
            .millis(&format!("{at}.sleepWindow"), spec.sleep_window.as_ref())
            .unwrap_or(default.sleep_window_ms),
        rolling_window_ms: wrong
            .millis(&format!("{at}.rollingWindow"), spec.rolling_window.as_ref())
            .unwrap_or(default.rolling_window_ms),
        half_open_probes: wrong
            .number(&format!("{at}.halfOpenProbes"), spec.half_open_probes)
            .unwrap_or(default.half_open_probes),
        consecutive_failures: wrong
            .number(&format!("{at}.consecutiveFailures"), spec.consecutive_failures.filter(|n| *n > 0)),
        slow_call: spec.slow_call.as_ref().and_then(|spec| slow_call(&format!("{at}.slowCall"), spec, wrong)),
        count_rejections: spec.count_rejections.unwrap_or_default(),
        mode: spec.mode.unwrap_or_default(),
    }
}

fn slow_call(at: &str, spec: &SlowCallSpec, wrong: &mut Violations) -> Option<SlowCall> {
    if spec.threshold.is_none() || spec.percent.is_none() {
        wrong.0.push(format!("{at}: threshold and percent are needed"));
        return None;
    }
    Some(SlowCall {
        threshold_ms: wrong.millis(&format!("{at}.threshold"), spec.threshold.as_ref())?,
        percent: wrong.number(&format!("{at}.percent"), spec.percent)?,
    })
}

/// None: one attempt, so no retry.
fn retry(at: &str, spec: &RetrySpec, wrong: &mut Violations) -> Option<RetryPolicy> {
    let budget = spec.budget_percent.unwrap_or(RETRY_BUDGET_PERCENT);
    let per_try_timeout_ms = wrong.millis(&format!("{at}.perTryTimeout"), spec.per_try_timeout.as_ref());
    let budget_percent = wrong.number(&format!("{at}.budgetPercent"), Some(budget));
    match spec.max_attempts {
        None => {
            wrong.0.push(format!("{at}: maxAttempts is needed"));
            None
        }
        Some(1) => None,
        attempts => Some(RetryPolicy {
            max_attempts: wrong.number(&format!("{at}.maxAttempts"), attempts)?,
            per_try_timeout_ms,
            budget_percent: budget_percent?,
        }),
    }
}

#[cfg(test)]
mod tests;
