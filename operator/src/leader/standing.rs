//! Where this process stands: a value with an expiry, not a flag that outlives its lease.

use std::time::Duration;

use tokio::sync::watch;

use super::Clock;

/// What the elector knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The Lease was not read yet.
    Unknown,
    /// Another process leads, or nobody.
    Standby {
        /// Who leads; empty: nobody.
        leader: String,
    },
    /// This process leads, until then by its own clock.
    Leads {
        /// When it ends without another renewal.
        until: Duration,
    },
}

/// Shared: the elector sets it, everybody asks.
#[derive(Debug)]
pub struct Leadership {
    clock: Clock,
    standing: watch::Sender<Standing>,
}

impl Leadership {
    /// Nothing is known yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, standing: watch::Sender::new(Standing::Unknown) }
    }

    /// This process's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Does this process lead now?
    pub fn holds(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Leads { until } if self.clock.now() < until)
    }

    /// Once the Lease was read.
    pub async fn known(&self) {
        let _ = self.standing.subscribe().wait_for(|standing| *standing != Standing::Unknown).await;
    }

    /// Once this process leads.
    pub async fn leads(&self) {
        let _ = self.standing.subscribe().wait_for(|now| matches!(now, Standing::Leads { .. })).await;
    }

    /// Keeps `leads` at whether this process was last said to lead, for as long as it runs.
    pub async fn follow(&self, leads: watch::Sender<bool>) {
        let mut standing = self.standing.subscribe();
        loop {
            leads.send_replace(matches!(*standing.borrow_and_update(), Standing::Leads { .. }));
            // The sender is in self, so this cannot fail.
            let _ = standing.changed().await;
        }
    }

    /// For a person.
    pub fn told(&self) -> String {
        match &*self.standing.borrow() {
            Standing::Unknown => "the Lease was not read yet".to_owned(),
            Standing::Standby { leader } if leader.is_empty() => "standby; nobody leads".to_owned(),
            Standing::Standby { leader } => format!("standby; {leader} leads"),
            Standing::Leads { .. } if self.holds() => "leads".to_owned(),
            Standing::Leads { .. } => "led; the Lease was not renewed in time".to_owned(),
        }
    }

    /// Only the elector says so.
    pub(super) fn set(&self, standing: Standing) {
        self.standing.send_if_modified(|before| {
            let news = *before != standing;
            *before = standing;
            news
        });
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }
}
