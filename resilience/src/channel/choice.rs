//! Whom a call goes to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::balance::{Balance, Snapshot};
use super::member::Member;
use super::pick;
use crate::clock::{Now, Tick};
use crate::discovery::known::Empty;
use crate::fuse::{Refusal, Ticket};

/// Whom a call goes to.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) member: Arc<Member>,
    pub(super) ticket: Ticket,
}

/// Why a call goes to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unpicked {
    Empty(Empty),
    Refused(Refusal),
}

impl Balance {
    /// Whom the next attempt goes to: rather, or `only`, to one that was not tried.
    pub(super) fn pick(&self, tried: &[Arc<Member>], only: bool, now: Now) -> Result<Picked, Unpicked> {
        let snapshot = self.snapshot.load();
        if let Some(refusal) = snapshot.forced_open {
            return Err(Unpicked::Refused(refusal));
        }
        if snapshot.all.is_empty() {
            return Err(Unpicked::Empty(snapshot.empty.clone()));
        }
        if let Some(picked) = self.probe(&snapshot, tried, now) {
            return Ok(picked);
        }
        if tried.is_empty() {
            return self.among(&snapshot.usable, now).map_err(Unpicked::Refused);
        }
        let was_tried =
            |member: &Arc<Member>| tried.iter().any(|other| Arc::ptr_eq(&other.core, &member.core));
        let others: Vec<_> = snapshot.usable.iter().filter(|member| !was_tried(member)).cloned().collect();
        self.among(&others, now)
            .or_else(|refusal| if only { Err(refusal) } else { self.among(&snapshot.usable, now) })
            .map_err(Unpicked::Refused)
    }

    /// One of the ejected whose time has come to be tried.
    fn probe(&self, snapshot: &Snapshot, tried: &[Arc<Member>], now: Now) -> Option<Picked> {
        let due = snapshot.next_try.load(Ordering::Relaxed);
        // A probe that fails costs a call: one that was already made once is not risked again.
        if now.tick().0 < due || !tried.is_empty() {
            return None;
        }
        // Of the calls that see it, one tries.
        let later = now.tick().0 + 1;
        snapshot.next_try.compare_exchange(due, later, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        let tick = now.tick();
        let ready = |member: &&Arc<Member>| {
            let out = member.core.out.load();
            out.as_ref().is_some_and(|out| member.core.next_try(out, Tick(0)) <= tick)
        };
        let picked = snapshot.ejected.iter().filter(ready).find_map(|member| {
            let (admitted, _) = member.core.admit(now, false);
            Some(Picked { member: Arc::clone(member), ticket: admitted.ok()? })
        });
        // Also where none was found: when to look again depends on all of them.
        self.review();
        picked
    }

    /// One of these: the better of two, else whoever admits a call.
    fn among(&self, members: &[Arc<Member>], now: Now) -> Result<Picked, Refusal> {
        let mut refused = Refusal::Open(Duration::ZERO);
        let mut ask = |member: &Arc<Member>| {
            let (admitted, changed) = member.core.admit(now, true);
            if changed {
                self.review();
            }
            match admitted {
                Ok(ticket) => Some(Picked { member: Arc::clone(member), ticket }),
                Err(refusal) => {
                    refused = refusal;
                    None
                }
            }
        };
        let len = members.len();
        let start = if len >= 2 {
            let (a, b) = pick::two_of(len, fastrand::f64(), fastrand::f64());
            let tick = now.tick();
            let first = pick::first(members[a].candidate(tick), members[b].candidate(tick), fastrand::f32());
            let (better, other) = if first { (a, b) } else { (b, a) };
            if let Some(picked) = ask(&members[better]).or_else(|| ask(&members[other])) {
                return Ok(picked);
            }
            a
        } else {
            0
        };
        let found = (0..len).find_map(|n| ask(&members[(start + n) % len]));
        found.ok_or(refused)
    }
}
