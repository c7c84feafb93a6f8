//! One event of the stream: a function of a command and its windows.
//!
//! The names and types of the fields are those of Hystrix (`SerialHystrixDashboardData.java`) and
//! hystrix-go (`eventstream.go`). The scripts of the dashboard, `hystrixCommand.js` and
//! `hystrixThreadPool.js`, refuse an event that lacks one they know, and Turbine adds the numbers of all
//! instances up: so each is a number even where nothing limits it.

use std::time::Duration;

use fusebox_policy::policy::{BreakerMode, CommandPolicy, hystrix};
use fusebox_policy::wire::BreakerState;
use serde_json::{Map, Value};

use super::history::{COUNTS, Window};
use super::sample::{Counts, Sample};
use crate::latency::Durations;
use crate::outcome::Outcome;

/// No limit, as Hystrix's users write it: Java's `Integer.MAX_VALUE`.
const NO_LIMIT: u64 = i32::MAX as u64;

/// The percentiles of a latency, by the names of their fields.
const PERCENTILES: [(&str, f64); 9] = [
    ("0", 0.0),
    ("25", 25.0),
    ("50", 50.0),
    ("75", 75.0),
    ("90", 90.0),
    ("95", 95.0),
    ("99", 99.0),
    ("99.5", 99.5),
    ("100", 100.0),
];

/// The event of a command, at a time in milliseconds since the epoch.
pub(super) fn command(sample: &Sample, window: &Window, at: i64) -> Value {
    let (counts, policy) = (&window.counts, &*sample.policy);
    let (latency, mean) = (latency(&window.durations), mean(&window.durations));
    let identity = fields([
        ("type", "HystrixCommand".into()),
        ("name", sample.command.into()),
        // There are no groups: as in hystrix-go, each command is its own.
        ("group", sample.command.into()),
        ("threadPool", pool_name(sample.command).into()),
        ("currentTime", at.into()),
        ("reportingHosts", 1.into()),
        // As callers feel it. Half-open is open too (`HystrixCircuitBreaker.java`, isOpen).
        ("isCircuitBreakerOpen", (sample.breaker != BreakerState::Closed).into()),
        ("currentConcurrentExecutionCount", sample.in_flight.into()),
        ("rollingMaxConcurrentExecutionCount", window.max_in_flight.into()),
        ("latencyExecute", latency.clone()),
        ("latencyExecute_mean", mean.into()),
        // Nothing waits in a queue: the total is the execution.
        ("latencyTotal", latency),
        ("latencyTotal_mean", mean.into()),
    ]);
    Value::Object(identity.chain(health(counts)).chain(rolling(counts)).chain(properties(policy)).collect())
}

/// The event of the thread pool that Hystrix would have had for a command: its concurrency limit. At a time
/// in milliseconds since the epoch.
pub(super) fn thread_pool(sample: &Sample, window: &Window, at: i64) -> Value {
    let limit = limit(&sample.policy);
    let executed = |counts: &Counts| Outcome::ALL.map(|of| if ran(of) { counts.of(of) } else { 0 });
    let executed = |counts: &Counts| executed(counts).iter().sum::<u64>();
    let completed = executed(&sample.counts);
    // Without a limit there are as many threads as there are calls.
    let size = if limit == NO_LIMIT { sample.in_flight.into() } else { limit };
    let event = fields([
        ("type", "HystrixThreadPool".into()),
        ("name", pool_name(sample.command).into()),
        ("currentTime", at.into()),
        ("reportingHosts", 1.into()),
        ("currentActiveCount", sample.in_flight.into()),
        ("currentCompletedTaskCount", completed.into()),
        ("currentTaskCount", (completed + u64::from(sample.in_flight)).into()),
        ("currentCorePoolSize", size.into()),
        ("currentLargestPoolSize", size.into()),
        ("currentMaximumPoolSize", limit.into()),
        ("currentPoolSize", size.into()),
        ("rollingMaxActiveThreads", window.max_in_flight.into()),
        ("rollingCountThreadsExecuted", executed(&window.counts).into()),
        ("rollingCountCommandRejections", rejected(&window.counts).into()),
        // There is no queue: what is over the limit is refused at once.
        ("currentQueueSize", 0.into()),
        ("propertyValue_queueSizeRejectionThreshold", 0.into()),
        ("propertyValue_metricsRollingStatisticalWindowInMilliseconds", millis(COUNTS).into()),
    ]);
    Value::Object(event.collect())
}

/// The error percentage by Hystrix's meaning, which is not the breaker's: refusals by a limit are errors,
/// short-circuited calls are not looked at (`HystrixCommandMetrics.java`, `HealthCounts`).
fn health(counts: &Counts) -> impl Iterator<Item = (String, Value)> {
    let errors = counts.of(Outcome::Failure) + counts.of(Outcome::Timeout) + rejected(counts);
    let requests = errors + counts.of(Outcome::Success);
    let percentage = (errors * 100).checked_div(requests).unwrap_or(0);
    fields([
        ("errorPercentage", percentage.into()),
        ("errorCount", errors.into()),
        ("requestCount", requests.into()),
    ])
}

