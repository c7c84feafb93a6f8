//! What a fuse is held to: the part of a policy that commands and methods have in common.

use std::time::Duration;

use fusebox_policy::policy::{
    BreakerMode, BreakerPolicy, CommandPolicy, Limit, Millis, RateLimit, RateScope, ServerPolicy,
};

use crate::rate::Pace;

/// The terms of one command or method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) timeout: Option<Millis>,
    pub(crate) limit: Option<Limit>,
    pub(crate) rate: Option<RateLimit>,
    pub(crate) breaker: Option<BreakerPolicy>,
    /// Whether a fallback that the code offers may stand in.
    pub(crate) fallback: bool,
}

impl Terms {
    /// The rate, among so many instances.
    pub(super) fn pace(&self, instances: u32) -> Option<Pace> {
        let rate = self.rate.as_ref()?;
        let instances = match rate.scope {
            RateScope::Instance => 1,
            RateScope::Service => instances,
        };
        Some(Pace::new(rate.requests_per_second.get(), rate.burst.get(), instances))
    }

    /// The sleep window of a breaker that is enforced, in milliseconds; else zero.
    pub(super) fn sleep_ms(&self) -> u32 {
        let enforced = self.breaker.as_ref().filter(|breaker| breaker.mode == BreakerMode::Enforce);
        enforced.map_or(0, |breaker| u32::try_from(u64::from(breaker.sleep_window_ms)).unwrap_or(0))
    }

    /// Whether a call that took so long is a slow one.
    pub(super) fn is_slow(&self, nanos: u64) -> bool {
        let slow = self.breaker.as_ref().and_then(|breaker| breaker.slow_call.as_ref());
        slow.is_some_and(|slow| Duration::from_nanos(nanos) >= slow.threshold_ms.get())
    }
}

impl From<&CommandPolicy> for Terms {
    fn from(policy: &CommandPolicy) -> Self {
        Self {
            timeout: policy.timeout_ms,
            limit: policy.max_concurrent_requests,
            rate: policy.rate_limit,
            breaker: policy.circuit_breaker.clone(),
            fallback: policy.fallback_enabled,
        }
    }
}

impl From<&ServerPolicy> for Terms {
    fn from(policy: &ServerPolicy) -> Self {
        Self {
            timeout: policy.timeout_ms,
            limit: policy.max_concurrent_requests,
            rate: policy.rate_limit,
            breaker: None,
            fallback: false,
        }
    }
}
