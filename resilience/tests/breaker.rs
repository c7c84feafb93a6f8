//! The breaker as the callers of a command feel it: design.md §5 and the regressions of the
//! ancestors (reliability.md §2), each a test on paused time.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;

use std::time::Duration;

use common::{breaker, command, in_flight, metric, outcomes, policy, state};
use fusebox::{Class, Command, CommandError, Fusebox};
use fusebox_policy::policy::{BreakerMode, BreakerPolicy, CommandPolicy};
use tokio::sync::oneshot;
use tokio::time::{advance, sleep};

type Answer = Result<u8, CommandError<&'static str>>;

fn fixed(command: CommandPolicy) -> (Fusebox, Command) {
    let fusebox = Fusebox::fixed(policy(command));
    let command = fusebox.command("c");
    (fusebox, command)
}

fn with(change: impl FnOnce(&mut BreakerPolicy)) -> CommandPolicy {
    let mut breaker = breaker();
    change(&mut breaker);
    CommandPolicy { circuit_breaker: Some(breaker), ..command() }
}

fn class(error: &&'static str) -> Class {
    if *error == "client" { Class::Client } else { Class::Failure }
}

async fn end(command: Command, result: Result<u8, &'static str>) -> Answer {
    command.call_classified(|| async { result }, class).await
}

async fn fail(command: Command, times: usize) {
    for _ in 0..times {
        assert_eq!(end(command, Err("down")).await, Err(CommandError::Failed("down")));
    }
}

/// A call that ends when it is told to.
fn pending(command: Command) -> (oneshot::Sender<Result<u8, &'static str>>, tokio::task::JoinHandle<Answer>) {
    let (tell, told) = oneshot::channel();
    let call = command.call_classified(|| async { told.await.unwrap_or(Err("dropped")) }, class);
    (tell, tokio::spawn(call))
}

async fn settle() {
    tokio::task::yield_now().await;
}

fn is_open(answer: &Answer) -> bool {
    matches!(answer, Err(CommandError::Open { .. }))
}

#[tokio::test(start_paused = true)]
async fn opens_at_exactly_the_percentage_and_not_below_the_volume() {
    let (fusebox, c) = fixed(command());
    fail(c, 2).await;
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0, "three calls are below the volume");
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 2, "2 of 4 is exactly 50 %, whichever call completes the volume");
    let answer = end(c, Ok(1)).await;
    assert_eq!(answer, Err(CommandError::Open { retry_after: Duration::from_secs(1) }));
}