fn rolling(counts: &Counts) -> impl Iterator<Item = (String, Value)> {
    let rejected = rejected(counts);
    let (failures, timeouts) = (counts.of(Outcome::Failure), counts.of(Outcome::Timeout));
    let open = counts.of(Outcome::Open);
    let answered = counts.fallbacks.saturating_sub(counts.fallbacks_failed);
    // At most: an attempt that is tried again reaches nobody.
    let thrown = (failures + timeouts + rejected + open).saturating_sub(answered);
    fields([
        ("rollingCountSuccess", counts.of(Outcome::Success).into()),
        ("rollingCountFailure", failures.into()),
        ("rollingCountTimeout", timeouts.into()),
        ("rollingCountShortCircuited", open.into()),
        ("rollingCountBadRequests", counts.of(Outcome::ClientError).into()),
        // The dashboard shows the one or the other by the isolation strategy, hystrix-go fills the second.
        ("rollingCountSemaphoreRejected", rejected.into()),
        ("rollingCountThreadPoolRejected", rejected.into()),
        ("rollingCountExceptionsThrown", thrown.into()),
        ("rollingCountFallbackSuccess", answered.into()),
        ("rollingCountFallbackFailure", counts.fallbacks_failed.into()),
        ("rollingCountFallbackRejection", counts.fallbacks_rejected.into()),
        // What there is no counterpart of: collapsers, a request cache, commands that emit many values,
        // and calls that should have had a fallback.
        ("rollingCountCollapsedRequests", 0.into()),
        ("rollingCountResponsesFromCache", 0.into()),
        ("rollingCountEmit", 0.into()),
        ("rollingCountFallbackEmit", 0.into()),
        ("rollingCountFallbackMissing", 0.into()),
    ])
}

/// The policy in force, by the names of Hystrix's properties.
fn properties(policy: &CommandPolicy) -> impl Iterator<Item = (String, Value)> + use<> {
    let breaker = policy.circuit_breaker.clone().unwrap_or_default();
    let enabled = policy.circuit_breaker.is_some() && breaker.mode != BreakerMode::Disabled;
    let timeout = policy.timeout_ms.map_or(NO_LIMIT, Into::into);
    let fallbacks =
        policy.fallback_max_concurrent_requests.map_or(hystrix::FALLBACK_MAX_CONCURRENT_REQUESTS, Into::into);
    let properties = [
        ("circuitBreakerRequestVolumeThreshold", u64::from(breaker.request_volume_threshold).into()),
        ("circuitBreakerSleepWindowInMilliseconds", u64::from(breaker.sleep_window_ms).into()),
        ("circuitBreakerErrorThresholdPercentage", u64::from(breaker.error_percent_threshold).into()),
        ("circuitBreakerForceOpen", (breaker.mode == BreakerMode::ForcedOpen).into()),
        ("circuitBreakerForceClosed", (breaker.mode == BreakerMode::ForcedClosed).into()),
        ("circuitBreakerEnabled", enabled.into()),
        // A count of permits, no threads.
        ("executionIsolationStrategy", "SEMAPHORE".into()),
        ("executionIsolationSemaphoreMaxConcurrentRequests", limit(policy).into()),
        ("executionIsolationThreadTimeoutInMilliseconds", timeout.into()),
        ("executionTimeoutInMilliseconds", timeout.into()),
        // The future is dropped.
        ("executionIsolationThreadInterruptOnTimeout", true.into()),
        ("executionIsolationThreadPoolKeyOverride", Value::Null),
        ("fallbackIsolationSemaphoreMaxConcurrentRequests", fallbacks.into()),
        // Of the counts in this event; the breaker may look at another window.
        ("metricsRollingStatisticalWindowInMilliseconds", millis(COUNTS).into()),
        // What there is no counterpart of: Hystrix's defaults (`HystrixCommandProperties.java`).
        ("requestCacheEnabled", true.into()),
        ("requestLogEnabled", true.into()),
    ];
    properties.into_iter().map(|(name, value)| (format!("propertyValue_{name}"), value))
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> impl Iterator<Item = (String, Value)> + use<N> {
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter()
}

/// Refused by the concurrency limit or the rate, for which Hystrix has no count of its own.
const fn rejected(counts: &Counts) -> u64 {
    counts.of(Outcome::Rejected) + counts.of(Outcome::RateLimited)
}

/// Whether the call was made.
const fn ran(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Rejected | Outcome::RateLimited | Outcome::Open)
}

fn limit(policy: &CommandPolicy) -> u64 {
    policy.max_concurrent_requests.map_or(NO_LIMIT, Into::into)
}

/// The dashboard makes a selector of it and escapes `.`, `:` and `-` only (`hystrixThreadPool.js`).
fn pool_name(command: &str) -> String {
    command.replace(|c: char| !c.is_ascii_alphanumeric() && !".:-_".contains(c), "_")
}

fn latency(durations: &Durations) -> Value {
    let percentiles = PERCENTILES
        .map(|(name, percent)| (name.to_owned(), Value::from(millis(durations.percentile(percent)))));
    Value::Object(percentiles.into_iter().collect::<Map<_, _>>())
}

fn mean(durations: &Durations) -> u64 {
    let nanos = durations.sum.as_nanos().checked_div(durations.count().into()).unwrap_or(0);
    millis(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// To the nearest.
fn millis(duration: Duration) -> u64 {
    u64::try_from((duration.as_micros() + 500) / 1000).unwrap_or(u64::MAX)
}
