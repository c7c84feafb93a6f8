//! How long a query waits, and how long to pause between two: pure.

use std::time::Duration;

/// The least time between two answers, however busy Consul is.
const LEAST: Duration = Duration::from_millis(50);
/// A millisecond more for so many bytes: a list of a megabyte comes four times a second at most.
const BYTES_PER_MILLI: usize = 4096;
/// The longest pause after errors, and the shortest.
const LONGEST: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_millis(100);
/// Between two looks at a list that is doubted.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// How long Consul may hold an unchanged answer back, in whole seconds: 50 to 59, at random, so that
/// processes that were started together do not ask together for ever. Consul adds up to a sixteenth. Below a
/// minute, after which many networks forget a connection on which nothing moves.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a part of ten
pub(super) fn wait(part: f64) -> Duration {
    Duration::from_secs(50 + ((part * 10.0) as u64).min(9))
}

/// How long we wait for an answer that Consul may hold back for so long.
pub(super) fn patience(wait: Duration) -> Duration {
    wait + wait / 16 + Duration::from_secs(10)
}

/// Pauses between two questions.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
}

impl Pace {
    /// After an answer of so many bytes.
    pub(super) fn answered(&mut self, bytes: usize) -> Duration {
        self.failures = 0;
        LEAST + Duration::from_millis((bytes / BYTES_PER_MILLI) as u64)
    }

    /// After one more failure: doubled each time, and of that half at least, the rest at random.
    pub(super) fn failed(&mut self, part: f64) -> Duration {
        let most = SHORTEST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        most.mul_f64(0.5 + part / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_wait_longer_than_consul() {
        for part in [0.0, 0.5, 0.999, 1.0] {
            let wait = wait(part);
            assert!((50..60).contains(&wait.as_secs()), "{wait:?}");
            assert!(patience(wait) > wait + wait / 16);
        }
    }

    #[test]
    fn large_lists_come_less_often_and_failures_are_asked_again_ever_later() {
        let mut pace = Pace::default();
        assert_eq!(pace.answered(0), LEAST);
        assert_eq!(pace.answered(1 << 20), LEAST + Duration::from_millis(256));
        let pauses: Vec<_> = (0..12).map(|_| pace.failed(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000, 10_000]);
        assert_eq!(pace.failed(0.0), LONGEST / 2);
        pace.answered(0);
        assert_eq!(pace.failed(1.0), SHORTEST);
    }
}
