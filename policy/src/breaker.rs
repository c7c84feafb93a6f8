//! What a circuit breaker is held to.

use serde::{Deserialize, Serialize};

use crate::limits::{Millis, Percent, Probes, Volume};

/// When a breaker opens and how it closes again.
///
/// The error percentage is `(failures + timeouts) / (successes + failures + timeouts)` over the
/// rolling window, compared inclusively by integer arithmetic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerPolicy {
    /// Opens at this percentage of errors or above.
    pub error_percent_threshold: Percent,
    /// Fewer counted calls than this in the window are not judged.
    pub request_volume_threshold: Volume,
    /// How long it stays open before it lets probes through.
    pub sleep_window_ms: Millis,
    /// The length of the window, at least one second; ten buckets.
    #[cfg_attr(feature = "crd", schemars(extend("minimum" = 1000)))]
    pub rolling_window_ms: Millis,
    /// How many probes half-open admits, and how many must succeed to close.
    pub half_open_probes: Probes,
    /// Opens at this many failures and timeouts in a row as well, whatever the volume. None: not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<Volume>,
    /// Opens at too many slow calls as well. None: not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_call: Option<SlowCall>,
    /// Whether a call that the concurrency limit refused counts as a failure.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "crd", schemars(extend("default" = false)))]
    pub count_rejections: bool,
    /// What the breaker does with its verdict.
    #[serde(default, skip_serializing_if = "BreakerMode::is_enforce")]
    #[cfg_attr(feature = "crd", schemars(extend("default" = BreakerMode::Enforce)))]
    pub mode: BreakerMode,
}

/// When calls are too slow: judged over the same window and above the same volume as the errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowCall {
    /// A call is slow that took this long or longer, whatever its outcome. Shorter than the timeout.
    pub threshold_ms: Millis,
    /// Opens at this percentage of slow calls or above.
    pub percent: Percent,
}

/// What a breaker does with its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum BreakerMode {
    /// Opens and closes by what it sees.
    #[default]
    Enforce,
    /// Refuses every call, whatever it sees.
    ForcedOpen,
    /// Admits every call; still counts.
    ForcedClosed,
    /// Admits every call and counts nothing.
    Disabled,
}

impl BreakerMode {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    const fn is_enforce(&self) -> bool {
        matches!(self, Self::Enforce)
    }
}

/// Hystrix's defaults (hystrix-go, settings.go): what an instance runs before it has any policy.
pub mod hystrix {
    /// Milliseconds until a call is given up.
    pub const TIMEOUT_MS: u64 = 1000;
    /// Calls in flight at once.
    pub const MAX_CONCURRENT_REQUESTS: u64 = 10;
    /// Percentage of errors that opens the breaker.
    pub const ERROR_PERCENT_THRESHOLD: u64 = 50;
    /// Calls in the window before it is judged.
    pub const REQUEST_VOLUME_THRESHOLD: u64 = 20;
    /// Milliseconds an open breaker waits before a probe.
    pub const SLEEP_WINDOW_MS: u64 = 5000;
    /// Milliseconds of the rolling window.
    pub const ROLLING_WINDOW_MS: u64 = 10_000;
    /// Fallbacks of one command in flight at once. Hystrix for Java's (`HystrixCommandProperties`,
    /// `fallback.isolation.semaphore.maxConcurrentRequests`): hystrix-go has no such limit.
    pub const FALLBACK_MAX_CONCURRENT_REQUESTS: u64 = 10;
}

impl Default for BreakerPolicy {
    /// [`hystrix`]'s defaults with one probe.
    fn default() -> Self {
        Self {
            error_percent_threshold: Percent(50),
            request_volume_threshold: Volume(20),
            sleep_window_ms: Millis(hystrix::SLEEP_WINDOW_MS),
            rolling_window_ms: Millis(hystrix::ROLLING_WINDOW_MS),
            half_open_probes: Probes(1),
            consecutive_failures: None,
            slow_call: None,
            count_rejections: false,
            mode: BreakerMode::Enforce,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_false(value: &bool) -> bool {
    !*value
}
