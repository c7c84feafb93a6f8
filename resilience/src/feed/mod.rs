//! Policies from etcd and reports to it.

use std::sync::Arc;

use crate::env::Settings;
use crate::fusebox::Shared;

/// What works for a [`Fusebox`](crate::Fusebox) in the background; it ends with the last handle.
#[derive(Debug)]
pub(crate) struct Feed {}

impl Feed {
    /// Starts to follow the policy.
    pub(crate) fn start(_settings: Settings, _shared: &Arc<Shared>) -> Self {
        Self {}
    }

    /// Takes back the report.
    pub(crate) async fn shutdown(&self) {}
}
