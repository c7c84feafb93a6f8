//! Policies as a person may declare them, in code and in a resource.

use std::time::Duration;

use fusebox_policy::policy::{
    BreakerMode, CircuitBreakerBuilder, CommandBuilder, MethodBuilder, MethodMatch, PolicyBuilder,
    RateLimitBuilder, RateScope, RetryBuilder,
};
use proptest::option::weighted;
use proptest::prelude::*;
#[cfg(feature = "crd")]
use serde_json::{Value, json};

/// What is said of a command or a method.
#[derive(Clone, Debug)]
pub struct Terms {
    timeout: Option<u64>,
    limit: Option<u64>,
    rate: Option<(u64, Option<u64>, Option<RateScope>)>,
    breaker: Option<Breaker>,
    retry: Option<(u64, Option<u64>, Option<u64>)>,
    ignore: Vec<&'static str>,
    count: Vec<&'static str>,
    fallback: Option<bool>,
    fallbacks: Option<u64>,
}

#[derive(Clone, Debug)]
struct Breaker {
    numbers: [Option<u64>; 6],
    slow: Option<(u64, u64)>,
    count_rejections: Option<bool>,
    mode: Option<BreakerMode>,
}

/// What is said of all.
#[derive(Clone, Debug)]
pub struct Said {
    default_command: Terms,
    commands: Vec<(String, Terms)>,
    default_method: Terms,
    methods: Vec<(usize, Terms)>,
    shadow: Option<Terms>,
}

/// Up to `most`, and its ends more often than others.
fn number(least: u64, most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(least), 1 => Just(most), 4 => least..=most]
}

fn millis() -> impl Strategy<Value = u64> {
    // Long ones contradict the window of most breakers.
    prop_oneof![8 => 1..=1000_u64, 1 => number(1, 3_600_000)]
}

fn breaker() -> impl Strategy<Value = Breaker> {
    let numbers = (
        weighted(0.5, number(1, 100)),
        weighted(0.5, number(1, 1_000_000)),
        weighted(0.5, millis()),
        weighted(0.5, number(1000, 3_600_000)),
        weighted(0.5, number(1, 100)),
        weighted(0.5, number(1, 1_000_000)),
    );
    let modes =
        vec![BreakerMode::Enforce, BreakerMode::ForcedOpen, BreakerMode::ForcedClosed, BreakerMode::Disabled];
    let slow = weighted(0.3, (1..=100_u64, number(1, 100)));
    (numbers, slow, any::<Option<bool>>(), weighted(0.5, prop::sample::select(modes))).prop_map(
        |((a, b, c, d, e, f), slow, count_rejections, mode)| {
            let numbers = [a, b, c, d, e, f];
            Breaker { numbers, slow, count_rejections, mode }
        },
    )
}

prop_compose! {
    fn terms()(
        timeout in weighted(0.5, millis()),
        limit in weighted(0.5, number(1, 1_000_000)),
        rate in weighted(0.5, (
            number(1, 1_000_000_000),
            Just(Some(1)).prop_union(Just(Some(1_000_000))),
            weighted(0.5, prop::sample::select(&[RateScope::Instance, RateScope::Service][..])),
        )),
        breaker in weighted(0.6, breaker()),
        retry in weighted(0.5, (number(1, 10), weighted(0.2, 1..=100_u64), weighted(0.5, number(1, 100)))),
        ignore in prop::sample::subsequence(vec!["NOT_FOUND", "404", "UNAUTHENTICATED", "499"], 0..=3),
        count in prop::sample::subsequence(vec!["CANCELLED", "400", "599", "DATA_LOSS"], 0..=3),
        fallback in any::<Option<bool>>(),
        fallbacks in weighted(0.5, number(1, 1_000_000)),
    ) -> Terms {
        Terms { timeout, limit, rate, breaker, retry, ignore, count, fallback, fallbacks }
    }
}

