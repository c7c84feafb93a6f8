//! A number that one thread at a time has for itself.
//!
//! An atomic addition costs as much as all else that a call pays for its breaker. A counter that only one
//! thread writes needs none: it is read, and written back.

mod flag;

use std::cell::Cell;
use std::sync::OnceLock;

use crate::sync::atomic::AtomicBool;
use flag::Flag;

/// Slots are taken from as many, at most.
const MOST: usize = 128;

thread_local! {
    /// Without a destructor, so that it costs no more than a variable.
    static SLOT: Cell<Slot> = const { Cell::new(Slot::UNKNOWN) };
    static RETURN: Return = const { Return };
}

static TAKEN: [Flag; MOST] = [const { Flag(AtomicBool::new(false)) }; MOST];

/// Which of the values that threads write each for itself is this thread's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Below [`slots`], or that number: the one that all threads share which have none of their own.
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
    const UNKNOWN: Self = Self { index: u32::MAX, write: Write::Shared };

    #[allow(clippy::cast_possible_truncation)] // 128 at most
    fn shared() -> Self {
        Self { index: slots() as u32, write: Write::Shared }
    }

    /// Whether it is a thread's own.
    #[cfg(test)]
    fn is_own(self) -> bool {
        self.write == Write::Alone
    }

    /// This thread's. No other thread has it until this one ends.
    #[inline]
    pub(crate) fn mine() -> Self {
        let slot = SLOT.get();
        if slot.index == Self::UNKNOWN.index { Self::take() } else { slot }
    }

    #[cold]
    #[inline(never)]
    fn take() -> Self {
        // A thread that is ending may have returned its slot already.
        let returns = RETURN.try_with(|_| ()).is_ok();
        let own = if returns { (0..).zip(&TAKEN[..slots()]).find(|(_, taken)| taken.take()) } else { None };
        let slot = own.map_or_else(Self::shared, |(index, _)| Self { index, write: Write::Alone });
        SLOT.set(slot);
        slot
    }
}

/// How many slots there are: two for each processor, so that threads which block find one as well.
pub(crate) fn slots() -> usize {
    static SLOTS: OnceLock<usize> = OnceLock::new();
    *SLOTS.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (2 * processors).clamp(4, MOST)
    })
}

/// Returns the slot of a thread when it ends.
struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        let slot = SLOT.replace(Slot::shared());
        if slot.write == Write::Alone {
            TAKEN[slot.index as usize].give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_slot_and_no_two_have_the_same() {
        let threads = 2 * slots();
        let meet = std::sync::Barrier::new(threads);
        let mut taken: Vec<_> = std::thread::scope(|scope| {
            let slot = || {
                let slot = Slot::mine();
                meet.wait();
                assert_eq!(Slot::mine(), slot);
                slot
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(slot)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        taken.retain(|slot| slot.is_own());
        let count = taken.len();
        taken.sort_by_key(|slot| slot.index);
        taken.dedup();
        assert_eq!(taken.len(), count);
        assert!(count <= slots());
        let again = std::thread::spawn(Slot::mine).join().unwrap();
        assert!(again.is_own(), "those of threads that ended are taken again");
    }
}
