//! One command or method: its fuse, its shadow, and what it counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

use crate::breaker::state::Phase;
use crate::breaker::{Change, Verdict};
use crate::clock::{Clock, Now};
use crate::flight::{Flight, Times};
use crate::fuse::{Fuse, Refusal, Settled, Terms, Ticket};
use crate::latency::{Durations, Latency};
use crate::outcome::{Outcome, Tally};
use crate::shadow::Shadow;
use crate::shard::Shards;
use crate::slot::{Slot, slots};

/// A command or a method. It lives as long as the process (docs/adr/0008): so whoever calls holds a
/// plain reference, and no call counts one.
#[derive(Debug)]
pub(crate) struct Circuit {
    /// The command's, or `user.v1.UserService/GetUser`, `GET /users`, `default`.
    pub(crate) name: String,
    pub(crate) fuse: Fuse,
    shards: Shards<Shard>,
    shadowed: AtomicBool,
    shadow: OnceLock<Box<Shadow>>,
    /// The largest number of calls ready at once that was shown.
    at_once: AtomicU64,
    clock: &'static Clock,
    changed: Arc<Notify>,
}

/// What the circuits of one fusebox have in common.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) clock: &'static Clock,
    /// Woken by changes of breakers.
    pub(crate) changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Shard {
    tally: Tally,
    latency: Latency,
}

impl Circuit {
    /// A circuit that was never called.
    pub(crate) fn new(name: String, terms: Terms, instances: u32, around: Surroundings) -> Self {
        let slots = slots();
        Self {
            name,
            fuse: Fuse::new(terms, instances, around.clock, slots),
            shards: Shards::new(slots),
            shadowed: AtomicBool::new(false),
            shadow: OnceLock::new(),
            at_once: AtomicU64::new(0),
            clock: around.clock,
            changed: around.changed,
        }
    }

    /// Puts terms in force, and those of a candidate beside them. Not to be called by two threads at
    /// once.
    pub(crate) fn reload(&self, terms: Terms, candidate: Option<Terms>, instances: u32) {
        self.fuse.reload(terms, instances);
        self.shadowed.store(candidate.is_some(), Ordering::Release);
        let Some(candidate) = candidate else { return };
        let fresh = || Box::new(Shadow::new(candidate.clone(), instances, self.clock));
        self.shadow.get_or_init(fresh).reload(candidate, instances);
    }

    /// How many instances share the rates of scope `Service`. Not to be called beside a reload.
    #[cfg(feature = "etcd")]
    pub(crate) fn set_instances(&self, instances: u32) {
        self.fuse.set_instances(instances);
        if let Some(shadow) = self.shadow() {
            shadow.fuse.set_instances(instances);
        }
    }

    /// Asks for one call that may take so long, from now on.
    #[inline]
    pub(crate) fn begin(&'static self, now: Now, times: Times) -> Result<Flight, Refusal> {
        if !self.shadowed.load(Ordering::Acquire)
            && let Some(ticket) = self.fuse.pass(now)
        {
            return Ok(Flight::new(self, ticket, None, now, times));
        }
        self.begin_by_terms(now, times)
    }

    #[cold]
    #[inline(never)]
    fn begin_by_terms(&'static self, now: Now, times: Times) -> Result<Flight, Refusal> {
        if !self.shadowed.load(Ordering::Relaxed)
            && let Some(refusal) = self.fuse.refuse(now)
        {
            self.count(Outcome::Open);
            return Err(refusal);
        }
        let shadow = self.shadow().and_then(|shadow| shadow.admit(now));
        let (admitted, change) = self.fuse.admit(now);
        self.tell(change);
        admitted.map(|ticket| Flight::new(self, ticket, shadow, now, times)).inspect_err(|refusal| {
            self.refuse(*refusal, shadow, now);
        })
    }

    fn refuse(&self, refusal: Refusal, shadow: Option<Ticket>, now: Now) {
        self.count(match refusal {
            Refusal::Open(_) => Outcome::Open,
            Refusal::Limit => Outcome::Rejected,
            Refusal::Rate(_) => Outcome::RateLimited,
        });
        // Also if the candidate was just removed: it must get back its permit.
        if let (Some(shadow), Some(ticket)) = (self.shadow.get(), shadow) {
            shadow.settle(ticket, Settled { verdict: Verdict::Neither, took: 0 }, now);
        }
    }

    /// Counts an outcome that nobody was admitted for.
    #[inline]
    pub(crate) fn count(&self, outcome: Outcome) {
        let slot = Slot::mine();
        self.shards.at(slot).tally.count(outcome, slot.write);
    }