#[tokio::test(start_paused = true)]
async fn failures_leave_the_window_with_time() {
    let (fusebox, c) = fixed(command());
    fail(c, 3).await;
    advance(Duration::from_secs(10)).await;
    fail(c, 1).await;
    assert_eq!(state(&fusebox), 0);
    fail(c, 3).await;
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn that_old_successes_leave_the_window_opens_nothing_before_the_next_failure() {
    let (fusebox, c) = fixed(command());
    for _ in 0..5 {
        end(c, Ok(1)).await.unwrap();
    }
    advance(Duration::from_secs(5)).await;
    fail(c, 3).await;
    assert_eq!(state(&fusebox), 0, "3 of 8");
    advance(Duration::from_secs(6)).await;
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0, "3 of 4, but it was a success");
    fail(c, 1).await;
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn timeouts_count_as_failures() {
    let (fusebox, c) = fixed(command());
    for _ in 0..4 {
        let answer = c.call_classified(|| async { std::future::pending().await }, class).await;
        assert_eq!(answer, Err::<u8, _>(CommandError::Timeout(Duration::from_millis(100))));
    }
    assert_eq!((state(&fusebox), outcomes(&fusebox, "timeout")), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn client_errors_and_cancellations_count_neither_way() {
    let (fusebox, c) = fixed(command());
    for _ in 0..8 {
        end(c, Err("client")).await.unwrap_err();
        let (_tell, call) = pending(c);
        settle().await;
        call.abort();
        call.await.unwrap_err();
    }
    fail(c, 1).await;
    for _ in 0..2 {
        end(c, Ok(1)).await.unwrap();
    }
    assert_eq!((outcomes(&fusebox, "client_error"), outcomes(&fusebox, "cancelled")), (8, 8));
    assert_eq!(state(&fusebox), 0, "three counted calls, below the volume");
    fail(c, 1).await;
    assert_eq!(state(&fusebox), 2, "2 of 4");
}

#[tokio::test(start_paused = true)]
async fn rejections_and_short_circuits_do_not_count() {
    let limited = CommandPolicy { max_concurrent_requests: Some(1.try_into().unwrap()), ..command() };
    let (fusebox, c) = fixed(limited);
    let (tell, call) = pending(c);
    settle().await;
    for _ in 0..20 {
        assert_eq!(end(c, Ok(1)).await, Err(CommandError::Rejected));
    }
    assert_eq!((state(&fusebox), outcomes(&fusebox, "rejected")), (0, 20));
    tell.send(Ok(1)).unwrap();
    call.await.unwrap().unwrap();
    fail(c, 3).await;
    assert_eq!(state(&fusebox), 2);
    for _ in 0..20 {
        assert!(is_open(&end(c, Ok(1)).await));
    }
    assert_eq!(outcomes(&fusebox, "open"), 20);
    advance(Duration::from_secs(1)).await;
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0, "refused calls weigh nothing against the probe");
}

#[tokio::test(start_paused = true)]
async fn half_open_closes_after_the_declared_number_of_successes() {
    let (fusebox, c) = fixed(with(|b| b.half_open_probes = 3.try_into().unwrap()));
    fail(c, 4).await;
    advance(Duration::from_millis(999)).await;
    let answer = end(c, Ok(1)).await;
    assert_eq!(answer, Err(CommandError::Open { retry_after: Duration::from_millis(1) }));
    advance(Duration::from_millis(1)).await;
    for probe in 1..=3 {
        assert_ne!(state(&fusebox), 0, "before probe {probe}");
        end(c, Ok(1)).await.unwrap();
    }
    assert_eq!(state(&fusebox), 0);
    fail(c, 3).await;
    assert_eq!(state(&fusebox), 0, "the failures before it opened are forgotten");
}

#[tokio::test(start_paused = true)]
async fn one_failed_probe_opens_again_for_a_whole_sleep_window() {
    let (fusebox, c) = fixed(with(|b| b.half_open_probes = 3.try_into().unwrap()));
    fail(c, 4).await;
    advance(Duration::from_secs(1)).await;
    end(c, Ok(1)).await.unwrap();
    fail(c, 1).await;
    assert_eq!(state(&fusebox), 2);
    let answer = end(c, Ok(1)).await;
    assert_eq!(answer, Err(CommandError::Open { retry_after: Duration::from_secs(1) }));
}

/// hystrix-go closes an open circuit by any success, also of a call admitted long before.
#[tokio::test(start_paused = true)]
async fn r1_a_late_success_does_not_close() {
    let (fusebox, c) = fixed(CommandPolicy { timeout_ms: None, ..command() });
    let (tell, late) = pending(c);
    settle().await;
    fail(c, 4).await;
    advance(Duration::from_millis(500)).await;
    tell.send(Ok(1)).unwrap();
    assert_eq!(late.await.unwrap(), Ok(1), "the caller gets its answer");
    assert_eq!(state(&fusebox), 2);
}

/// And tower-resilience's half-open is opened by a late failure.
#[tokio::test(start_paused = true)]
async fn r1_a_late_failure_does_not_open_half_open_again() {
    let (fusebox, c) = fixed(CommandPolicy { timeout_ms: None, ..command() });
    let (tell_late, late) = pending(c);
    settle().await;
    fail(c, 4).await;
    advance(Duration::from_secs(1)).await;
    let (tell_probe, probe) = pending(c);
    settle().await;
    tell_late.send(Err("down")).unwrap();
    late.await.unwrap().unwrap_err();
    assert_eq!(state(&fusebox), 1);
    tell_probe.send(Ok(1)).unwrap();
    probe.await.unwrap().unwrap();
    assert_eq!(state(&fusebox), 0);
}

/// gobreaker drops a late outcome in silence.
#[tokio::test(start_paused = true)]
async fn r7_a_stale_outcome_is_counted_and_moves_nothing() {
    let (fusebox, c) = fixed(CommandPolicy { timeout_ms: None, ..command() });
    let (tell_first, first) = pending(c);
    settle().await;
    fail(c, 4).await;
    advance(Duration::from_secs(1)).await;
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0, "closed again, in a later generation");
    fail(c, 3).await;
    tell_first.send(Err("down")).unwrap();
    first.await.unwrap().unwrap_err();
    assert_eq!(state(&fusebox), 0, "a fourth failure would have opened it");
    assert_eq!(metric(&fusebox, "breaker_stale_outcomes_total{command=\"c\"}"), 1);
    assert_eq!(outcomes(&fusebox, "failure"), 8, "but it is counted as what it is");
}

/// hystrix-go limits probes by rate: six at once on a slow backend.
#[tokio::test(start_paused = true)]
async fn r5_half_open_admits_exactly_so_many_probes_however_slow_they_are() {
    let slow = with(|b| {
        b.half_open_probes = 2.try_into().unwrap();
        b.sleep_window_ms = 50.try_into().unwrap();
    });
    let (fusebox, c) = fixed(CommandPolicy { timeout_ms: None, ..slow });
    fail(c, 4).await;
    advance(Duration::from_millis(50)).await;
    let probes = [pending(c), pending(c)];
    settle().await;
    for _ in 0..6 {
        advance(Duration::from_millis(60)).await;
        assert!(is_open(&end(c, Ok(1)).await));
    }
    assert_eq!(in_flight(&fusebox), 2);
    for (tell, probe) in probes {
        tell.send(Ok(1)).unwrap();
        probe.await.unwrap().unwrap();
    }
    assert_eq!(state(&fusebox), 0);
}

/// A probe that is cancelled and keeps its slot leaves the breaker half-open for ever.
#[tokio::test(start_paused = true)]
async fn r8_a_cancelled_probe_frees_its_slot_and_decides_nothing() {
    let (fusebox, c) = fixed(command());
    fail(c, 4).await;
    advance(Duration::from_secs(1)).await;
    for _ in 0..5 {
        let (_tell, probe) = pending(c);
        settle().await;
        assert!(is_open(&end(c, Ok(1)).await), "one slot, taken");
        probe.abort();
        probe.await.unwrap_err();
        assert_eq!(state(&fusebox), 1, "still half-open");
    }
    end(c, Err("client")).await.unwrap_err();
    assert_eq!(state(&fusebox), 1, "nor does a client error decide");
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0);
}

