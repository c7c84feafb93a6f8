//! Slots that a model gives to its threads.

use std::cell::Cell;

#[path = "../../src/slot/flag.rs"]
mod flag;

pub(crate) use flag::Flag;

loom::thread_local! {
    static SLOT: Cell<Slot> = Cell::new(Slot::SHARED);
}

/// How many threads of a model can have one of their own; a ring of counters for each costs time.
pub(crate) const SLOTS: usize = 2;

/// Which of the values that threads write each for itself is this thread's, as the library has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Below [`SLOTS`], or that number: the one that all threads share which have none of their own.
    pub(crate) index: u32,
    pub(crate) write: Write,
}

/// How a word is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// By this thread only: it is read and written back.
    Alone,
    /// By several: it takes an atomic change.
    Shared,
}

impl Slot {
    /// The first that a thread can have for itself.
    pub(crate) const FIRST: Self = Self { index: 0, write: Write::Alone };
    /// Another.
    pub(crate) const SECOND: Self = Self { index: 1, write: Write::Alone };
    /// The one that all threads share which have none of their own: after the last of [`SLOTS`].
    pub(crate) const SHARED: Self = Self { index: 2, write: Write::Shared };

    /// This thread's: the shared one, unless the model gave it another.
    pub(crate) fn mine() -> Self {
        SLOT.with(Cell::get)
    }

    /// Gives it to this thread. The model sees to it that no other has it.
    pub(crate) fn give(self) {
        SLOT.with(|slot| slot.set(self));
    }
}
