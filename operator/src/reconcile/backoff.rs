//! How long to wait before a resource is tried again, counted for each by itself.

use std::time::Duration;

/// The first wait.
pub const FIRST: Duration = Duration::from_millis(250);
/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(30);

/// The wait after `failures` failures in a row, before jitter.
pub fn base(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(LONGEST)
}

/// Half of `base` to all of it, by `random` in 0..1, so that what failed together is not tried together.
pub fn jittered(base: Duration, random: f64) -> Duration {
    base.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_from_a_quarter_second_to_half_a_minute() {
        let waits: Vec<u128> = [1, 2, 3, 7, 8, 100].map(|n| base(n).as_millis()).into();
        assert_eq!(waits, [250, 500, 1000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        assert_eq!(jittered(LONGEST, 0.0), LONGEST / 2);
        assert_eq!(jittered(LONGEST, 1.0), LONGEST);
    }
}
