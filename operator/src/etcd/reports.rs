//! What the instances report: followed, kept, and told on at most twice a second for each resource.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fusebox::etcd::{Change, Entry, Link, Range, follow};
use fusebox_policy::keys::{Ident, Key, Keys};
use fusebox_policy::wire::Report;
use futures::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::outliers::Outliers;
use crate::pace::{PACE, Pace};
use crate::ports::{Ejected, Reported};

/// After this long without etcd the reports are no longer believed: the leases behind them may have ended. A silent
/// watch is noticed within 8 s, a pass waits 5 s for etcd and 1 s to write the status: 19 s, less than twice a lease.
const STALE: Duration = Duration::from_secs(5);

/// How long a report's lease is. After etcd gave leases their whole time anew, who reports is known after that. Whether
/// it did so in a silence cannot always be seen: a restored one may be of the same term, and further than before.
const LEASE: Duration = Duration::from_secs(10);

/// How many ended reports are remembered, and for how long: enough to explain the trouble of a night.
const ENDED: usize = 10_000;
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// The largest report: a hundred times a usual one. Whoever may write reports must not fill this process's memory.
const MAX_REPORT: usize = 64 * 1024;

type All = BTreeMap<Ident, Reported>;

/// The newest reports.
#[derive(Clone, Debug, Default)]
pub struct Reports(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    all: All,
    /// The ended ones in `all`, oldest first.
    ended: VecDeque<(Timestamp, Ident, String)>,
    outliers: Outliers,
    believed: bool,
}

impl State {
    /// A report ended.
    fn end(&mut self, of: &Ident, instance: &str, now: Timestamp) {
        let Some(reported) = self.all.get_mut(of) else { return };
        if reported.live.remove(instance).is_none() {
            return;
        }
        reported.ended.insert(instance.to_owned(), now);
        self.ended.push_back((now, of.clone(), instance.to_owned()));
        while let Some((at, of, instance)) = self.ended.front()
            && (self.ended.len() > ENDED || now.duration_since(*at) > REMEMBERED)
        {
            if let Some(reported) = self.all.get_mut(of) {
                if reported.ended.get(instance) == Some(at) {
                    reported.ended.remove(instance);
                }
                if *reported == Reported::default() {
                    self.all.remove(of);
                }
            }
            self.ended.pop_front();
        }
    }
}

/// Whose reports changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// One resource's.
    One(Ident),
    /// Callers': what they have ejected of those they found under this name in Consul, in lower case.
    Called(String),
    /// Everybody's: they came, or went, as a whole.
    All,
}

impl Reports {
    /// A resource's; None while they cannot be read.
    pub fn of(&self, of: &Ident) -> Option<Reported> {
        let state = self.0.borrow();
        state.believed.then(|| state.all.get(of).cloned().unwrap_or_default())
    }

    /// What callers have ejected under this name in Consul; None while reports cannot be read.
    pub fn outliers(&self, name: &str) -> Option<Arc<Ejected>> {
        let state = self.0.borrow();
        state.believed.then(|| state.outliers.of(name))
    }

    /// Waits for the first list.
    pub async fn first(&self) {
        // The sender is in self, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|state| state.believed).await;
    }

    /// Follows them for ever.
    pub async fn follow(self, etcd: impl Link, keys: Keys, changed: mpsc::UnboundedSender<Changed>) {
        let feed = follow(etcd, Range::Prefix(format!("{}reports/", keys.prefix())));
        let (connected, restarted) = (feed.connected(), feed.leases_restarted());
        let feed = stream::unfold(feed, async |mut feed| Some((feed.next().await?, feed)));
        self.attend(pin!(feed), connected, restarted, &keys, &changed).await;
    }

