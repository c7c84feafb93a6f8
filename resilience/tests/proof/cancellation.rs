//! Every call dropped after every number of polls, and made to panic at every poll: afterwards nothing
//! is held, every call was counted once, and the next one works.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use fusebox::{Command, CommandError, Fusebox, Policy};
use fusebox_policy::policy::{CommandPolicy, RetryPolicy, ServerPolicy, Shadow};
use http::Request;
use http_body::Body;
use tokio::time::advance;
use tower::{Layer, Service, service_fn};

use crate::common::calls::{
    DOWN, Oops, counted, end, fail, limited, ms, poll_once, shadow, shadowed, steps, under, with,
};
use crate::common::http::{Broken, Step, Steps, get, grpc, response};
use crate::common::{in_flight, metric, outcomes, policy, state};

/// Where the work of a call ends early.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// Polled so often and dropped.
    Dropped(usize),
    /// The work itself panics in so many steps.
    Panics(usize),
}

/// A limit of one and a breaker of one probe.
fn strict() -> CommandPolicy {
    CommandPolicy {
        max_concurrent_requests: limited(1).max_concurrent_requests,
        timeout_ms: Some(1000.try_into().unwrap()),
        retry: Some(RetryPolicy {
            max_attempts: 3.try_into().unwrap(),
            per_try_timeout_ms: None,
            budget_percent: 100.try_into().unwrap(),
        }),
        ..with(|_| ())
    }
}

/// Polls so often, with time in between for pauses to end, and drops it. Whether it came to its end.
async fn polled<F: Future>(future: F, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        match catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()))) {
            Ok(std::task::Poll::Pending) => advance(ms(9)).await,
            _ => return true,
        }
    }
    false
}

/// The work of a call: three steps, of which one may panic.
async fn work(at: At, begun: &Cell<u64>, result: Result<u8, Oops>) -> Result<u8, Oops> {
    begun.set(begun.get() + 1);
    for step in 0..3 {
        assert_ne!(at, At::Panics(step), "on purpose");
        steps(1).await;
    }
    assert_ne!(at, At::Panics(3), "on purpose");
    result
}

/// Makes `call` a half-open breaker's only probe, at every point of it, with and without a candidate of
/// the same rules. It says how often its work began, and how often it fails if it is not cut short.
async fn at_every_point<F, Fut>(call: F)
where
    F: Fn(Command, At, std::rc::Rc<Cell<u64>>) -> Fut,
    Fut: Future,
{
    for in_shadow in [false, true] {
        let mut ended = false;
        let dropped = (0..).map(At::Dropped);
        let panics = (0..4).map(At::Panics);
        for at in panics.chain(dropped) {
            let policy = if in_shadow { shadowed(strict(), strict()) } else { policy(strict()) };
            let (fusebox, c) = under(policy);
            fail(&c, 4).await;
            advance(ms(1000)).await;
            let begun = std::rc::Rc::new(Cell::new(0));
            let times = if let At::Dropped(times) = at { times } else { 1000 };
            let came_to_its_end = polled(call(c, at, std::rc::Rc::clone(&begun)), times).await;
            let said = format!("{at:?}, shadow: {in_shadow}, begun: {}", begun.get());
            assert_eq!(in_flight(&fusebox), 0, "{said}");
            assert_eq!(counted(&fusebox), 4 + begun.get() + outcomes(&fusebox, "open"), "{said}");
            if state(&fusebox) == 2 {
                // A probe that failed or panicked: it is open for a whole sleep window.
                advance(ms(1000)).await;
            }
            assert_eq!(end(&c, Ok(1)).await, Ok(1), "{said}");
            assert_eq!(state(&fusebox), 0, "{said}");
            if in_shadow {
                let refused = shadow(&fusebox, "open") + shadow(&fusebox, "rejected");
                assert_eq!(refused, outcomes(&fusebox, "open"), "{said}");
            }
            if let At::Dropped(times) = at {
                assert!(times < 100, "{said}: it never ends");
                if came_to_its_end {
                    ended = true;
                    break;
                }
            }
        }
        assert!(ended);
    }
}

