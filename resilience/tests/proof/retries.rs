//! Calls that may be made more than once.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use fusebox::{Class, Command, CommandError, Fusebox};
use fusebox_policy::policy::{CommandPolicy, RetryPolicy};
use futures::FutureExt;
use tokio::time::{Instant, advance, sleep};

use crate::common::calls::{
    Answer, CLIENT, DOWN, Oops, assert_outcomes, fail, fixed, limited, ms, rate, shadow, shadowed, succeed,
    with,
};
use crate::common::{in_flight, metric, outcomes, policy, state};

fn retried(attempts: u64, change: impl FnOnce(&mut CommandPolicy)) -> CommandPolicy {
    let mut command = CommandPolicy {
        timeout_ms: Some(10_000.try_into().unwrap()),
        retry: Some(RetryPolicy {
            max_attempts: attempts.try_into().unwrap(),
            per_try_timeout_ms: None,
            budget_percent: 100.try_into().unwrap(),
        }),
        ..CommandPolicy::default()
    };
    change(&mut command);
    command
}

fn per_try(millis: u64) -> impl FnOnce(&mut CommandPolicy) {
    move |command| command.retry.as_mut().unwrap().per_try_timeout_ms = Some(millis.try_into().unwrap())
}

/// Calls with what each attempt gives; the last again and again. How often it was made.
async fn attempts(c: &Command, results: &[Result<u8, Oops>]) -> (Answer, usize) {
    let made = Cell::new(0);
    let attempt = || {
        let result = *results.get(made.get()).or(results.last()).unwrap();
        made.set(made.get() + 1);
        async move { result }
    };
    (c.call_idempotent(attempt).await, made.get())
}

