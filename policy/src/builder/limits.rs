//! Rates and retries.

use std::time::Duration;

use super::notes::Notes;
use crate::policy::{RETRY_BUDGET_PERCENT, RateLimit, RateScope, RetryPolicy};

/// A rate limit; `requests_per_second` is needed.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct RateLimitBuilder {
    requests_per_second: Option<u64>,
    burst: Option<u64>,
    scope: Option<RateScope>,
}

impl RateLimitBuilder {
    /// Over time: 1 to 1,000,000,000.
    pub const fn requests_per_second(mut self, rate: u64) -> Self {
        self.requests_per_second = Some(rate);
        self
    }

    /// At once, after a pause: 1 to 1,000,000. Default a tenth of a second's requests, at least 1.
    pub const fn burst(mut self, burst: u64) -> Self {
        self.burst = Some(burst);
        self
    }

    /// Whose requests are counted together. Default those of this instance.
    pub const fn scope(mut self, scope: RateScope) -> Self {
        self.scope = Some(scope);
        self
    }

    pub(super) fn finish(self, notes: &mut Notes) -> Option<RateLimit> {
        let Some(rate) = self.requests_per_second else {
            notes.0.push("rateLimit: requestsPerSecond is needed".to_owned());
            return None;
        };
        let burst = self.burst.unwrap_or((rate / 10).max(1));
        let rate = notes.number("rateLimit.requestsPerSecond", Some(rate));
        let burst = notes.number("rateLimit.burst", Some(burst));
        let (requests_per_second, burst) = rate.zip(burst)?;
        Some(RateLimit { requests_per_second, burst, scope: self.scope.unwrap_or_default() })
    }
}

/// Retries; `max_attempts` is needed. They are made by `Command::call_idempotent` only.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct RetryBuilder {
    max_attempts: Option<u64>,
    per_try_timeout: Option<Duration>,
    budget_percent: Option<u64>,
}

impl RetryBuilder {
    /// Tries of one call, the first included: 1 to 10, where 1 is no retry.
    pub const fn max_attempts(mut self, attempts: u64) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// After it one try is given up; at most the command's timeout. Default: what is left of that.
    pub const fn per_try_timeout(mut self, timeout: Duration) -> Self {
        self.per_try_timeout = Some(timeout);
        self
    }

    /// Retries for each hundred calls of the last ten seconds: 1 to 100. Default 20, as in Finagle and
    /// Linkerd.
    pub const fn budget_percent(mut self, percent: u64) -> Self {
        self.budget_percent = Some(percent);
        self
    }

    pub(super) fn finish(self, notes: &mut Notes) -> Option<RetryPolicy> {
        let per_try_timeout_ms = notes.millis("retry.perTryTimeout", self.per_try_timeout);
        let budget = self.budget_percent.unwrap_or(RETRY_BUDGET_PERCENT.into());
        let budget_percent = notes.number("retry.budgetPercent", Some(budget));
        match self.max_attempts {
            None => {
                notes.0.push("retry: maxAttempts is needed".to_owned());
                None
            }
            Some(1) => None,
            attempts => {
                let max_attempts = notes.number("retry.maxAttempts", attempts);
                let (max_attempts, budget_percent) = max_attempts.zip(budget_percent)?;
                Some(RetryPolicy { max_attempts, per_try_timeout_ms, budget_percent })
            }
        }
    }
}