#[tokio::test(start_paused = true)]
async fn r8_r10_a_call_dropped_or_panicking_at_any_point_leaves_nothing() {
    for result in [Ok(1), Err(DOWN)] {
        at_every_point(|c, at, begun| async move { c.call(|| work(at, &begun, result)).await }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn r8_r10_a_retried_call_dropped_or_panicking_at_any_point_leaves_nothing() {
    let fails = |c: Command, at, begun: std::rc::Rc<Cell<u64>>| async move {
        c.call_idempotent(|| work(at, &begun, Err(DOWN))).await
    };
    at_every_point(fails).await;
    // It succeeds at the second attempt: that it is allowed to takes a breaker that does not mind.
    for at in (0..4).map(At::Panics).chain((0..60).map(At::Dropped)) {
        let lenient = CommandPolicy { circuit_breaker: None, ..strict() };
        let (fusebox, c) = under(shadowed(lenient.clone(), lenient));
        let begun = Cell::new(0);
        let call = c.call_idempotent(|| {
            let result = if begun.get() == 0 { Err(DOWN) } else { Ok(1) };
            work(at, &begun, result)
        });
        let times = if let At::Dropped(times) = at { times } else { 1000 };
        polled(call, times).await;
        assert_eq!((in_flight(&fusebox), counted(&fusebox)), (0, begun.get()), "{at:?}");
        assert_eq!(end(&c, Ok(1)).await, Ok(1), "{at:?}");
        assert_eq!(shadow(&fusebox, "rejected"), 0, "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn r8_r10_a_fallback_dropped_or_panicking_at_any_point_leaves_nothing() {
    at_every_point(|c, at, begun| async move {
        let call = c.call(|| work(At::Dropped(0), &begun, Err(DOWN)));
        call.or_fallback_async(|_| async {
            work(at, &Cell::new(0), Ok(1)).await.map_err(CommandError::Failed)
        })
        .await
    })
    .await;
    // Nor of the limit of fallbacks.
    for at in (0..4).map(At::Panics).chain((0..12).map(At::Dropped)) {
        let one = CommandPolicy {
            fallback_max_concurrent_requests: Some(1.try_into().unwrap()),
            ..CommandPolicy::default()
        };
        let (fusebox, c) = under(policy(one));
        let fallback = |at| {
            let call = c.call(|| async { Err::<u8, _>(DOWN) });
            call.or_fallback_async(move |_| async move {
                work(at, &Cell::new(0), Ok(1)).await.map_err(CommandError::Failed)
            })
        };
        polled(fallback(at), if let At::Dropped(times) = at { times } else { 1000 }).await;
        assert_eq!(fallback(At::Dropped(0)).await, Ok(1), "{at:?}");
        assert_eq!(metric(&fusebox, "command_fallbacks_rejected_total{command=\"c\"}"), 0, "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn r8_r10_a_layered_call_dropped_or_panicking_at_any_point_leaves_nothing() {
    at_every_point(|c, at, begun| async move {
        let mut service = c.layer().layer(service_fn(|()| work(at, &begun, Ok(1))));
        service.call(()).await
    })
    .await;
}

/// To the end of the body.
async fn whole<S, B>(service: &mut S, request: Request<()>)
where
    S: Service<Request<()>, Response = http::Response<B>, Error = Broken>,
    B: Body,
{
    let Ok(answer) = service.call(request).await else { return };
    let mut body = pin!(answer.into_body());
    while let Some(Ok(_)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}

/// A response whose body takes some polls as well, and may panic in it.
fn bodied(at: At) -> http::Response<Steps> {
    let end = if matches!(at, At::Panics(3)) { Step::Panic } else { Step::Status("0") };
    response(200, &[], Steps::of([Step::Wait, Step::Data("a"), Step::Wait, end]))
}

#[tokio::test(start_paused = true)]
async fn r8_r10_a_request_that_is_sent_dropped_or_panicking_at_any_point_leaves_nothing() {
    at_every_point(|c, at, begun| async move {
        let early = if at == At::Panics(3) { At::Dropped(0) } else { at };
        let mut service = c.http_layer().layer(service_fn(async |_: Request<()>| {
            work(early, &begun, Ok(1)).await.map_err(|_| Broken)?;
            Ok(bodied(at))
        }));
        whole(&mut service, grpc()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn r8_r10_a_request_that_is_served_dropped_or_panicking_at_any_point_leaves_nothing() {
    for in_shadow in [false, true] {
        let mut ended = false;
        for at in (0..4).map(At::Panics).chain((0..).map(At::Dropped)) {
            let mut policy = Policy::compiled_in();
            policy.inbound.default = ServerPolicy {
                max_concurrent_requests: limited(1).max_concurrent_requests,
                timeout_ms: Some(1000.try_into().unwrap()),
                ..ServerPolicy::default()
            };
            policy.shadow =
                in_shadow.then(|| Shadow { inbound: Some(policy.inbound.clone()), outbound: None });
            let fusebox = Fusebox::fixed(policy);
            let begun = Cell::new(0);
            let serve = async |at: At, request| {
                let early = if at == At::Panics(3) { At::Dropped(0) } else { at };
                let mut service = fusebox.server_layer().layer(service_fn(async |_: Request<()>| {
                    work(early, &begun, Ok(1)).await.map_err(|_| Broken)?;
                    Ok(bodied(at))
                }));
                whole(&mut service, request).await;
            };
            let times = if let At::Dropped(times) = at { times } else { 1000 };
            let came_to_its_end = polled(serve(at, grpc()), times).await;
            let count = |what: &str| metric(&fusebox, &format!("server_{what}"));
            let total = || -> u64 {
                let of = |outcome: &&str| {
                    count(&format!("requests_total{{method=\"default\",outcome=\"{outcome}\"}}"))
                };
                crate::common::calls::OUTCOMES.iter().filter(|outcome| **outcome != "open").map(of).sum()
            };
            assert_eq!((count("in_flight{method=\"default\"}"), total()), (0, begun.get()), "{at:?}");
            serve(At::Dropped(0), get()).await;
            assert_eq!(count("requests_total{method=\"default\",outcome=\"rejected\"}"), 0, "{at:?}");
            if in_shadow {
                assert_eq!(count("shadow_total{method=\"default\",decision=\"rejected\"}"), 0, "{at:?}");
            }
            if came_to_its_end && matches!(at, At::Dropped(_)) {
                ended = true;
                break;
            }
            assert!(!matches!(at, At::Dropped(100..)), "it never ends");
        }
        assert!(ended);
    }
}
