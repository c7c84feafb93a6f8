//! Whether a slot is taken.

use crate::sync::atomic::{AtomicBool, Ordering};

/// Set while a thread has the slot.
#[derive(Debug)]
pub(crate) struct Flag(pub(crate) AtomicBool);

impl Flag {
    /// Takes the slot, if it is free. Taking it over shows everything that the thread before has written.
    pub(crate) fn take(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Returns it, with all that was written.
    pub(crate) fn give_back(&self) {
        self.0.store(false, Ordering::Release);
    }
}
