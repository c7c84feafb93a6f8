//! What calls are held to.

use std::collections::BTreeSet;
use std::time::Duration;

use super::limits::{RateLimitBuilder, RetryBuilder};
use super::notes::Notes;
use crate::policy::{BreakerMode, BreakerPolicy, CommandPolicy, ErrorClasses, SlowCall};

/// The policy of a command. What is not said is that of the default command.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CommandBuilder {
    timeout: Option<Duration>,
    max_concurrent_requests: Option<u64>,
    rate_limit: Option<RateLimitBuilder>,
    circuit_breaker: Option<CircuitBreakerBuilder>,
    retry: Option<RetryBuilder>,
    ignore_errors: Vec<String>,
    count_errors: Vec<String>,
    fallback_enabled: Option<bool>,
    fallback_max_concurrent_requests: Option<u64>,
}

impl CommandBuilder {
    /// After it the call, or all tries of it together, is cancelled: whole milliseconds, 1 ms to 1 h.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Calls in flight at once; one more is refused at once: 1 to 1,000,000.
    pub const fn max_concurrent_requests(mut self, limit: u64) -> Self {
        self.max_concurrent_requests = Some(limit);
        self
    }

    /// Calls over time; one more is refused at once.
    pub fn rate_limit(mut self, of: impl FnOnce(RateLimitBuilder) -> RateLimitBuilder) -> Self {
        self.rate_limit = Some(of(self.rate_limit.unwrap_or_default()));
        self
    }

    /// Refuses calls while too many fail.
    pub fn circuit_breaker(
        mut self,
        of: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder,
    ) -> Self {
        self.circuit_breaker = Some(of(self.circuit_breaker.unwrap_or_default()));
        self
    }

    /// Tries again what failed, where the code says that it may be done twice.
    pub fn retry(mut self, of: impl FnOnce(RetryBuilder) -> RetryBuilder) -> Self {
        self.retry = Some(of(self.retry.unwrap_or_default()));
        self
    }

    /// Errors that count neither way, by gRPC code or HTTP status like `NOT_FOUND` or `404`; at most 32.
    /// In place of those of the default command.
    pub fn ignore_errors(mut self, codes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.ignore_errors = codes.into_iter().map(Into::into).collect();
        self
    }

    /// Errors that count as failures although they are client errors by default; at most 32. In place of
    /// those of the default command.
    pub fn count_errors(mut self, codes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.count_errors = codes.into_iter().map(Into::into).collect();
        self
    }

    /// Whether the fallback that the code offers is used. Default true.
    pub const fn fallback_enabled(mut self, enabled: bool) -> Self {
        self.fallback_enabled = Some(enabled);
        self
    }

    /// Fallbacks in flight at once, one more is not run: 1 to 1,000,000. Default 10, as in Hystrix.
    pub const fn fallback_max_concurrent_requests(mut self, limit: u64) -> Self {
        self.fallback_max_concurrent_requests = Some(limit);
        self
    }

    pub(super) fn finish(self, notes: &mut Notes) -> CommandPolicy {
        let mut codes = |field: &str, codes: Vec<String>| -> BTreeSet<_> {
            codes.into_iter().filter_map(|code| notes.note(field, code.parse())).collect()
        };
        let ignore = codes("errors.ignore", self.ignore_errors);
        let count = codes("errors.count", self.count_errors);
        CommandPolicy {
            timeout_ms: notes.millis("timeout", self.timeout),
            max_concurrent_requests: notes.number("maxConcurrentRequests", self.max_concurrent_requests),
            rate_limit: self.rate_limit.and_then(|rate| rate.finish(notes)),
            circuit_breaker: self.circuit_breaker.map(|breaker| breaker.finish(notes)),
            retry: self.retry.and_then(|retry| retry.finish(notes)),
            errors: ErrorClasses { ignore, count },
            fallback_enabled: self.fallback_enabled.unwrap_or(true),
            fallback_max_concurrent_requests: notes
                .number("fallback.maxConcurrentRequests", self.fallback_max_concurrent_requests),
        }
    }
}

