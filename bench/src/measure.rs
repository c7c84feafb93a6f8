//! Timing a subject: samples, their median, and allocations.

use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::{Builder, Runtime};

use crate::alloc;

/// How a row is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Threads that call at once, each on a core of its own.
    pub threads: usize,
    /// Calls of one sample by each thread; None: as many as fill `SAMPLE`.
    pub iters: Option<u64>,
    /// How many samples.
    pub samples: u32,
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Of one call, the median of the samples. With threads: the time of a thread's calls by their number.
    pub ns: f64,
    /// Of one call; None where only instructions are counted.
    pub allocs: Option<f64>,
}

/// Something that can be called: clones share one policy object.
pub trait Subject: Clone + Send {
    /// Calls `n` times, one after the other; returns how many answered Ok.
    fn calls(&mut self, n: u64) -> impl Future<Output = u64>;

    /// Whether every call must answer Ok; otherwise none may.
    fn answers(&self) -> bool {
        true
    }

    /// Whether it is still in the state that the row is about.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Calls whose allocations are counted.
const COUNTED: u64 = 1000;
const WARM_UP: Duration = Duration::from_millis(20);
const SAMPLE: Duration = Duration::from_millis(20);

/// A runtime for timers. Nobody turns it while calls are timed: they end long before any deadline.
pub fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_time().build().context("no runtime")
}

/// Polls a future until it is ready, without parking: the time of the subject is all there is.
pub fn spin<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

/// Measures a subject.
pub fn measure<S: Subject>(mut subject: S, plan: &Plan) -> Result<Measured> {
    let runtime = runtime()?;
    let _in_runtime = runtime.enter();
    let answers = subject.answers();
    let right = |ok: u64, n: u64| ensure_right(answers, ok, n);
    if let Some(iters) = plan.iters {
        // Instructions are counted from outside: nothing but the calls.
        let begin = Instant::now();
        right(counted(&mut subject, iters), iters)?;
        let ns = begin.elapsed().as_nanos() as f64 / iters as f64;
        subject.check()?;
        return Ok(Measured { ns, allocs: None });
    }
    let iters = calibrated(&mut subject)?;
    let mut samples = Vec::new();
    for _ in 0..plan.samples {
        let (elapsed, ok) = sample(&subject, iters, plan.threads)?;
        // The subject knows better what went wrong.
        right(ok, iters * plan.threads as u64).or_else(|error| subject.check().and(Err(error)))?;
        samples.push(elapsed.as_nanos() as f64 / iters as f64);
    }
    let mut ok = 0;
    let allocs = alloc::during(|| ok = spin(subject.calls(COUNTED)));
    right(ok, COUNTED)?;
    subject.check()?;
    Ok(Measured { ns: median(&mut samples), allocs: Some(allocs as f64 / COUNTED as f64) })
}

/// What callgrind counts within: it knows the function by its name.
#[inline(never)]
fn counted<S: Subject>(subject: &mut S, iters: u64) -> u64 {
    spin(subject.calls(iters))
}

/// One call in so many may end otherwise: a thread that is preempted between reading the time and taking
/// from a rate finds the rate ahead of it.
const STRAYS: u64 = 100_000;

fn ensure_right(answers: bool, ok: u64, n: u64) -> Result<()> {
    let expected = if answers { n } else { 0 };
    ensure!(ok.abs_diff(expected) <= n / STRAYS, "{ok} of {n} calls answered, {expected} should have");
    Ok(())
}

/// Warms up; returns how many calls fill a sample.
fn calibrated<S: Subject>(subject: &mut S) -> Result<u64> {
    let (mut calls, begin) = (0, Instant::now());
    let mut n = 16;
    while begin.elapsed() < WARM_UP {
        ensure_right(subject.answers(), spin(subject.calls(n)), n)?;
        calls += n;
        n *= 2;
    }
    let per_call = begin.elapsed().as_nanos() as f64 / calls as f64;
    Ok(((SAMPLE.as_nanos() as f64 / per_call) as u64).max(1))
}

/// The time from the common start until the last thread has made its calls, and how many answered.
fn sample<S: Subject>(subject: &S, iters: u64, threads: usize) -> Result<(Duration, u64)> {
    let (ready, cores) = (Barrier::new(threads), cores());
    let ready = &ready;
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|n| {
                let (mut subject, core) = (subject.clone(), cores.get(n).copied());
                scope.spawn(move || -> Result<(Duration, u64)> {
                    pin_to(core);
                    let runtime = runtime()?;
                    let _in_runtime = runtime.enter();
                    ready.wait();
                    let begin = Instant::now();
                    let ok = spin(subject.calls(iters));
                    Ok((begin.elapsed(), ok))
                })
            })
            .collect();
        let mut all = (Duration::ZERO, 0);
        for thread in running {
            let (elapsed, ok) = thread.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
            all = (all.0.max(elapsed), all.1 + ok);
        }
        Ok(all)
    })
}

/// The cores we may run on.
pub fn cores() -> Vec<core_affinity::CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// Binds this thread to a core, where the system lets it.
pub fn pin_to(core: Option<core_affinity::CoreId>) {
    if let Some(core) = core {
        core_affinity::set_for_current(core);
    }
}

/// The middle one; the mean of the two in the middle.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (middle, odd) = (values.len() / 2, values.len() % 2 == 1);
    match (values.get(middle), middle.checked_sub(1).and_then(|below| values.get(below))) {
        (Some(value), _) if odd => *value,
        (Some(above), Some(below)) => f64::midpoint(*above, *below),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Half(bool);

    impl Subject for Half {
        async fn calls(&mut self, n: u64) -> u64 {
            crate::inner::PendingOnce::new().await;
            if self.0 { n } else { n / 2 }
        }
    }

    #[test]
    fn median_of_odd_and_even() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&mut []).is_nan());
    }

    #[test]
    fn a_subject_that_does_not_answer_is_no_figure() {
        let plan = Plan { threads: 1, iters: Some(100), samples: 1 };
        assert!(measure(Half(true), &plan).is_ok());
        assert!(measure(Half(false), &plan).is_err());
        assert!(ensure_right(true, 999_999, 1_000_000).is_ok() && ensure_right(true, 999, 1_000).is_err());
    }
}
