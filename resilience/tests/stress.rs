//! Real threads, the real clock, and reloads of everything at any moment.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use common::calls::{
    Answer, CLIENT, DOWN, OUTCOMES, counted, end, ms, poll_once, rate, shadowed, transitions, under, with,
};
use common::{in_flight, outcomes, policy, state};
use fastrand::Rng;
use fusebox::{Command, CommandError, ErrorCode, Fusebox, Policy};
use fusebox_policy::policy::{
    BreakerMode, BreakerPolicy, CommandPolicy, ErrorClasses, RetryPolicy, SlowCall,
};
use futures::future::join_all;

const THREADS: u64 = 4;
const RELOADS: usize = 1000;
/// No policy has a higher limit.
const MOST: i64 = 3;

/// Who is inside of a call, and the most there ever were.
#[derive(Default)]
struct Inside {
    now: AtomicI64,
    most: AtomicI64,
}

struct Entered<'a>(&'a Inside);

impl Inside {
    fn enter(&self) -> Entered<'_> {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Entered(self)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

fn any_breaker(random: &mut Rng) -> BreakerPolicy {
    let modes = [
        BreakerMode::Enforce,
        BreakerMode::Enforce,
        BreakerMode::Enforce,
        BreakerMode::ForcedClosed,
        BreakerMode::ForcedOpen,
        BreakerMode::Disabled,
    ];
    BreakerPolicy {
        error_percent_threshold: random.u64(20..=100).try_into().unwrap(),
        request_volume_threshold: random.u64(1..50).try_into().unwrap(),
        sleep_window_ms: random.u64(1..5).try_into().unwrap(),
        rolling_window_ms: (random.u64(1..5) * 1000).try_into().unwrap(),
        half_open_probes: random.u64(1..4).try_into().unwrap(),
        consecutive_failures: random.bool().then(|| random.u64(3..20).try_into().unwrap()),
        slow_call: random.bool().then(|| SlowCall {
            threshold_ms: random.u64(1..5).try_into().unwrap(),
            percent: random.u64(10..=100).try_into().unwrap(),
        }),
        count_rejections: random.bool(),
        mode: modes[random.usize(..modes.len())],
    }
}

fn any_command(random: &mut Rng) -> CommandPolicy {
    CommandPolicy {
        timeout_ms: random.bool().then(|| random.u64(1..10).try_into().unwrap()),
        max_concurrent_requests: Some(random.u64(1..=u64::try_from(MOST).unwrap()).try_into().unwrap()),
        rate_limit: (random.u8(..4) == 0).then(|| rate(random.u64(10_000..1_000_000), random.u64(1..1000))),
        circuit_breaker: (random.u8(..4) > 0).then(|| any_breaker(random)),
        retry: random.bool().then(|| RetryPolicy {
            max_attempts: random.u64(2..5).try_into().unwrap(),
            per_try_timeout_ms: None,
            budget_percent: random.u64(1..=100).try_into().unwrap(),
        }),
        errors: ErrorClasses { ignore: [ErrorCode::Grpc(random.u8(1..=16))].into(), count: [].into() },
        fallback_enabled: random.bool(),
        fallback_max_concurrent_requests: None,
    }
}

fn any_policy(random: &mut Rng) -> Policy {
    let active = any_command(random);
    if random.bool() { shadowed(active, any_command(random)) } else { policy(active) }
}

/// What the callers saw, by outcome; those that were dropped may be cancelled or timed out.
type Seen = BTreeMap<&'static str, u64>;

fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Ok(_) => "success",
        Err(CommandError::Failed(error)) if *error == CLIENT => "client_error",
        Err(CommandError::Failed(_)) => "failure",
        Err(CommandError::Timeout(_)) => "timeout",
        Err(CommandError::Open { .. }) => "open",
        Err(CommandError::Rejected) => "rejected",
        Err(CommandError::RateLimited { .. }) => "rate_limited",
    }
}

/// One call of any kind and end.
async fn any_call(c: Command, inside: &Inside, random: &mut Rng) -> &'static str {
    let (result, waits) = (random.u8(..), random.u8(..));
    let work = || async move {
        let _entered = inside.enter();
        match waits {
            0..8 => tokio::time::sleep(Duration::from_micros(u64::from(waits) * 700)).await,
            8..100 => tokio::task::yield_now().await,
            _ => {}
        }
        match result {
            0..40 => Err(DOWN),
            40..60 => Err(CLIENT),
            _ => Ok(result),
        }
    };
    if random.u8(..) >= 20 {
        return outcome(&c.call(work).await);
    }
    let mut call = pin!(c.call(work));
    match poll_once(call.as_mut()) {
        std::task::Poll::Ready(answer) => outcome(&answer),
        std::task::Poll::Pending => "dropped",
    }
}

/// One thread of callers, four at a time, until there are no more reloads.
fn caller(c: Command, inside: &Inside, done: &AtomicBool, first: u64) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let one = async |n| {
        let (mut random, mut seen) = (Rng::with_seed(first * 100 + n), Seen::new());
        while !done.load(Ordering::Relaxed) {
            *seen.entry(any_call(c, inside, &mut random).await).or_default() += 1;
            if random.u8(..) == 0 {
                tokio::task::yield_now().await;
            }
        }
        seen
    };
    let all = runtime.block_on(async { join_all((0..4).map(one)).await });
    sum(all)
}

fn sum(all: impl IntoIterator<Item = Seen>) -> Seen {
    let mut sum = Seen::new();
    for (outcome, count) in all.into_iter().flatten() {
        *sum.entry(outcome).or_default() += count;
    }
    sum
}

