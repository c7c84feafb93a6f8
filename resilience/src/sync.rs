//! The atomics of the protocols that `resilience/model` checks with loom: there this file is another,
//! with loom's.

pub(crate) use std::sync::atomic;

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