    async fn attend(
        &self,
        mut feed: impl Stream<Item = Change> + Unpin,
        mut connected: watch::Receiver<bool>,
        mut restarted: watch::Receiver<u64>,
        keys: &Keys,
        changed: &mpsc::UnboundedSender<Changed>,
    ) {
        let mut pace = Pace::of(PACE);
        let mut tick = interval(PACE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost_at: Option<Instant> = None;
        let mut doubted_until: Option<Instant> = None;
        let mut silent = false;
        loop {
            let doubted = doubted_until.unwrap_or_else(far);
            let stale = lost_at.map_or_else(far, |at| at + STALE);
            tokio::select! {
                // What was read before the connection was told of comes first: what a reconnect removed must
                // not be believed again.
                biased;
                Ok(()) = restarted.changed() => {
                    doubted_until = Some(Instant::now() + LEASE);
                    if self.believe(false) { let _ = changed.send(Changed::All); }
                }
                change = feed.next() => {
                    let Some(change) = change else { return };
                    for one in self.take(keys, change, Timestamp::now()) {
                        let told = match one {
                            Changed::One(of) => pace.note(of, Instant::now()).map(Changed::One),
                            // At its own pace already, and the whole at none.
                            told => Some(told),
                        };
                        if let Some(one) = told { let _ = changed.send(one); }
                    }
                }
                Ok(()) = connected.changed() => {
                    let now = *connected.borrow_and_update();
                    lost_at = if now { None } else { lost_at.or_else(|| Some(Instant::now())) };
                    if now && std::mem::take(&mut silent) { doubted_until = Some(Instant::now() + LEASE); }
                    if now && doubted_until.is_none() && self.believe(true) { let _ = changed.send(Changed::All); }
                }
                _ = timeout_at(doubted, std::future::pending::<()>()) => {
                    doubted_until = None;
                    if *connected.borrow() && self.believe(true) { let _ = changed.send(Changed::All); }
                }
                _ = timeout_at(stale, std::future::pending::<()>()) => {
                    lost_at = None;
                    silent = true;
                    if self.believe(false) { let _ = changed.send(Changed::All); }
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    let due = pace.due(now).into_iter().map(Changed::One);
                    for one in due.chain(self.due(now)) { let _ = changed.send(one); }
                }
            }
        }
    }

    /// Is this news?
    fn believe(&self, believed: bool) -> bool {
        self.0.send_if_modified(|state| std::mem::replace(&mut state.believed, believed) != believed)
    }

    /// What time brings.
    fn due(&self, at: Instant) -> Vec<Changed> {
        let mut due = Vec::new();
        self.0.send_if_modified(|state| {
            due = state.outliers.due(at);
            false
        });
        due.into_iter().map(Changed::Called).collect()
    }

    fn take(&self, keys: &Keys, change: Change, now: Timestamp) -> Vec<Changed> {
        let at = Instant::now();
        match change {
            Change::Snapshot(entries) => {
                let (mut all, mut callers) = (All::new(), HashSet::new());
                self.0.send_modify(|state| {
                    for (key, entry) in &entries {
                        let Some((of, instance, mut report)) = read(keys, key, entry) else { continue };
                        let says = std::mem::take(&mut report.outliers);
                        let caller = (of.clone(), instance.clone());
                        callers.insert(caller.clone());
                        state.outliers.say(caller, says, now, at);
                        all.entry(of).or_default().live.insert(instance, report);
                    }
                    state.outliers.only(&callers, now, at);
                    (state.all, state.ended, state.believed) = (all, VecDeque::new(), true);
                });
                vec![Changed::All]
            }
            Change::Put { key, entry } => {
                let Some((of, instance, mut report)) = read(keys, &key, &entry) else {
                    // What it said before it says no more.
                    return self.take(keys, Change::Delete { key, mod_revision: entry.mod_revision }, now);
                };
                // What a caller says of others is none of its own state: no pass of its resource sees it.
                let says = std::mem::take(&mut report.outliers);
                let mut called = Vec::new();
                let mut is_news = true;
                self.0.send_modify(|state| {
                    called = state.outliers.say((of.clone(), instance.clone()), says, now, at);
                    let reported = state.all.entry(of.clone()).or_default();
                    let has_ended = reported.ended.remove(&instance).is_some();
                    is_news = has_ended || reported.live.get(&instance) != Some(&report);
                    reported.live.insert(instance, report);
                });
                let own = is_news.then_some(Changed::One(of));
                own.into_iter().chain(called.into_iter().map(Changed::Called)).collect()
            }
            Change::Delete { key, .. } => {
                let Some(Key::Report(of, instance)) = keys.parse(&key) else { return Vec::new() };
                let mut called = Vec::new();
                self.0.send_modify(|state| {
                    called = state.outliers.say((of.clone(), instance.clone()), Vec::new(), now, at);
                    state.end(&of, &instance, now);
                });
                std::iter::once(Changed::One(of)).chain(called.into_iter().map(Changed::Called)).collect()
            }
        }
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_hours(24)
}

fn read(keys: &Keys, key: &str, entry: &Entry) -> Option<(Ident, String, Report)> {
    let Some(Key::Report(of, instance)) = keys.parse(key) else { return None };
    if entry.value.len() > MAX_REPORT {
        tracing::warn!(key, bytes = entry.value.len(), "a report that is too large counts as none");
        return None;
    }
    match serde_json::from_slice(&entry.value) {
        Ok(report) => Some((of, instance, report)),
        Err(error) => {
            tracing::warn!(key, %error, "a report that cannot be read counts as none");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = include_str!("../../../policy/testdata/report.json");

    fn put(key: &str, value: &str) -> Change {
        Change::Put { key: key.into(), entry: Entry { value: value.as_bytes().to_vec(), mod_revision: 1 } }
    }

    #[test]
    fn reports_come_and_go() {
        let (reports, keys, user) = (Reports::default(), Keys::new("demo"), Ident::new("shop", "user"));
        let at = |second| Timestamp::from_second(second).unwrap();
        let take = |change, second| reports.take(&keys, change, at(second));
        assert_eq!(reports.of(&user), None, "not read yet");
        assert_eq!(take(Change::Snapshot(BTreeMap::new()), 1), [Changed::All]);
        assert_eq!(reports.of(&user), Some(Reported::default()));
        let key = keys.report(&user, "uid-1");
        let delete = |key: &str| Change::Delete { key: key.to_owned(), mod_revision: 2 };
        assert_eq!(take(put(&key, REPORT), 2), [Changed::One(user.clone())]);
        assert_eq!(reports.of(&user).unwrap().live["uid-1"].instance, "user-5");
        assert!(take(put("/fusebox/v1/demo/policy/shop/user", "{}"), 3).is_empty());
        assert_eq!(take(put(&key, "{"), 3), [Changed::One(user.clone())]);
        assert!(reports.of(&user).unwrap().live.is_empty(), "what cannot be read is no report");
        take(put(&key, REPORT), 3);
        take(put(&key, &format!("{REPORT}{}", " ".repeat(MAX_REPORT))), 3);
        assert!(reports.of(&user).unwrap().live.is_empty(), "nor is what is too large");
        take(put(&key, REPORT), 4);
        take(delete(&key), 4);
        let ended = |instance: &str| reports.of(&user).unwrap().ended.get(instance).copied();
        assert_eq!((ended("uid-1"), reports.of(&user).unwrap().live.len()), (Some(at(4)), 0));
        take(delete(&key), 5);
        assert_eq!(ended("uid-1"), Some(at(4)), "it ended once");
        take(put(&key, REPORT), 6);
        assert_eq!(ended("uid-1"), None, "it is back");
        take(delete(&key), 7);
        let other = keys.report(&user, "uid-2");
        take(put(&other, REPORT), 3608);
        take(delete(&other), 3608);
        assert_eq!((ended("uid-1"), ended("uid-2")), (None, Some(at(3608))), "an hour is remembered");
        reports.believe(false);
        assert_eq!(reports.of(&user), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_caller_ejected_is_told_of_the_called_and_not_of_the_caller() {
        const EJECTS: &str = include_str!("../../../policy/testdata/report-outliers.json");
        let (reports, keys, caller) = (Reports::default(), Keys::new("demo"), Ident::new("web", "cart"));
        let take = |change| reports.take(&keys, change, Timestamp::UNIX_EPOCH);
        let of_user = || Changed::Called("user.service".to_owned());
        let key = keys.report(&caller, "uid-1");
        assert_eq!(reports.outliers("user.service"), None, "not read yet");
        take(Change::Snapshot(BTreeMap::new()));
        assert_eq!(take(put(&key, EJECTS)), [Changed::One(caller.clone()), of_user()]);
        let report = &reports.of(&caller).unwrap().live["uid-1"];
        assert_eq!(
            (report.instance.as_str(), report.outliers.len()),
            ("caller-0", 0),
            "no pass of its own sees it"
        );
        let told = reports.outliers("User.Service").unwrap();
        assert_eq!(told[&"10.1.0.7:50051".parse().unwrap()].callers, std::slice::from_ref(&caller));
        assert!(take(put(&key, EJECTS)).is_empty(), "no news for anybody");
        tokio::time::advance(Duration::from_secs(15)).await;
        let more = EJECTS.replace("10.1.0.7:50051", "10.1.0.8:50051");
        assert_eq!(take(put(&key, &more)), [of_user()], "and the caller is not looked at for it");
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(reports.due(Instant::now()).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(reports.due(Instant::now()), [of_user()]);
        let endpoints =
            || reports.outliers("user.service").unwrap().keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(endpoints(), ["10.1.0.8:50051"]);
        reports.believe(false);
        assert_eq!(reports.outliers("user.service"), None);
        // It is gone while the watch was away.
        take(Change::Snapshot(BTreeMap::new()));
        assert_eq!(endpoints(), ["10.1.0.8:50051"]);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(reports.due(Instant::now()), [of_user()]);
        assert!(endpoints().is_empty());
        tokio::time::advance(Duration::from_secs(10)).await;
        take(put(&key, EJECTS));
        let Changed::One(_) = take(Change::Delete { key, mod_revision: 9 })[0] else { unreachable!() };
        assert_eq!(endpoints(), ["10.1.0.7:50051"], "for a while");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reconnect_removed_is_never_believed_again() {
        for _ in 0..32 {
            let (reports, keys, user) = (Reports::default(), Keys::new("demo"), Ident::new("shop", "user"));
            let key = keys.report(&user, "uid-1");
            reports.take(&keys, Change::Snapshot(BTreeMap::new()), Timestamp::UNIX_EPOCH);
            reports.take(&keys, put(&key, REPORT), Timestamp::UNIX_EPOCH);
            reports.believe(false);
            let (connect, connected) = watch::channel(false);
            connect.send_replace(true);
            let (changed, mut told) = mpsc::unbounded_channel();
            let feed = stream::iter([Change::Delete { key, mod_revision: 9 }]).chain(stream::pending());
            let follower = reports.clone();
            let (_begin_anew, restarted) = watch::channel(0);
            tokio::spawn(async move { follower.attend(feed, connected, restarted, &keys, &changed).await });
            assert_eq!(told.recv().await, Some(Changed::One(user.clone())));
            assert_eq!(told.recv().await, Some(Changed::All));
            assert!(reports.of(&user).unwrap().live.is_empty());
            drop(connect);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_lives_under_leases_that_began_anew_is_not_believed_for_the_life_of_one() {
        let (reports, keys, user) = (Reports::default(), Keys::new("demo"), Ident::new("shop", "user"));
        reports.take(&keys, Change::Snapshot(BTreeMap::new()), Timestamp::UNIX_EPOCH);
        let (begin_anew, restarted) = watch::channel(0);
        let (_connect, connected) = watch::channel(true);
        let (changed, mut told) = mpsc::unbounded_channel();
        let feed = stream::iter([put(&keys.report(&user, "uid-1"), REPORT)]).chain(stream::pending());
        begin_anew.send_replace(1);
        let follower = reports.clone();
        tokio::spawn(async move { follower.attend(feed, connected, restarted, &keys, &changed).await });
        let began = Instant::now();
        assert_eq!(told.recv().await, Some(Changed::All));
        assert_eq!(told.recv().await, Some(Changed::One(user.clone())));
        assert_eq!(reports.of(&user), None);
        tokio::time::sleep(LEASE / 2).await;
        begin_anew.send_replace(2);
        assert_eq!(told.recv().await, Some(Changed::All));
        assert_eq!(Instant::now() - began, LEASE / 2 + LEASE);
        assert_eq!(reports.of(&user).unwrap().live.len(), 1, "it is renewed, so somebody stands behind it");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_silence_a_report_is_believed_when_its_lease_had_time_to_end() {
        let (reports, keys, user) = (Reports::default(), Keys::new("demo"), Ident::new("shop", "user"));
        reports.take(&keys, Change::Snapshot(BTreeMap::new()), Timestamp::UNIX_EPOCH);
        reports.take(&keys, put(&keys.report(&user, "uid-1"), REPORT), Timestamp::UNIX_EPOCH);
        let (_begin_anew, restarted) = watch::channel(0);
        let (connect, connected) = watch::channel(true);
        let (changed, mut told) = mpsc::unbounded_channel();
        let follower = reports.clone();
        tokio::spawn(async move {
            follower.attend(stream::pending(), connected, restarted, &keys, &changed).await;
        });
        let cut_off = async |time: Duration| {
            connect.send_replace(false);
            tokio::time::sleep(time).await;
            connect.send_replace(true);
            tokio::task::yield_now().await;
        };
        tokio::task::yield_now().await;
        cut_off(STALE / 2).await;
        tokio::time::sleep(STALE).await;
        assert!(reports.of(&user).is_some(), "a short cut is none of a lease's business");
        cut_off(STALE * 2).await;
        let back = Instant::now();
        assert_eq!(told.recv().await, Some(Changed::All));
        assert_eq!(reports.of(&user), None);
        assert_eq!(told.recv().await, Some(Changed::All));
        assert_eq!(Instant::now() - back, LEASE);
        assert_eq!(reports.of(&user).unwrap().live.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_back_does_not_end_the_doubt() {
        let (reports, keys, user) = (Reports::default(), Keys::new("demo"), Ident::new("shop", "user"));
        reports.take(&keys, Change::Snapshot(BTreeMap::new()), Timestamp::UNIX_EPOCH);
        let (begin_anew, restarted) = watch::channel(0);
        let (connect, connected) = watch::channel(false);
        let (changed, mut told) = mpsc::unbounded_channel();
        let follower = reports.clone();
        tokio::spawn(async move {
            follower.attend(stream::pending(), connected, restarted, &keys, &changed).await;
        });
        begin_anew.send_replace(1);
        assert_eq!(told.recv().await, Some(Changed::All));
        let began = Instant::now();
        for is_connected in [true, false, true] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            connect.send_replace(is_connected);
        }
        assert_eq!(reports.of(&user), None);
        assert_eq!(told.recv().await, Some(Changed::All));
        assert_eq!((Instant::now() - began, reports.of(&user)), (LEASE, Some(Reported::default())));
        connect.send_replace(false);
        begin_anew.send_replace(2);
        assert_eq!(told.recv().await, Some(Changed::All));
        tokio::time::sleep(2 * LEASE).await;
        assert_eq!(reports.of(&user), None, "nor does time alone");
        connect.send_replace(true);
        assert_eq!(told.recv().await, Some(Changed::All));
    }
}
