//! Values that threads write each for itself, so that threads which count do not share a cache line.

use crossbeam_utils::CachePadded;

use crate::slot::{Slot, Write};
use crate::sync::atomic::{AtomicU64, Ordering};

/// One value for each [slot](Slot), and one for the threads that have none.
#[derive(Debug)]
pub(crate) struct Shards<T>(Box<[CachePadded<T>]>);

impl<T: Default> Shards<T> {
    /// Default values for so many [slots](crate::slot::slots).
    pub(crate) fn new(slots: usize) -> Self {
        Self((0..=slots).map(|_| CachePadded::default()).collect())
    }
}

impl<T> Shards<T> {
    /// The value of a slot.
    #[inline]
    pub(crate) fn at(&self, slot: Slot) -> &T {
        &self.0[slot.index as usize]
    }

    /// The value of those who have none of their own.
    pub(crate) fn shared(&self) -> &T {
        // There is always one more than there are slots.
        &self.0[self.0.len() - 1]
    }

    /// Every value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &**padded)
    }
}

impl Write {
    /// Adds to a counter.
    #[inline]
    pub(crate) fn add(self, counter: &AtomicU64, many: u64) {
        match self {
            Self::Alone => {
                counter.store(counter.load(Ordering::Relaxed).wrapping_add(many), Ordering::Relaxed);
            }
            Self::Shared => {
                counter.fetch_add(many, Ordering::Relaxed);
            }
        }
    }
}
