//! Ours.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fusebox::{Command, CommandService, Fusebox, Policy};
use serde_json::{Value, json};
use tower::util::ServiceFn;
use tower::{Layer, Service, service_fn};

use super::{Case, Entry, Has, absent, made};
use crate::inner::{self, Answer};
use crate::measure::{Measured, Plan, Subject, cores, measure, pin_to, runtime};

/// The command of all rows.
pub const COMMAND: &str = "bench";
const WINDOW: &str = "time, 10 s";

/// By the tower layer.
pub const ENTRY: Entry =
    Entry { name: "fusebox", package: Some("fusebox"), has: |_| Has::Yes(WINDOW), measure: of };

/// By `Command::call`.
pub const CALL: Entry = Entry {
    name: "fusebox-call",
    package: Some("fusebox"),
    has: |case| match case {
        Case::Success | Case::Ready | Case::Pending => Has::Yes(WINDOW),
        _ => Has::Absent,
    },
    measure: by_call,
};

/// A breaker like hystrix's defaults, with the fields of `change` in place of its own.
pub fn breaker(change: &Value) -> Value {
    let mut breaker = json!({
        "errorPercentThreshold": 50, "requestVolumeThreshold": 20, "sleepWindowMs": 5000,
        "rollingWindowMs": 10_000, "halfOpenProbes": 1,
    });
    if let (Some(breaker), Some(change)) = (breaker.as_object_mut(), change.as_object()) {
        breaker.extend(change.clone());
    }
    breaker
}

/// A policy that holds the command to this, in the wire format.
pub fn outbound(command: &Value) -> Result<Policy> {
    let policy =
        json!({"inbound": {"default": {}}, "outbound": {"default": {}, "commands": {COMMAND: command}}});
    Ok(serde_json::from_value(policy)?)
}

/// A figure of the metrics, by the sample's name with its labels.
pub fn metric(fusebox: &Fusebox, sample: &str) -> Result<u64> {
    let text = fusebox.registry_text();
    let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let value = value.ok_or_else(|| anyhow::anyhow!("no {sample} in the metrics"))?;
    Ok(value.parse::<f64>()? as u64)
}

/// The command of a policy, and what its rows must leave behind.
#[derive(Clone)]
struct Held {
    fusebox: Fusebox,
    command: Command,
    expect: Expect,
}

#[derive(Clone, Copy)]
struct Expect {
    answers: bool,
    /// As the metric says it.
    breaker: u64,
}

const CLOSED: Expect = Expect { answers: true, breaker: 0 };
const OPEN: Expect = Expect { answers: false, breaker: 2 };
const HALF_OPEN: Expect = Expect { answers: false, breaker: 1 };

const BREAKER_STATE: &str = "fusebox_breaker_state{command=\"bench\"}";

const REFUSALS: [&str; 4] = ["open", "rejected", "rate_limited", "timeout"];

/// The metric of the command's calls with an outcome.
pub fn calls_total(outcome: &str) -> String {
    format!("fusebox_command_calls_total{{command=\"{COMMAND}\",outcome=\"{outcome}\"}}")
}

impl Held {
    fn new(policy: &Value, expect: Expect) -> Result<Self> {
        let fusebox = Fusebox::fixed(outbound(policy)?);
        let command = fusebox.command(COMMAND);
        Ok(Self { fusebox, command, expect })
    }

    /// Opens the breaker by one failure, and sleeps as long as it does.
    fn opened(self, sleep: Duration) -> Result<Self> {
        runtime()?.block_on(async {
            let failed = self.command.call(|| inner::fails(0)).await;
            tokio::time::sleep(sleep).await;
            ensure!(failed.is_err(), "the failing call answered");
            ensure!(metric(&self.fusebox, BREAKER_STATE)? == 2, "one failure did not open the breaker");
            Ok(())
        })?;
        Ok(self)
    }

    /// Around a service, by the command's tower layer.
    fn layered<F>(self, inner: F) -> Calls<CommandService<ServiceFn<F>>> {
        Calls { service: self.command.layer().layer(service_fn(inner)), held: self }
    }

    fn check(&self) -> Result<()> {
        let state = metric(&self.fusebox, BREAKER_STATE)?;
        // Which refusal it was, should there have been any.
        let refused = REFUSALS.map(|outcome| (outcome, metric(&self.fusebox, &calls_total(outcome))));
        ensure!(state == self.expect.breaker, "the breaker is in state {state}; {refused:?}");
        Ok(())
    }
}

/// Calls of the tower layer.
#[derive(Clone)]
struct Calls<S> {
    held: Held,
    service: S,
}

