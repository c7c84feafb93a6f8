//! Where endpoints come from.

use std::fmt;
use std::pin::Pin;

use tokio::sync::watch;

use super::Endpoint;
use super::known::Known;
use crate::clock::exact;

/// A place that knows the endpoints of services by name.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Follows a service until it is dropped: tells each new list, and each failure to get one. It is
    /// followed once for each name, however many use it.
    fn follow(&self, service: &str, told: Teller) -> Following;
}

/// A source at work.
pub type Following = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes what a [`Source`] finds out.
#[derive(Debug)]
pub struct Teller {
    service: String,
    known: watch::Sender<Known>,
}

impl Teller {
    pub(super) fn new(service: &str) -> (Self, watch::Receiver<Known>) {
        let (known, receiver) = watch::channel(Known::nothing());
        (Self { service: service.to_owned(), known }, receiver)
    }

    /// These are all the endpoints there are. An empty list is believed: a source that has reason to doubt
    /// one tells a [failure](Self::failed) instead.
    pub fn found(&self, endpoints: Vec<Endpoint>) {
        self.known.send_if_modified(|known| {
            let before = known.endpoints.clone();
            let changed = known.found(endpoints);
            if before != known.endpoints {
                let (service, now) = (&self.service, known.endpoints.len());
                let stale = known.endpoints.iter().filter(|endpoint| endpoint.stale).count();
                tracing::info!(%service, before = before.len(), now, stale, "the list of instances changed");
            }
            changed
        });
    }

    /// The endpoints cannot be had for now, `why` for a person. The last list stays.
    pub fn failed(&self, why: impl fmt::Display) {
        let why = why.to_string();
        self.known.send_if_modified(|known| {
            let changed = known.failed(why, exact());
            if changed {
                let service = &self.service;
                tracing::warn!(%service, heard = ?known.heard, "no list of instances: the last one stays");
            }
            changed
        });
    }
}
