//! Endpoints that callers have ejected, by the Consul name they found them under: an index of all reports. Pure.
//!
//! # Guarantees
//! - A change of one report costs what that report says, a look-up costs nothing.
//! - What is told of one name changes at most once in [`TELL`]; an endpoint that is taken back is told of for
//!   [`LINGER`] more, so that one that goes and comes all the time changes nothing.
//! - Whatever a report says, it is at most [`MAX_REPORTED`] endpoints, each with a reason of a known set; who says it is
//!   named by the key, which a namespace's credential can write for that namespace alone.
//!
//! # Assumptions
//! - Nobody's clock but this process's is believed: an ejection is as old as its first report here.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::keys::Ident;
use fusebox_policy::reason;
use fusebox_policy::wire::{MAX_REPORTED, OutlierReport};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::pace::Pace;
use crate::ports::{Ejected, Outlier};

/// The least time between two changes of what is told of one name. The first is told at once.
pub const TELL: Duration = Duration::from_secs(10);

/// For how long an endpoint counts as ejected after its caller took it back, or is gone.
pub const LINGER: Duration = Duration::from_secs(30);

/// How many ejections that ended are remembered: whoever may write reports must not fill this process's memory.
const LINGERING: usize = 10_000;

/// How many callers of an endpoint are named.
const NAMED: usize = 4;

/// The longest name in Consul, as the custom resource has it.
const MAX_NAME: usize = 128;

/// The longest name of a Kubernetes object, and of an instance: a pod's UID or an address.
const MAX_CALLER: usize = 253;

/// What is told instead of a reason that is none of the library's.
const UNKNOWN: &str = "for a reason that this operator does not know";

/// An instance of a resource.
type Caller = (Ident, String);

/// The name in Consul in lower case, as Consul finds it, and the endpoint.
type Place = (String, SocketAddr);

/// The index.
#[derive(Clone, Debug)]
pub struct Outliers {
    /// What each caller says now.
    said: HashMap<Caller, HashSet<Place>>,
    named: HashMap<String, Named>,
    /// What was taken back, the first first.
    ended: VecDeque<(Instant, Caller, Place)>,
    pace: Pace<String>,
}

#[derive(Clone, Debug, Default)]
struct Named {
    ejections: BTreeMap<SocketAddr, BTreeMap<Caller, Ejection>>,
    told: Arc<Ejected>,
}

#[derive(Clone, Debug)]
struct Ejection {
    since: Timestamp,
    reason: String,
    /// When it was taken back.
    ended: Option<Instant>,
}

impl Default for Outliers {
    fn default() -> Self {
        Self { said: HashMap::new(), named: HashMap::new(), ended: VecDeque::new(), pace: Pace::of(TELL) }
    }
}

impl Outliers {
    /// What is told of a name.
    pub fn of(&self, name: &str) -> Arc<Ejected> {
        self.named.get(&name.to_ascii_lowercase()).map(|named| named.told.clone()).unwrap_or_default()
    }

    /// All that `caller` says from now on. The names of which something else is told now.
    pub fn say(
        &mut self,
        caller: Caller,
        says: Vec<OutlierReport>,
        now: Timestamp,
        at: Instant,
    ) -> Vec<String> {
        let says = if is_name(&caller) { read(says) } else { BTreeMap::new() };
        let before = self.said.remove(&caller).unwrap_or_default();
        for place in before.into_iter().filter(|place| !says.contains_key(place)) {
            if let Some(ejection) = self.ejection(&caller, &place) {
                ejection.ended = Some(at);
                self.ended.push_back((at, caller.clone(), place));
            }
        }
        let mut changed = HashSet::new();
        for (place, reason) in &says {
            let (name, endpoint) = place;
            let all = self.named.entry(name.clone()).or_default().ejections.entry(*endpoint).or_default();
            if let Some(known) = all.get_mut(&caller) {
                known.ended = None;
            } else {
                all.insert(caller.clone(), Ejection { since: now, reason: reason.clone(), ended: None });
                changed.insert(name.clone());
            }
        }
        if !says.is_empty() {
            self.said.insert(caller, says.into_keys().collect());
        }
        self.forget(at, &mut changed);
        self.tell(changed, at)
    }

