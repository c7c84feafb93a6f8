//! Failures one after the other.

use crate::sync::atomic::{AtomicU64, Ordering};

/// How many calls of one generation failed since the last that succeeded: generation and number in one
/// word.
#[derive(Debug, Default)]
pub(crate) struct Streak(AtomicU64);

impl Streak {
    /// Counts a failure. Returns how many in a row it makes.
    pub(crate) fn fail(&self, generation: u32) -> u32 {
        let longer = |word: u64| {
            let failures = if of(word) == generation { length(word).saturating_add(1) } else { 1 };
            u64::from(generation) << 32 | u64::from(failures)
        };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(longer(word)));
        before.map_or(0, |word| length(longer(word)))
    }

    /// A success ends it. Costs a read where there is none.
    #[inline]
    pub(crate) fn end(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// How long it is in a generation.
    pub(crate) fn length(&self, generation: u32) -> u32 {
        let word = self.0.load(Ordering::Relaxed);
        if of(word) == generation { length(word) } else { 0 }
    }
}

const fn of(word: u64) -> u32 {
    (word >> 32) as u32
}

#[allow(clippy::cast_possible_truncation)] // the lower half
const fn length(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_and_a_new_generation_end_it() {
        let streak = Streak::default();
        assert_eq!([streak.fail(1), streak.fail(1), streak.length(1), streak.length(2)], [1, 2, 2, 0]);
        assert_eq!(streak.fail(3), 1);
        streak.end();
        assert_eq!([streak.length(3), streak.fail(3)], [0, 1]);
    }
}
