//! How a window cuts time into slices, in one word.

use std::time::Duration;

use crate::clock::Tick;

/// How many buckets a window has.
pub(crate) const BUCKETS: usize = 10;

const SHIFT: u32 = 51;
const RECIPROCAL_BITS: u32 = 45;
const INCARNATIONS: u64 = 1 << (64 - RECIPROCAL_BITS);
/// The shortest window is a second. A shorter slice would not fit.
const MIN_MILLIS: u64 = 100;

/// The length of a slice, and how often it has changed.
///
/// A division would cost as much as all the rest of counting, so this keeps the reciprocal instead.
/// Slices start where the quotient of tick and length says, exactly so for seven weeks of uptime; after
/// that a slice is longer or shorter than said by less than a part in a billion, the same for
/// everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slices {
    incarnation: u64,
    reciprocal: u64,
}

impl Slices {
    /// A tenth of a window, in whole milliseconds, at least 100.
    pub(super) fn of(length: Duration) -> Self {
        let millis = u64::try_from(length.as_millis() / BUCKETS as u128).unwrap_or(u64::MAX);
        // The longest window is an hour; a slice of more than twelve days would not fit.
        let millis = millis.clamp(MIN_MILLIS, 1 << 30);
        Self { incarnation: 0, reciprocal: (1_u64 << SHIFT).div_ceil(millis) }
    }

    /// The next incarnation, of another length.
    pub(super) fn resized(self, length: Duration) -> Self {
        Self { incarnation: (self.incarnation + 1) % INCARNATIONS, ..Self::of(length) }
    }

    pub(super) const fn same_length(self, other: Self) -> bool {
        self.reciprocal == other.reciprocal
    }

    pub(super) const fn incarnation(self) -> u64 {
        self.incarnation
    }

    /// The number of the slice that a moment lies in.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // a quotient of a tick
    pub(super) const fn epoch(self, at: Tick) -> u64 {
        ((at.0 as u128 * self.reciprocal as u128) >> SHIFT) as u64
    }

    /// The last moment of a slice.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) const fn last_moment(self, epoch: u64) -> Tick {
        Tick((((epoch as u128 + 1) << SHIFT).div_ceil(self.reciprocal as u128) - 1) as u64)
    }

    pub(super) const fn to_word(self) -> u64 {
        self.incarnation << RECIPROCAL_BITS | self.reciprocal
    }

    #[inline]
    pub(super) const fn from_word(word: u64) -> Self {
        Self { incarnation: word >> RECIPROCAL_BITS, reciprocal: word & ((1 << RECIPROCAL_BITS) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slice_is_the_quotient_of_tick_and_length(millis in MIN_MILLIS..=360_000, tick in 0_u64..1 << 32) {
            let slices = Slices::of(Duration::from_millis(millis * BUCKETS as u64));
            prop_assert_eq!(slices.epoch(Tick(tick)), tick / millis);
            let last = slices.last_moment(tick / millis);
            prop_assert_eq!(last, Tick((tick / millis + 1) * millis - 1));
            prop_assert_eq!(Slices::from_word(slices.to_word()), slices);
        }

        #[test]
        fn after_years_a_last_moment_is_still_the_last_of_its_slice(
            millis in MIN_MILLIS..=360_000,
            tick in 0_u64..1 << 40,
        ) {
            let slices = Slices::of(Duration::from_millis(millis * BUCKETS as u64));
            let epoch = slices.epoch(Tick(tick));
            let last = slices.last_moment(epoch);
            prop_assert!(last >= Tick(tick) && slices.epoch(last) == epoch);
            prop_assert_eq!(slices.epoch(Tick(last.0 + 1)), epoch + 1);
        }
    }
}
