//! What the channels of a process have ejected.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::balance::Balance;
use crate::sync::Writers;

/// An endpoint that a channel does not call for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// The name that it was found under.
    pub service: String,
    /// The command whose policy ejected it.
    pub command: String,
    /// Which it is.
    pub endpoint: SocketAddr,
    /// Since when its breaker is not closed.
    pub since: Timestamp,
    /// Why it opened, for a person: `5 failures in a row`.
    pub reason: String,
}

/// The channels of a process, for as long as they live.
#[derive(Default)]
pub(crate) struct Channels {
    all: ArcSwap<Vec<Weak<Balance>>>,
    writers: Writers,
}

impl Channels {
    pub(super) fn add(&self, balance: &Arc<Balance>) {
        let _turn = self.writers.turn();
        let mut all: Vec<_> = self.all.load().iter().filter(|one| one.strong_count() > 0).cloned().collect();
        all.push(Arc::downgrade(balance));
        self.all.store(Arc::new(all));
    }

    /// Those that live, by service and command.
    pub(crate) fn all(&self) -> Vec<Arc<Balance>> {
        let mut all: Vec<_> = self.all.load().iter().filter_map(Weak::upgrade).collect();
        all.sort_by(|a, b| (&a.service, &a.command.circuit.name).cmp(&(&b.service, &b.command.circuit.name)));
        all
    }

    /// What they have ejected, those that are so for longest first. Two channels of one service and command
    /// may each name an endpoint: the first counts.
    pub(crate) fn outliers(&self) -> Vec<Outlier> {
        let mut outliers: Vec<_> = self.all().iter().flat_map(|balance| balance.outliers()).collect();
        outliers.sort_by(|a, b| {
            let key = |of: &Outlier| (of.since, of.endpoint, of.service.clone(), of.command.clone());
            key(a).cmp(&key(b))
        });
        let mut seen = std::collections::HashSet::new();
        outliers.retain(|one| seen.insert((one.service.clone(), one.command.clone(), one.endpoint)));
        outliers
    }
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("len", &self.all.load().len()).finish_non_exhaustive()
    }
}
