//! What one command or method is held to: breaker, concurrency limit and rate, admitted and settled as
//! one.
//!
//! What every call needs of the policy is in [`hot`], one word; the whole of it is looked at only where
//! something is refused, fails or takes long.

mod hot;
mod terms;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use fusebox_policy::policy::hystrix;

use crate::breaker::{Admission, Change, Gate, Reason, State, Verdict, gate::Ended};
use crate::clock::{Clock, Now, exact};
use crate::limit::InFlight;
use crate::rate::Rate;
use crate::slot::Slot;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hot::Hot;
pub(crate) use terms::Terms;

/// Breaker, limit and rate of one command or method. Everything but the terms stays the same object for
/// the life of the process, whatever becomes of the policy.
///
/// # Guarantees
/// - A call that is admitted is settled once, by the ticket it got.
/// - A reload replaces the terms at once; calls admitted before are settled under the new ones.
#[derive(Debug)]
pub(crate) struct Fuse {
    hot: AtomicU64,
    /// The sleep window in milliseconds, if the breaker is enforced.
    sleep_ms: AtomicU32,
    terms: ArcSwap<Terms>,
    pub(crate) gate: Gate,
    /// The last change of the breaker. For an instant it may be older than its state.
    last: ArcSwap<Change>,
    rate: CachePadded<Rate>,
    pub(crate) in_flight: CachePadded<InFlight>,
    clock: &'static Clock,
}

/// What an admission leaves to be known at the end of its call: a word, for it is moved about with
/// every future. The generation in the lower half, then whether the breaker is told, whether it is a
/// probe, whether it holds a permit and whether its deadline was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Ticket {
    const TOLD: u64 = 1 << 32;
    const PROBE: u64 = 1 << 33;
    const PERMIT: u64 = 1 << 34;
    const ANSWERED: u64 = 1 << 35;

    /// `None`: the breaker is not told.
    fn new(admission: Option<Admission>) -> Self {
        admission.map_or(Self(0), |admission| {
            let probe = if admission.probe { Self::PROBE } else { 0 };
            Self(u64::from(admission.generation) | Self::TOLD | probe)
        })
    }

    const fn admission(self) -> Option<Admission> {
        if self.0 & Self::TOLD == 0 {
            return None;
        }
        Some(Admission { generation: self.generation(), probe: self.0 & Self::PROBE != 0 })
    }

    /// Of a breaker that is closed, in this generation.
    #[inline]
    const fn of_closed(generation: u32) -> Self {
        Self(generation as u64 | Self::TOLD)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // the lower half
    const fn generation(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    const fn has_permit(self) -> bool {
        self.0 & Self::PERMIT != 0
    }

    /// Its call has met its deadline, whatever follows.
    pub(crate) const fn answer(&mut self) {
        self.0 |= Self::ANSWERED;
    }

    pub(crate) const fn is_answered(self) -> bool {
        self.0 & Self::ANSWERED != 0
    }
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The breaker is open; asking again is of use after this time.
    Open(Duration),
    /// The concurrency limit is full.
    Limit,
    /// The rate is used up; asking again is of use after this time.
    Rate(Duration),
}

/// How a call was answered, for the fuse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) verdict: Verdict,
    /// In nanoseconds.
    pub(crate) took: u64,
}

/// What a call keeps of the policy that it began under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// How long it may take in all; zero: as long as it likes.
    pub(crate) timeout_ms: u32,
    /// Whether a fallback may stand in.
    pub(crate) fallback: bool,
}

/// What an admission says.
pub(crate) type Admitted = (Result<Ticket, Refusal>, Option<Change>);

impl Fuse {
    /// A fuse that nothing went through yet.
    pub(crate) fn new(terms: Terms, instances: u32, clock: &'static Clock, slots: usize) -> Self {
        let now = clock.now();
        let window =
            terms.breaker.as_ref().map_or(Duration::from_millis(hystrix::ROLLING_WINDOW_MS), |breaker| {
                breaker.rolling_window_ms.get()
            });
        let fuse = Self {
            sleep_ms: AtomicU32::new(terms.sleep_ms()),
            hot: AtomicU64::new(Hot::of(&terms).to_word()),
            gate: Gate::new(window, slots),
            last: ArcSwap::from_pointee(Change {
                state: State::START,
                at: now.tick(),
                reason: Reason::Started,
            }),
            rate: CachePadded::default(),
            in_flight: CachePadded::default(),
            terms: ArcSwap::from_pointee(terms),
            clock,
        };
        fuse.set_instances(instances);
        fuse
    }

