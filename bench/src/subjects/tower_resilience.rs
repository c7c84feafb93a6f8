//! tower-resilience: its circuit breaker alone, and its four layers in one stack.

use std::time::Duration;

use anyhow::{Result, ensure};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::{CircuitBreaker, CircuitBreakerLayer, DefaultClassifier};
use tower_resilience_ratelimiter::RateLimiterLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

use super::{Case, Entry, Has, Layered, absent};
use crate::inner::{self, Answer, Fault};
use crate::measure::{Measured, Plan, measure, runtime};

pub const ENTRY: Entry = Entry {
    name: "tower-resilience",
    package: Some("tower-resilience-circuitbreaker"),
    has: |case| match case {
        Case::Reload => Has::Absent,
        _ => Has::Yes("count, 100 calls"),
    },
    measure: of,
};

fn of(case: Case, plan: &Plan) -> Result<Measured> {
    match case {
        Case::Success => {
            let service = breaker(Duration::from_secs(30)).layer(service_fn(inner::ready));
            measure(Layered { service, answers: true }, plan)
        }
        Case::OpenReject => {
            let service = opened(Duration::from_hours(1), Duration::ZERO)?;
            measure(Layered { service, answers: false }, plan)
        }
        Case::HalfOpenProbe => {
            let service = opened(Duration::from_millis(1), Duration::from_millis(20))?;
            measure(Layered { service, answers: true }, plan)
        }
        Case::Ready => measure(Layered { service: stack(service_fn(inner::ready)), answers: true }, plan),
        Case::Pending => {
            measure(Layered { service: stack(service_fn(inner::pending_once)), answers: true }, plan)
        }
        Case::Reload => absent(),
    }
}

/// Its default: half of the last hundred calls. It stays half-open for as many calls as we make.
fn breaker(wait: Duration) -> CircuitBreakerLayer<DefaultClassifier> {
    let builder = CircuitBreakerLayer::builder()
        .sliding_window_size(100)
        .wait_duration_in_open(wait)
        .permitted_calls_in_half_open(usize::MAX >> 4);
    #[allow(clippy::expect_used)] // of constants
    builder.build().expect("a valid breaker")
}

/// A breaker that failures have opened, after a sleep.
fn opened(
    wait: Duration,
    sleep: Duration,
) -> Result<
    CircuitBreaker<
        impl Service<u64, Response = u64, Error = Fault, Future: Send> + Clone + Send,
        DefaultClassifier,
    >,
> {
    // The request says whether it fails: a service that has failed is the one that is then measured.
    const FAIL: u64 = u64::MAX;
    let inner = |i: u64| async move { if i == FAIL { Err(Fault::Callee) as Answer } else { Ok(i) } };
    let mut service = breaker(wait).layer(service_fn(inner));
    runtime()?.block_on(async {
        for _ in 0..100 {
            let _ = service.ready().await?.call(FAIL).await;
        }
        ensure!(service.is_open(), "a hundred failures did not open the breaker");
        tokio::time::sleep(sleep).await;
        Ok(())
    })?;
    Ok(service)
}

/// Its four layers, the breaker outermost, with limits that are never reached.
fn stack<S>(inner: S) -> impl Service<u64, Response = u64, Error: Send, Future: Send> + Clone + Send
where
    S: Service<u64, Response = u64, Error = Fault, Future: Send> + Clone + Send + 'static,
{
    #[allow(clippy::expect_used)] // of constants
    let (bulkhead, rate) = (
        BulkheadLayer::builder()
            .max_concurrent_calls(1000)
            .reject_when_full()
            .build()
            .expect("a valid bulkhead"),
        RateLimiterLayer::builder()
            .limit_for_period(1_000_000_000)
            .refresh_period(Duration::from_secs(1))
            .timeout_duration(Duration::ZERO)
            .build()
            .expect("a valid rate"),
    );
    ServiceBuilder::new()
        .layer(breaker(Duration::from_secs(30)))
        .layer(bulkhead)
        .layer(rate)
        .layer(TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(1)).build())
        .service(inner)
}
