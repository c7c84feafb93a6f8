//! What to do about one node's dead man. Pure: time, too, is an argument.

use std::time::Duration;

use super::port::{Check, Renewal, Session};

/// How often the nodes are looked at and their sessions renewed, at most.
const LONGEST_BEAT: Duration = Duration::from_secs(30);
/// How many beats fit into a TTL, at least.
const BEATS: u32 = 10;
/// The part of the TTL without a renewal that is worth a warning: Consul itself waits at least four times that.
const LATE: u32 = 4;
/// The part of the TTL that a new session may be old when the check is put under it.
const FRESH: u32 = 2;

/// What this process is to the dead men.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// Does it create and rotate? Every process renews.
    pub leads: bool,
    /// The TTL of a session. None: there are to be no dead men, as Consul does not know them or nobody wants them.
    pub ttl: Option<Duration>,
}

/// What to do about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Renew the session that the check depends on.
    Renew(Session),
    /// Create a session with a name of its own and put the check under it.
    Rotate(Why),
    /// Take the check away.
    Disarm,
}

/// Why a node needs another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has no check yet.
    New,
    /// Its check depends on no session any more: somebody wrote over it.
    Broken,
    /// Its check is not passing. A renewal would not heal that.
    Critical,
    /// Its session is gone.
    Lost,
    /// Its session has another TTL than it should.
    OtherTtl,
}

/// The first step, by the check as it is.
pub fn first(role: Role, check: Option<&Check>) -> Step {
    match (role.ttl, check) {
        (None, Some(_)) if role.leads => Step::Disarm,
        (None, _) => Step::Rest,
        (Some(_), None) => rotate(role, Why::New),
        (Some(_), Some(check)) => match &check.session {
            None => rotate(role, Why::Broken),
            Some(_) if role.leads && !check.passing => Step::Rotate(Why::Critical),
            Some(session) => Step::Renew(session.clone()),
        },
    }
}

/// The step after a renewal.
pub fn next(role: Role, renewal: Renewal) -> Step {
    match (renewal, role.ttl) {
        (Renewal::Lost, Some(_)) => rotate(role, Why::Lost),
        (Renewal::Kept(ttl), Some(wanted)) if ttl != wanted => rotate(role, Why::OtherTtl),
        _ => Step::Rest,
    }
}

fn rotate(role: Role, why: Why) -> Step {
    if role.leads { Step::Rotate(why) } else { Step::Rest }
}

/// How long from one look to the next.
pub fn beat(ttl: Duration) -> Duration {
    (ttl / BEATS).min(LONGEST_BEAT)
}

/// Is it time to warn, so long after the last renewal?
pub fn late(ttl: Duration, since: Duration) -> bool {
    since >= ttl / LATE
}

/// May the check be put under a session, so long after it was created or renewed? It must not end before the next
/// renewal.
pub fn fresh(ttl: Duration, since: Duration) -> bool {
    since <= ttl / FRESH
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_hours(1);

    fn check(passing: bool, session: bool) -> Check {
        Check { passing, session: session.then(session_of) }
    }

    fn session_of() -> Session {
        Session { name: "fusebox-demo-3-a".into(), id: "1".into() }
    }

    #[test]
    fn the_table_of_first_steps() {
        let (fine, renew) = (check(true, true), Step::Renew(session_of()));
        let (bad, broken, both) = (check(false, true), check(true, false), check(false, false));
        for (check, leader, follower) in [
            (None, Step::Rotate(Why::New), Step::Rest),
            (Some(&fine), renew.clone(), renew.clone()),
            (Some(&bad), Step::Rotate(Why::Critical), renew.clone()),
            (Some(&broken), Step::Rotate(Why::Broken), Step::Rest),
            (Some(&both), Step::Rotate(Why::Broken), Step::Rest),
        ] {
            let role = |leads| Role { leads, ttl: Some(TTL) };
            assert_eq!(first(role(true), check), leader, "{check:?}");
            assert_eq!(first(role(false), check), follower, "{check:?}");
            let without = |leads| first(Role { leads, ttl: None }, check);
            assert_eq!(without(true), if check.is_some() { Step::Disarm } else { Step::Rest }, "{check:?}");
            assert_eq!(without(false), Step::Rest, "{check:?}");
        }
    }

    #[test]
    fn the_table_of_next_steps() {
        for (renewal, leader) in [
            (Renewal::Kept(TTL), Step::Rest),
            (Renewal::Kept(TTL * 2), Step::Rotate(Why::OtherTtl)),
            (Renewal::Lost, Step::Rotate(Why::Lost)),
        ] {
            assert_eq!(next(Role { leads: true, ttl: Some(TTL) }, renewal), leader, "{renewal:?}");
            assert_eq!(next(Role { leads: false, ttl: Some(TTL) }, renewal), Step::Rest, "{renewal:?}");
            assert_eq!(next(Role { leads: true, ttl: None }, renewal), Step::Rest, "{renewal:?}");
        }
    }

    #[test]
    fn renewals_are_well_within_the_ttl_and_a_warning_comes_at_a_quarter() {
        for (ttl, wanted) in [(10, 1), (60, 6), (300, 30), (3600, 30), (86_400, 30)] {
            let ttl = Duration::from_secs(ttl);
            assert_eq!(beat(ttl), Duration::from_secs(wanted), "{ttl:?}");
            assert!(!late(ttl, ttl.mul_f64(0.2499)) && late(ttl, ttl / 4), "{ttl:?}");
            // Two beats in a row may fail before anybody is woken.
            assert!(!late(ttl, beat(ttl) * 2), "{ttl:?}");
            assert!(fresh(ttl, ttl / 2) && !fresh(ttl, ttl / 2 + Duration::from_millis(1)), "{ttl:?}");
        }
    }
}
