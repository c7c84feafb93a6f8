//! What this process still waits for before it may call itself ready.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// Shared; what is waited for, by name.
#[derive(Debug)]
pub struct Readiness(watch::Sender<BTreeSet<&'static str>>);

impl Readiness {
    /// Waits for all of these.
    pub fn waiting_for(all: impl IntoIterator<Item = &'static str>) -> Self {
        Self(watch::Sender::new(all.into_iter().collect()))
    }

    /// One of them is there.
    pub fn reached(&self, what: &str) {
        self.0.send_modify(|missing| {
            missing.remove(what);
        });
    }

    /// What is missing; empty: ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.borrow().iter().copied().collect()
    }
}