    /// All callers but these are silent from now on.
    pub fn only(&mut self, callers: &HashSet<Caller>, now: Timestamp, at: Instant) {
        let gone: Vec<Caller> = self.said.keys().filter(|one| !callers.contains(one)).cloned().collect();
        for caller in gone {
            self.say(caller, Vec::new(), now, at);
        }
    }

    /// What time brings: the names of which something else is told now.
    pub fn due(&mut self, at: Instant) -> Vec<String> {
        let mut changed = HashSet::new();
        self.forget(at, &mut changed);
        let mut told = self.tell(changed, at);
        let due = self.pace.due(at);
        told.extend(due.into_iter().filter(|name| self.retell(name)));
        told
    }

    fn ejection(&mut self, caller: &Caller, (name, endpoint): &Place) -> Option<&mut Ejection> {
        self.named.get_mut(name)?.ejections.get_mut(endpoint)?.get_mut(caller)
    }

    /// Forgets what was taken back long enough ago, and the oldest of too many.
    fn forget(&mut self, at: Instant, changed: &mut HashSet<String>) {
        while let Some((ended, ..)) = self.ended.front()
            && (self.ended.len() > LINGERING || at.duration_since(*ended) >= LINGER)
            && let Some((ended, caller, place)) = self.ended.pop_front()
        {
            if self.ejection(&caller, &place).is_none_or(|now| now.ended != Some(ended)) {
                continue;
            }
            let (name, endpoint) = place;
            let Some(named) = self.named.get_mut(&name) else { continue };
            if let Some(all) = named.ejections.get_mut(&endpoint) {
                all.remove(&caller);
                if all.is_empty() {
                    named.ejections.remove(&endpoint);
                }
            }
            changed.insert(name);
        }
    }

    /// Tells of these now, or when it is time.
    fn tell(&mut self, changed: HashSet<String>, at: Instant) -> Vec<String> {
        let now: Vec<String> = changed.into_iter().filter_map(|name| self.pace.note(name, at)).collect();
        now.into_iter().filter(|name| self.retell(name)).collect()
    }

    /// Is it news?
    fn retell(&mut self, name: &str) -> bool {
        let Some(named) = self.named.get_mut(name) else { return false };
        let told: Ejected = named.ejections.iter().filter_map(|(at, by)| Some((*at, outlier(by)?))).collect();
        let news = *named.told != told;
        if told.is_empty() {
            self.named.remove(name);
        } else if news {
            named.told = Arc::new(told);
        }
        news
    }
}

/// None: nobody ejected it.
fn outlier(by: &BTreeMap<Caller, Ejection>) -> Option<Outlier> {
    let first = by.values().min_by_key(|ejection| ejection.since)?;
    // Instances of one resource are beside each other.
    let mut callers: Vec<&Ident> = by.keys().map(|(of, _)| of).collect();
    callers.dedup();
    Some(Outlier {
        since: first.since,
        reason: first.reason.clone(),
        services: callers.len(),
        instances: by.len(),
        callers: callers.into_iter().take(NAMED).cloned().collect(),
    })
}

/// Could these be names in Kubernetes? A key may be anything.
fn is_name((of, instance): &Caller) -> bool {
    let is_name = |name: &str| {
        name.len() <= MAX_CALLER
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    };
    is_name(&of.namespace) && is_name(&of.name) && instance.len() <= MAX_CALLER
}

/// What may be meant, each endpoint once.
fn read(says: Vec<OutlierReport>) -> BTreeMap<Place, String> {
    let mut read = BTreeMap::new();
    for one in says.into_iter().take(MAX_REPORTED) {
        let Ok(endpoint) = one.endpoint.parse::<SocketAddr>() else { continue };
        if one.service.is_empty() || one.service.len() > MAX_NAME {
            continue;
        }
        let reason = if reason::is_known(&one.reason) { one.reason } else { UNKNOWN.to_owned() };
        read.entry((one.service.to_ascii_lowercase(), endpoint)).or_insert(reason);
    }
    read
}

#[cfg(test)]
#[path = "outliers_tests.rs"]
mod tests;
