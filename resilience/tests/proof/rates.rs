//! Rate limits of commands.

use fusebox::CommandError;
use fusebox_policy::policy::CommandPolicy;
use tokio::time::advance;
use tonic::{Code, Status};

use crate::common::calls::{assert_outcomes, end, fail, fixed, ms, pending, rate, rated, succeed, with};
use crate::common::{in_flight, metric, outcomes, policy, state};

#[tokio::test(start_paused = true)]
async fn a_burst_passes_then_calls_one_by_one_and_a_refusal_says_when() {
    let (fusebox, c) = fixed(rated(10, 3));
    succeed(&c, 3).await;
    let refused = end(&c, Ok(1)).await;
    assert_eq!(refused, Err(CommandError::RateLimited { retry_after: ms(100) }));
    advance(ms(60)).await;
    assert_eq!(end(&c, Ok(1)).await, Err(CommandError::RateLimited { retry_after: ms(40) }));
    advance(ms(40)).await;
    succeed(&c, 1).await;
    assert!(end(&c, Ok(1)).await.is_err(), "one for each interval");
    advance(ms(60_000)).await;
    succeed(&c, 3).await;
    assert!(end(&c, Ok(1)).await.is_err(), "no more than a burst is saved up");
    assert_outcomes(&fusebox, &[("success", 7), ("rate_limited", 4)]);
    assert_eq!(in_flight(&fusebox), 0);
}

#[tokio::test(start_paused = true)]
async fn asking_again_after_retry_after_is_always_of_use() {
    for (per_second, burst) in [(1, 1), (3, 1), (7, 2), (1000, 5), (999, 1)] {
        let (_fusebox, c) = fixed(rated(per_second, burst));
        for round in 0..20 {
            if let Err(error) = end(&c, Ok(1)).await {
                advance(error.retry_after().unwrap()).await;
                assert_eq!(end(&c, Ok(1)).await, Ok(1), "{per_second}/s, burst {burst}, round {round}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_said_as_the_protocols_say_it() {
    let (_fusebox, c) = fixed(rated(1, 1));
    let call = || async { Ok::<_, Status>(1) };
    c.call(call).await.unwrap();
    advance(ms(1)).await;
    let refused = c.call(call).await.unwrap_err();
    assert_eq!((refused.reason(), refused.http_status().as_u16()), (Some("rate"), 429));
    assert_eq!(refused.retry_after_seconds(), Some(1), "999 ms, in whole seconds");
    let status = Status::from(refused);
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("fusebox-reason").unwrap(), "rate");
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_rate_refuses_runs_the_fallback_and_not_the_work() {
    let (fusebox, c) = fixed(rated(1, 1));
    succeed(&c, 1).await;
    let call = c.call(|| async { panic!("it was called") });
    let answer = call.or_fallback(|error: &CommandError<crate::common::calls::Oops>| {
        u8::from(error.reason() == Some("rate"))
    });
    assert_eq!(answer.await, Ok(1));
    assert_eq!(outcomes(&fusebox, "rate_limited"), 1);
}

/// What refuses takes nothing from the others.
#[tokio::test(start_paused = true)]
async fn what_breaker_or_limit_refuse_costs_no_rate_and_what_the_rate_refuses_no_permit() {
    let limited = CommandPolicy { max_concurrent_requests: Some(1.try_into().unwrap()), ..rated(1, 2) };
    let (fusebox, c) = fixed(limited);
    let (tell, call) = pending(&c).await;
    for _ in 0..10 {
        assert_eq!(end(&c, Ok(1)).await, Err(CommandError::Rejected));
    }
    tell.send(Ok(1)).unwrap();
    call.await.unwrap().unwrap();
    succeed(&c, 1).await;
    assert!(matches!(end(&c, Ok(1)).await, Err(CommandError::RateLimited { .. })));
    assert_eq!(in_flight(&fusebox), 0);

    let (_fusebox, c) = fixed(CommandPolicy { rate_limit: Some(rate(1, 5)), ..with(|_| ()) });
    fail(&c, 4).await;
    for _ in 0..10 {
        assert!(matches!(end(&c, Ok(1)).await, Err(CommandError::Open { .. })));
    }
    advance(ms(1000)).await;
    succeed(&c, 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_rate_refuses_neither_for_nor_against_the_breaker() {
    let counts = with(|b| b.count_rejections = true);
    let (fusebox, c) = fixed(CommandPolicy { rate_limit: Some(rate(1, 2)), ..counts });
    succeed(&c, 2).await;
    for _ in 0..20 {
        assert!(matches!(end(&c, Ok(1)).await, Err(CommandError::RateLimited { .. })));
    }
    assert_eq!(state(&fusebox), 0, "countRejections is about maxConcurrentRequests");
}

#[tokio::test(start_paused = true)]
async fn r8_a_probe_refused_by_the_rate_frees_its_slot() {
    let (fusebox, c) = fixed(CommandPolicy { rate_limit: Some(rate(1, 4)), ..with(|_| ()) });
    fail(&c, 4).await;
    fusebox.apply(&policy(CommandPolicy { rate_limit: Some(rate(1, 1)), ..with(|_| ()) }));
    advance(ms(999)).await;
    fusebox.apply(&policy(CommandPolicy {
        rate_limit: Some(rate(1, 1)),
        ..with(|b| b.sleep_window_ms = 500.try_into().unwrap())
    }));
    for _ in 0..3 {
        assert!(matches!(end(&c, Ok(1)).await, Err(CommandError::RateLimited { .. })));
        assert_eq!(state(&fusebox), 1, "half-open, and the slot is free");
    }
    advance(ms(1)).await;
    succeed(&c, 1).await;
    assert_eq!(state(&fusebox), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_taken_and_a_rate_removed_is_gone() {
    let (fusebox, c) = fixed(rated(10, 10));
    succeed(&c, 10).await;
    fusebox.apply(&policy(rated(10, 20)));
    succeed(&c, 10).await;
    assert!(end(&c, Ok(1)).await.is_err(), "ten of twenty were taken before");
    fusebox.apply(&policy(rated(20, 20)));
    assert_eq!(end(&c, Ok(1)).await, Err(CommandError::RateLimited { retry_after: ms(50) }));
    assert_eq!(metric(&fusebox, "command_rate_limit{command=\"c\"}"), 20);
    fusebox.apply(&policy(CommandPolicy::default()));
    succeed(&c, 100).await;
}

/// However they are spread over threads.
#[test]
fn threads_that_race_get_no_more_than_the_burst() {
    let (fusebox, c) = fixed(rated(1, 1000));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                runtime().block_on(async {
                    for _ in 0..1000 {
                        let _ = end(&c, Ok(1)).await;
                    }
                });
            });
        }
    });
    let (passed, refused) = (outcomes(&fusebox, "success"), outcomes(&fusebox, "rate_limited"));
    assert_eq!(passed + refused, 4000);
    // A machine that stands still for a second in between adds one.
    assert!((1000..1100).contains(&passed), "{passed}");
}