#[tokio::test(start_paused = true)]
async fn r8_a_probe_refused_by_the_limit_frees_its_slot() {
    let limited =
        CommandPolicy { timeout_ms: None, max_concurrent_requests: Some(1.try_into().unwrap()), ..command() };
    let (fusebox, c) = fixed(CommandPolicy { max_concurrent_requests: None, ..limited.clone() });
    let (tell, slow) = pending(c);
    settle().await;
    fail(c, 4).await;
    fusebox.apply(&policy(limited));
    advance(Duration::from_secs(1)).await;
    for _ in 0..3 {
        assert_eq!(end(c, Ok(1)).await, Err(CommandError::Rejected), "the slow call is in the way");
    }
    tell.send(Ok(1)).unwrap();
    slow.await.unwrap().unwrap();
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0);
}

/// Calls of `c` in requests that leave them so long.
async fn cut_short(c: Command, millis: u64, times: usize) {
    for _ in 0..times {
        let mut request = policy(CommandPolicy { circuit_breaker: None, ..command() });
        request.outbound.commands.get_mut("c").unwrap().timeout_ms = Some(millis.try_into().unwrap());
        let request = Fusebox::fixed(request).command("c");
        let hung = || c.call_classified(std::future::pending::<Result<u8, &'static str>>, class);
        let answer = request.call_classified(hung, |_| Class::Failure).await;
        assert!(answer.is_err(), "{answer:?}");
        settle().await;
    }
}

/// ADR 6: deadlines of clients cannot open a breaker that others share, nor keep one from seeing a
/// callee that hangs.
#[tokio::test(start_paused = true)]
async fn a_call_cut_short_counts_if_it_had_half_of_its_own_timeout() {
    let (fusebox, c) = fixed(command());
    cut_short(c, 49, 20).await;
    assert_eq!((outcomes(&fusebox, "timeout"), state(&fusebox)), (20, 0), "in metrics, not in the breaker");
    assert_eq!(in_flight(&fusebox), 0);
    cut_short(c, 50, 3).await;
    assert_eq!(state(&fusebox), 0);
    cut_short(c, 50, 1).await;
    assert_eq!((outcomes(&fusebox, "timeout"), state(&fusebox)), (24, 2));

    advance(Duration::from_secs(1)).await;
    cut_short(c, 49, 1).await;
    assert_eq!(state(&fusebox), 1, "a hurried probe frees its slot and decides nothing");
    cut_short(c, 50, 1).await;
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_timeout_of_its_own_every_call_cut_short_counts() {
    let (fusebox, c) = fixed(CommandPolicy { timeout_ms: None, ..command() });
    cut_short(c, 1, 4).await;
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hurried_call_that_fails_by_itself_is_a_failure() {
    let (fusebox, c) = fixed(command());
    let mut request = policy(command());
    request.outbound.commands.get_mut("c").unwrap().timeout_ms = Some(10.try_into().unwrap());
    let request = Fusebox::fixed(request).command("c");
    request
        .call_classified(
            async || {
                fail(c, 4).await;
                Ok::<_, &'static str>(1)
            },
            class,
        )
        .await
        .unwrap();
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn forced_open_refuses_and_forced_closed_and_disabled_admit() {
    let mode = |mode| policy(with(|b| b.mode = mode));
    let (fusebox, c) = fixed(command());
    fusebox.apply(&mode(BreakerMode::ForcedOpen));
    assert_eq!(end(c, Ok(1)).await, Err(CommandError::Open { retry_after: Duration::from_secs(1) }));
    assert_eq!(state(&fusebox), 2, "as callers feel it");
    fusebox.apply(&mode(BreakerMode::Disabled));
    assert_eq!(state(&fusebox), 0);
    fail(c, 20).await;
    fusebox.apply(&mode(BreakerMode::Enforce));
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0, "disabled counts nothing");
    fusebox.apply(&mode(BreakerMode::ForcedClosed));
    fail(c, 20).await;
    assert_eq!(state(&fusebox), 0);
    fusebox.apply(&mode(BreakerMode::Enforce));
    fail(c, 1).await;
    assert_eq!(state(&fusebox), 2, "forced closed counts all the same");
    fusebox.apply(&policy(CommandPolicy { circuit_breaker: None, ..command() }));
    assert_eq!(state(&fusebox), 0, "without a breaker");
    fusebox.apply(&mode(BreakerMode::ForcedClosed));
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0, "as callers feel it");
    fusebox.apply(&mode(BreakerMode::Enforce));
    assert!(is_open(&end(c, Ok(1)).await), "a forced mode moves nothing");
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_an_open_breaker_open_and_its_sleep_started() {
    let (fusebox, c) = fixed(command());
    fail(c, 4).await;
    advance(Duration::from_millis(600)).await;
    fusebox.apply(&policy(with(|b| b.error_percent_threshold = 100.try_into().unwrap())));
    let answer = end(c, Ok(1)).await;
    assert_eq!(answer, Err(CommandError::Open { retry_after: Duration::from_millis(400) }));
    fusebox.apply(&policy(with(|b| b.sleep_window_ms = 500.try_into().unwrap())));
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0, "a shorter sleep window is over at once");
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_window() {
    let (fusebox, c) = fixed(with(|b| b.request_volume_threshold = 100.try_into().unwrap()));
    fail(c, 3).await;
    advance(Duration::from_secs(5)).await;
    fusebox.apply(&policy(with(|b| b.rolling_window_ms = 60_000.try_into().unwrap())));
    assert_eq!(state(&fusebox), 0, "judged at the next outcome, not by the reload");
    fail(c, 1).await;
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_window_forgets_what_is_older() {
    let (fusebox, c) = fixed(command());
    fail(c, 3).await;
    advance(Duration::from_secs(5)).await;
    fusebox.apply(&policy(with(|b| b.rolling_window_ms = 2000.try_into().unwrap())));
    fail(c, 3).await;
    assert_eq!(state(&fusebox), 0);
    fail(c, 1).await;
    assert_eq!(state(&fusebox), 2);
}

#[tokio::test(start_paused = true)]
async fn fewer_probes_than_have_succeeded_close() {
    let probes = |n: u64| with(|b| b.half_open_probes = n.try_into().unwrap());
    let (fusebox, c) = fixed(probes(3));
    fail(c, 4).await;
    advance(Duration::from_secs(1)).await;
    end(c, Ok(1)).await.unwrap();
    end(c, Ok(1)).await.unwrap();
    fusebox.apply(&policy(probes(1)));
    end(c, Ok(1)).await.unwrap();
    assert_eq!(state(&fusebox), 0);
}

#[tokio::test(start_paused = true)]
async fn a_command_out_of_the_policy_and_back_keeps_its_breaker() {
    let (fusebox, c) = fixed(command());
    fail(c, 4).await;
    fusebox.apply(&fusebox::Policy::compiled_in());
    fusebox.apply(&policy(command()));
    assert!(is_open(&end(c, Ok(1)).await));
    assert!(is_open(&end(fusebox.command("c"), Ok(1)).await));
}

#[tokio::test(start_paused = true)]
async fn a_call_admitted_under_one_policy_is_settled_under_the_next() {
    let (fusebox, c) = fixed(CommandPolicy { circuit_breaker: None, ..command() });
    let (tell, before) = pending(c);
    settle().await;
    fusebox.apply(&policy(command()));
    fail(c, 3).await;
    tell.send(Err("down")).unwrap();
    before.await.unwrap().unwrap_err();
    assert_eq!(state(&fusebox), 0, "admitted without a breaker, it is not counted by one");
    let (tell, before) = pending(c);
    settle().await;
    fusebox.apply(&policy(with(|b| b.rolling_window_ms = 60_000.try_into().unwrap())));
    tell.send(Err("down")).unwrap();
    before.await.unwrap().unwrap_err();
    assert_eq!(state(&fusebox), 2);
    sleep(Duration::ZERO).await;
}
