//! No outcome is lost. A process of its own: only so does each thread count in a place of its own.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;

use common::calls::{DOWN, assert_outcomes, end, fixed, is_open, with};
use common::state;
use fusebox_policy::policy::CommandPolicy;
use futures::FutureExt;

/// hystrix-go's channel of metrics drops 159,935 of 200,000 outcomes.
#[test]
fn r4_no_outcome_is_lost_however_fast_threads_report() {
    for _ in 0..8 {
        round();
    }
}

const EACH: u64 = 200_000;

fn round() {
    let strict = with(|b| {
        b.request_volume_threshold = 1_000_000.try_into().unwrap();
        b.rolling_window_ms = 3_600_000.try_into().unwrap();
    });
    let (fusebox, c) = fixed(CommandPolicy { timeout_ms: None, ..strict });
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for n in 0..EACH {
                    let result = if n % 5 == 0 { Err(DOWN) } else { Ok(1) };
                    let _ = end(&c, result).now_or_never().unwrap();
                }
            });
        }
    });
    assert_outcomes(&fusebox, &[("success", 4 * EACH * 4 / 5), ("failure", 4 * EACH / 5)]);
    // And none in the breaker's window: 800,000 are one less than it is now asked for.
    let exactly = with(|b| {
        b.request_volume_threshold = (4 * EACH + 1).try_into().unwrap();
        b.rolling_window_ms = 3_600_000.try_into().unwrap();
        b.error_percent_threshold = 20.try_into().unwrap();
    });
    fusebox.apply(&crate::common::policy(exactly));
    let answer = end(&c, Err(DOWN)).now_or_never().unwrap();
    assert!(!is_open(&answer));
    assert_eq!(state(&fusebox), 2, "160,001 of 800,001, and not one less");
}