fn retries(fusebox: &Fusebox) -> (u64, u64) {
    let count = |name: &str| metric(fusebox, &format!("{name}_total{{command=\"c\"}}"));
    (count("command_retries"), count("command_retries_over_budget"))
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_until_it_succeeds_or_no_attempt_is_left() {
    let (fusebox, c) = fixed(retried(3, |_| ()));
    assert_eq!(attempts(&c, &[Err(DOWN), Ok(2)]).await, (Ok(2), 2));
    assert_eq!(attempts(&c, &[Err(DOWN)]).await, (Err(CommandError::Failed(DOWN)), 3));
    assert_eq!(attempts(&c, &[Ok(1)]).await, (Ok(1), 1));
    assert_outcomes(&fusebox, &[("success", 2), ("failure", 4)]);
    assert_eq!((retries(&fusebox), in_flight(&fusebox)), ((3, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_retry_policy_and_by_a_plain_call_it_is_made_once() {
    let (fusebox, c) = fixed(CommandPolicy::default());
    assert_eq!(attempts(&c, &[Err(DOWN)]).await, (Err(CommandError::Failed(DOWN)), 1));
    fusebox.apply(&policy(retried(3, |_| ())));
    fail(&c, 1).await;
    assert_eq!((outcomes(&fusebox, "failure"), retries(&fusebox).0), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn client_errors_and_refusals_are_not_asked_twice() {
    let (_fusebox, c) = fixed(retried(3, |_| ()));
    assert_eq!(attempts(&c, &[Err(CLIENT)]).await, (Err(CommandError::Failed(CLIENT)), 1));

    let (fusebox, c) = fixed(retried(3, |command| command.rate_limit = Some(rate(1, 1))));
    let (answer, made) = attempts(&c, &[Err(DOWN)]).await;
    assert_eq!(answer, Err(CommandError::Failed(DOWN)), "why it had to be retried");
    assert_eq!((made, outcomes(&fusebox, "rate_limited")), (1, 1), "the second attempt was refused");

    let (fusebox, c) = fixed(retried(10, |command| command.circuit_breaker = with(|_| ()).circuit_breaker));
    let (answer, made) = attempts(&c, &[Err(DOWN)]).await;
    assert_eq!(answer, Err(CommandError::Failed(DOWN)));
    assert_eq!((made, state(&fusebox)), (4, 2), "each attempt counts: four open the breaker");
    assert_outcomes(&fusebox, &[("failure", 4), ("open", 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up_after_its_own_time() {
    let (fusebox, c) = fixed(retried(3, per_try(50)));
    let (made, started) = (Cell::new(0), Instant::now());
    let answer = c
        .call_idempotent(|| {
            made.set(made.get() + 1);
            let first = made.get() == 1;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Oops>(7)
            }
        })
        .await;
    assert_eq!((answer, made.get()), (Ok(7), 2));
    let took = Instant::now() - started;
    assert!((ms(50)..=ms(76)).contains(&took), "50 ms and a pause of up to 25: {took:?}");
    assert_outcomes(&fusebox, &[("success", 1), ("timeout", 1)]);
}

#[tokio::test(start_paused = true)]
async fn all_attempts_and_pauses_together_have_the_commands_timeout() {
    for timeout in [60_u64, 100, 170, 400] {
        let policy = retried(10, |command| {
            command.timeout_ms = Some(timeout.try_into().unwrap());
            per_try(50)(command);
        });
        let (fusebox, c) = fixed(policy);
        let (started, made) = (Instant::now(), Cell::new(0));
        let hangs = || {
            made.set(made.get() + 1);
            std::future::pending::<Result<u8, Oops>>()
        };
        let answer = c.call_idempotent(hangs).await;
        let took = Instant::now() - started;
        assert!(matches!(answer, Err(CommandError::Timeout(_))), "{answer:?}");
        assert!(took <= ms(timeout), "{took:?} of {timeout} ms");
        // It ends early only if the next attempt could not begin in time any more.
        assert!(made.get() >= 1 && took >= ms(50), "{took:?} of {timeout} ms");
        assert_eq!(in_flight(&fusebox), 0);
        let counted = outcomes(&fusebox, "timeout");
        // The pause ends with a tick, perhaps the last: then no attempt is made.
        assert!(counted == made.get() || counted == made.get() + 1, "{counted} of {}", made.get());
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_enclosing_call_holds_for_all_attempts() {
    let (fusebox, c) = fixed(retried(10, per_try(50)));
    let request =
        fixed(CommandPolicy { timeout_ms: Some(120.try_into().unwrap()), ..CommandPolicy::default() });
    let left = RefCell::new(Vec::new());
    let started = Instant::now();
    let answer: Result<u8, _> = request
        .1
        .call(|| async {
            let hangs = || {
                left.borrow_mut().push(fusebox::deadline::remaining().unwrap());
                std::future::pending::<Result<u8, Oops>>()
            };
            c.call_idempotent(hangs).await.map_err(|_| DOWN)
        })
        .await;
    assert!(answer.is_err());
    assert!(Instant::now() - started <= ms(120));
    let left = left.into_inner();
    assert_eq!(left[0], ms(50), "the first attempt has its own time");
    assert!(left.iter().all(|left| *left <= ms(50)) && left.len() >= 2, "{left:?}");
    assert_eq!(in_flight(&fusebox), 0);
}

#[tokio::test(start_paused = true)]
async fn retries_are_at_most_their_part_of_the_calls_and_ten_more() {
    let part = |command: &mut CommandPolicy| {
        command.retry.as_mut().unwrap().budget_percent = 20.try_into().unwrap();
    };
    let (fusebox, c) = fixed(retried(2, part));
    for _ in 0..100 {
        assert_eq!(attempts(&c, &[Ok(1)]).await.1, 1);
    }
    let mut made = 0;
    for _ in 0..100 {
        made += attempts(&c, &[Err(DOWN)]).await.1;
    }
    // All of it well within the ten seconds of the budget: 100 pauses of 25 ms at most.
    assert!((130..=150).contains(&made), "100 calls, and 10 with 20 % of 100 to 200: {made}");
    let (retried, over) = retries(&fusebox);
    assert_eq!((retried + 100, retried + over), (made as u64, 100));
}

#[tokio::test(start_paused = true)]
async fn the_permit_is_free_during_the_pause_and_a_drop_there_counts_nothing() {
    let (fusebox, c) = fixed(CommandPolicy {
        timeout_ms: None,
        ..retried(2, |p| {
            p.max_concurrent_requests = limited(1).max_concurrent_requests;
        })
    });
    let mut paused = 0;
    for _ in 0..50 {
        let before = outcomes(&fusebox, "failure");
        let mut call = Box::pin(c.call_idempotent(|| async { Err::<u8, _>(DOWN) }));
        assert!(call.as_mut().now_or_never().is_none(), "it pauses");
        assert_eq!((outcomes(&fusebox, "failure"), in_flight(&fusebox)), (before + 1, 0));
        succeed(&c, 1).await;
        drop(call);
        paused += 1;
        advance(ms(2000)).await;
    }
    assert_outcomes(&fusebox, &[("failure", paused), ("success", paused)]);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_runs_once_and_only_when_no_attempt_is_left() {
    let (fusebox, c) = fixed(retried(3, |_| ()));
    let (made, fell) = (Cell::new(0), Cell::new(0));
    let call = c.call_idempotent(|| {
        made.set(made.get() + 1);
        async { Err::<u8, _>(DOWN) }
    });
    let answer = call.or_fallback(|error| {
        assert_eq!((error, made.get()), (&CommandError::Failed(DOWN), 3));
        fell.set(fell.get() + 1);
        9
    });
    assert_eq!((answer.await, fell.get()), (Ok(9), 1));
    let call = c.call_idempotent(|| async { Err::<u8, _>(CLIENT) }).or_fallback(|_| 9);
    assert_eq!(call.await, Err(CommandError::Failed(CLIENT)));
    let call = c.call_idempotent(|| async { Err::<u8, _>(DOWN) });
    let call = call.or_fallback_async(|_| async { Ok(8) });
    assert_eq!(call.await, Ok(8));
    assert_eq!(metric(&fusebox, "command_fallbacks_total{command=\"c\"}"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_classifier_of_a_call_decides_what_is_tried_again() {
    let (_fusebox, c) = fixed(retried(3, |_| ()));
    let made = Cell::new(0);
    let attempt = || {
        made.set(made.get() + 1);
        let error = if made.get() == 1 { "busy" } else { "bad" };
        async move { Err::<u8, _>(error) }
    };
    let class = |error: &&str| if *error == "bad" { Class::Client } else { Class::Failure };
    let answer = c.call_idempotent_classified(attempt, class).await;
    assert_eq!((answer, made.get()), (Err(CommandError::Failed("bad")), 2));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_asks_the_shadow() {
    let policy = shadowed(retried(3, |_| ()), CommandPolicy { rate_limit: Some(rate(1, 2)), ..limited(1) });
    let (fusebox, c) = crate::common::calls::under(policy);
    assert_eq!(attempts(&c, &[Err(DOWN)]).await.1, 3);
    let decided = ["asked", "rate_limited", "rejected"].map(|decision| shadow(&fusebox, decision));
    assert_eq!(decided, [3, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_in_the_pause_holds_for_the_next_attempt() {
    let (fusebox, c) = fixed(retried(2, |_| ()));
    let mut call = Box::pin(c.call_idempotent(|| async {
        sleep(Duration::ZERO).await;
        Err::<u8, _>(DOWN)
    }));
    while outcomes(&fusebox, "failure") == 0 {
        assert!(call.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let mut closed = retried(2, |_| ());
    closed.circuit_breaker =
        with(|b| b.mode = fusebox_policy::policy::BreakerMode::ForcedOpen).circuit_breaker;
    fusebox.apply(&policy(closed));
    assert_eq!(call.await, Err(CommandError::Failed(DOWN)));
    assert_outcomes(&fusebox, &[("failure", 1), ("open", 1)]);
}
