//! How calls that the service makes fail.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rate::RateLimitSpec;
use crate::codes;
use crate::duration::GoDuration;
pub use crate::policy::BreakerMode;

/// Policies of the calls the service makes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboundSpec {
    /// After it a call is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Calls in flight at once, for each command by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: Option<u32>,
    /// Calls a second, for each command by itself; one more is refused at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// When calls are refused because too many failed. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreakerSpec>,
    /// How a failed call that is safe to repeat is tried again. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// Which errors count as failures, where it is not as by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorsSpec>,
    /// Whether fallbacks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSpec>,
    /// Policies of single commands, each starting from this section; objects merge field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()]))]
    pub commands: Vec<CommandSpec>,
}

/// The policy of one command.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandSpec {
    /// The name in code: `fusebox.command("find_user")`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_.-]+$"))]
    pub name: String,
    /// Instead of the section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Instead of the section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: Option<u32>,
    /// Merged with the section's, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// Merged with the section's, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreakerSpec>,
    /// Merged with the section's, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// Merged with the section's; each list replaces the section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorsSpec>,
    /// Merged with the section's, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSpec>,
}

/// When a breaker opens and how it closes. What is not set is Hystrix's default.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreakerSpec {
    /// Opens at this percentage of failures and timeouts, or above. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub error_percent_threshold: Option<u32>,
    /// Fewer calls than this in the window are not judged. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub request_volume_threshold: Option<u32>,
    /// How long it stays open before it lets probes through. Default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep_window: Option<GoDuration>,
    /// The window that is judged, in ten buckets. Default 10s, at least 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_window: Option<GoDuration>,
    /// How many probes half-open admits, and how many must succeed to close. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub half_open_probes: Option<u32>,
    /// Opens at this many failures and timeouts in a row as well, whatever the volume. 0, the default: not
    /// judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub consecutive_failures: Option<u32>,
    /// Opens at too many slow calls as well. Absent: not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_call: Option<SlowCallSpec>,
    /// Whether a call that maxConcurrentRequests refused counts as a failure. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_rejections: Option<bool>,
    /// What the breaker does with its verdict. Default Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<BreakerMode>,
}

/// When calls are too slow, judged over the rolling window above the request volume. Both fields are needed,
/// here or in the section.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowCallSpec {
    /// A call is slow that took this long or longer, whatever its outcome. Shorter than the timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<GoDuration>,
    /// Opens at this percentage of slow calls, or above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u32>,
}

/// How a failed call is tried again, within the call's timeout.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    /// Tries of one call, the first included. 1: no retries. Needed here or in the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub max_attempts: Option<u32>,
    /// After it one try is given up; at most timeout. Absent: a try has what is left of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<GoDuration>,
    /// Retries for each hundred calls of the last ten seconds; one more is not made. Default 20, as in Finagle
    /// and Linkerd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub budget_percent: Option<u32>,
}

/// Which errors count as failures, where it is not as by default. No code is in both lists.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorsSpec {
    /// Count neither way, like the client's errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ignore: Option<Vec<CodeSpec>>,
    /// Count as failures, although client errors by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub count: Option<Vec<CodeSpec>>,
}

/// A gRPC code like `NOT_FOUND`, or an HTTP status from 400 to 599 like `"404"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("maxLength" = 19, "pattern" = codes::PATTERN))]
#[serde(transparent)]
pub struct CodeSpec(pub String);

/// Whether the fallback that the code offers is used.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackSpec {
    /// False: the error reaches the caller. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Fallbacks in flight at once, for each command by itself; one more is not run and the error reaches the
    /// caller. Default 10, as in Hystrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: Option<u32>,
}
