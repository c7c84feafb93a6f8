//! How many requests or calls pass over time.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

pub use crate::policy::RateScope;

/// How many requests a second pass, by a token bucket.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// Over time. Needed here or in the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_second: Option<u32>,
    /// At once, after a pause: the size of the bucket. Default a tenth of requestsPerSecond, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// Whose requests are counted together. Default Instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<RateScope>,
}
