//! Ours.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fusebox::{Command, Fusebox, Policy};
use serde_json::{Value, json};

use super::{Case, Entry, Has};
use crate::inner::{self, Answer};
use crate::measure::{Measured, Plan, Subject, cores, measure, pin_to, runtime};

/// The command of all rows.
pub const COMMAND: &str = "bench";
const WINDOW: &str = "time, 10 s";

pub const ENTRY: Entry =
    Entry { name: "fusebox", package: Some("fusebox"), has: |_| Has::Yes(WINDOW), measure: of };

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

// PLACE FOR THE TOWER LAYER: `fusebox.command(COMMAND).layer()` around `service_fn(inner::ready)` is a
// `super::Layered`; it takes the place of `Calls` in `Success`, `Ready` and `Pending`.
/// Calls of a command.
#[derive(Clone)]
struct Calls<F> {
    fusebox: Fusebox,
    command: Command,
    inner: F,
    expect: Expect,
}

/// What a row must leave behind.
#[derive(Clone, Copy)]
struct Expect {
    answers: bool,
    /// As the metric says it.
    breaker: u64,
}

const CLOSED: Expect = Expect { answers: true, breaker: 0 };
const OPEN: Expect = Expect { answers: false, breaker: 2 };
const HALF_OPEN: Expect = Expect { answers: false, breaker: 1 };

impl<F, Fut> Calls<F>
where
    F: Fn(u64) -> Fut + Clone + Send,
    Fut: Future<Output = Answer>,
{
    fn new(policy: &Value, inner: F, expect: Expect) -> Result<Self> {
        let fusebox = Fusebox::fixed(outbound(policy)?);
        let command = fusebox.command(COMMAND);
        Ok(Self { fusebox, command, inner, expect })
    }

    /// Opens the breaker by one failure, and sleeps as long as it does.
    fn opened(self, sleep: Duration) -> Result<Self> {
        runtime()?.block_on(async {
            let refused = self.command.call(|| inner::fails(0)).await;
            tokio::time::sleep(sleep).await;
            ensure!(refused.is_err(), "the failing call answered");
            ensure!(metric(&self.fusebox, BREAKER_STATE)? == 2, "one failure did not open the breaker");
            Ok(())
        })?;
        Ok(self)
    }
}

const BREAKER_STATE: &str = "fusebox_breaker_state{command=\"bench\"}";

impl<F, Fut> Subject for Calls<F>
where
    F: Fn(u64) -> Fut + Clone + Send,
    Fut: Future<Output = Answer>,
{
    async fn calls(&mut self, n: u64) -> u64 {
        let mut ok = 0;
        for i in 0..n {
            let i = black_box(i);
            ok += u64::from(black_box(self.command.call(|| (self.inner)(i)).await).is_ok());
        }
        ok
    }

    fn answers(&self) -> bool {
        self.expect.answers
    }

    fn check(&self) -> Result<()> {
        let state = metric(&self.fusebox, BREAKER_STATE)?;
        ensure!(state == self.expect.breaker, "the breaker is in state {state}");
        Ok(())
    }
}

fn of(case: Case, plan: &Plan) -> Result<Measured> {
    match case {
        Case::Success => measure(Calls::new(&lone(&json!({})), inner::ready, CLOSED)?, plan),
        Case::OpenReject => {
            let at_once =
                json!({"errorPercentThreshold": 1, "requestVolumeThreshold": 1, "sleepWindowMs": 3_600_000});
            measure(Calls::new(&lone(&at_once), inner::ready, OPEN)?.opened(Duration::ZERO)?, plan)
        }
        Case::HalfOpenProbe => {
            let at_once =
                json!({"errorPercentThreshold": 1, "requestVolumeThreshold": 1, "sleepWindowMs": 1});
            // Errors of the caller give the probe's slot back and leave the breaker half-open.
            let calls = Calls::new(&lone(&at_once), inner::wrong, HALF_OPEN)?;
            measure(calls.opened(Duration::from_millis(20))?, plan)
        }
        Case::Ready => measure(Calls::new(&full(), inner::ready, CLOSED)?, plan),
        Case::Pending => measure(Calls::new(&full(), inner::pending_once, CLOSED)?, plan),
        Case::Reload => reloaded(plan),
    }
}

fn lone(change: &Value) -> Value {
    json!({"circuitBreaker": breaker(change)})
}

/// Breaker, deadline, limit. PLACE FOR THE RATE LIMIT: in the wire format it is a server's; B2 takes it
/// in with the tower layer.
fn full() -> Value {
    json!({"timeoutMs": 1000, "maxConcurrentRequests": 1000, "circuitBreaker": breaker(&json!({}))})
}

/// The success case while another core puts one of two policies in force a thousand times a second.
fn reloaded(plan: &Plan) -> Result<Measured> {
    let calls = Calls::new(&lone(&json!({})), inner::ready, CLOSED)?;
    let policies = [outbound(&lone(&json!({"errorPercentThreshold": 60})))?, outbound(&lone(&json!({})))?];
    let fusebox = calls.fusebox.clone();
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
