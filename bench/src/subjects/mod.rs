//! What is compared: each library in a file of its own, built once outside the timed loop.

mod baseline;
mod failsafe;
pub mod fusebox;
mod governor;
mod recloser;
mod tower;
mod tower_resilience;

use std::hint::black_box;

use anyhow::Result;
// The crate, not the file beside this one.
use ::tower::{Service, ServiceExt};

use crate::measure::{Measured, Plan, Subject};

/// What a subject is put through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// A breaker alone, closed; every call answers.
    Success,
    /// A breaker alone, open; every call is refused.
    OpenReject,
    /// A breaker alone, half-open; every call is a probe.
    HalfOpenProbe,
    /// The full stack, the inner service ready at once.
    Ready,
    /// The full stack, the inner service pending once.
    Pending,
    /// As `Success` while another thread puts a policy in force a thousand times a second.
    Reload,
}

/// Whether a subject has a case.
#[derive(Clone, Copy, Debug)]
pub enum Has {
    /// It has, with a window of this type.
    Yes(&'static str),
    /// It should and cannot, for this reason: a row "not run".
    No(&'static str),
    /// It is no peer in this case: no row.
    Absent,
}

/// One library.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As the table calls it.
    pub name: &'static str,
    /// Its package in `Cargo.lock`.
    pub package: Option<&'static str>,
    /// What it has.
    pub has: fn(Case) -> Has,
    /// Measures a case that it has.
    pub measure: fn(Case, &Plan) -> Result<Measured>,
}

/// All of them; the bare service first.
pub const ALL: [Entry; 8] = [
    baseline::ENTRY,
    fusebox::ENTRY,
    fusebox::CALL,
    tower_resilience::ENTRY,
    recloser::ENTRY,
    failsafe::ENTRY,
    governor::ENTRY,
    tower::ENTRY,
];

/// A tower service; clones of it share its state.
#[derive(Clone)]
struct Layered<S> {
    service: S,
    answers: bool,
}

impl<S: Service<u64> + Clone + Send> Subject for Layered<S> {
    async fn calls(&mut self, n: u64) -> u64 {
        made(&mut self.service, n).await
    }

    fn answers(&self) -> bool {
        self.answers
    }
}

/// Calls a service `n` times; returns how many answered Ok.
async fn made<S: Service<u64>>(service: &mut S, n: u64) -> u64 {
    let mut ok = 0;
    for i in 0..n {
        let Ok(service) = service.ready().await else { continue };
        ok += u64::from(black_box(service.call(black_box(i)).await).is_ok());
    }
    ok
}

/// A library that takes a closure: the call is made where a service's would be.
#[derive(Clone)]
struct Closure<F> {
    call: F,
    answers: bool,
}

impl<F: AsyncFn(u64) -> bool + Clone + Send> Subject for Closure<F> {
    async fn calls(&mut self, n: u64) -> u64 {
        let mut ok = 0;
        for i in 0..n {
            ok += u64::from(black_box((self.call)(black_box(i)).await));
        }
        ok
    }

    fn answers(&self) -> bool {
        self.answers
    }
}

/// A case that `has` does not have was asked for.
fn absent<T>() -> Result<T> {
    anyhow::bail!("it has no such case")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every subject comes through every case that it says it has, in the state that the case is about.
    #[test]
    fn every_subject_has_what_it_says() {
        let cases =
            [Case::Success, Case::OpenReject, Case::HalfOpenProbe, Case::Ready, Case::Pending, Case::Reload];
        for entry in ALL {
            for case in cases {
                if matches!((entry.has)(case), Has::Yes(_)) {
                    let plan = Plan { threads: 1, iters: Some(1000), samples: 1 };
                    let measured = (entry.measure)(case, &plan);
                    assert!(measured.is_ok(), "{} {case:?}: {measured:?}", entry.name);
                }
            }
        }
    }
}
