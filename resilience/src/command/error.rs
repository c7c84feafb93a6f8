//! Why a command gave no answer.

use std::time::Duration;

use http::StatusCode;

/// Why a command gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError<E> {
    /// The breaker is open; the call was not made.
    #[error("the circuit breaker is open, try again in {} ms", .retry_after.as_millis())]
    Open {
        /// When the breaker may let a probe pass. While probes are under way: a whole sleep window.
        retry_after: Duration,
    },
    /// As many calls as the policy allows are in flight; this one was not made.
    #[error("too many calls in flight")]
    Rejected,
    /// The policy's rate is used up; this one was not made.
    #[error("too many calls a second, try again in {} ms", .retry_after.as_millis())]
    RateLimited {
        /// When the rate admits the next call.
        retry_after: Duration,
    },
    /// The call gave no answer within its deadline: it was dropped, or an error of its own came no
    /// earlier. Zero: the deadline of the request it belongs to had already passed, and the call was
    /// not made.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The call failed.
    #[error(transparent)]
    Failed(E),
}

impl<E> CommandError<E> {
    /// The reason in one word, as `fusebox-reason` says it: `open`, `limit`, `rate` or `timeout`. None for a
    /// call that failed by itself.
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Open { .. } => Some("open"),
            Self::Rejected => Some("limit"),
            Self::RateLimited { .. } => Some("rate"),
            Self::Timeout(_) => Some("timeout"),
            Self::Failed(_) => None,
        }
    }

    /// How an HTTP server says it: 503, 429 or 504; 502 for a call that failed by itself.
    pub const fn http_status(&self) -> StatusCode {
        match self {
            Self::Open { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Rejected | Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// When to try again, of an open breaker or a rate.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Open { retry_after } | Self::RateLimited { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// The same as the header `Retry-After` says it: whole seconds, rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after().map(whole_seconds)
    }

    /// The error of a call that failed by itself.
    pub fn into_failed(self) -> Option<E> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// As the header `Retry-After` says it: rounded up, at least 1.
pub(crate) fn whole_seconds(retry_after: Duration) -> u64 {
    let begun = u64::from(retry_after.subsec_nanos() > 0);
    retry_after.as_secs().saturating_add(begun).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_whole_seconds_rounded_up_and_at_least_one() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            let open = CommandError::<()>::Open { retry_after: Duration::from_millis(millis) };
            assert_eq!(open.retry_after_seconds(), Some(seconds), "{millis} ms");
        }
        assert_eq!(CommandError::<()>::Rejected.retry_after_seconds(), None);
    }
}