/// A circuit breaker. What is not said is Hystrix's default.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct CircuitBreakerBuilder {
    error_percent_threshold: Option<u64>,
    request_volume_threshold: Option<u64>,
    sleep_window: Option<Duration>,
    rolling_window: Option<Duration>,
    half_open_probes: Option<u64>,
    consecutive_failures: Option<u64>,
    slow_call: Option<(Duration, u64)>,
    count_rejections: bool,
    mode: BreakerMode,
}

impl CircuitBreakerBuilder {
    /// Opens at this percentage of failures and timeouts or above: 1 to 100. Default 50.
    pub const fn error_percent_threshold(mut self, percent: u64) -> Self {
        self.error_percent_threshold = Some(percent);
        self
    }

    /// Fewer calls than this in the window are not judged: 1 to 1,000,000. Default 20.
    pub const fn request_volume_threshold(mut self, calls: u64) -> Self {
        self.request_volume_threshold = Some(calls);
        self
    }

    /// How long it stays open before it lets probes through: 1 ms to 1 h. Default 5 s.
    pub const fn sleep_window(mut self, window: Duration) -> Self {
        self.sleep_window = Some(window);
        self
    }

    /// The window that is judged, in ten buckets: 1 s to 1 h, no shorter than the timeout. Default 10 s.
    pub const fn rolling_window(mut self, window: Duration) -> Self {
        self.rolling_window = Some(window);
        self
    }

    /// How many probes half-open admits, and how many must succeed to close: 1 to 100. Default 1.
    pub const fn half_open_probes(mut self, probes: u64) -> Self {
        self.half_open_probes = Some(probes);
        self
    }

    /// Opens at this many failures and timeouts in a row as well, whatever the volume: to 1,000,000. 0,
    /// the default: not judged.
    pub const fn consecutive_failures(mut self, failures: u64) -> Self {
        self.consecutive_failures = Some(failures);
        self
    }

    /// Opens as well where this percentage of calls, 1 to 100, or more took as long as `threshold`, or
    /// longer; that is shorter than the timeout. Default: not judged.
    pub const fn slow_call(mut self, threshold: Duration, percent: u64) -> Self {
        self.slow_call = Some((threshold, percent));
        self
    }

    /// Whether a call that the concurrency limit refused counts as a failure. Default false.
    pub const fn count_rejections(mut self, counts: bool) -> Self {
        self.count_rejections = counts;
        self
    }

    /// What the breaker does with its verdict. Default [`BreakerMode::Enforce`].
    pub const fn mode(mut self, mode: BreakerMode) -> Self {
        self.mode = mode;
        self
    }

    fn finish(self, notes: &mut Notes) -> BreakerPolicy {
        let default = BreakerPolicy::default();
        let slow_call = self.slow_call.and_then(|(threshold, percent)| {
            let threshold_ms = notes.millis("circuitBreaker.slowCall.threshold", Some(threshold));
            let percent = notes.number("circuitBreaker.slowCall.percent", Some(percent));
            Some(SlowCall { threshold_ms: threshold_ms?, percent: percent? })
        });
        BreakerPolicy {
            error_percent_threshold: notes
                .number("circuitBreaker.errorPercentThreshold", self.error_percent_threshold)
                .unwrap_or(default.error_percent_threshold),
            request_volume_threshold: notes
                .number("circuitBreaker.requestVolumeThreshold", self.request_volume_threshold)
                .unwrap_or(default.request_volume_threshold),
            sleep_window_ms: notes
                .millis("circuitBreaker.sleepWindow", self.sleep_window)
                .unwrap_or(default.sleep_window_ms),
            rolling_window_ms: notes
                .millis("circuitBreaker.rollingWindow", self.rolling_window)
                .unwrap_or(default.rolling_window_ms),
            half_open_probes: notes
                .number("circuitBreaker.halfOpenProbes", self.half_open_probes)
                .unwrap_or(default.half_open_probes),
            consecutive_failures: notes.number(
                "circuitBreaker.consecutiveFailures",
                self.consecutive_failures.filter(|failures| *failures > 0),
            ),
            slow_call,
            count_rejections: self.count_rejections,
            mode: self.mode,
        }
    }
}