prop_compose! {
    /// Anything that can be said, most of it without contradiction.
    pub fn said()(
        default_command in terms(),
        commands in prop::collection::btree_map("[A-Za-z0-9_.-]{1,63}", terms(), 0..4),
        default_method in terms(),
        methods in prop::collection::vec(terms(), 0..4),
        shadow in weighted(0.5, terms()),
    ) -> Said {
        let methods = methods.into_iter().enumerate().collect();
        Said { default_command, commands: commands.into_iter().collect(), default_method, methods, shadow }
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// `of` with what was said, if it was.
fn with<B, T>(of: B, said: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match said {
        Some(said) => set(of, said),
        None => of,
    }
}

impl Terms {
    fn rate(&self, of: RateLimitBuilder) -> RateLimitBuilder {
        let Some((rate, burst, scope)) = self.rate else { return of };
        let of = of.requests_per_second(rate);
        with(with(of, burst, RateLimitBuilder::burst), scope, RateLimitBuilder::scope)
    }

    fn command(&self, of: CommandBuilder) -> CommandBuilder {
        let of = with(of, self.timeout, |of, timeout| of.timeout(ms(timeout)));
        let of = with(of, self.limit, CommandBuilder::max_concurrent_requests);
        let of = with(of, self.rate, |of, _| of.rate_limit(|of| self.rate(of)));
        let of = with(of, self.breaker.as_ref(), |of, breaker| of.circuit_breaker(|of| breaker.of(of)));
        let of = with(of, self.retry, |of, (attempts, each, budget)| {
            of.retry(|of| {
                let of = with(of.max_attempts(attempts), each, |of, each| of.per_try_timeout(ms(each)));
                with(of, budget, RetryBuilder::budget_percent)
            })
        });
        let of = of.ignore_errors(self.ignore.clone()).count_errors(self.count.clone());
        let of = with(of, self.fallback, CommandBuilder::fallback_enabled);
        with(of, self.fallbacks, CommandBuilder::fallback_max_concurrent_requests)
    }

    fn method(&self, of: MethodBuilder) -> MethodBuilder {
        let of = with(of, self.timeout, |of, timeout| of.timeout(ms(timeout)));
        let of = with(of, self.limit, MethodBuilder::max_concurrent_requests);
        with(of, self.rate, |of, _| of.rate_limit(|of| self.rate(of)))
    }
}

impl Breaker {
    fn of(&self, of: CircuitBreakerBuilder) -> CircuitBreakerBuilder {
        let [errors, volume, sleep, window, probes, row] = self.numbers;
        let of = with(of, errors, CircuitBreakerBuilder::error_percent_threshold);
        let of = with(of, volume, CircuitBreakerBuilder::request_volume_threshold);
        let of = with(of, sleep, |of, sleep| of.sleep_window(ms(sleep)));
        let of = with(of, window, |of, window| of.rolling_window(ms(window)));
        let of = with(of, probes, CircuitBreakerBuilder::half_open_probes);
        let of = with(of, row, CircuitBreakerBuilder::consecutive_failures);
        let of = with(of, self.slow, |of, (slow, percent)| of.slow_call(ms(slow), percent));
        let of = with(of, self.count_rejections, CircuitBreakerBuilder::count_rejections);
        with(of, self.mode, CircuitBreakerBuilder::mode)
    }
}

/// The nth method: gRPC and HTTP in turn, every second with an answer of its own.
fn is_grpc(n: usize) -> bool {
    n.is_multiple_of(2)
}

impl Said {
    pub fn built(self, of: PolicyBuilder<'static>) -> PolicyBuilder<'static> {
        let Self { default_command, commands, default_method, methods, shadow } = self;
        let of = of
            .default_command(move |of| default_command.command(of))
            .default_method(move |of| default_method.method(of));
        let of =
            commands.into_iter().fold(of, |of, (name, terms)| of.command(name, move |of| terms.command(of)));
        let of = methods.into_iter().fold(of, |of, (n, terms)| {
            let matches = if is_grpc(n) {
                MethodMatch::grpc("a.S", format!("M{n}"))
            } else {
                MethodMatch::http("GET", format!("/m{n}"))
            };
            of.method(matches, move |of| match (terms.fallback, is_grpc(n)) {
                (Some(true), true) => terms.method(of).fallback_message("{\"name\":\"nobody\"}"),
                (Some(true), false) => terms.method(of).fallback_body("text/plain", "nobody"),
                _ => terms.method(of),
            })
        });
        with(of, shadow, |of, terms| {
            let more = terms.clone();
            of.shadow(|of| {
                of.default_method(move |of| terms.method(of)).command("candidate", move |of| more.command(of))
            })
        })
    }

    /// The same in a resource.
    #[cfg(feature = "crd")]
    pub fn spec(&self) -> Value {
        let commands =
            self.commands.iter().map(|(name, terms)| merged(terms.spec(true), &json!({ "name": name })));
        let methods = self.methods.iter().map(|(n, terms)| {
            let matches = if is_grpc(*n) {
                json!({ "grpc": { "service": "a.S", "method": format!("M{n}") } })
            } else {
                json!({ "http": { "method": "GET", "pathPrefix": format!("/m{n}") } })
            };
            let answer = match (terms.fallback, is_grpc(*n)) {
                (Some(true), true) => json!({ "message": { "name": "nobody" } }),
                (Some(true), false) => json!({ "contentType": "text/plain", "body": "nobody" }),
                _ => Value::Null,
            };
            merged(terms.spec(false), &json!({ "match": matches, "fallback": answer }))
        });
        let methods = json!({ "methods": methods.collect::<Vec<_>>() });
        let commands = json!({ "commands": commands.collect::<Vec<_>>() });
        json!({
            "service": { "name": "user" },
            "inbound": merged(self.default_method.spec(false), &methods),
            "outbound": merged(self.default_command.spec(true), &commands),
            "shadow": self.shadow.as_ref().map(|terms| json!({ "inbound": terms.spec(false) })),
        })
    }
}

#[cfg(feature = "crd")]
fn merged(mut one: Value, other: &Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

#[cfg(feature = "crd")]
impl Terms {
    /// A command has more than a method.
    fn spec(&self, command: bool) -> Value {
        let text = |millis: Option<u64>| millis.map(|ms| format!("{}s{}ms", ms / 1000, ms % 1000));
        let rate = self
            .rate
            .map(|(rate, burst, scope)| json!({ "requestsPerSecond": rate, "burst": burst, "scope": scope }));
        let method =
            json!({ "timeout": text(self.timeout), "maxConcurrentRequests": self.limit, "rateLimit": rate });
        if !command {
            return method;
        }
        let breaker = self.breaker.as_ref().map(|breaker| {
            let [errors, volume, sleep, window, probes, row] = breaker.numbers;
            json!({
                "errorPercentThreshold": errors,
                "requestVolumeThreshold": volume,
                "sleepWindow": text(sleep),
                "rollingWindow": text(window),
                "halfOpenProbes": probes,
                "consecutiveFailures": row,
                "slowCall": breaker.slow.map(|(ms, percent)| json!({ "threshold": text(Some(ms)), "percent": percent })),
                "countRejections": breaker.count_rejections,
                "mode": breaker.mode,
            })
        });
        let retry = self.retry.map(|(attempts, each, budget)| {
            json!({ "maxAttempts": attempts, "perTryTimeout": text(each), "budgetPercent": budget })
        });
        let more = json!({
            "circuitBreaker": breaker,
            "retry": retry,
            "errors": { "ignore": self.ignore, "count": self.count },
            "fallback": { "enabled": self.fallback, "maxConcurrentRequests": self.fallbacks },
        });
        merged(method, &more)
    }
}
