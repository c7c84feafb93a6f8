//! What every call needs to know of its terms, in one word: so that it reads no pointer and counts no
//! reference.

use fusebox_policy::policy::BreakerMode;

use super::Terms;

const TIMEOUT_BITS: u32 = 22;
const LIMIT_BITS: u32 = 20;
const MODE_BITS: u32 = 3;
const LIMIT: u32 = TIMEOUT_BITS;
const MODE: u32 = LIMIT + LIMIT_BITS;
const RATE: u32 = MODE + MODE_BITS;
const EASY: u32 = RATE + 1;
const FALLBACK: u32 = EASY + 1;

/// Timeout (22 bits of milliseconds, an hour at most), limit (20 bits, a million at most), mode of the
/// breaker (3), whether there is a rate, whether a success is easy, whether a fallback may stand in. Zero is the
/// absence of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hot(u64);

impl Hot {
    pub(super) fn of(terms: &Terms) -> Self {
        let breaker = terms.breaker.as_ref();
        let mode = match breaker.map(|breaker| breaker.mode) {
            None => 0,
            Some(BreakerMode::Enforce) => 1,
            Some(BreakerMode::ForcedOpen) => 2,
            Some(BreakerMode::ForcedClosed) => 3,
            Some(BreakerMode::Disabled) => 4,
        };
        let easy =
            breaker.is_none_or(|breaker| breaker.mode == BreakerMode::Enforce && breaker.slow_call.is_none());
        Self(
            terms.timeout.map_or(0, u64::from)
                | terms.limit.map_or(0, u64::from) << LIMIT
                | mode << MODE
                | u64::from(terms.rate.is_some()) << RATE
                | u64::from(easy) << EASY
                | u64::from(terms.fallback) << FALLBACK,
        )
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // 22 bits
    pub(super) const fn timeout_ms(self) -> Option<u32> {
        match self.part(0, TIMEOUT_BITS) {
            0 => None,
            millis => Some(millis as u32),
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // 20 bits
    pub(super) const fn limit(self) -> Option<u32> {
        match self.part(LIMIT, LIMIT_BITS) {
            0 => None,
            limit => Some(limit as u32),
        }
    }

    #[inline]
    pub(super) const fn has_breaker(self) -> bool {
        self.part(MODE, MODE_BITS) != 0
    }

    /// None: no breaker.
    #[cfg(test)]
    pub(super) const fn mode(self) -> Option<BreakerMode> {
        match self.part(MODE, MODE_BITS) {
            0 => None,
            1 => Some(BreakerMode::Enforce),
            2 => Some(BreakerMode::ForcedOpen),
            3 => Some(BreakerMode::ForcedClosed),
            _ => Some(BreakerMode::Disabled),
        }
    }

    #[inline]
    pub(super) const fn has_rate(self) -> bool {
        self.part(RATE, 1) == 1
    }

    /// Whether a success is a success, however long it took, and needs no more than to be counted.
    #[inline]
    pub(super) const fn is_easy(self) -> bool {
        self.part(EASY, 1) == 1
    }

    #[inline]
    pub(super) const fn has_fallback(self) -> bool {
        self.part(FALLBACK, 1) == 1
    }

    #[inline]
    const fn part(self, from: u32, bits: u32) -> u64 {
        self.0 >> from & ((1 << bits) - 1)
    }

    pub(super) const fn to_word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

#[cfg(test)]
mod tests {
    use fusebox_policy::policy::{BreakerPolicy, SlowCall};

    use super::*;

    #[test]
    fn every_part_comes_back_at_its_largest_and_absent() {
        let none = Hot::of(&Terms::default());
        assert_eq!((none.timeout_ms(), none.limit(), none.mode()), (None, None, None));
        assert!(!none.has_rate() && none.is_easy() && !none.has_fallback());
        let modes =
            [BreakerMode::Enforce, BreakerMode::ForcedOpen, BreakerMode::ForcedClosed, BreakerMode::Disabled];
        for mode in modes {
            let slow_call =
                Some(SlowCall { threshold_ms: 1.try_into().unwrap(), percent: 1.try_into().unwrap() });
            let terms = Terms {
                timeout: Some(3_600_000.try_into().unwrap()),
                limit: Some(1_000_000.try_into().unwrap()),
                rate: None,
                breaker: Some(BreakerPolicy { mode, slow_call, ..BreakerPolicy::default() }),
                fallback: true,
            };
            let hot = Hot::from_word(Hot::of(&terms).to_word());
            assert_eq!((hot.timeout_ms(), hot.limit()), (Some(3_600_000), Some(1_000_000)));
            assert!(hot.has_fallback());
            assert_eq!((hot.mode(), hot.has_rate(), hot.is_easy()), (Some(mode), false, false));
        }
    }
}