impl<S: Service<u64> + Clone + Send> Subject for Calls<S> {
    async fn calls(&mut self, n: u64) -> u64 {
        made(&mut self.service, n).await
    }

    fn answers(&self) -> bool {
        self.held.expect.answers
    }

    fn check(&self) -> Result<()> {
        self.held.check()
    }
}

/// Calls by the command's own `call`, which has no service.
#[derive(Clone)]
struct ByCall<F> {
    held: Held,
    inner: F,
}

impl<F, Fut> Subject for ByCall<F>
where
    F: Fn(u64) -> Fut + Clone + Send,
    Fut: Future<Output = Answer>,
{
    async fn calls(&mut self, n: u64) -> u64 {
        let mut ok = 0;
        for i in 0..n {
            let (inner, i) = (self.inner.clone(), black_box(i));
            ok += u64::from(black_box(self.held.command.call(move || inner(i)).await).is_ok());
        }
        ok
    }

    fn answers(&self) -> bool {
        self.held.expect.answers
    }

    fn check(&self) -> Result<()> {
        self.held.check()
    }
}

fn of(case: Case, plan: &Plan) -> Result<Measured> {
    match case {
        Case::Success => measure(Held::new(&lone(&json!({})), CLOSED)?.layered(inner::ready), plan),
        Case::OpenReject => {
            let at_once =
                json!({"errorPercentThreshold": 1, "requestVolumeThreshold": 1, "sleepWindowMs": 3_600_000});
            let held = Held::new(&lone(&at_once), OPEN)?.opened(Duration::ZERO)?;
            measure(held.layered(inner::ready), plan)
        }
        Case::HalfOpenProbe => {
            let at_once =
                json!({"errorPercentThreshold": 1, "requestVolumeThreshold": 1, "sleepWindowMs": 1});
            let held = Held::new(&lone(&at_once), HALF_OPEN)?.opened(Duration::from_millis(20))?;
            // Errors of the caller give the probe's slot back and leave the breaker half-open.
            measure(held.layered(inner::wrong), plan)
        }
        Case::Ready => measure(Held::new(&full(), CLOSED)?.layered(inner::ready), plan),
        Case::Pending => measure(Held::new(&full(), CLOSED)?.layered(inner::pending_once), plan),
        Case::Reload => reloaded(plan),
    }
}

fn by_call(case: Case, plan: &Plan) -> Result<Measured> {
    match case {
        Case::Success => {
            measure(ByCall { held: Held::new(&lone(&json!({})), CLOSED)?, inner: inner::ready }, plan)
        }
        Case::Ready => measure(ByCall { held: Held::new(&full(), CLOSED)?, inner: inner::ready }, plan),
        Case::Pending => {
            measure(ByCall { held: Held::new(&full(), CLOSED)?, inner: inner::pending_once }, plan)
        }
        _ => absent(),
    }
}

fn lone(change: &Value) -> Value {
    json!({"circuitBreaker": breaker(change)})
}

/// Breaker, deadline, limit and rate, of which none is ever reached. Metrics are always kept. The rate is
/// low enough for its burst, which is at most a million, to last for the four milliseconds that a thread
/// may be preempted for.
fn full() -> Value {
    json!({
        "timeoutMs": 1000, "maxConcurrentRequests": 1000, "circuitBreaker": breaker(&json!({})),
        "rateLimit": {"requestsPerSecond": 250_000_000, "burst": 1_000_000},
    })
}

/// The success case while another core puts one of two policies in force a thousand times a second.
fn reloaded(plan: &Plan) -> Result<Measured> {
    let calls = Held::new(&lone(&json!({})), CLOSED)?.layered(inner::ready);
    let policies = [outbound(&lone(&json!({"errorPercentThreshold": 60})))?, outbound(&lone(&json!({})))?];
    let fusebox = calls.held.fusebox.clone();
    let (applied, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin_to(cores().get(1).copied());
            let mut due = Instant::now();
            for policy in policies.iter().cycle() {
                if done.load(Relaxed) {
                    break;
                }
                fusebox.apply(policy);
                applied.fetch_add(1, Relaxed);
                due += Duration::from_millis(1);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        while applied.load(Relaxed) == 0 {
            thread::yield_now();
        }
        let begin = Instant::now();
        let measured = measure(calls, plan);
        let (took, applied) = (begin.elapsed(), applied.load(Relaxed) as f64);
        done.store(true, Relaxed);
        // Of a run long enough to tell.
        let slow = took > Duration::from_millis(100) && applied < took.as_secs_f64() * 500.0;
        ensure!(!slow, "only {applied} policies were put in force in {took:?}");
        measured
    })
}
