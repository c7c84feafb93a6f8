//! One value per processor, so that threads which count do not share a cache line.

use crossbeam_utils::CachePadded;

/// Values that threads write each for itself and that are read together.
///
/// As many as there are processors, rounded up to a power of two: a thread keeps to one of them, and
/// threads beyond that number share.
#[derive(Debug)]
pub(crate) struct Shards<T>(Box<[CachePadded<T>]>);

impl<T: Default> Shards<T> {
    /// Default values for `processors`.
    pub(crate) fn new(processors: usize) -> Self {
        Self((0..processors.next_power_of_two()).map(|_| CachePadded::default()).collect())
    }
}

impl<T> Shards<T> {
    /// The value of the thread that has this [slot](crate::sync::slot).
    #[inline]
    pub(crate) fn at(&self, slot: usize) -> &T {
        // The length is a power of two and not zero.
        &self.0[slot & (self.0.len() - 1)]
    }

    /// Every value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &**padded)
    }
}
