//! What the library uses of arc-swap, in loom's terms.

use std::sync::Arc;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// A pointer to the version in force. Versions are kept, so that an old one can be read as late as the
/// memory model allows.
#[derive(Debug)]
pub struct ArcSwap<T> {
    current: AtomicUsize,
    // Not a step of the model: nothing of loom's is called under it.
    #[allow(clippy::disallowed_types)]
    versions: std::sync::Mutex<Vec<Arc<T>>>,
}

impl<T> ArcSwap<T> {
    /// With a first version.
    pub(crate) fn from_pointee(first: T) -> Self {
        Self { current: AtomicUsize::new(0), versions: vec![Arc::new(first)].into() }
    }

    /// The version in force; arc-swap gives a guard instead of a pointer.
    pub(crate) fn load(&self) -> Arc<T> {
        self.version(self.current.load(Ordering::Acquire))
    }

    /// The version in force.
    pub(crate) fn load_full(&self) -> Arc<T> {
        self.load()
    }

    /// Puts another version in force.
    pub(crate) fn store(&self, version: Arc<T>) {
        self.current.swap(self.keep(version), Ordering::AcqRel);
    }

    /// Puts a version in force that is made of the one before.
    pub(crate) fn rcu(&self, next: impl Fn(&Arc<T>) -> Arc<T>) {
        let mut seen = self.current.load(Ordering::Acquire);
        loop {
            let new = self.keep(next(&self.version(seen)));
            match self.current.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    fn version(&self, index: usize) -> Arc<T> {
        Arc::clone(&self.versions()[index])
    }

    fn keep(&self, version: Arc<T>) -> usize {
        let mut versions = self.versions();
        versions.push(version);
        versions.len() - 1
    }

    #[allow(clippy::disallowed_types)]
    fn versions(&self) -> std::sync::MutexGuard<'_, Vec<Arc<T>>> {
        self.versions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
