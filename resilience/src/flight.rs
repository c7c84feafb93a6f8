//! A call or request in flight: whatever becomes of it, it is settled exactly once.

use std::time::Duration;

use crate::circuit::{Circuit, Landing};
use crate::clock::{Now, exact};
use crate::deadline::{self, Due};
use crate::fuse::{Settled, Ticket};
use crate::outcome::Outcome;

/// How long a flight may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Milliseconds from its start; zero: as long as it likes.
    pub(crate) timeout_ms: u32,
    /// The deadline of what it is part of.
    pub(crate) enclosing: Now,
}

impl Times {
    #[inline]
    const fn timeout(self) -> u64 {
        self.timeout_ms as u64 * 1_000_000
    }
}

/// One admitted call. Dropped without being settled, it counts as cancelled; with two exceptions:
/// at or after 95 % of its deadline as a timeout, because the caller's own timer may be a little
/// ahead of ours, and while its code runs as a failure, because only a panic does that.
///
/// The clock is read exactly when the call first has to wait, not before: its start is then known to a
/// millisecond or, if it had to wait at once, as exactly as that.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is true from some moment on, in any order
pub(crate) struct Flight {
    circuit: &'static Circuit,
    ticket: Ticket,
    shadow: Option<Ticket>,
    started: Now,
    times: Times,
    /// Nanoseconds to its answer, once the head of that is there.
    took: u64,
    /// Its request's deadline left it less than half of its own timeout, as far as that has to be remembered.
    hurried: bool,
    waited: bool,
    running: bool,
    settled: bool,
}

const UNKNOWN: u64 = u64::MAX;

impl Flight {
    /// A call that `circuit` has admitted.
    #[inline]
    pub(crate) const fn new(
        circuit: &'static Circuit,
        ticket: Ticket,
        shadow: Option<Ticket>,
        started: Now,
        times: Times,
    ) -> Self {
        Self {
            circuit,
            ticket,
            shadow,
            started,
            times,
            took: UNKNOWN,
            hurried: false,
            waited: false,
            running: false,
            settled: false,
        }
    }

    /// Runs a part of the call's code, under its deadline.
    #[inline]
    pub(crate) fn run<R>(&mut self, part: impl FnOnce() -> R) -> R {
        self.running = true;
        let result = deadline::within(self.deadline(), part);
        self.running = false;
        result
    }

    /// Its deadline, as the code it runs is told.
    #[inline]
    pub(crate) fn deadline(&self) -> Due {
        match self.times.timeout_ms {
            0 => Due::at(self.times.enclosing),
            _ if self.waited => Due::at(self.due()),
            _ => Due { at: self.times.enclosing, after: self.times.timeout() },
        }
    }

    /// The call has to wait: it is in flight, and its deadline is exact.
    pub(crate) fn wait(&mut self) {
        self.start_exactly();
        if !self.waited {
            self.waited = true;
            self.hold();
        }
    }

    /// Finds out when it started by the clock itself, unless that is known: the ticker may have been late
    /// then, where processors are scarce by dozens of milliseconds, and is as late still. What it has told
    /// since is how long the call has run.
    fn start_exactly(&mut self) {
        if !self.waited {
            let clock = self.circuit.clock();
            let ran = clock.now().nanos_since(self.started).saturating_sub(clock.slack());
            self.started = self.started.max(Now(exact().0.saturating_sub(ran)));
        }
    }

    /// Counts it as one in flight, if it has no permit yet.
    pub(crate) fn hold(&mut self) {
        self.circuit.fuse.wait(&mut self.ticket);
        if let (Some(ticket), Some(shadow)) = (&mut self.shadow, self.circuit.shadow()) {
            shadow.fuse.wait(ticket);
        }
    }

    /// When the call must have ended, once its start is known exactly.
    pub(crate) fn due(&self) -> Now {
        match self.times.timeout_ms {
            0 => self.times.enclosing,
            _ => self.started.plus(self.times.timeout()).min(self.times.enclosing),
        }
    }

    /// Whether the call should have ended by now, or in the next two milliseconds: another's timer for the
    /// deadline that we told it is rounded otherwise, and was set a little before ours. Of a short time it
    /// is the last tenth.
    pub(crate) fn is_overdue(&mut self) -> bool {
        self.start_exactly();
        let (due, early) = (self.due(), 2 * self.circuit.clock().slack());
        let tenth = u64::try_from(self.limit().as_nanos() / 10).unwrap_or(u64::MAX);
        due != Now::NEVER && due <= exact().plus(early.min(tenth))
    }

    /// The head of an answer is there, in time. What follows, like a body, may take as long as it likes: it is
    /// not slow for that, and dropped from here on it is cancelled.
    pub(crate) fn answered(&mut self) {
        self.took = self.ran(self.now());
        self.hurried = self.was_hurried();
        if let Some(shadow) = &mut self.shadow {
            self.circuit.answered(shadow, self.took);
        }
        self.times = Times { timeout_ms: 0, enclosing: Now::NEVER };
    }

    /// What follows the head takes its time: a probe must not keep the breaker half-open for that, and is
    /// decided by how it would be counted so far.
    pub(crate) fn decide(&mut self, outcome: Outcome) {
        let settled = Settled { verdict: outcome.verdict(self.hurried), took: self.took };
        self.circuit.decide(&mut self.ticket, self.shadow.as_mut(), settled, exact());
    }

    /// From start to deadline.
    pub(crate) fn limit(&self) -> Duration {
        let enclosing = self.times.enclosing.since(self.started);
        match self.times.timeout_ms {
            0 => enclosing,
            millis => enclosing.min(Duration::from_millis(millis.into())),
        }
    }

    /// The call has given its answer.
    #[inline]
    pub(crate) fn succeed(&mut self) {
        let plain = !(self.waited || self.settled) && self.shadow.is_none();
        if plain && self.circuit.succeed(self.ticket) {
            self.settled = true;
        } else {
            self.settle(Outcome::Success);
        }
    }

    /// The call has ended.
    #[cold]
    #[inline(never)]
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        let now = self.now();
        self.end(outcome, now);
    }

    /// As exactly as its start is known.
    fn now(&self) -> Now {
        if self.waited { exact() } else { self.circuit.clock().now() }
    }

    /// For how many nanoseconds it has run. Nobody has read the clock for a call that never waited: it is
    /// taken to have ended as it began.
    fn ran(&self, now: Now) -> u64 {
        if self.waited { now.nanos_since(self.started) } else { 0 }
    }

    fn end(&mut self, outcome: Outcome, now: Now) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let landing = Landing {
            ticket: self.ticket,
            shadow: self.shadow,
            took: if self.took == UNKNOWN { self.ran(now) } else { self.took },
            hurried: self.hurried || outcome == Outcome::Timeout && self.was_hurried(),
        };
        self.circuit.settle(landing, outcome, now);
    }

    #[cold]
    #[inline(never)]
    fn was_hurried(&self) -> bool {
        let left = self.times.enclosing.nanos_since(self.started);
        self.times.timeout_ms != 0 && left < self.times.timeout() / 2
    }

    #[cold]
    #[inline(never)]
    fn abandon(&mut self) {
        self.start_exactly();
        let now = exact();
        let passed = now.since(self.started);
        let outcome = match self.due() {
            _ if self.running => Outcome::Failure,
            due if due != Now::NEVER && passed * 100 >= self.limit() * 95 => Outcome::Timeout,
            _ => Outcome::Cancelled,
        };
        self.end(outcome, now);
    }
}

impl Drop for Flight {
    #[inline]
    fn drop(&mut self) {
        if !self.settled {
            self.abandon();
        }
    }
}
