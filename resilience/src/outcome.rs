//! How a call ended, and how often.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::breaker::Verdict;
use crate::shard::Write;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It gave its answer.
    Success,
    /// It failed, and not by the caller's fault.
    Failure,
    /// It did not end within its deadline.
    Timeout,
    /// The caller asked for something wrong.
    ClientError,
    /// The caller lost interest.
    Cancelled,
    /// The concurrency limit was full.
    Rejected,
    /// The rate was used up.
    RateLimited,
    /// The breaker was open.
    Open,
}

impl Outcome {
    /// Every outcome, in the order of [`Tally`].
    pub(crate) const ALL: [Self; 8] = [
        Self::Success,
        Self::Failure,
        Self::Timeout,
        Self::ClientError,
        Self::Cancelled,
        Self::Rejected,
        Self::RateLimited,
        Self::Open,
    ];

    /// What it tells the breaker. A timeout of a call in a hurry tells nothing.
    #[inline]
    pub(crate) const fn verdict(self, hurried: bool) -> Verdict {
        match self {
            Self::Success => Verdict::Good,
            Self::Timeout if hurried => Verdict::Neither,
            Self::Failure | Self::Timeout => Verdict::Bad,
            Self::ClientError | Self::Cancelled | Self::Rejected | Self::RateLimited | Self::Open => {
                Verdict::Neither
            }
        }
    }

    /// Whether it was answered, late or not, so that the time it took says something.
    #[inline]
    pub(crate) const fn has_latency(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Timeout | Self::ClientError)
    }

    /// The value of the label `outcome`.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
            Self::ClientError => "client_error",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate_limited",
            Self::Open => "open",
        }
    }
}

/// How often each outcome happened since the process started.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; Outcome::ALL.len()]);

impl Tally {
    /// Counts one.
    #[inline]
    pub(crate) fn count(&self, outcome: Outcome, write: Write) {
        write.add(&self.0[outcome as usize], 1);
    }

    /// How often `outcome` happened.
    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_at_its_own_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place, "{outcome:?}");
        }
    }
}
