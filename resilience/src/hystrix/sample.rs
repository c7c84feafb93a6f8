//! A command at one moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fusebox_policy::policy::CommandPolicy;
use fusebox_policy::wire::BreakerState;

use crate::breaker::felt;
use crate::command::state::CommandState;
use crate::fusebox::Shared;
use crate::latency::Durations;
use crate::outcome::Outcome;

/// What a command has counted since the process started, and what it is under.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) command: &'static str,
    pub(super) counts: Counts,
    pub(super) durations: Durations,
    pub(super) in_flight: u32,
    pub(super) breaker: BreakerState,
    pub(super) policy: Arc<CommandPolicy>,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// In the order of [`Outcome::ALL`].
    pub(super) outcomes: [u64; Outcome::ALL.len()],
    pub(super) fallbacks: u64,
    pub(super) fallbacks_failed: u64,
    pub(super) fallbacks_rejected: u64,
}

impl Counts {
    pub(super) const fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// What was added since `earlier`. Counters are not read at one instant, so one may seem to shrink
    /// against another, but never against itself.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            outcomes: std::array::from_fn(|n| self.outcomes[n].saturating_sub(earlier.outcomes[n])),
            fallbacks: self.fallbacks.saturating_sub(earlier.fallbacks),
            fallbacks_failed: self.fallbacks_failed.saturating_sub(earlier.fallbacks_failed),
            fallbacks_rejected: self.fallbacks_rejected.saturating_sub(earlier.fallbacks_rejected),
        }
    }
}

/// Every command that was ever asked for, by name. Loads only: a breaker that is read stays as it is.
pub(super) fn all(shared: &Shared) -> Vec<Sample> {
    shared.commands.all().into_iter().map(sample).collect()
}

fn sample(command: &'static CommandState) -> Sample {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (circuit, fallbacks, policy) = (&command.circuit, &command.fallbacks, command.policy());
    Sample {
        command: &circuit.name,
        counts: Counts {
            outcomes: Outcome::ALL.map(|outcome| circuit.tally(outcome)),
            fallbacks: load(&fallbacks.ran),
            fallbacks_failed: load(&fallbacks.failed),
            fallbacks_rejected: load(&fallbacks.rejected),
        },
        durations: circuit.durations(),
        in_flight: circuit.fuse.in_flight.count(),
        breaker: felt(policy.circuit_breaker.as_ref(), circuit.fuse.gate.state().phase),
        policy,
    }
}
