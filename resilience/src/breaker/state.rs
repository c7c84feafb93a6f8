//! The state machine of a breaker: pure, a value of 64 bits.
//!
//! Each state has a *generation*, and so has each admission. An outcome counts only in the state it
//! was admitted under; later ones are stale and move nothing. So a slow call admitted before the
//! breaker opened can neither close it nor open it again.

use std::time::Duration;

use fusebox_policy::policy::BreakerPolicy;

use crate::clock::Tick;

/// Generations wrap after four million changes of state. To be mistaken for a current one, an
/// outcome would have to be late by a whole round.
const GENERATIONS: u32 = 1 << 22;

/// A breaker between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Raised by one with each change of phase.
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
}

/// What a breaker does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Lets calls pass and judges them.
    Closed,
    /// Refuses calls until the sleep window is over.
    Open { since: Tick },
    /// Lets a number of probes pass.
    HalfOpen { in_flight: u8, succeeded: u8 },
}

/// The right to make one call, to be settled once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) generation: u32,
    /// Whether it takes a probe's slot.
    pub(crate) probe: bool,
}

/// How a call ended, in a breaker's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Bad,
    /// A client error or a cancellation: says nothing about the callee.
    Neither,
}

/// What becomes of a call that asks to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It passes, and the state is now this (often the same).
    Admit(State, Admission),
    /// It is refused; asking again is of use after this time.
    Refuse(Duration),
}

/// What an outcome does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It belongs to an earlier state.
    Stale,
    /// It goes into the window of the closed breaker.
    Count,
    /// The state is now this.
    Become(State),
    /// Nothing.
    Nothing,
}

impl State {
    /// Closed, as every breaker starts.
    pub(crate) const START: Self = Self { generation: 0, phase: Phase::Closed };

    /// Whether a call may pass at `now`.
    pub(crate) fn admit(self, policy: &BreakerPolicy, now: Tick) -> Decision {
        let probes = policy.half_open_probes.get();
        let sleep = policy.sleep_window_ms.get();
        match self.phase {
            Phase::Closed => Decision::Admit(self, self.admission(false)),
            Phase::Open { since } => {
                let slept = Duration::from_millis(now.since(since));
                if slept < sleep {
                    return Decision::Refuse(sleep.saturating_sub(slept));
                }
                let half_open = self.next(Phase::HalfOpen { in_flight: 1, succeeded: 0 });
                Decision::Admit(half_open, half_open.admission(true))
            }
            // Only a reload can lower the number of probes to what has already succeeded.
            Phase::HalfOpen { succeeded, .. } if succeeded >= probes => {
                let closed = self.next(Phase::Closed);
                Decision::Admit(closed, closed.admission(false))
            }
            Phase::HalfOpen { in_flight, succeeded } if in_flight + succeeded < probes => {
                let phase = Phase::HalfOpen { in_flight: in_flight + 1, succeeded };
                Decision::Admit(Self { phase, ..self }, self.admission(true))
            }
            Phase::HalfOpen { .. } => Decision::Refuse(sleep),
        }
    }

    /// What the end of an admitted call does.
    pub(crate) fn settle(self, admission: Admission, verdict: Verdict, probes: u8, now: Tick) -> Effect {
        if admission.generation != self.generation {
            return Effect::Stale;
        }
        match (self.phase, verdict) {
            (Phase::Closed, Verdict::Good | Verdict::Bad) => Effect::Count,
            (Phase::HalfOpen { in_flight, succeeded }, _) if admission.probe => {
                let in_flight = in_flight.saturating_sub(1);
                Effect::Become(match verdict {
                    Verdict::Neither => Self { phase: Phase::HalfOpen { in_flight, succeeded }, ..self },
                    Verdict::Bad => self.next(Phase::Open { since: now }),
                    Verdict::Good if succeeded + 1 >= probes => self.next(Phase::Closed),
                    Verdict::Good => {
                        Self { phase: Phase::HalfOpen { in_flight, succeeded: succeeded + 1 }, ..self }
                    }
                })
            }
            // Calls that a forced mode let pass beside the state machine.
            _ => Effect::Nothing,
        }
    }

    /// Closed, in that generation.
    #[inline]
    pub(crate) const fn closed(generation: u32) -> Self {
        Self { generation, phase: Phase::Closed }
    }

    /// The generation in a word, if it is that of a closed state.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // 22 bits
    pub(crate) const fn closed_word(word: u64) -> Option<u32> {
        if word >> 62 == 0 { Some((word >> 40) as u32) } else { None }
    }

    /// The closed breaker opens.
    pub(crate) const fn trip(self, now: Tick) -> Self {
        self.next(Phase::Open { since: now })
    }

    /// An admission under this state.
    #[inline]
    pub(crate) const fn admission(self, probe: bool) -> Admission {
        Admission { generation: self.generation, probe }
    }

    /// Whether this state came before `other`.
    pub(crate) const fn before(self, other: Self) -> bool {
        other.generation.wrapping_sub(self.generation) % GENERATIONS < GENERATIONS / 2
    }

    const fn next(self, phase: Phase) -> Self {
        Self { generation: (self.generation + 1) % GENERATIONS, phase }
    }

    /// The state as a word: phase 2 bits, generation 22, tick 40 (34 years) or two counts of 8.
    #[inline]
    pub(crate) const fn to_word(self) -> u64 {
        let (phase, rest) = match self.phase {
            Phase::Closed => (0, 0),
            Phase::Open { since } => (1, since.0 & ((1 << 40) - 1)),
            Phase::HalfOpen { in_flight, succeeded } => (2, (in_flight as u64) << 8 | succeeded as u64),
        };
        phase << 62 | (self.generation as u64) << 40 | rest
    }

    /// The state of a word.
    #[allow(clippy::cast_possible_truncation)] // each mask is the width of its target
    pub(crate) const fn from_word(word: u64) -> Self {
        let phase = match word >> 62 {
            0 => Phase::Closed,
            1 => Phase::Open { since: Tick(word & ((1 << 40) - 1)) },
            _ => Phase::HalfOpen { in_flight: (word >> 8 & 0xff) as u8, succeeded: (word & 0xff) as u8 },
        };
        Self { generation: (word >> 40) as u32 % GENERATIONS, phase }
    }
}