    /// Puts other terms in force. Not to be called by two threads at once.
    pub(crate) fn reload(&self, terms: Terms, instances: u32) {
        let hot = Hot::of(&terms).to_word();
        let terms = Arc::new(terms);
        self.sleep_ms.store(terms.sleep_ms(), Ordering::Relaxed);
        self.terms.store(Arc::clone(&terms));
        self.hot.store(hot, Ordering::Release);
        // Without a breaker its window stays for the next one. After the terms: the outcome that it makes
        // the breaker judge must be judged by these.
        if let Some(breaker) = &terms.breaker {
            self.gate.reload(breaker, self.clock.now().tick());
        }
        self.set_instances(instances);
    }

    /// Divides the rate by so many instances, if the policy says so. Not to be called by two threads at
    /// once, nor beside a reload.
    pub(crate) fn set_instances(&self, instances: u32) {
        let pace = self.terms.load().pace(instances);
        if self.rate.pace() != pace {
            self.rate.reload(pace, self.clock.now());
        }
    }

    /// Asks for one call that no policy needs to be looked at for; None: it takes
    /// [`admit`](Self::admit), and nothing was done.
    #[inline]
    pub(crate) fn pass(&self, now: Now) -> Option<Ticket> {
        let hot = self.hot();
        if !hot.is_easy() {
            return None;
        }
        let mut ticket = if hot.has_breaker() { Ticket::of_closed(self.gate.pass()?) } else { Ticket(0) };
        if let Some(limit) = hot.limit() {
            // Before a permit is taken that another would miss.
            if hot.has_rate() && self.rate.refuses(now, self.clock.slack()).is_some() {
                return None;
            }
            if !self.in_flight.acquire(Some(limit)) {
                return None;
            }
            ticket.0 |= Ticket::PERMIT;
        }
        if hot.has_rate() && self.rate.take(now, self.clock.slack()).is_err() {
            self.release(ticket);
            return None;
        }
        Some(ticket)
    }

    /// Refuses a call where no policy needs to be looked at for that, and nothing changes: an open
    /// breaker that has not slept long enough. None: it takes [`admit`](Self::admit).
    pub(crate) fn refuse(&self, now: Now) -> Option<Refusal> {
        let slept = self.gate.slept(now.tick())?;
        let left = u64::from(self.sleep_ms.load(Ordering::Relaxed)).checked_sub(slept)?;
        (left > 0).then(|| Refusal::Open(Duration::from_millis(left)))
    }

    /// Asks for one call: of the breaker, then the limit, then the rate. What refuses takes nothing from
    /// the others, except that a rate whose last call two threads ask for at once has one of them hold a
    /// permit for an instant. The second value is the change this made, if any.
    pub(crate) fn admit(&self, now: Now) -> Admitted {
        let hot = self.hot();
        let (admission, change) = self.gate.admit(self.terms.load().breaker.as_ref(), now.tick());
        if let Some(change) = change {
            self.keep(change);
        }
        match admission {
            Ok(admission) => {
                let (admitted, none) = self.admit_by_limits(hot, admission, now);
                (admitted, change.or(none))
            }
            Err(retry_after) => (Err(Refusal::Open(retry_after)), change),
        }
    }

    /// Asks for one call that the breaker neither refuses nor is told of: of the limits alone.
    #[cfg(feature = "channel")]
    pub(crate) fn admit_aside(&self, now: Now) -> Result<Ticket, Refusal> {
        self.admit_by_limits(self.hot(), None, now).0
    }

    fn admit_by_limits(&self, hot: Hot, admission: Option<Admission>, now: Now) -> Admitted {
        let mut ticket = Ticket::new(admission);
        // Before a permit is taken that another would miss. This look decides: a second one, a moment later, may
        // find the rate full again, and there is no permit then.
        if hot.has_rate()
            && let Some(retry_after) = self.rate.refuses(exact(), self.clock.slack())
        {
            let refusal = Refusal::Rate(retry_after);
            return (Err(refusal), self.refused(ticket, refusal, now));
        }
        if let Some(limit) = hot.limit() {
            if !self.in_flight.acquire(Some(limit)) {
                return (Err(Refusal::Limit), self.refused(ticket, Refusal::Limit, now));
            }
            ticket.0 |= Ticket::PERMIT;
        }
        // Exactly: another thread may have taken by a later time than ours, and a refusal must be right.
        if hot.has_rate()
            && let Err(retry_after) = self.rate.take(exact(), self.clock.slack())
        {
            let refusal = Refusal::Rate(retry_after);
            let change = self.refused(ticket, refusal, now);
            self.release(ticket);
            return (Err(refusal), change);
        }
        (Ok(ticket), None)
    }

