//! Slow calls, failures in a row and rejections that count.

use std::time::Duration;

use fusebox::CommandError;
use fusebox_policy::policy::{BreakerMode, BreakerPolicy, CommandPolicy, SlowCall};
use tokio::time::advance;

use crate::common::calls::{
    CLIENT, DOWN, assert_outcomes, end, fail, fixed, is_open, ms, pending, slow, succeed, transitions, with,
};
use crate::common::{metric, outcomes, policy, state};

/// Half of four calls at 50 ms or longer open it; errors would have to be all.
fn slow_calls(change: impl FnOnce(&mut BreakerPolicy)) -> CommandPolicy {
    with(|b| {
        b.error_percent_threshold = 100.try_into().unwrap();
        b.slow_call =
            Some(SlowCall { threshold_ms: 50.try_into().unwrap(), percent: 50.try_into().unwrap() });
        change(b);
    })
}

/// So many in a row open it; percentages never.
fn in_a_row(failures: u64) -> CommandPolicy {
    with(|b| {
        b.request_volume_threshold = 1_000_000.try_into().unwrap();
        b.consecutive_failures = Some(failures.try_into().unwrap());
    })
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_at_exactly_their_percentage_and_not_below_the_volume() {
    let (fusebox, c) = fixed(slow_calls(|_| ()));
    for _ in 0..2 {
        slow(&c, 60, Ok(1)).await.unwrap();
    }
    succeed(&c, 1).await;
    assert_eq!(state(&fusebox), 0, "three are below the volume");
    succeed(&c, 1).await;
    assert_eq!(state(&fusebox), 2, "2 of 4, completed by a fast one");

    let (fusebox, c) = fixed(slow_calls(|b| b.request_volume_threshold = 5.try_into().unwrap()));
    for _ in 0..2 {
        slow(&c, 60, Ok(1)).await.unwrap();
    }
    succeed(&c, 3).await;
    assert_eq!(state(&fusebox), 0, "2 of 5 are 40 %");
    slow(&c, 60, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 2, "3 of 6 are 50 %");
}

#[tokio::test(start_paused = true)]
async fn a_call_exactly_at_the_threshold_is_slow_and_a_millisecond_less_is_not() {
    for (millis, opens) in [(49, 0), (50, 2)] {
        let (fusebox, c) = fixed(slow_calls(|_| ()));
        for _ in 0..4 {
            slow(&c, millis, Ok(1)).await.unwrap();
        }
        assert_eq!(state(&fusebox), opens, "{millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_failure_and_a_timeout_are_slow_too_and_a_slow_client_error_is_not() {
    let percent = |b: &mut BreakerPolicy| {
        b.slow_call.as_mut().unwrap().percent = 40.try_into().unwrap();
        b.request_volume_threshold = 5.try_into().unwrap();
    };
    let (fusebox, c) = fixed(slow_calls(percent));
    succeed(&c, 3).await;
    for _ in 0..5 {
        slow(&c, 60, Err(CLIENT)).await.unwrap_err();
    }
    assert_eq!(slow(&c, 60, Err(DOWN)).await, Err(CommandError::Failed(DOWN)));
    assert_eq!(slow(&c, 1000, Ok(1)).await, Err(CommandError::Timeout(ms(100))));
    assert_eq!(state(&fusebox), 2, "2 slow of 5; 2 errors of 5 would not do");
}

#[tokio::test(start_paused = true)]
async fn a_slow_probe_opens_again_and_a_fast_one_closes() {
    let (fusebox, c) = fixed(slow_calls(|_| ()));
    fail(&c, 4).await;
    for round in 1..=3 {
        advance(Duration::from_secs(1)).await;
        assert_eq!(slow(&c, 50, Ok(1)).await, Ok(1), "the caller has its answer");
        assert_eq!((state(&fusebox), transitions(&fusebox, "open")), (2, 1 + round));
        assert_eq!(end(&c, Ok(1)).await, Err(CommandError::Open { retry_after: Duration::from_secs(1) }));
    }
    advance(Duration::from_secs(1)).await;
    slow(&c, 49, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0);
    slow(&c, 60, Ok(1)).await.unwrap();
    succeed(&c, 1).await;
    assert_eq!(state(&fusebox), 0, "slow calls from before it opened are forgotten");
}

#[tokio::test(start_paused = true)]
async fn slow_calls_leave_the_window_with_time_and_a_rule_that_is_removed_counts_no_more() {
    let (fusebox, c) = fixed(slow_calls(|_| ()));
    for _ in 0..3 {
        slow(&c, 60, Ok(1)).await.unwrap();
    }
    advance(Duration::from_secs(10)).await;
    succeed(&c, 3).await;
    slow(&c, 60, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0, "1 of 4");
    fusebox.apply(&policy(with(|b| b.error_percent_threshold = 100.try_into().unwrap())));
    for _ in 0..20 {
        slow(&c, 60, Ok(1)).await.unwrap();
    }
    assert_eq!(state(&fusebox), 0);
    fusebox.apply(&policy(slow_calls(|_| ())));
    succeed(&c, 1).await;
    assert_eq!(state(&fusebox), 0, "what was not slow when it ended is not slow later");
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_whatever_the_volume() {
    let (fusebox, c) = fixed(in_a_row(3));
    fail(&c, 2).await;
    assert_eq!(state(&fusebox), 0);
    fail(&c, 1).await;
    assert_eq!(state(&fusebox), 2);
    assert!(is_open(&end(&c, Ok(1)).await));
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_a_row_and_client_errors_cancellations_and_refusals_do_not() {
    let limit = |limit: u64| CommandPolicy {
        max_concurrent_requests: Some(limit.try_into().unwrap()),
        ..in_a_row(3)
    };
    let (fusebox, c) = fixed(limit(1));
    for _ in 0..5 {
        fail(&c, 2).await;
        succeed(&c, 1).await;
    }
    for _ in 0..5 {
        fail(&c, 2).await;
        slow(&c, 5, Ok(1)).await.unwrap();
    }
    assert_eq!(state(&fusebox), 0, "a success that waited ends it as one that was ready at once");
    fail(&c, 1).await;
    end(&c, Err(CLIENT)).await.unwrap_err();
    slow(&c, 5, Err(CLIENT)).await.unwrap_err();
    fail(&c, 1).await;
    let (_tell, call) = pending(&c).await;
    assert_eq!(end(&c, Ok(1)).await, Err(CommandError::Rejected));
    call.abort();
    call.await.unwrap_err();
    assert_eq!(state(&fusebox), 0);
    fail(&c, 1).await;
    assert_eq!(state(&fusebox), 2, "three in a row all the same");
}

#[tokio::test(start_paused = true)]
async fn timeouts_count_in_a_row_and_time_does_not_end_it() {
    let (fusebox, c) = fixed(in_a_row(3));
    for _ in 0..3 {
        assert_eq!(state(&fusebox), 0);
        assert_eq!(slow(&c, 1000, Ok(1)).await, Err(CommandError::Timeout(ms(100))));
        advance(Duration::from_mins(1)).await;
    }
    assert_eq!(metric(&fusebox, "breaker_transitions_total{command=\"c\",to=\"open\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_row_starts_anew_when_the_breaker_has_closed() {
    let (fusebox, c) = fixed(in_a_row(2));
    fail(&c, 2).await;
    advance(Duration::from_secs(1)).await;
    succeed(&c, 1).await;
    fail(&c, 1).await;
    assert_eq!(state(&fusebox), 0);
    fail(&c, 1).await;
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn a_row_goes_on_over_a_reload_and_under_forced_closed_but_not_under_disabled() {
    let mode = |failures, mode| {
        let mut command = in_a_row(failures);
        command.circuit_breaker.as_mut().unwrap().mode = mode;
        policy(command)
    };
    let (fusebox, c) = fixed(in_a_row(10));
    fail(&c, 2).await;
    fusebox.apply(&mode(3, BreakerMode::Disabled));
    fail(&c, 20).await;
    fusebox.apply(&mode(4, BreakerMode::ForcedClosed));
    fail(&c, 1).await;
    fusebox.apply(&mode(4, BreakerMode::Enforce));
    assert_eq!(state(&fusebox), 0);
    fail(&c, 1).await;
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn rejections_count_where_the_policy_says_so_and_are_told_apart_all_the_same() {
    let counts = CommandPolicy {
        max_concurrent_requests: Some(1.try_into().unwrap()),
        timeout_ms: None,
        ..with(|b| b.count_rejections = true)
    };
    let (fusebox, c) = fixed(counts);
    succeed(&c, 2).await;
    let (tell, call) = pending(&c).await;
    for _ in 0..2 {
        assert_eq!(end(&c, Ok(1)).await, Err(CommandError::Rejected));
    }
    assert_eq!(state(&fusebox), 2, "2 of 4");
    assert!(is_open(&end(&c, Ok(1)).await));
    assert_outcomes(&fusebox, &[("success", 2), ("rejected", 2), ("open", 1)]);
    advance(Duration::from_secs(1)).await;
    assert_eq!(end(&c, Ok(1)).await, Err(CommandError::Rejected));
    assert_eq!(state(&fusebox), 2, "a probe that was rejected has failed");
    tell.send(Ok(1)).unwrap();
    call.await.unwrap().unwrap();
    advance(Duration::from_secs(1)).await;
    succeed(&c, 1).await;
    assert_eq!((state(&fusebox), outcomes(&fusebox, "rejected")), (0, 3));
}
