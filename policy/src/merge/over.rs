//! One declaration over another: what the upper does not say, the lower says. Objects merge field by field,
//! lists replace.
//!
//! So a method lies over its section, a command over its, and a shadow over the active policy.

use crate::duration::GoDuration;
use crate::v1alpha1::{
    AnswerSpec, CircuitBreakerSpec, CodeSpec, CommandSpec, ErrorsSpec, FallbackSpec, InboundSpec, MatchSpec,
    MethodSpec, OutboundSpec, RateLimitSpec, RetrySpec, SlowCallSpec,
};

/// What can lie over another of its kind.
pub trait Over: Clone {
    /// This, and `under` where this says nothing.
    fn over(&self, under: &Self) -> Self;
}

impl<T: Over> Over for Option<T> {
    fn over(&self, under: &Self) -> Self {
        match (self, under) {
            (Some(upper), Some(under)) => Some(upper.over(under)),
            (upper, under) => upper.as_ref().or(under.as_ref()).cloned(),
        }
    }
}

/// What is one value: the upper's.
macro_rules! replaces {
    ($($kind:ty),+) => {$(
        impl Over for $kind {
            fn over(&self, _: &Self) -> Self {
                self.clone()
            }
        }
    )+};
}

replaces!(GoDuration, Vec<CodeSpec>, AnswerSpec);

impl Over for RateLimitSpec {
    fn over(&self, under: &Self) -> Self {
        Self {
            requests_per_second: self.requests_per_second.or(under.requests_per_second),
            burst: self.burst.or(under.burst),
            scope: self.scope.or(under.scope),
        }
    }
}

impl Over for CircuitBreakerSpec {
    fn over(&self, under: &Self) -> Self {
        Self {
            error_percent_threshold: self.error_percent_threshold.or(under.error_percent_threshold),
            request_volume_threshold: self.request_volume_threshold.or(under.request_volume_threshold),
            sleep_window: self.sleep_window.over(&under.sleep_window),
            rolling_window: self.rolling_window.over(&under.rolling_window),
            half_open_probes: self.half_open_probes.or(under.half_open_probes),
            consecutive_failures: self.consecutive_failures.or(under.consecutive_failures),
            slow_call: self.slow_call.over(&under.slow_call),
            count_rejections: self.count_rejections.or(under.count_rejections),
            mode: self.mode.or(under.mode),
        }
    }
}

impl Over for SlowCallSpec {
    fn over(&self, under: &Self) -> Self {
        Self { threshold: self.threshold.over(&under.threshold), percent: self.percent.or(under.percent) }
    }
}

impl Over for RetrySpec {
    fn over(&self, under: &Self) -> Self {
        Self {
            max_attempts: self.max_attempts.or(under.max_attempts),
            per_try_timeout: self.per_try_timeout.over(&under.per_try_timeout),
            budget_percent: self.budget_percent.or(under.budget_percent),
        }
    }
}

impl Over for ErrorsSpec {
    fn over(&self, under: &Self) -> Self {
        Self { ignore: self.ignore.over(&under.ignore), count: self.count.over(&under.count) }
    }
}

impl Over for FallbackSpec {
    fn over(&self, under: &Self) -> Self {
        Self {
            enabled: self.enabled.or(under.enabled),
            max_concurrent_requests: self.max_concurrent_requests.or(under.max_concurrent_requests),
        }
    }
}

impl Over for MethodSpec {
    fn over(&self, under: &Self) -> Self {
        Self {
            matches: self.matches.clone(),
            timeout: self.timeout.over(&under.timeout),
            max_concurrent_requests: self.max_concurrent_requests.or(under.max_concurrent_requests),
            rate_limit: self.rate_limit.over(&under.rate_limit),
            fallback: self.fallback.over(&under.fallback),
        }
    }
}

impl Over for CommandSpec {
    fn over(&self, under: &Self) -> Self {
        Self {
            name: self.name.clone(),
            timeout: self.timeout.over(&under.timeout),
            max_concurrent_requests: self.max_concurrent_requests.or(under.max_concurrent_requests),
            rate_limit: self.rate_limit.over(&under.rate_limit),
            circuit_breaker: self.circuit_breaker.over(&under.circuit_breaker),
            retry: self.retry.over(&under.retry),
            errors: self.errors.over(&under.errors),
            fallback: self.fallback.over(&under.fallback),
        }
    }
}

impl InboundSpec {
    /// What requests that match no method are held to, as if it were a method.
    pub(super) fn section(&self) -> MethodSpec {
        MethodSpec {
            matches: MatchSpec { grpc: None, http: None },
            timeout: self.timeout.clone(),
            max_concurrent_requests: self.max_concurrent_requests,
            rate_limit: self.rate_limit.clone(),
            fallback: None,
        }
    }
}

impl OutboundSpec {
    /// What commands that are not named are held to, as if it were a command.
    pub(super) fn section(&self) -> CommandSpec {
        CommandSpec {
            name: String::new(),
            timeout: self.timeout.clone(),
            max_concurrent_requests: self.max_concurrent_requests,
            rate_limit: self.rate_limit.clone(),
            circuit_breaker: self.circuit_breaker.clone(),
            retry: self.retry.clone(),
            errors: self.errors.clone(),
            fallback: self.fallback.clone(),
        }
    }
}
