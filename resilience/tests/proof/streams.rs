//! Responses that go on after their head, and what a client's deadline or a short timeout must not do.

use std::time::Duration;

use fusebox::Command;
use fusebox_policy::policy::{CommandPolicy, RetryPolicy, SlowCall};
use http::{Request, Response};
use http_body_util::BodyExt;
use std::cell::Cell;
use std::convert::Infallible;
use tokio::time::{advance, sleep};
use tower::{Layer, Service, service_fn};

use crate::common::calls::{CLIENT, DOWN, Oops, end, fail, fixed, free, ms, with};
use crate::common::http::{Step, Steps, grpc, response};
use crate::common::{in_flight, metric, outcomes, state};

/// Sends a request to a service that answers so.
async fn send(
    c: &Command,
    request: Request<()>,
    answer: Response<Steps>,
) -> Response<fusebox::HttpBody<Steps>> {
    let answer = Cell::new(Some(answer));
    let mut service = c.http_layer().layer(service_fn(async |_: Request<()>| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(answer.take().unwrap())
    }));
    service.call(request).await.unwrap()
}

fn of(millis: u64, command: CommandPolicy) -> CommandPolicy {
    CommandPolicy { timeout_ms: Some(millis.try_into().unwrap()), ..command }
}

fn retried(command: CommandPolicy) -> CommandPolicy {
    let retry = RetryPolicy {
        max_attempts: 2.try_into().unwrap(),
        per_try_timeout_ms: None,
        budget_percent: 20.try_into().unwrap(),
    };
    CommandPolicy { retry: Some(retry), ..command }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_a_stream_is_decided_by_its_head() {
    let (fusebox, c) = fixed(with(|_| ()));
    for (head, then) in [(None, 0), (Some("14"), 2)] {
        fail(&c, 4).await;
        advance(ms(1000)).await;
        let headers: Vec<_> = head.iter().map(|status| ("grpc-status", *status)).collect();
        let stream =
            send(&c, grpc(), response(200, &headers, Steps::of([Step::Data("a"), Step::Wait]))).await;
        assert_eq!((state(&fusebox), in_flight(&fusebox)), (then, 1), "{head:?}: and it goes on");
        drop(stream);
        assert_eq!((state(&fusebox), in_flight(&fusebox)), (then, 0), "{head:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_as_slow_as_its_head() {
    let slow = SlowCall { threshold_ms: 50.try_into().unwrap(), percent: 50.try_into().unwrap() };
    let (fusebox, c) = fixed(with(|b| b.slow_call = Some(slow)));
    for _ in 0..8 {
        let steps = Steps::of([Step::Data("a"), Step::Status("0")]);
        let stream = send(&c, grpc(), response(200, &[], steps)).await;
        advance(ms(1500)).await;
        stream.into_body().collect().await.unwrap();
    }
    assert_eq!((outcomes(&fusebox, "success"), state(&fusebox)), (8, 0));
    assert_eq!(metric(&fusebox, "command_duration_seconds_bucket{le=\"0.0001\",command=\"c\"}"), 8);
}

/// ADR 6, for a callee that holds its whole stream to the deadline it is told.
#[tokio::test(start_paused = true)]
async fn a_hurried_timeout_in_the_trailers_says_nothing_about_the_callee() {
    let (fusebox, c) = fixed(of(1000, with(|_| ())));
    for (timeout, then) in [("5m", 0), ("600m", 2)] {
        for _ in 0..4 {
            let mut request = grpc();
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
            let answer =
                send(&c, request, response(200, &[], Steps::of([Step::Data("a"), Step::Status("4")])));
            answer.await.into_body().collect().await.unwrap();
        }
        assert_eq!(state(&fusebox), then, "{timeout}");
    }
    assert_eq!(outcomes(&fusebox, "timeout"), 8);
}

/// On the real clock: on a paused one nothing comes too early. A machine that is busy may stop this thread in
/// the midst of a call, which then is too late; not in every round.
#[tokio::test]
async fn an_error_at_once_is_an_error_however_short_the_timeout() {
    for millis in [1, 2, 5] {
        let mut seen = Vec::new();
        for _ in 0..20 {
            let (fusebox, c) = fixed(of(millis, with(|_| ())));
            for _ in 0..8 {
                end(&c, Err(CLIENT)).await.unwrap_err();
            }
            seen.push((outcomes(&fusebox, "client_error"), state(&fusebox)));
        }
        assert!(seen.contains(&(8, 0)), "{millis} ms: {seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_leaves_no_time_to_retry_spends_no_budget() {
    let (fusebox, c) = fixed(retried(of(50, free())));
    for call in 0..100 {
        let hang = call % 2 == 0;
        let answer = c.call_idempotent(|| async move {
            if hang {
                sleep(Duration::from_mins(1)).await;
            }
            Err::<u8, Oops>(DOWN)
        });
        answer.await.unwrap_err();
    }
    let retries = metric(&fusebox, "command_retries_total{command=\"c\"}");
    let over = metric(&fusebox, "command_retries_over_budget_total{command=\"c\"}");
    assert_eq!(
        retries, 30,
        "20 of 100 calls and the ten free ones, all of them of calls that failed at once"
    );
    assert_eq!(over, 20, "and the other calls that failed at once");
}

/// Of all attempts only the request's deadline can put one in a hurry, not the command's own.
#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_times_out_counts() {
    let breaker = with(|b| b.consecutive_failures = Some(2.try_into().unwrap()));
    let (fusebox, c) = fixed(retried(of(100, breaker)));
    let attempts = Cell::new(0);
    let answer = c.call_idempotent(|| {
        attempts.set(attempts.get() + 1);
        let first = attempts.get() == 1;
        async move {
            sleep(ms(if first { 60 } else { 1000 })).await;
            Err::<u8, Oops>(DOWN)
        }
    });
    answer.await.unwrap_err();
    assert_eq!((attempts.get(), outcomes(&fusebox, "failure"), outcomes(&fusebox, "timeout")), (2, 1, 1));
    assert_eq!(state(&fusebox), 2, "two in a row");
}

/// The deadlines of `call_idempotent` with an error that stays: what is told is why it had to be retried.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_refused_does_not_hide_the_error_before_it() {
    let (fusebox, c) = fixed(retried(with(|b| b.consecutive_failures = Some(1.try_into().unwrap()))));
    let answer = c.call_idempotent(|| async { Err::<u8, Oops>(DOWN) }).await;
    assert_eq!(answer, Err(fusebox::CommandError::Failed(DOWN)));
    assert_eq!((state(&fusebox), outcomes(&fusebox, "open")), (2, 1));
}