    /// Takes a success that did not have to wait and needs no more than to be counted; false: it takes
    /// [`settle`](Self::settle), and nothing was done.
    #[inline]
    pub(crate) fn succeed(&self, ticket: Ticket) -> bool {
        let slot = Slot::mine();
        let counted = self.fuse.succeed(ticket, self.clock.now(), slot);
        if counted {
            self.shards.at(slot).tally.count(Outcome::Success, slot.write);
        }
        counted
    }

    /// Takes the end of a flight: its permit, its outcome and its verdict.
    pub(crate) fn settle(&self, flight: Landing, outcome: Outcome, now: Now) {
        let slot = Slot::mine();
        let shard = self.shards.at(slot);
        shard.tally.count(outcome, slot.write);
        // What never waited was not measured.
        if outcome.has_latency() && flight.took > 0 {
            shard.latency.record(flight.took, slot.write);
        }
        let settled = Settled { verdict: outcome.verdict(flight.hurried), took: flight.took };
        self.tell(self.fuse.settle(flight.ticket, settled, now));
        if let Some(ticket) = flight.shadow
            && let Some(shadow) = self.shadow.get()
        {
            shadow.settle(ticket, settled, now);
        }
    }

    /// Decides a probe that has an answer and goes on.
    #[cold]
    #[inline(never)]
    pub(crate) fn decide(
        &self,
        ticket: &mut Ticket,
        shadow: Option<&mut Ticket>,
        settled: Settled,
        now: Now,
    ) {
        self.tell(self.fuse.decide(ticket, settled, now));
        if let (Some(ticket), Some(shadow)) = (shadow, self.shadow.get()) {
            shadow.decide(ticket, settled, now);
        }
    }

    /// Tells the candidate that has let a flight pass that it has its answer.
    #[cold]
    #[inline(never)]
    pub(crate) fn answered(&self, shadow: &mut Ticket, took: u64) {
        if let Some(candidate) = self.shadow.get() {
            candidate.answered(shadow, took);
        }
    }

    /// The candidate, if there is one.
    #[inline]
    pub(crate) fn shadow(&self) -> Option<&Shadow> {
        if self.shadowed.load(Ordering::Acquire) { self.shadow.get().map(|shadow| &**shadow) } else { None }
    }

    /// How often it ended so.
    pub(crate) fn tally(&self, outcome: Outcome) -> u64 {
        self.shards.iter().map(|shard| shard.tally.of(outcome)).sum()
    }

    /// How long its calls took. Those that were ready at once are in the lowest bucket, and nothing of
    /// the sum.
    pub(crate) fn durations(&self) -> Durations {
        // First, so that a call counted in between is not missing below.
        let mut durations = Durations::default();
        self.shards.iter().for_each(|shard| durations.add(&shard.latency));
        let ended: u64 =
            Outcome::ALL.into_iter().filter(|o| o.has_latency()).map(|outcome| self.tally(outcome)).sum();
        let at_once = durations.buckets[0] + ended.saturating_sub(durations.count());
        // A call that ends just now may have been taken for one that was ready at once: what was shown once
        // is shown again, or it would look as if the process had started anew.
        durations.buckets[0] = self.at_once.fetch_max(at_once, Ordering::Relaxed).max(at_once);
        durations
    }

    #[inline]
    pub(crate) const fn clock(&self) -> &'static Clock {
        self.clock
    }

    #[inline]
    fn tell(&self, change: Option<Change>) {
        if let Some(change) = change {
            self.told(change);
        }
    }

    #[cold]
    #[inline(never)]
    fn told(&self, change: Change) {
        let (command, reason) = (&self.name, &change.reason);
        match change.state.phase {
            Phase::Open { .. } => tracing::warn!(%command, %reason, "breaker opened"),
            Phase::HalfOpen { .. } => tracing::info!(%command, %reason, "breaker half-open"),
            Phase::Closed => tracing::info!(%command, %reason, "breaker closed"),
        }
        self.changed.notify_one();
    }
}

/// What is known of a flight at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Landing {
    pub(crate) ticket: Ticket,
    pub(crate) shadow: Option<Ticket>,
    /// Nanoseconds to its answer or end; zero if it never waited.
    pub(crate) took: u64,
    /// Its request's deadline left it less than half of its own timeout: should it time out, that says
    /// nothing about the callee (docs/adr/0006).
    pub(crate) hurried: bool,
}
