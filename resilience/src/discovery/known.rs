//! What is known of a service: pure, time is an argument.

use std::sync::Arc;
use std::time::Duration;

use super::Endpoint;
use crate::clock::Now;

/// What is known of a service. The last list stays, however long its source is silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// By address, each once.
    pub(crate) endpoints: Arc<[Endpoint]>,
    pub(crate) heard: Heard,
}

/// What the source has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing yet.
    Nothing,
    /// The list is the source's.
    Good,
    /// The source fails, since then. Without a list before: none is known.
    Failing { since: Now, why: String, listed: bool },
}

/// Why there is nobody to call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Empty {
    #[error("nothing was heard of {0} yet")]
    Unheard(String),
    #[error("no passing instance of {0} is registered")]
    NoInstance(String),
    #[error("no instance of {0} is known: {1}")]
    Unknown(String, String),
    #[error("the list of instances of {0} is older than {age} s, the limit of this channel: {1}", age = .2.as_secs())]
    TooOld(String, String, Duration),
}

impl Known {
    /// Nothing was heard yet.
    pub(crate) fn nothing() -> Self {
        Self { endpoints: Arc::default(), heard: Heard::Nothing }
    }

    /// The source has listed these; false: as before.
    pub(super) fn found(&mut self, mut endpoints: Vec<Endpoint>) -> bool {
        // Of two at one address the one that somebody vouches for.
        endpoints.sort_by(|a, b| (a.address, a.stale, &a.id).cmp(&(b.address, b.stale, &b.id)));
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        let changed = self.heard != Heard::Good || *self.endpoints != *endpoints;
        if *self.endpoints != *endpoints {
            self.endpoints = endpoints.into();
        }
        self.heard = Heard::Good;
        changed
    }

    /// The source has failed; false: it did so before, in the same way.
    pub(super) fn failed(&mut self, why: String, now: Now) -> bool {
        match &mut self.heard {
            Heard::Failing { why: said, .. } if *said == why => false,
            Heard::Failing { why: said, .. } => {
                *said = why;
                true
            }
            heard => {
                let listed = *heard == Heard::Good;
                *heard = Heard::Failing { since: now, why, listed };
                true
            }
        }
    }

    /// Whom to call at `now`, if a list may be so old.
    pub(crate) fn usable(
        &self,
        service: &str,
        max_age: Option<Duration>,
        now: Now,
    ) -> Result<&Arc<[Endpoint]>, Empty> {
        let service = || service.to_owned();
        match &self.heard {
            Heard::Nothing => Err(Empty::Unheard(service())),
            Heard::Failing { why, listed: false, .. } => Err(Empty::Unknown(service(), why.clone())),
            Heard::Failing { since, why, .. } if max_age.is_some_and(|most| now.since(*since) >= most) => {
                Err(Empty::TooOld(service(), why.clone(), max_age.unwrap_or_default()))
            }
            _ if self.endpoints.is_empty() => Err(Empty::NoInstance(service())),
            _ => Ok(&self.endpoints),
        }
    }

    /// When the list becomes too old, if it may be so old.
    pub(crate) fn expires(&self, max_age: Option<Duration>) -> Option<Now> {
        let Heard::Failing { since, listed: true, .. } = &self.heard else { return None };
        Some(since.plus(u64::try_from(max_age?.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], port).into())
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_last_list_stays_through_an_outage_until_the_age_that_the_caller_allows() {
        let mut known = Known::nothing();
        assert!(known.found(vec![at(2), at(1)]));
        assert!(!known.found(vec![at(1), at(2)]), "in whatever order");
        assert!(known.failed("connection refused".into(), Now(10 * SECOND)));
        assert!(known.failed("no leader".into(), Now(50 * SECOND)), "it is told why, but since when stays");
        let minute = Some(Duration::from_mins(1));
        assert_eq!(known.usable("s", None, Now(9_000 * SECOND)).unwrap().len(), 2);
        assert_eq!(known.usable("s", minute, Now(70 * SECOND - 1)).unwrap().len(), 2);
        assert_eq!(known.expires(minute), Some(Now(70 * SECOND)));
        let error = known.usable("s", minute, Now(70 * SECOND)).unwrap_err().to_string();
        assert_eq!(
            error,
            "the list of instances of s is older than 60 s, the limit of this channel: no leader"
        );
        assert!(known.found(vec![at(1), at(2)]));
        assert_eq!(
            (known.usable("s", minute, Now(71 * SECOND)).unwrap().len(), known.expires(minute)),
            (2, None)
        );
    }

    #[test]
    fn who_has_nobody_to_call_is_told_why() {
        let mut known = Known::nothing();
        let said = |known: &Known| known.usable("user.service", None, Now(0)).unwrap_err().to_string();
        assert_eq!(said(&known), "nothing was heard of user.service yet");
        known.failed("Consul answered 500".into(), Now(0));
        assert_eq!(said(&known), "no instance of user.service is known: Consul answered 500");
        known.found(Vec::new());
        assert_eq!(said(&known), "no passing instance of user.service is registered");
        known.failed("Consul answered 500".into(), Now(0));
        assert_eq!(said(&known), "no passing instance of user.service is registered", "as it was last heard");
    }

    #[test]
    fn of_two_at_one_address_the_one_that_is_vouched_for_counts() {
        let mut known = Known::nothing();
        known.found(vec![Endpoint { stale: true, ..at(1) }, Endpoint { id: "b".into(), ..at(1) }]);
        assert_eq!(*known.endpoints, [Endpoint { id: "b".into(), ..at(1) }]);
    }
}
