//! Calls of the command `c`: their errors, their ends, and what is counted of them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use fusebox::{Class, Classify, Command, CommandError, ErrorCode, Fusebox, Policy};
use fusebox_policy::policy::{BreakerPolicy, CommandPolicy, Outbound, RateLimit, Shadow};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{breaker, command, metric, outcomes, policy, value};

/// An error with a class and perhaps a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oops(pub Class, pub Option<ErrorCode>);

pub const DOWN: Oops = Oops(Class::Failure, None);
pub const CLIENT: Oops = Oops(Class::Client, None);

impl Classify for Oops {
    fn class(&self) -> Class {
        self.0
    }

    fn code(&self) -> Option<ErrorCode> {
        self.1
    }
}

pub type Answer = Result<u8, CommandError<Oops>>;

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn fixed(command: CommandPolicy) -> (Fusebox, Command) {
    under(policy(command))
}

pub fn under(policy: Policy) -> (Fusebox, Command) {
    let fusebox = Fusebox::fixed(policy);
    let command = fusebox.command("c");
    (fusebox, command)
}

/// The command of [`command`] with another breaker.
pub fn with(change: impl FnOnce(&mut BreakerPolicy)) -> CommandPolicy {
    let mut breaker = breaker();
    change(&mut breaker);
    CommandPolicy { circuit_breaker: Some(breaker), ..command() }
}

/// No rule at all.
pub fn free() -> CommandPolicy {
    CommandPolicy::default()
}

pub fn limited(limit: u64) -> CommandPolicy {
    CommandPolicy { max_concurrent_requests: Some(limit.try_into().unwrap()), ..free() }
}

pub fn rate(per_second: u64, burst: u64) -> RateLimit {
    RateLimit {
        requests_per_second: per_second.try_into().unwrap(),
        burst: burst.try_into().unwrap(),
        scope: fusebox_policy::policy::RateScope::Instance,
    }
}

pub fn rated(per_second: u64, burst: u64) -> CommandPolicy {
    CommandPolicy { rate_limit: Some(rate(per_second, burst)), ..free() }
}

/// A policy with a candidate beside it.
pub fn shadowed(active: CommandPolicy, candidate: CommandPolicy) -> Policy {
    let mut with = policy(active);
    let outbound = Outbound { commands: [("c".to_owned(), candidate)].into(), ..Outbound::default() };
    with.shadow = Some(Shadow { inbound: None, outbound: Some(outbound) });
    with
}

/// A call that ends at once.
pub async fn end(command: &Command, result: Result<u8, Oops>) -> Answer {
    command.call(|| async { result }).await
}

pub async fn succeed(command: &Command, times: usize) {
    for _ in 0..times {
        assert_eq!(end(command, Ok(1)).await, Ok(1));
    }
}

pub async fn fail(command: &Command, times: usize) {
    for _ in 0..times {
        assert_eq!(end(command, Err(DOWN)).await, Err(CommandError::Failed(DOWN)));
    }
}

/// A call that takes so long.
pub async fn slow(command: &Command, millis: u64, result: Result<u8, Oops>) -> Answer {
    let work = || async move {
        tokio::time::sleep(ms(millis)).await;
        result
    };
    command.call(work).await
}

/// A call that ends when it is told to, and is in flight when this returns.
pub async fn pending(command: &Command) -> (oneshot::Sender<Result<u8, Oops>>, JoinHandle<Answer>) {
    let (tell, told) = oneshot::channel();
    let call = tokio::spawn(command.call(|| async { told.await.unwrap_or(Err(DOWN)) }));
    tokio::task::yield_now().await;
    (tell, call)
}

pub fn is_open(answer: &Answer) -> bool {
    matches!(answer, Err(CommandError::Open { .. }))
}

/// What the shadow would have done with calls of `c`.
pub fn shadow(fusebox: &Fusebox, decision: &str) -> u64 {
    metric(fusebox, &format!("command_shadow_total{{command=\"c\",decision=\"{decision}\"}}"))
}

/// How often the breaker came into a state.
pub fn transitions(fusebox: &Fusebox, to: &str) -> u64 {
    metric(fusebox, &format!("breaker_transitions_total{{command=\"c\",to=\"{to}\"}}"))
}

/// How many calls of `c` were counted, however they ended.
pub fn counted(fusebox: &Fusebox) -> u64 {
    let text = fusebox.registry_text();
    let of = |outcome| value(&text, &format!("command_calls_total{{command=\"c\",outcome=\"{outcome}\"}}"));
    OUTCOMES.into_iter().map(of).sum()
}

pub const OUTCOMES: [&str; 8] =
    ["success", "failure", "timeout", "client_error", "cancelled", "rejected", "rate_limited", "open"];

/// How calls of `c` ended: those that are named so often, all others never.
pub fn assert_outcomes(fusebox: &Fusebox, expected: &[(&str, u64)]) {
    let counted = OUTCOMES.map(|outcome| (outcome, outcomes(fusebox, outcome)));
    let expected = OUTCOMES.map(|outcome| {
        let found = expected.iter().find(|(name, _)| *name == outcome);
        (outcome, found.map_or(0, |(_, count)| *count))
    });
    assert_eq!(counted, expected);
}

/// Work that has to wait so often, each time to be woken at once.
pub async fn steps(steps: usize) {
    for _ in 0..steps {
        tokio::task::yield_now().await;
    }
}

/// Polls once.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(std::task::Waker::noop()))
}