    /// A call that the breaker has admitted and a limit refused. Only the concurrency limit says that the
    /// callee is slow.
    #[cold]
    #[inline(never)]
    fn refused(&self, ticket: Ticket, by: Refusal, now: Now) -> Option<Change> {
        let terms = self.terms.load();
        let counts =
            terms.breaker.as_ref().is_some_and(|breaker| breaker.count_rejections) && by == Refusal::Limit;
        let verdict = if counts { Verdict::Bad } else { Verdict::Neither };
        self.tell(&terms, ticket.admission()?, Ended { verdict, slow: false }, now)
    }

    /// The call has to wait: from here on it is one of those in flight, limit or not.
    pub(crate) fn wait(&self, ticket: &mut Ticket) {
        if !ticket.has_permit() {
            self.in_flight.acquire(None);
            ticket.0 |= Ticket::PERMIT;
        }
    }

    /// Takes a success that needs no more than to be counted; false: it takes [`settle`](Self::settle),
    /// and nothing was done.
    #[inline]
    pub(crate) fn succeed(&self, ticket: Ticket, now: Now, slot: Slot) -> bool {
        let told = match ticket.0 & (Ticket::TOLD | Ticket::PROBE) {
            0 => true,
            Ticket::TOLD => self.hot().is_easy() && self.gate.succeed(ticket.generation(), now, slot),
            _ => false,
        };
        if told {
            self.release(ticket);
        }
        told
    }

    /// Tells the breaker of a probe before its call has ended: that is then told no more. Returns the change
    /// this made, if any.
    pub(crate) fn decide(&self, ticket: &mut Ticket, settled: Settled, now: Now) -> Option<Change> {
        let admission = ticket.admission().filter(|admission| admission.probe)?;
        ticket.0 &= !(Ticket::TOLD | Ticket::PROBE);
        self.tell_settled(admission, settled, now)
    }

    /// Takes back the permit and tells the breaker. Returns the change this made, if any.
    pub(crate) fn settle(&self, ticket: Ticket, settled: Settled, now: Now) -> Option<Change> {
        self.release(ticket);
        self.tell_settled(ticket.admission()?, settled, now)
    }

    fn tell_settled(&self, admission: Admission, settled: Settled, now: Now) -> Option<Change> {
        let terms = self.terms.load();
        let ended = Ended { verdict: settled.verdict, slow: terms.is_slow(settled.took) };
        self.tell(&terms, admission, ended, now)
    }

    fn tell(&self, terms: &Terms, admission: Admission, ended: Ended, now: Now) -> Option<Change> {
        let change = self.gate.settle(terms.breaker.as_ref(), admission, ended, now.tick())?;
        self.keep(change);
        Some(change)
    }

    #[inline]
    fn release(&self, ticket: Ticket) {
        if ticket.has_permit() {
            self.in_flight.release();
        }
    }

    fn keep(&self, change: Change) {
        let new = Arc::new(change);
        self.last.rcu(|last| if last.state.before(new.state) { Arc::clone(&new) } else { Arc::clone(last) });
    }

    /// What a call keeps that begins now, all of one policy.
    #[inline]
    pub(crate) fn opening(&self) -> Opening {
        let hot = self.hot();
        Opening { timeout_ms: hot.timeout_ms().unwrap_or(0), fallback: hot.has_fallback() }
    }

    /// How long a call may take, in milliseconds; None: as long as it likes.
    #[inline]
    pub(crate) fn timeout_ms(&self) -> Option<u32> {
        self.hot().timeout_ms()
    }

    /// The rate in force in calls a second, rounded.
    pub(crate) fn per_second(&self) -> Option<u64> {
        self.rate.per_second()
    }

    /// The terms in force.
    pub(crate) fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// The last change of the breaker.
    pub(crate) fn last(&self) -> Arc<Change> {
        self.last.load_full()
    }

    #[inline]
    fn hot(&self) -> Hot {
        Hot::from_word(self.hot.load(Ordering::Acquire))
    }
}
