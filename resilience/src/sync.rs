//! The atomics of the protocols that `resilience/model` checks with loom: there this file is another,
//! with loom's.

pub(crate) use std::sync::atomic;

use std::cell::Cell;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A number of this thread, small and stable: consecutive from zero in the order of first use.
#[inline]
pub(crate) fn slot() -> usize {
    let slot = SLOT.get();
    if slot == usize::MAX { first_slot() } else { slot }
}

#[cold]
fn first_slot() -> usize {
    static NEXT: atomic::AtomicUsize = atomic::AtomicUsize::new(0);
    let slot = NEXT.fetch_add(1, atomic::Ordering::Relaxed);
    SLOT.set(slot);
    slot
}

/// Serialises those who write what calls read: reloads, and the first use of a name. No call takes it.
#[derive(Debug, Default)]
#[allow(clippy::disallowed_types)] // not on the path of a call, and never across an await
pub(crate) struct Writers(std::sync::Mutex<()>);

/// The right to write.
#[allow(clippy::disallowed_types)]
pub(crate) struct Writing<'a>(#[allow(dead_code)] std::sync::MutexGuard<'a, ()>);

impl Writers {
    /// Waits for its turn.
    pub(crate) fn turn(&self) -> Writing<'_> {
        Writing(self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// How many processors this process may use, at most 64: more threads than that share.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(64)
}
