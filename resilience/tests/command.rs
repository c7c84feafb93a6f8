//! Timeout, limit, cancellation, fallback and deadlines of a command, on paused time.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{command, in_flight, metric, outcomes, policy, state};
use fusebox::{Class, Classify, CommandError, Fusebox, deadline};
use fusebox_policy::policy::CommandPolicy;
use futures::FutureExt;
use tokio::time::{Instant, advance, sleep};

#[derive(Debug, PartialEq)]
struct Down;

impl Classify for Down {
    fn class(&self) -> Class {
        Class::Failure
    }
}

#[derive(Debug, PartialEq)]
struct NotFound;

impl Classify for NotFound {
    fn class(&self) -> Class {
        Class::Client
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn limit(limit: u64) -> CommandPolicy {
    CommandPolicy { max_concurrent_requests: Some(limit.try_into().unwrap()), timeout_ms: None, ..command() }
}

async fn pending<T>() -> Result<T, Down> {
    std::future::pending().await
}

async fn after(millis: u64) -> Result<(), Down> {
    sleep(ms(millis)).await;
    Ok(())
}

/// Counts the values that are alive.
struct Alive(Arc<AtomicU32>);

impl Alive {
    fn one(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_the_first_poll() {
    let fusebox = Fusebox::fixed(policy(command()));
    let c = fusebox.command("c");
    let ran = AtomicU32::new(0);
    let call = c.call(|| {
        ran.fetch_add(1, Ordering::SeqCst);
        after(99)
    });
    advance(ms(500)).await;
    assert_eq!((ran.load(Ordering::SeqCst), in_flight(&fusebox)), (0, 0));
    call.await.unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 1, "and the deadline starts with it");
}

/// hystrix-go leaves a goroutine for each call that timed out.
#[tokio::test(start_paused = true)]
async fn r3_a_timeout_drops_the_work_before_it_answers_and_returns_the_permit() {
    let fusebox = Fusebox::fixed(policy(CommandPolicy { circuit_breaker: None, ..command() }));
    let c = fusebox.command("c");
    let alive = Arc::new(AtomicU32::new(0));
    for _ in 0..1000 {
        let one = Alive::one(&alive);
        let started = Instant::now();
        let mut call = Box::pin(c.call(|| async move {
            let _one = one;
            std::future::pending::<Result<(), Down>>().await
        }));
        // The call is still there when it has answered; the work is not.
        let answer = call.as_mut().await;
        assert_eq!(answer, Err(CommandError::Timeout(ms(100))));
        assert_eq!(Instant::now() - started, ms(100));
        assert_eq!((alive.load(Ordering::SeqCst), in_flight(&fusebox)), (0, 0));
    }
    assert_eq!(outcomes(&fusebox, "timeout"), 1000);
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_at_its_deadline_is_in_time() {
    let fusebox = Fusebox::fixed(policy(command()));
    let call = fusebox.command("c").call(|| after(100));
    assert_eq!(call.await, Ok(()));
}

/// A timer of the callee's library that follows our deadline fires with ours and is seen first.
#[tokio::test(start_paused = true)]
async fn an_error_at_the_deadline_is_a_timeout_and_before_it_an_error() {
    let fusebox = Fusebox::fixed(policy(command()));
    let c = fusebox.command("c");
    let not_found = |millis| async move {
        sleep(ms(millis)).await;
        Err::<(), _>(NotFound)
    };
    assert_eq!(c.call(|| not_found(99)).await, Err(CommandError::Failed(NotFound)));
    assert_eq!(c.call(|| not_found(100)).await, Err(CommandError::Timeout(ms(100))));
    assert_eq!(c.call(|| not_found(100)).or_fallback(|_| ()).await, Ok(()));
    assert_eq!((outcomes(&fusebox, "client_error"), outcomes(&fusebox, "timeout")), (1, 2));
}

/// tokio gives a task a budget; what uses it up must not keep its own timer from firing.
#[tokio::test(start_paused = true)]
async fn work_that_never_rests_is_timed_out_all_the_same() {
    let fusebox = Fusebox::fixed(policy(command()));
    let work = async {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..10_000_000 {
            sender.send(()).unwrap();
            receiver.recv().await.unwrap();
        }
        Ok::<_, Down>(())
    };
    let call = tokio::spawn(fusebox.command("c").call(|| work));
    for _ in 0..3 {
        tokio::task::yield_now().await;
        advance(ms(50)).await;
    }
    assert_eq!(call.await.unwrap(), Err(CommandError::Timeout(ms(100))));
}

/// hystrix-go fixes a command's concurrency at its first use.
#[tokio::test(start_paused = true)]
async fn r2_a_limit_follows_the_policy_up_and_down() {
    let fusebox = Fusebox::fixed(policy(limit(2)));
    let c = fusebox.command("c");
    let start = || {
        let call = c.call(pending::<()>);
        let mut call = Box::pin(call);
        match call.as_mut().now_or_never() {
            None => Ok(call),
            Some(answer) => Err(answer),
        }
    };
    let mut calls: Vec<_> = (0..2).map(|_| start().unwrap()).collect();
    assert_eq!(start().err(), Some(Err(CommandError::Rejected)));
    fusebox.apply(&policy(limit(50)));
    calls.extend((0..48).map(|_| start().unwrap()));
    assert_eq!(start().err(), Some(Err(CommandError::Rejected)), "exactly 50");
    fusebox.apply(&policy(limit(10)));
    assert_eq!(in_flight(&fusebox), 50, "nobody is ended");
    calls.truncate(10);
    assert_eq!(start().err(), Some(Err(CommandError::Rejected)), "ten are in flight");
    calls.truncate(9);
    calls.push(start().unwrap());
    assert_eq!(in_flight(&fusebox), 10);
    drop(calls);
    assert_eq!(in_flight(&fusebox), 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_a_call_gives_back_its_permit() {
    let fusebox = Fusebox::fixed(policy(limit(1)));
    let c = fusebox.command("c");
    for polls in 0..4 {
        let mut call = Box::pin(c.call(|| async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            Ok::<_, Down>(())
        }));
        for poll in 0..polls {
            assert!(call.as_mut().now_or_never().is_none(), "poll {poll}");
        }
        assert_eq!(in_flight(&fusebox), u64::from(polls > 0));
        drop(call);
        assert_eq!(in_flight(&fusebox), 0, "after {polls} polls");
    }
    assert_eq!(outcomes(&fusebox, "cancelled"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_drop_at_95_percent_of_the_deadline_is_a_timeout_and_before_a_cancellation() {
    let fusebox = Fusebox::fixed(policy(command()));
    let c = fusebox.command("c");
    for (millis, cancelled, timeouts) in [(94, 1, 0), (95, 1, 1), (100, 1, 2)] {
        let mut call = Box::pin(c.call(pending::<()>));
        assert!(call.as_mut().now_or_never().is_none());
        advance(ms(millis)).await;
        drop(call);
        let counted = (outcomes(&fusebox, "cancelled"), outcomes(&fusebox, "timeout"));
        assert_eq!(counted, (cancelled, timeouts), "after {millis} ms");
    }
}

/// A panic in hystrix-go's `run` kills the process.
#[tokio::test(start_paused = true)]
async fn r6_a_panic_is_a_failure_and_gives_back_the_permit() {
    let fusebox = Fusebox::fixed(policy(limit(1)));
    let c = fusebox.command("c");
    for _ in 0..4 {
        let call = c.call(|| async {
            tokio::task::yield_now().await;
            let divisor = std::hint::black_box(0);
            Ok::<_, Down>(1 / divisor)
        });
        assert!(tokio::spawn(call).await.unwrap_err().is_panic());
        assert_eq!(in_flight(&fusebox), 0);
    }
    assert_eq!((outcomes(&fusebox, "failure"), state(&fusebox)), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_runs_for_open_rejected_timeout_and_failure() {
    let fusebox = Fusebox::fixed(policy(limit(1)));
    let c = fusebox.command("c");
    let name = |error: &CommandError<Down>| error.reason().unwrap_or("failed");
    let mut slow = Box::pin(c.call(pending::<()>));
    assert!(slow.as_mut().now_or_never().is_none());
    assert_eq!(c.call(|| async { Ok("answer") }).or_fallback(name).await, Ok("limit"));
    drop(slow);
    fusebox.apply(&policy(command()));
    assert_eq!(c.call(pending).or_fallback(name).await, Ok("timeout"));
    for _ in 0..3 {
        assert_eq!(c.call(|| async { Err(Down) }).or_fallback(name).await, Ok("failed"));
    }
    assert_eq!(c.call(|| async { Ok("answer") }).or_fallback(name).await, Ok("open"));
    assert_eq!(metric(&fusebox, "command_fallbacks_total{command=\"c\"}"), 6);
    assert_eq!(outcomes(&fusebox, "success"), 0, "a fallback hides no outcome");
}

#[tokio::test(start_paused = true)]
async fn the_fallback_does_not_run_for_an_answer_or_a_client_error() {
    let fusebox = Fusebox::fixed(policy(command()));
    let c = fusebox.command("c");
    assert_eq!(c.call(|| async { Ok::<_, Down>(1) }).or_fallback(|_| 2).await, Ok(1));
    let answer = c.call(|| async { Err(NotFound) }).or_fallback(|_| 2).await;
    assert_eq!(answer, Err(CommandError::Failed(NotFound)));
}

#[tokio::test(start_paused = true)]
async fn policy_switches_the_fallback_off() {
    let fusebox = Fusebox::fixed(policy(CommandPolicy { fallback_enabled: false, ..command() }));
    let c = fusebox.command("c");
    let answer = c.call(|| async { Err(Down) }).or_fallback(|_| 2).await;
    assert_eq!(answer, Err(CommandError::Failed(Down)));
    assert_eq!(metric(&fusebox, "command_fallbacks_total{command=\"c\"}"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_within_a_call_ends_by_the_earlier_deadline() {
    let mut both = policy(command());
    let inner = CommandPolicy { timeout_ms: Some(70.try_into().unwrap()), ..command() };
    both.outbound.commands.insert("inner".to_owned(), inner);
    let fusebox = Fusebox::fixed(both);
    let (c, inner) = (fusebox.command("c"), fusebox.command("inner"));
    assert_eq!(deadline::remaining(), None);
    let answer = c.call(|| async {
        assert_eq!(deadline::remaining(), Some(ms(100)));
        sleep(ms(60)).await;
        assert_eq!(deadline::remaining(), Some(ms(40)));
        let answer = inner
            .call(|| async {
                assert_eq!(deadline::remaining(), Some(ms(40)));
                sleep(ms(50)).await;
                Ok::<_, Down>(())
            })
            .await;
        assert_eq!(answer, Err(CommandError::Timeout(ms(40))));
        let answer = inner.call(|| async { Ok::<_, Down>(()) }).await;
        assert_eq!(answer, Err(CommandError::Timeout(ms(0))), "too late to be made at all");
        Ok::<_, Down>(1)
    });
    assert_eq!(answer.await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_ready_at_once_needs_no_timer() {
    // Outside of a runtime's context a timer would panic.
    let fusebox = Fusebox::fixed(policy(command()));
    std::thread::spawn(move || {
        let answer = fusebox.command("c").call(|| async { Ok::<_, Down>(1) }).now_or_never();
        assert_eq!(answer, Some(Ok(1)));
    })
    .join()
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_name_the_policy_does_not_know_runs_under_the_defaults() {
    let mut with_default = policy(command());
    with_default.outbound.default.timeout_ms = Some(7.try_into().unwrap());
    let fusebox = Fusebox::fixed(with_default);
    let answer = fusebox.command("getuser").call(pending::<()>).await;
    assert_eq!(answer, Err(CommandError::Timeout(ms(7))));
}

#[tokio::test(start_paused = true)]
async fn names_without_bound_share_one_state() {
    let fusebox = Fusebox::fixed(policy(command()));
    for n in 0..256 {
        assert_eq!(fusebox.command(&format!("n{n}")).name(), format!("n{n}"));
    }
    assert_eq!(fusebox.command("one more").name(), "(other)");
    assert_eq!(fusebox.command("and more").name(), "(other)");
    assert_eq!(fusebox.command("n7").name(), "n7", "who is known stays");
    assert_eq!(fusebox.command("c").name(), "c", "what the policy names has its own");
}

#[tokio::test(start_paused = true)]
async fn a_command_made_under_one_policy_follows_the_next() {
    let fusebox = Fusebox::fixed(policy(command()));
    let c = fusebox.command("c");
    fusebox.apply(&policy(CommandPolicy { timeout_ms: Some(5.try_into().unwrap()), ..command() }));
    let answer = c.call(pending::<()>).await;
    assert_eq!(answer, Err(CommandError::Timeout(ms(5))));
    fusebox.ready().await;
    assert!(fusebox.policy_hash().is_some());
}
