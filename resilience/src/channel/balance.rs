//! The endpoints of one channel: who may be called, and who is ejected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use fusebox_policy::policy::BreakerMode;
use tokio::sync::{Notify, watch};

use super::Connect;
use super::member::{Core, Member};
use super::options::Options;
use super::outliers::Outlier;
use super::survey::{Seen, survey};
use crate::clock::{Clock, Now, exact};
use crate::command::state::CommandState;
use crate::discovery::Endpoint;
use crate::discovery::known::{Empty, Heard, Known};
use crate::fuse::Refusal;
use crate::sync::{Writers, Writing};

/// The endpoints of one channel.
pub(crate) struct Balance {
    pub(crate) service: String,
    pub(crate) command: &'static CommandState,
    pub(super) clock: &'static Clock,
    pub(super) options: Options,
    pub(super) connect: Connect,
    pub(super) snapshot: ArcSwap<Snapshot>,
    /// Whether a list, or a failure to get one, was ever heard of.
    pub(super) heard: watch::Sender<bool>,
    pub(crate) ejections: AtomicU64,
    /// Why the list is not confirmed.
    doubt: ArcSwapOption<String>,
    changed: Arc<Notify>,
    writers: Writers,
}

/// One moment of the endpoints.
pub(super) struct Snapshot {
    pub(super) all: Vec<Arc<Member>>,
    pub(super) usable: Vec<Arc<Member>>,
    pub(super) ejected: Vec<Arc<Member>>,
    /// The tick when the next of the ejected may be tried.
    pub(super) next_try: AtomicU64,
    /// Why nobody is listed.
    pub(super) empty: Empty,
    /// The policy refuses every call of the command.
    pub(super) forced_open: Option<Refusal>,
}

impl Balance {
    pub(super) fn new(
        service: String,
        command: &'static CommandState,
        options: Options,
        connect: Connect,
        changed: Arc<Notify>,
    ) -> Self {
        let (all, usable, ejected) = (Vec::new(), Vec::new(), Vec::new());
        let empty = Empty::Unheard(service.clone());
        let (next_try, forced_open) = (AtomicU64::new(u64::MAX), forced_open(command));
        let snapshot = Snapshot { all, usable, ejected, next_try, empty, forced_open };
        Self {
            service,
            command,
            clock: command.circuit.clock(),
            options,
            connect,
            snapshot: ArcSwap::from_pointee(snapshot),
            heard: watch::Sender::new(false),
            ejections: AtomicU64::new(0),
            doubt: ArcSwapOption::empty(),
            changed,
            writers: Writers::default(),
        }
    }

    /// Takes over what is known at `now`. An endpoint that stays keeps its connection and its state; the
    /// connection of one that leaves ends with its last call.
    pub(super) fn update(&self, known: &Known, now: Now) {
        let turn = self.writers.turn();
        let old = self.snapshot.load_full();
        let (listed, empty) = match known.usable(&self.service, self.options.max_age, now) {
            Ok(endpoints) => (&**endpoints, Empty::NoInstance(self.service.clone())),
            Err(empty) => (&[][..], empty),
        };
        let policy = self.command.policy();
        // Both are by address.
        let member = |endpoint: &Endpoint| {
            let there = old.all.binary_search_by_key(&endpoint.address, |member| member.endpoint.address);
            let there = there.ok().map(|n| &old.all[n]).filter(|member| member.endpoint.id == endpoint.id);
            match there {
                Some(member) if member.endpoint == *endpoint => Arc::clone(member),
                Some(member) => {
                    Arc::new(Member { endpoint: endpoint.clone(), core: Arc::clone(&member.core) })
                }
                None => {
                    let core = Arc::new(Core::new(self.connect.link(endpoint), &policy, self.clock));
                    Arc::new(Member { endpoint: endpoint.clone(), core })
                }
            }
        };
        let all = listed.iter().map(member).collect();
        self.look(all, empty, &turn);
        self.doubt.store(match &known.heard {
            Heard::Failing { why, listed: true, .. } => Some(Arc::new(why.clone())),
            _ => None,
        });
        drop(turn);
        let spoke = known.heard != Heard::Nothing;
        self.heard.send_if_modified(|heard| spoke && !std::mem::replace(heard, true));
    }

    /// Puts the command's policy in force for each endpoint.
    pub(super) fn reload(&self) {
        let turn = self.writers.turn();
        let (policy, now) = (self.command.policy(), self.snapshot.load_full());
        now.all.iter().for_each(|member| member.core.reload(&policy));
        self.look(now.all.clone(), now.empty.clone(), &turn);
    }

