//! The atomics of the protocols: loom's, with a turn taken before each access.
//!
//! Loom tries another order of two accesses only where it sees that they depend on each other, and
//! compares an access with the last one of the same word only. A thread that loads a word and then
//! stores it hides so, by its own load, what others have loaded before: loom 0.7 never lets them read
//! what it stores (`fetch_update` and [`Write::Alone`](crate::slot::Write) do just that). A turn is an
//! addition to a word beside it, which depends on every other. It is relaxed, so that it shows nothing
//! that the protocol itself does not.

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{Ordering, fence};

    macro_rules! atomics {
        ($($name:ident: $value:ty),+) => {$(
            #[derive(Debug, Default)]
            pub(crate) struct $name {
                word: loom::sync::atomic::$name,
                turn: loom::sync::atomic::AtomicUsize,
            }

            #[allow(dead_code)] // not each kind has a use for each
            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self { word: loom::sync::atomic::$name::new(value), turn: Default::default() }
                }

                fn turn(&self) -> &loom::sync::atomic::$name {
                    self.turn.fetch_add(1, Ordering::Relaxed);
                    &self.word
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.turn().load(order)
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.turn().store(value, order);
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    self.turn().swap(value, order)
                }

                pub(crate) fn compare_exchange(
                    &self,
                    from: $value,
                    to: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.turn().compare_exchange(from, to, success, failure)
                }

                pub(crate) fn fetch_update(
                    &self,
                    success: Ordering,
                    failure: Ordering,
                    next: impl Fn($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    // As the standard library has it.
                    let mut seen = self.load(failure);
                    while let Some(new) = next(seen) {
                        match self.compare_exchange(seen, new, success, failure) {
                            Ok(before) => return Ok(before),
                            Err(other) => seen = other,
                        }
                    }
                    Err(seen)
                }
            }
        )+};
    }

    macro_rules! numbers {
        ($($name:ident: $value:ty),+) => {$(
            #[allow(dead_code)]
            impl $name {
                pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    self.turn().fetch_add(value, order)
                }

                pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    self.turn().fetch_sub(value, order)
                }
            }
        )+};
    }

    atomics!(AtomicBool: bool, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
    numbers!(AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
}
