//! What a command keeps across reloads, and the policy it is under.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use fusebox_policy::policy::{BreakerPolicy, CommandPolicy};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::breaker::gate::Change;
use crate::breaker::state::Phase;
use crate::breaker::{Admission, Gate, Verdict, Window};
use crate::clock::Clock;
use crate::flight::{Account, Flight};
use crate::limit::InFlight;
use crate::outcome::{Outcome, Tally};

/// One command. Everything but the policy in force stays the same object for the life of the
/// process, whatever becomes of the policy.
#[derive(Debug)]
pub(crate) struct CommandState {
    pub(crate) name: String,
    pub(crate) in_flight: InFlight,
    pub(crate) gate: Gate,
    pub(crate) tally: Tally,
    pub(crate) fallbacks: AtomicU64,
    /// Whether the log has said that no policy names it.
    pub(crate) said_unknown: AtomicBool,
    in_force: ArcSwap<InForce>,
    clock: Clock,
    changed: Arc<Notify>,
}

/// The policy of a command and the window of its length.
#[derive(Debug)]
struct InForce {
    version: u64,
    policy: CommandPolicy,
    window: Arc<Window>,
}

/// What an admission leaves to be known at the end of its call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    /// None: the breaker is not told.
    admission: Option<Admission>,
    /// Its request's deadline leaves it less than half of the command's own timeout: should it time
    /// out, that says nothing about the callee (docs/adr/0006).
    hurried: bool,
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Open(Duration),
    Limit,
}

impl CommandState {
    /// A command that was never called.
    pub(crate) fn new(
        name: &str,
        version: u64,
        policy: CommandPolicy,
        clock: Clock,
        changed: Arc<Notify>,
    ) -> Self {
        let window = Arc::new(Window::new(window_length(&policy).unwrap_or(DEFAULT_WINDOW)));
        Self {
            name: name.to_owned(),
            in_flight: InFlight::default(),
            gate: Gate::new(clock.now()),
            tally: Tally::default(),
            fallbacks: AtomicU64::new(0),
            said_unknown: AtomicBool::new(false),
            in_force: ArcSwap::from_pointee(InForce { version, policy, window }),
            clock,
            changed,
        }
    }

    /// Puts a policy in force, unless a newer one is already.
    pub(crate) fn reload(&self, version: u64, policy: &CommandPolicy) {
        let (now, generation) = (self.clock.now(), self.gate.state().generation);
        self.in_force.rcu(|old| {
            if old.version >= version {
                return Arc::clone(old);
            }
            let window = match window_length(policy) {
                Some(length) if !old.window.has_length(length) => {
                    Arc::new(old.window.resized(length, generation, now))
                }
                // Without a breaker the window stays for the next one.
                _ => Arc::clone(&old.window),
            };
            Arc::new(InForce { version, policy: policy.clone(), window })
        });
    }

    /// Asks for one call at `now`, which must end by the earlier of the policy's timeout and
    /// `enclosing`.
    pub(crate) fn begin(
        self: &Arc<Self>,
        now: Instant,
        enclosing: Option<Instant>,
    ) -> Result<Flight<Self>, Refusal> {
        let in_force = self.in_force.load();
        let policy = &in_force.policy;
        let (admission, change) = self.gate.admit(policy.circuit_breaker.as_ref(), self.clock.tick(now));
        self.tell(change.as_deref());
        let admission = admission.map_err(|retry_after| {
            self.tally.count(Outcome::Open);
            Refusal::Open(retry_after)
        })?;
        if !self.in_flight.acquire(policy.max_concurrent_requests.map(fusebox_policy::policy::Limit::get)) {
            self.tally.count(Outcome::Rejected);
            self.decide(Ticket { admission, hurried: false }, Outcome::Rejected, now);
            return Err(Refusal::Limit);
        }
        let timeout = policy.timeout_ms.map(fusebox_policy::policy::Millis::get);
        let hurried = match (timeout, enclosing) {
            (Some(timeout), Some(enclosing)) => enclosing.saturating_duration_since(now) < timeout / 2,
            _ => false,
        };
        let deadline = [timeout.map(|timeout| now + timeout), enclosing].into_iter().flatten().min();
        Ok(Flight::new(Arc::clone(self), Ticket { admission, hurried }, now, deadline))
    }

    /// Whether the fallback that the code offers is used.
    pub(crate) fn fallback_enabled(&self) -> bool {
        self.in_force.load().policy.fallback_enabled
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> CommandPolicy {
        self.in_force.load().policy.clone()
    }

    /// Tells the breaker.
    fn decide(&self, ticket: Ticket, outcome: Outcome, now: Instant) {
        let Some(admission) = ticket.admission else { return };
        let verdict = match outcome {
            Outcome::Success => Verdict::Good,
            Outcome::Timeout if ticket.hurried => Verdict::Neither,
            Outcome::Failure | Outcome::Timeout => Verdict::Bad,
            Outcome::ClientError | Outcome::Cancelled | Outcome::Rejected | Outcome::Open => Verdict::Neither,
        };
        let in_force = self.in_force.load();
        let breaker = in_force.policy.circuit_breaker.as_ref();
        let change = self.gate.settle(breaker, &in_force.window, admission, verdict, self.clock.tick(now));
        self.tell(change.as_deref());
    }

    fn tell(&self, change: Option<&Change>) {
        let Some(change) = change else { return };
        let (command, reason) = (&self.name, &change.reason);
        match change.state.phase {
            Phase::Open { .. } => tracing::warn!(%command, %reason, "breaker opened"),
            Phase::HalfOpen { .. } => tracing::info!(%command, %reason, "breaker half-open"),
            Phase::Closed => tracing::info!(%command, %reason, "breaker closed"),
        }
        self.changed.notify_one();
    }
}

impl Account for CommandState {
    type Ticket = Ticket;

    fn settle(&self, ticket: Ticket, outcome: Outcome, now: Instant) {
        self.in_flight.release();
        self.tally.count(outcome);
        self.decide(ticket, outcome, now);
    }
}

/// The window of a command whose policy has no breaker yet.
const DEFAULT_WINDOW: Duration = Duration::from_secs(10);

fn window_length(policy: &CommandPolicy) -> Option<Duration> {
    policy.circuit_breaker.as_ref().map(|breaker: &BreakerPolicy| breaker.rolling_window_ms.get())
}
