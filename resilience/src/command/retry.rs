//! Whether to try again, and when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fusebox_policy::policy::RetryPolicy;

use crate::breaker::Window;
use crate::breaker::window::Entry;
use crate::clock::Tick;
use crate::slot::slots;

/// Over how long the budget is counted.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// Retries in a window that need no calls: else a caller that calls now and then could never retry.
/// Finagle's retry budget has ten a second; one a second is enough for that.
const FREE: u64 = 10;

/// The pause before the first retry, doubled for each further one up to ten times as much, and then any
/// part of it at random: Envoy's defaults (`retry_back_off`).
const BASE: Duration = Duration::from_millis(25);
const MAX_DOUBLINGS: u32 = 4;
const MAX: Duration = Duration::from_millis(250);

/// By how much a timer may be late.
const TIMER: Duration = Duration::from_millis(1);

/// The retries of a command, and the calls they are a part of.
#[derive(Debug)]
pub(crate) struct Retries {
    /// Calls are good, retries bad.
    window: Window,
    pub(crate) made: AtomicU64,
    /// Not made for want of budget.
    pub(crate) over_budget: AtomicU64,
}

impl Retries {
    pub(super) fn new() -> Self {
        let window = Window::new(BUDGET_WINDOW, slots());
        Self { window, made: AtomicU64::new(0), over_budget: AtomicU64::new(0) }
    }

    /// Counts an attempt: the first is a call.
    pub(crate) fn attempted(&self, attempt: u8, now: Tick) {
        if attempt == 1 {
            self.window.record(0, Entry { bad: false, slow: false }, now);
        }
    }

    /// How long to wait before the next attempt, after so many that failed and with so much time left; None:
    /// there is none. Threads that ask at once may each be given the last of the budget.
    pub(super) fn again(
        &self,
        policy: &RetryPolicy,
        attempts: u8,
        left: Duration,
        now: Tick,
    ) -> Option<Duration> {
        let pause = pause(attempts, fastrand::f64());
        if attempts >= policy.max_attempts.get() || pause + TIMER >= left {
            return None;
        }
        let counts = self.window.counts(0, now);
        if counts.bad * 100 >= u64::from(policy.budget_percent.get()) * counts.good + FREE * 100 {
            self.over_budget.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.window.record(0, Entry { bad: true, slow: false }, now);
        self.made.fetch_add(1, Ordering::Relaxed);
        Some(pause)
    }
}

/// The pause after so many attempts: a part, from 0 to 1, of what it is at most.
fn pause(attempts: u8, part: f64) -> Duration {
    let doubled = BASE * 2_u32.pow(u32::from(attempts.saturating_sub(1)).min(MAX_DOUBLINGS));
    doubled.min(MAX).mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(max_attempts: u64, budget_percent: u64) -> RetryPolicy {
        RetryPolicy {
            max_attempts: max_attempts.try_into().unwrap(),
            per_try_timeout_ms: None,
            budget_percent: budget_percent.try_into().unwrap(),
        }
    }

    #[test]
    fn no_more_attempts_than_declared() {
        let retries = Retries::new();
        let again = |attempts| retries.again(&policy(3, 100), attempts, SECOND, Tick(0)).is_some();
        assert_eq!([again(1), again(2), again(3), again(4)], [true, true, false, false]);
    }

    #[test]
    fn retries_are_a_part_of_the_calls_of_ten_seconds() {
        let retries = Retries::new();
        (0..1000).for_each(|_| retries.attempted(1, Tick(0)));
        let again = |now, left| retries.again(&policy(2, 20), 1, left, Tick(now)).is_some();
        let made = |now| (0..500).filter(|_| again(now, SECOND)).count();
        assert!(!(0..500).any(|_| again(0, Duration::from_millis(1))), "no time, and nothing spent");
        assert_eq!(made(0), 210, "20 % and the free ones");
        assert_eq!(retries.over_budget.load(Ordering::Relaxed), 290);
        assert_eq!(made(9_999), 0);
        assert_eq!(made(10_000), 10, "without calls there are the free ones");
    }

    #[test]
    fn pauses_double_up_to_ten_times_and_are_a_random_part() {
        let most = [1, 2, 3, 4, 5, 9].map(|attempts| pause(attempts, 1.0).as_millis());
        assert_eq!(most, [25, 50, 100, 200, 250, 250]);
        assert_eq!(pause(2, 0.5), Duration::from_millis(25));
        assert_eq!(pause(2, 0.0), Duration::ZERO);
    }
}
