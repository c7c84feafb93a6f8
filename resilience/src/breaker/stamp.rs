//! A counter that knows what it counts, in one word.

use crate::slot::Write;
use crate::sync::atomic::{AtomicU64, Ordering};

const COUNT_BITS: u32 = 25;
const GENERATION_BITS: u32 = 11;
const EPOCH_BITS: u32 = 24;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;
const GENERATIONS: u64 = 1 << GENERATION_BITS;
const EPOCHS: u64 = 1 << EPOCH_BITS;
/// How many resizes a stamp tells apart.
const INCARNATIONS: u64 = 1 << (64 - COUNT_BITS - GENERATION_BITS - EPOCH_BITS);

/// How late an outcome may come and still be known to be late, in slices of time: three windows. What is
/// older than that is taken for new, as the circle is walked round.
const LATE: u64 = 30;

/// Which outcomes a counter counts: those of one slice of time, of one generation of the breaker, since
/// one resize of the window. Each wraps.
///
/// A slice of 100 ms, the shortest, comes again after nineteen days, a generation after 2,048 changes of
/// state: a counter would have to be left alone exactly that long, to the slice, to be taken for a
/// current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64);

impl Stamp {
    #[inline]
    pub(super) const fn new(incarnation: u64, epoch: u64, generation: u32) -> Self {
        let generation = generation as u64 % GENERATIONS;
        Self(
            (incarnation % INCARNATIONS) << (EPOCH_BITS + GENERATION_BITS)
                | (epoch % EPOCHS) << GENERATION_BITS
                | generation,
        )
    }

    pub(super) const fn to_word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Whether it is of that generation.
    #[inline]
    pub(super) const fn is_of(self, generation: u32) -> bool {
        self.generation() == generation as u64 % GENERATIONS
    }

    const fn incarnation(self) -> u64 {
        self.0 >> (EPOCH_BITS + GENERATION_BITS)
    }

    const fn epoch(self) -> u64 {
        self.0 >> GENERATION_BITS & (EPOCHS - 1)
    }

    const fn generation(self) -> u64 {
        self.0 & (GENERATIONS - 1)
    }

    /// Whether an outcome of this stamp comes too late for a counter that is at `other`.
    const fn late_for(self, other: Self) -> bool {
        let resizes = other.incarnation().wrapping_sub(self.incarnation()) % INCARNATIONS;
        let slices = other.epoch().wrapping_sub(self.epoch()) % EPOCHS;
        let generations = other.generation().wrapping_sub(self.generation()) % GENERATIONS;
        match (resizes, slices) {
            (0, 0) => generations != 0 && generations < GENERATIONS / 2,
            (0, slices) => slices <= LATE,
            (resizes, _) => resizes < INCARNATIONS / 2,
        }
    }
}

/// A word that holds a stamp and how many outcomes of it there were, at most 33 million: a window of an
/// hour saturates at 93,000 calls a second on one processor.
pub(super) struct Counter<'a>(&'a AtomicU64);

impl<'a> Counter<'a> {
    #[inline]
    pub(super) const fn at(word: &'a AtomicU64) -> Self {
        Self(word)
    }

    /// Counts one outcome. Where several threads count, it may come too late; a thread alone sees time,
    /// generations and resizes in their order.
    #[inline]
    pub(super) fn count(&self, stamp: Stamp, write: Write) {
        match write {
            Write::Alone => self.count_alone(stamp),
            Write::Shared => self.add(stamp, 1),
        }
    }

    /// Counts one outcome where only this thread counts.
    #[inline]
    pub(super) fn count_alone(&self, stamp: Stamp) {
        let word = self.0.load(Ordering::Relaxed);
        let counted = if word >> COUNT_BITS != stamp.0 {
            stamp.0 << COUNT_BITS | 1
        } else if word & MAX_COUNT == MAX_COUNT {
            word
        } else {
            word + 1
        };
        self.0.store(counted, Ordering::Relaxed);
    }

    /// Counts `many` outcomes, unless they come too late, where several threads count.
    pub(super) fn add(&self, stamp: Stamp, many: u64) {
        if many > 0 {
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| plus(word, stamp, many));
        }
    }

    /// How many outcomes of that stamp it counts.
    pub(super) fn of(&self, stamp: Stamp) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        if word >> COUNT_BITS == stamp.0 { word & MAX_COUNT } else { 0 }
    }

    /// Forgets everything, where this thread writes alone.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Forgets what was counted before that resize.
    pub(super) fn clear_unless(&self, incarnation: u64) {
        let current = incarnation % INCARNATIONS;
        let cleared = |word: u64| (Stamp(word >> COUNT_BITS).incarnation() != current).then_some(0);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cleared);
    }
}

fn plus(word: u64, stamp: Stamp, many: u64) -> Option<u64> {
    let (held, count) = (Stamp(word >> COUNT_BITS), word & MAX_COUNT);
    if held == stamp {
        return Some(stamp.0 << COUNT_BITS | (count + many).min(MAX_COUNT));
    }
    (count == 0 || !stamp.late_for(held)).then(|| stamp.0 << COUNT_BITS | many.min(MAX_COUNT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_saturate_instead_of_touching_their_stamp() {
        let (word, stamp) = (AtomicU64::new(0), Stamp::new(1, 7, 3));
        Counter::at(&word).add(stamp, MAX_COUNT);
        Counter::at(&word).add(stamp, 5);
        assert_eq!(Counter::at(&word).of(stamp), MAX_COUNT);
        assert_eq!(Counter::at(&word).of(Stamp::new(1, 7, 4)), 0);
    }

    #[test]
    fn a_little_late_is_late_across_every_wrap_and_all_else_is_new() {
        let late = |a: (u64, u64, u32), b: (u64, u64, u32)| {
            Stamp::new(a.0, a.1, a.2).late_for(Stamp::new(b.0, b.1, b.2))
        };
        assert!(late((0, 4, 0), (0, 5, 0)) && !late((0, 5, 0), (0, 4, 0)));
        assert!(late((0, EPOCHS - 1, 0), (0, 0, 0)) && !late((0, 0, 0), (0, EPOCHS - 1, 0)));
        assert!(!late((0, 0, 0), (0, LATE + 1, 0)), "after the whole circle, or an impossible delay");
        assert!(late((0, 5, 2047), (0, 5, 0)) && !late((0, 5, 0), (0, 5, 2047)));
        assert!(late((0, 5, 8), (0, 6, 7)), "time before generation");
        assert!(late((15, 9, 0), (0, 5, 0)) && !late((0, 5, 0), (15, 9, 0)), "resizes before time");
    }
}
