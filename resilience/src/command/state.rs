//! What a command keeps across reloads, and the policy it is under.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fusebox_policy::policy::{BreakerPolicy, CommandPolicy, hystrix};

use super::retry::Retries;
use crate::circuit::{Circuit, Surroundings};
use crate::classify::{Class, Classifier};
use crate::clock::{Now, exact};
use crate::deadline;
use crate::flight::{Flight, Times};
use crate::fuse::{Opening, Refusal, Terms};
use crate::limit::InFlight;
use crate::outcome::Outcome;

/// One command. Everything but the policy stays the same object for the life of the process.
#[derive(Debug)]
pub struct CommandState {
    pub(crate) circuit: Circuit,
    pub(crate) retries: Retries,
    pub(crate) fallbacks: Fallbacks,
    /// Whether the log has said that no policy names it.
    pub(crate) said_unknown: AtomicBool,
    policy: ArcSwap<CommandPolicy>,
}

/// Fallbacks of one command.
#[derive(Debug, Default)]
pub(crate) struct Fallbacks {
    pub(crate) ran: AtomicU64,
    pub(crate) rejected: AtomicU64,
    /// Of those that ran.
    pub(crate) failed: AtomicU64,
    in_flight: InFlight,
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// By the fuse.
    By(Refusal),
    /// The request it is part of has run out of time.
    TooLate,
}

impl CommandState {
    /// A command that was never called.
    pub(crate) fn new(name: &str, policy: CommandPolicy, instances: u32, around: Surroundings) -> Self {
        Self {
            circuit: Circuit::new(name.to_owned(), Terms::from(&policy), instances, around),
            retries: Retries::new(),
            fallbacks: Fallbacks::default(),
            said_unknown: AtomicBool::new(false),
            policy: ArcSwap::from_pointee(policy),
        }
    }

    /// Puts a policy in force. Not to be called by two threads at once.
    pub(crate) fn reload(&self, policy: &CommandPolicy, candidate: Option<&CommandPolicy>, instances: u32) {
        // Before the terms: what a call looks up when it fails is never older than what it began with.
        self.policy.store(Arc::new(policy.clone()));
        self.circuit.reload(Terms::from(policy), candidate.map(Terms::from), instances);
    }

    /// What a call keeps that begins now.
    #[inline]
    pub(crate) fn opening(&self) -> Opening {
        self.circuit.fuse.opening()
    }

    /// Asks for one call, which must end by the earlier of the policy's timeout and the deadline of what
    /// it is part of.
    #[inline]
    pub(crate) fn begin(&'static self, opening: Opening) -> Result<Flight, Refused> {
        let timeout_ms = opening.timeout_ms;
        self.begin_within(Times { timeout_ms, enclosing: deadline::current() })
    }

    /// Asks for one of several attempts, which must all end by `due`. Each has what is left of that, or the
    /// policy's `perTryTimeout`.
    pub(super) fn begin_attempt(&'static self, attempt: u8, due: Now) -> Result<Flight, Refused> {
        let now = self.circuit.clock().now();
        self.retries.attempted(attempt, now.tick());
        let per_try = self.policy.load().retry.and_then(|retry| retry.per_try_timeout_ms).map(u64::from);
        let left = (due != Now::NEVER).then(|| due.nanos_since(exact()).div_ceil(1_000_000));
        if left == Some(0) {
            return Err(Refused::TooLate);
        }
        let timeout = [per_try, left].into_iter().flatten().min().unwrap_or(0);
        let timeout_ms = u32::try_from(timeout).unwrap_or(u32::MAX);
        self.begin_within(Times { timeout_ms, enclosing: deadline::current() })
    }

    #[inline]
    fn begin_within(&'static self, times: Times) -> Result<Flight, Refused> {
        let now = self.circuit.clock().now();
        if times.enclosing <= now {
            // The request is lost already; that says nothing about the callee.
            self.circuit.count(Outcome::Timeout);
            return Err(Refused::TooLate);
        }
        self.circuit.begin(now, times).map_err(Refused::By)
    }

    /// When to try again after so many attempts that failed; None: not at all.
    pub(crate) fn retry_at(&self, attempts: u8, due: Now) -> Option<Now> {
        let policy = self.policy.load().retry?;
        let now = exact();
        let left = due.min(deadline::current()).since(now);
        let pause = self.retries.again(&policy, attempts, left, now.tick())?;
        Some(now.plus(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Whose fault an error is: the policy's lists come before what the error says of itself.
    #[cold]
    #[inline(never)]
    pub(super) fn class<E>(&self, classifier: &impl Classifier<E>, error: &E) -> Class {
        let errors = &self.policy.load().errors;
        match classifier.code(error) {
            Some(code) if errors.ignore.contains(&code) => Class::Client,
            Some(code) if errors.count.contains(&code) => Class::Failure,
            _ => classifier.class(error),
        }
    }

    /// Counts a fallback that is used.
    #[cold]
    #[inline(never)]
    pub(super) fn fell_back(&self) {
        self.fallbacks.ran.fetch_add(1, Ordering::Relaxed);
    }

    /// The right to run a fallback that takes time; None: there are too many.
    #[cold]
    #[inline(never)]
    pub(super) fn fallback_permit(&'static self) -> Option<FallbackPermit> {
        let limit = self.policy.load().fallback_max_concurrent_requests;
        let limit = limit.map_or(DEFAULT_FALLBACKS, fusebox_policy::policy::Limit::get);
        if self.fallbacks.in_flight.acquire(Some(limit)) {
            self.fallbacks.ran.fetch_add(1, Ordering::Relaxed);
            return Some(FallbackPermit(self));
        }
        self.fallbacks.rejected.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<CommandPolicy> {
        self.policy.load_full()
    }

    /// The breaker's policy in force.
    pub(crate) fn breaker_policy(&self) -> Option<BreakerPolicy> {
        self.policy.load().circuit_breaker.clone()
    }
}

#[allow(clippy::cast_possible_truncation)] // ten
const DEFAULT_FALLBACKS: u32 = hystrix::FALLBACK_MAX_CONCURRENT_REQUESTS as u32;

/// One fallback in flight.
#[derive(Debug)]
pub struct FallbackPermit(&'static CommandState);

impl Drop for FallbackPermit {
    fn drop(&mut self) {
        self.0.fallbacks.in_flight.release();
    }
}

impl<E> From<Refused> for super::CommandError<E> {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::By(Refusal::Open(retry_after)) => Self::Open { retry_after },
            Refused::By(Refusal::Limit) => Self::Rejected,
            Refused::By(Refusal::Rate(retry_after)) => Self::RateLimited { retry_after },
            Refused::TooLate => Self::Timeout(Duration::ZERO),
        }
    }
}