/// Runs callers while `reload` is called a thousand times. What they saw.
fn run(c: Command, inside: &Inside, mut reload: impl FnMut()) -> Seen {
    let done = AtomicBool::new(false);
    let done = &done;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|seed| scope.spawn(move || caller(c, inside, done, seed))).collect();
        for _ in 0..RELOADS {
            reload();
            std::thread::sleep(ms(1));
        }
        done.store(true, Ordering::Relaxed);
        sum(threads.into_iter().map(|thread| thread.join().unwrap()))
    })
}

fn assert_exact(fusebox: &Fusebox, seen: &Seen) {
    let of = |outcome: &str| seen.get(outcome).copied().unwrap_or_default();
    let either = outcomes(fusebox, "timeout") + outcomes(fusebox, "cancelled");
    assert_eq!(either, of("timeout") + of("dropped"), "{seen:?}");
    for outcome in OUTCOMES.into_iter().filter(|outcome| !["timeout", "cancelled"].contains(outcome)) {
        assert_eq!(outcomes(fusebox, outcome), of(outcome), "{outcome} of {seen:?}");
    }
    assert_eq!((counted(fusebox), in_flight(fusebox)), (seen.values().sum(), 0));
    let few: Vec<_> = ["success", "failure", "client_error", "open", "rejected", "dropped"]
        .into_iter()
        .filter(|outcome| of(outcome) == 0)
        .collect();
    assert!(few.is_empty(), "{few:?} never happened: {seen:?}");
}

#[test]
fn under_a_thousand_reloads_nothing_is_over_issued_lost_or_left_behind() {
    let mut random = Rng::with_seed(1);
    let (fusebox, c) = under(any_policy(&mut random));
    let inside = Inside::default();
    let seen = run(c, &inside, || fusebox.apply(&any_policy(&mut random)));
    assert_eq!(inside.now.load(Ordering::SeqCst), 0);
    let most = inside.most.load(Ordering::SeqCst);
    assert!((1..=MOST).contains(&most), "{most} at once");
    assert_exact(&fusebox, &seen);

    // Whatever it went through, a breaker that is enforced heals.
    fusebox.apply(&policy(with(|b| {
        b.sleep_window_ms = 1.try_into().unwrap();
        b.request_volume_threshold = 1_000_000.try_into().unwrap();
    })));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for _ in 0..1000 {
        if state(&fusebox) == 0 {
            break;
        }
        let _ = runtime.block_on(end(&c, Ok(1)));
        std::thread::sleep(ms(1));
    }
    assert_eq!(state(&fusebox), 0);
    // Closed leaves by opening only, open by half-open, and half-open by either.
    let [opened, half_opened, closed] = ["open", "half_open", "closed"].map(|to| transitions(&fusebox, to));
    assert_eq!(opened, half_opened, "{closed} closed");
    assert!(opened > 0 && closed > 0 && closed <= half_opened);
}

/// One limit throughout, and everything else changes.
#[test]
fn a_limit_of_two_is_two_whatever_else_is_reloaded() {
    let mut random = Rng::with_seed(2);
    let mut two = || {
        let mut policy = any_policy(&mut random);
        for command in policy.outbound.commands.values_mut() {
            command.max_concurrent_requests = Some(2.try_into().unwrap());
        }
        policy
    };
    let (fusebox, c) = under(two());
    let inside = Inside::default();
    let seen = run(c, &inside, || fusebox.apply(&two()));
    let most = inside.most.load(Ordering::SeqCst);
    assert!((1..=2).contains(&most), "{most} at once");
    assert_exact(&fusebox, &seen);
}

/// A rate that is used up at one instant and not at the next must not let a call past the limit.
#[test]
fn a_limit_of_two_is_two_beside_a_rate_that_is_always_at_its_end() {
    let (_fusebox, c) = under(policy(CommandPolicy {
        max_concurrent_requests: Some(2.try_into().unwrap()),
        rate_limit: Some(rate(300_000, 1)),
        ..with(|breaker| breaker.mode = BreakerMode::Disabled)
    }));
    let inside = Inside::default();
    let seen = run(c, &inside, || ());
    let most = inside.most.load(Ordering::SeqCst);
    assert!((1..=2).contains(&most), "{most} at once");
    assert!(
        ["rejected", "rate_limited", "success"].iter().all(|outcome| seen.contains_key(outcome)),
        "{seen:?}"
    );
}

/// What a call begins with and how it may end are of one policy, however often that changes.
#[test]
fn a_call_runs_under_one_policy() {
    let one = |seconds: u64, fallback| {
        policy(CommandPolicy {
            timeout_ms: Some((seconds * 1000).try_into().unwrap()),
            fallback_enabled: fallback,
            circuit_breaker: None,
            ..CommandPolicy::default()
        })
    };
    let policies = [one(100, true), one(200, false)];
    let (fusebox, c) = under(policies[0].clone());
    let done = AtomicBool::new(false);
    let torn = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut torn, mut seen) = (0_u64, [0_u64; 2]);
                    while !done.load(Ordering::Relaxed) {
                        let left = std::cell::Cell::new(Duration::ZERO);
                        let call = c.call(|| {
                            left.set(fusebox::deadline::remaining().unwrap_or_default());
                            std::future::ready(Err::<u8, _>(std::io::Error::other("down")))
                        });
                        let answer = poll_once(pin!(call.or_fallback(|_| 0)));
                        let is_first = left.get() <= Duration::from_secs(100);
                        seen[usize::from(!is_first)] += 1;
                        torn += u64::from(matches!(answer, Poll::Ready(Ok(_))) != is_first);
                    }
                    assert!(seen.iter().all(|calls| *calls > 0), "{seen:?}");
                    torn
                })
            })
            .collect();
        for n in 0..20 * RELOADS {
            fusebox.apply(&policies[n % 2]);
        }
        done.store(true, Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().unwrap()).sum::<u64>()
    });
    assert_eq!(torn, 0);
}