    /// Looks at all breakers anew: one has changed.
    pub(super) fn review(&self) {
        let turn = self.writers.turn();
        let now = self.snapshot.load_full();
        self.look(now.all.clone(), now.empty.clone(), &turn);
    }

    fn look(&self, all: Vec<Arc<Member>>, empty: Empty, _: &Writing<'_>) {
        let now = exact().tick();
        let known = |member: &Member| member.core.out.load_full();
        let before: Vec<_> = all.iter().map(|member| known(member)).collect();
        let outs: Vec<_> = all.iter().map(|member| member.core.look(now)).collect();
        let zone = self.options.zone.as_deref();
        let seen: Vec<_> = all
            .iter()
            .zip(&outs)
            .map(|(member, out)| Seen {
                bad_since: out.as_ref().map(|out| out.since),
                local: zone.is_some() && member.endpoint.zone.as_deref() == zone,
            })
            .collect();
        let survey = survey(&seen, self.options.rules);
        let place = |n: &usize| Arc::clone(&all[*n]);
        let (usable, ejected) = (survey.usable.iter().map(place).collect(), survey.ejected.iter().map(place));
        let next_try =
            survey.ejected.iter().filter_map(|n| Some(all[*n].core.next_try(outs[*n].as_ref()?, now)));
        let next_try = AtomicU64::new(next_try.map(|tick| tick.0).min().unwrap_or(u64::MAX));
        let mut news = false;
        for ((member, before), out) in all.iter().zip(&before).zip(&outs) {
            let (service, endpoint) = (&self.service, member.endpoint.address);
            match (before, out) {
                (None, Some(out)) => {
                    news = true;
                    self.ejections.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%service, %endpoint, why = %out.why, "endpoint is bad: ejected if few are");
                }
                (Some(_), None) => {
                    news = true;
                    tracing::info!(%service, %endpoint, "endpoint is good again");
                }
                _ => {}
            }
        }
        let (ejected, forced_open) = (ejected.collect(), forced_open(self.command));
        self.snapshot.store(Arc::new(Snapshot { all, usable, ejected, next_try, empty, forced_open }));
        if news {
            self.changed.notify_one();
        }
    }

    /// Nothing was heard yet, neither a list nor a failure to get one.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(self.snapshot.load().empty, Empty::Unheard(_))
    }

    /// Why the list is not confirmed.
    pub(super) fn unconfirmed(&self) -> Option<String> {
        self.doubt.load().as_deref().cloned()
    }

    /// How many of the endpoints nobody vouches for.
    pub(crate) fn stale(&self) -> usize {
        let snapshot = self.snapshot.load();
        if self.doubt.load().is_some() {
            return snapshot.all.len();
        }
        snapshot.all.iter().filter(|member| member.endpoint.stale).count()
    }

    /// How many endpoints there are, and how many of them are ejected.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let snapshot = self.snapshot.load();
        (snapshot.all.len(), snapshot.ejected.len())
    }

    /// The ejected endpoints, those that are so for longest first.
    pub(crate) fn outliers(&self) -> Vec<Outlier> {
        let snapshot = self.snapshot.load();
        let mut outliers: Vec<_> = snapshot
            .ejected
            .iter()
            .filter_map(|member| {
                let out = member.core.out.load_full()?;
                Some(Outlier {
                    service: self.service.clone(),
                    command: self.command.circuit.name.clone(),
                    endpoint: member.endpoint.address,
                    since: self.clock.timestamp(out.since),
                    reason: out.why.clone(),
                })
            })
            .collect();
        outliers.sort_by_key(|outlier| (outlier.since, outlier.endpoint));
        outliers
    }
}

/// A policy that forces the breaker open is meant for the command as a whole.
fn forced_open(command: &CommandState) -> Option<Refusal> {
    let breaker = command.breaker_policy().filter(|breaker| breaker.mode == BreakerMode::ForcedOpen)?;
    Some(Refusal::Open(breaker.sleep_window_ms.get()))
}

/// Without the connections.
impl std::fmt::Debug for Balance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (all, ejected) = self.counts();
        let mut debug = f.debug_struct("Balance");
        debug.field("service", &self.service).field("endpoints", &all).field("ejected", &ejected);
        debug.finish_non_exhaustive()
    }
}
