//! Why a breaker changed.

use std::fmt;

use fusebox_policy::policy::BreakerPolicy;

use super::window::Counts;

/// Why a breaker came into its state; displayed for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was never anything else.
    Started,
    /// Too large a part of the calls in the window failed.
    Errors { percent: u64, volume: u64 },
    /// So many calls failed one after the other.
    Consecutive(u32),
    /// Too large a part of the calls in the window took this long, in milliseconds, or longer.
    Slow { percent: u64, volume: u64, threshold: u64 },
    /// It was open long enough.
    Slept,
    /// A probe failed.
    ProbeFailed,
    /// A probe took too long.
    ProbeSlow,
    /// As many probes succeeded as the policy asks for.
    Probed(u8),
}

impl Reason {
    /// Why a closed breaker with these counts, and so many failures in a row, opens; None: it does not.
    pub(crate) fn to_open(policy: &BreakerPolicy, counts: Counts, in_a_row: u32) -> Option<Self> {
        let volume = counts.volume();
        let share = |part: u64| (part * 100).checked_div(volume).unwrap_or_default();
        if policy.consecutive_failures.is_some_and(|limit| in_a_row >= limit.get()) {
            return Some(Self::Consecutive(in_a_row));
        }
        if volume < u64::from(policy.request_volume_threshold.get()) {
            return None;
        }
        if counts.reach(counts.bad, policy.error_percent_threshold.get().into()) {
            return Some(Self::Errors { percent: share(counts.bad), volume });
        }
        let slow = policy.slow_call.as_ref()?;
        let threshold = slow.threshold_ms.into();
        counts.reach(counts.slow, slow.percent.get().into()).then(|| Self::Slow {
            percent: share(counts.slow),
            volume,
            threshold,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Errors { percent, volume } => write!(f, "{percent} % errors of {volume} calls"),
            Self::Consecutive(times) => write!(f, "{times} failures in a row"),
            Self::Slow { percent, volume, threshold } => {
                write!(f, "{percent} % of {volume} calls took {threshold} ms or longer")
            }
            Self::Slept => f.write_str("the sleep window is over"),
            Self::ProbeFailed => f.write_str("a probe failed"),
            Self::ProbeSlow => f.write_str("a probe took too long"),
            Self::Probed(times) => write!(f, "{times} of {times} probes succeeded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator shows no other to those who are called.
    #[test]
    fn why_a_breaker_is_not_closed_is_known_to_the_operator() {
        let (percent, volume) = (100, u64::MAX);
        for reason in [
            Reason::Errors { percent, volume },
            Reason::Consecutive(u32::MAX),
            Reason::Slow { percent, volume, threshold: u64::MAX },
            Reason::Slept,
            Reason::ProbeFailed,
            Reason::ProbeSlow,
        ] {
            assert!(fusebox_policy::reason::is_known(&reason.to_string()), "{reason}");
        }
    }
}
