//! What to do about the Lease: a function of what is remembered, what was read, and the time.
//!
//! Times are those of this process's own clock. Wall-clock times are in a [`Record`] for people to read.

use std::time::Duration;

use jiff::Timestamp;

use super::{LEASE_DURATION, RENEW_DEADLINE};

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty: nobody, it was released.
    pub holder: String,
    /// How long it is good without a renewal.
    pub seconds: Option<i32>,
    /// How often it went from one holder to another.
    pub transitions: i32,
    /// When the holder got it, by its clock.
    pub acquired: Option<Timestamp>,
    /// When the holder renewed it, by its clock.
    pub renewed: Option<Timestamp>,
}

/// What a look at the Lease brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View<'a> {
    /// No answer.
    Unknown,
    /// There is none.
    Absent,
    /// It says this.
    There(&'a Record),
}

/// What this process is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// To lead.
    Lead,
    /// To end without the lease.
    Leave,
}

/// What is remembered between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The record as it was read last, and since when it was read so.
    pub observed: Option<(Record, Duration)>,
    /// When the last renewal that succeeded was sent; None: this process does not lead.
    pub renewed: Option<Duration>,
}

/// Why a leader must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// No renewal succeeded in time.
    #[error(
        "the Lease could not be renewed for {} s, so another replica may lead; was the Kubernetes API away, \
         or this process frozen?",
        RENEW_DEADLINE.as_secs()
    )]
    Expired,
    /// Somebody else has it.
    #[error("the Lease was taken by {0}")]
    Taken(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take the lease, with this count of transitions.
    Acquire(i32),
    /// Write the time of the renewal.
    Renew,
    /// Write that nobody holds it.
    Release,
    /// Look again in a while, and no later than this, if it is known when something ends by itself.
    Wait(Option<Duration>),
    /// This process does not lead any more.
    Lost(Loss),
    /// This process may end: it holds nothing.
    Left,
}

impl State {
    /// When leadership ends without another renewal.
    pub fn leads_until(&self) -> Option<Duration> {
        self.renewed.map(|sent| sent + RENEW_DEADLINE)
    }

    /// Remembers what was read at `now`.
    pub fn see(&mut self, view: View<'_>, now: Duration) {
        if let View::There(record) = view
            && self.observed.as_ref().is_none_or(|(before, _)| before != record)
        {
            self.observed = Some((record.clone(), now));
        }
    }

    /// `me` wrote itself as the holder, by a request that was sent at `sent`.
    pub fn wrote(&mut self, sent: Duration) {
        self.renewed = Some(sent);
    }

    /// When the record that was read last is over.
    fn expires(&self) -> Option<Duration> {
        let (record, since) = self.observed.as_ref()?;
        let seconds = record.seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Some(*since + seconds.filter(|seconds| *seconds > 0).map_or(LEASE_DURATION, Duration::from_secs))
    }
}

/// The identity of one start of a process. A pod runs one at a time, so who has the same pod's UID in its identity is
/// over when this one runs; without a pod's UID nobody is known to be.
pub fn identity(name: &str, pod: Option<&str>, start: &str) -> String {
    let pod = pod.map(|pod| format!("{pod}/")).unwrap_or_default();
    format!("{name}/{pod}{start}")
}

/// Is `holder` an earlier start of the pod of `me`?
fn is_predecessor(holder: &str, me: &str) -> bool {
    let pod = |identity: &str| match identity.split('/').collect::<Vec<_>>()[..] {
        [name, pod, _] => Some((name.to_owned(), pod.to_owned())),
        _ => None,
    };
    pod(me).is_some_and(|mine| pod(holder) == Some(mine))
}

/// Decides for `me`, after [`State::see`] of the same view.
pub fn decide(state: &State, view: View<'_>, me: &str, aim: Aim, now: Duration) -> Decision {
    let until = state.leads_until();
    if until.is_some_and(|until| now >= until) {
        return Decision::Lost(Loss::Expired);
    }
    match (view, aim) {
        (View::There(record), _) if record.holder == me => match aim {
            Aim::Lead => Decision::Renew,
            Aim::Leave => Decision::Release,
        },
        (View::There(record), _) if !record.holder.is_empty() && until.is_some() => {
            Decision::Lost(Loss::Taken(record.holder.clone()))
        }
        // A leader does not know that it may leave before it has read so.
        (View::Unknown, Aim::Leave) if until.is_none() => Decision::Left,
        (View::Unknown, _) => Decision::Wait(until),
        (_, Aim::Leave) => Decision::Left,
        (View::Absent, Aim::Lead) => Decision::Acquire(0),
        (View::There(record), Aim::Lead) => {
            let expires = state.expires().unwrap_or(now);
            if record.holder.is_empty() || now >= expires || is_predecessor(&record.holder, me) {
                Decision::Acquire(record.transitions.saturating_add(1))
            } else {
                Decision::Wait(Some(expires))
            }
        }
    }
}

/// The record that carries out a decision, if it is one to write. `wall` is the time for people.
pub fn record(decision: &Decision, view: View<'_>, me: &str, wall: Timestamp) -> Option<Record> {
    let seconds = i32::try_from(LEASE_DURATION.as_secs()).ok();
    let held = |transitions, acquired| Record {
        holder: me.to_owned(),
        seconds,
        transitions,
        acquired: Some(acquired),
        renewed: Some(wall),
    };
    match (decision, view) {
        (Decision::Acquire(transitions), _) => Some(held(*transitions, wall)),
        (Decision::Renew, View::There(now)) => Some(held(now.transitions, now.acquired.unwrap_or(wall))),
        (Decision::Release, View::There(now)) => Some(Record {
            holder: String::new(),
            seconds: Some(1),
            transitions: now.transitions,
            acquired: Some(wall),
            renewed: Some(wall),
        }),
        _ => None,
    }
}
