//! B4: whether what is fast is also right. Two threads at full speed against exact counts.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;

use anyhow::{Result, ensure};
use fusebox::{CommandError, Fusebox};
use serde_json::json;

use crate::inner::{Answer, Fault, PendingOnce};
use crate::measure::{cores, pin_to, runtime, spin};
use crate::subjects::fusebox::{COMMAND, breaker, calls_total, metric, outbound};

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub enum Fidelity {
    /// Outcomes that the metrics do not show.
    Lost,
    /// Calls admitted more, or fewer, than until an exact count opens the breaker.
    TripDelay,
    /// Calls in flight above the limit.
    OverAdmission,
}

impl Fidelity {
    pub const fn window(self) -> &'static str {
        match self {
            Self::Lost => "time, 10 s",
            Self::TripDelay => "time, 60 s",
            Self::OverAdmission => "none (limit only)",
        }
    }

    pub const fn unit(self) -> &'static str {
        match self {
            Self::Lost => "outcomes lost",
            Self::TripDelay => "calls off",
            Self::OverAdmission => "calls over",
        }
    }
}

const THREADS: u64 = 2;

/// Counts. `iters`: how many outcomes in all.
pub fn measure(what: Fidelity, iters: Option<u64>) -> Result<f64> {
    let value = match what {
        Fidelity::Lost => lost(iters.unwrap_or(10_000_000))?,
        Fidelity::TripDelay => {
            // The worst of many: each trip is a race of its own.
            let trials = (iters.unwrap_or(2_000_000) / (2 * GOOD)).max(1);
            let delays = (0..trials).map(|_| trip_delay()).collect::<Result<Vec<_>>>()?;
            delays.into_iter().max().unwrap_or_default()
        }
        Fidelity::OverAdmission => over_admission(iters.unwrap_or(2_000_000))?,
    };
    Ok(value as f64)
}

/// Runs `work` on each thread at once, with its number.
fn together(work: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    let (start, cores) = (Barrier::new(THREADS as usize), cores());
    thread::scope(|scope| {
        let (start, work) = (&start, &work);
        let running: Vec<_> = (0..THREADS)
            .map(|n| {
                let core = cores.get(n as usize).copied();
                scope.spawn(move || {
                    pin_to(core);
                    let runtime = runtime()?;
                    let _in_runtime = runtime.enter();
                    start.wait();
                    work(n)
                })
            })
            .collect();
        for thread in running {
            thread.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
        }
        Ok(())
    })
}

/// Successes, failures and errors of the caller in turn, each counted by us as well.
fn lost(n: u64) -> Result<u64> {
    // Half of what counts fails: below the threshold, so that the breaker never opens.
    let policy = outbound(&json!({"circuitBreaker": breaker(&json!({"errorPercentThreshold": 100}))}))?;
    let fusebox = Fusebox::fixed(policy);
    let sent = [const { AtomicU64::new(0) }; 3];
    together(|_| {
        let command = fusebox.command(COMMAND);
        let mut mine = [0_u64; 3];
        for i in 0..n / THREADS {
            let kind = (i % 3) as usize;
            let answer: Answer = [Ok(i), Err(Fault::Callee), Err(Fault::Caller)][kind];
            let got = spin(command.call(|| std::future::ready(answer)));
            ensure!(got.is_ok() == answer.is_ok(), "the call's answer is not its own");
            mine[kind] += 1;
        }
        for (sent, mine) in sent.iter().zip(mine) {
            sent.fetch_add(mine, Relaxed);
        }
        Ok(())
    })?;
    let mut lost = 0;
    for (sent, outcome) in sent.iter().zip(["success", "failure", "client_error"]) {
        lost += sent.load(Relaxed).abs_diff(metric(&fusebox, &calls_total(outcome))?);
    }
    Ok(lost)
}

/// Successes before the callee starts to fail.
const GOOD: u64 = 10_000;

/// With `GOOD` successes first and failures only from there on, an exact count of half of all reaches
/// the threshold with as many failures: every admission beyond those is late.
fn trip_delay() -> Result<u64> {
    // A window that outlasts the run: both counts then see all of it.
    let policy = outbound(&json!({"circuitBreaker": breaker(&json!({"rollingWindowMs": 60_000}))}))?;
    let fusebox = Fusebox::fixed(policy);
    let admitted = AtomicU64::new(0);
    together(|_| {
        let command = fusebox.command(COMMAND);
        loop {
            let call = || {
                let good = admitted.fetch_add(1, SeqCst) < GOOD;
                std::future::ready(if good { Ok(0) } else { Err(Fault::Callee) })
            };
            match spin(command.call(call)) {
                Err(CommandError::Open { .. }) => return Ok(()),
                _ => ensure!(admitted.load(Relaxed) < 100 * GOOD, "the breaker never opened"),
            }
        }
    })?;
    let admitted = admitted.load(Relaxed);
    Ok(admitted.abs_diff(2 * GOOD))
}

const LIMIT: u64 = 10;
/// More than the limit on each thread, so that it is always reached.
const CALLERS: usize = 32;

/// Calls that say Pending in turn, with a probe inside that counts those at work.
fn over_admission(n: u64) -> Result<u64> {
    let fusebox = Fusebox::fixed(outbound(&json!({"maxConcurrentRequests": LIMIT}))?);
    let (inside, most, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    together(|_| {
        let command = fusebox.command(COMMAND);
        let call = async || {
            let called = command.call(async || {
                most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                PendingOnce::new().await;
                inside.fetch_sub(1, SeqCst);
                Ok::<_, Fault>(0)
            });
            if called.await.is_err() {
                refused.fetch_add(1, Relaxed);
            }
        };
        let rounds = n / THREADS / CALLERS as u64;
        for _ in 0..rounds {
            spin(all(std::array::from_fn(|_| call())));
        }
        Ok(())
    })?;
    ensure!(refused.load(Relaxed) > 0, "the limit was never reached");
    let most = most.load(SeqCst);
    ensure!(most >= LIMIT, "at most {most} at once: the limit was never reached");
    Ok(most.saturating_sub(LIMIT))
}

/// Polls all of them in turn until each is ready.
async fn all<F: Future<Output = ()>>(futures: [F; CALLERS]) {
    let mut futures = futures.map(|future| Some(Box::pin(future)));
    std::future::poll_fn(|cx| {
        for slot in &mut futures {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(cx).is_ready()) {
                *slot = None;
            }
        }
        if futures.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}
