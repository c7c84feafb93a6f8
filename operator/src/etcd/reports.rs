//! What the instances report: followed, kept, and told on at most twice a second for each resource.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fusebox::etcd::{Change, Entry, Link, Range, follow};
use fusebox_policy::keys::{Ident, Key, Keys};
use fusebox_policy::wire::Report;
use futures::{Stream, StreamExt, stream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// The least time between two notices of one resource's reports.
const PACE: Duration = Duration::from_millis(500);
/// After this long without etcd the reports are no longer believed: the leases behind them may have ended.
const STALE: Duration = Duration::from_secs(10);

type All = BTreeMap<Ident, BTreeMap<String, Report>>;

/// The newest reports.
#[derive(Clone, Debug, Default)]
pub struct Reports(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    all: All,
    believed: bool,
}

/// Whose reports changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// One resource's.
    One(Ident),
    /// Everybody's: they came, or went, as a whole.
    All,
}

impl Reports {
    /// A resource's, by instance; None while they cannot be read.
    pub fn of(&self, of: &Ident) -> Option<BTreeMap<String, Report>> {
        let state = self.0.borrow();
        state.believed.then(|| state.all.get(of).cloned().unwrap_or_default())
    }

    /// Waits for the first list.
    pub async fn first(&self) {
        // The sender is in self, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|state| state.believed).await;
    }

    /// Follows them for ever.
    pub async fn follow(self, etcd: impl Link, keys: Keys, changed: mpsc::UnboundedSender<Changed>) {
        let feed = follow(etcd, Range::Prefix(format!("{}reports/", keys.prefix())));
        let connected = feed.connected();
        let feed = stream::unfold(feed, async |mut feed| Some((feed.next().await?, feed)));
        self.attend(pin!(feed), connected, &keys, &changed).await;
    }

    async fn attend(
        &self,
        mut feed: impl Stream<Item = Change> + Unpin,
        mut connected: watch::Receiver<bool>,
        keys: &Keys,
        changed: &mpsc::UnboundedSender<Changed>,
    ) {
        let mut pace = Pace::default();
        let mut tick = interval(PACE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost_at: Option<Instant> = None;
        loop {
            let stale = lost_at.map_or_else(far, |at| at + STALE);
            tokio::select! {
                // What was read before the connection was told of comes first: what a reconnect removed must
                // not be believed again.
                biased;
                change = feed.next() => {
                    let Some(change) = change else { return };
                    for changed_one in self.take(keys, change) {
                        pace.note(changed_one, Instant::now()).into_iter().for_each(|one| { let _ = changed.send(one); });
                    }
                }
                Ok(()) = connected.changed() => {
                    let now = *connected.borrow_and_update();
                    lost_at = if now { None } else { lost_at.or_else(|| Some(Instant::now())) };
                    if now && self.believe(true) { let _ = changed.send(Changed::All); }
                }
                _ = timeout_at(stale, std::future::pending::<()>()) => {
                    lost_at = None;
                    if self.believe(false) { let _ = changed.send(Changed::All); }
                }
                _ = tick.tick() => pace.due(Instant::now()).into_iter().for_each(|one| { let _ = changed.send(one); }),
            }
        }
    }

    /// Is this news?
    fn believe(&self, believed: bool) -> bool {
        self.0.send_if_modified(|state| std::mem::replace(&mut state.believed, believed) != believed)
    }

    fn take(&self, keys: &Keys, change: Change) -> Vec<Changed> {
        match change {
            Change::Snapshot(entries) => {
                let mut all = All::new();
                for (key, entry) in &entries {
                    if let Some((of, instance, report)) = read(keys, key, entry) {
                        all.entry(of).or_default().insert(instance, report);
                    }
                }
                self.0.send_replace(State { all, believed: true });
                vec![Changed::All]
            }
            Change::Put { key, entry } => {
                let Some((of, instance, report)) = read(keys, &key, &entry) else { return Vec::new() };
                self.0.send_modify(|state| {
                    state.all.entry(of.clone()).or_default().insert(instance, report);
                });
                vec![Changed::One(of)]
            }
            Change::Delete { key, .. } => {
                let Some(Key::Report(of, instance)) = keys.parse(&key) else { return Vec::new() };
                self.0.send_modify(|state| {
                    if let Some(reports) = state.all.get_mut(&of) {
                        reports.remove(&instance);
                        if reports.is_empty() {
                            state.all.remove(&of);
                        }
                    }
                });
                vec![Changed::One(of)]
            }
        }
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_hours(24)
}

fn read(keys: &Keys, key: &str, entry: &Entry) -> Option<(Ident, String, Report)> {
    let Some(Key::Report(of, instance)) = keys.parse(key) else { return None };
    match serde_json::from_slice(&entry.value) {
        Ok(report) => Some((of, instance, report)),
        Err(error) => {
            tracing::warn!(key, %error, "a report that cannot be read is ignored");
            None
        }
    }
}

/// Tells of the first change at once, and of those that follow together, later.
#[derive(Debug, Default)]
struct Pace {
    told: HashMap<Ident, Instant>,
    waiting: HashSet<Ident>,
}

impl Pace {
    fn note(&mut self, changed: Changed, now: Instant) -> Option<Changed> {
        let Changed::One(of) = changed else { return Some(changed) };
        if self.told.get(&of).is_some_and(|told| now.duration_since(*told) < PACE) {
            self.waiting.insert(of);
            return None;
        }
        self.told.insert(of.clone(), now);
        Some(Changed::One(of))
    }

    fn due(&mut self, now: Instant) -> Vec<Changed> {
        self.told.retain(|_, told| now.duration_since(*told) < PACE);
        let due: Vec<Ident> = self.waiting.iter().filter(|of| !self.told.contains_key(of)).cloned().collect();
        for of in &due {
            self.waiting.remove(of);
            self.told.insert(of.clone(), now);
        }
        due.into_iter().map(Changed::One).collect()
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
        assert_eq!(reports.of(&user), None, "not read yet");
        assert_eq!(reports.take(&keys, Change::Snapshot(BTreeMap::new())), [Changed::All]);
        assert_eq!(reports.of(&user), Some(BTreeMap::new()));
        let key = keys.report(&user, "uid-1");
        assert_eq!(reports.take(&keys, put(&key, REPORT)), [Changed::One(user.clone())]);
        assert_eq!(reports.of(&user).unwrap()["uid-1"].instance, "user-5");
        assert!(reports.take(&keys, put(&key, "{")).is_empty(), "an unreadable one is ignored");
        assert!(reports.take(&keys, put("/fusebox/v1/demo/policy/shop/user", "{}")).is_empty());
        reports.take(&keys, Change::Delete { key, mod_revision: 2 });
        assert_eq!(reports.of(&user), Some(BTreeMap::new()));
        reports.believe(false);
        assert_eq!(reports.of(&user), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reconnect_removed_is_never_believed_again() {
        for _ in 0..32 {
            let (reports, keys, user) = (Reports::default(), Keys::new("demo"), Ident::new("shop", "user"));
            let key = keys.report(&user, "uid-1");
            reports.take(&keys, Change::Snapshot(BTreeMap::new()));
            reports.take(&keys, put(&key, REPORT));
            reports.believe(false);
            let (connect, connected) = watch::channel(false);
            connect.send_replace(true);
            let (changed, mut told) = mpsc::unbounded_channel();
            let feed = stream::iter([Change::Delete { key, mod_revision: 9 }]).chain(stream::pending());
            let follower = reports.clone();
            tokio::spawn(async move { follower.attend(feed, connected, &keys, &changed).await });
            assert_eq!(told.recv().await, Some(Changed::One(user.clone())));
            assert_eq!(told.recv().await, Some(Changed::All));
            assert_eq!(reports.of(&user), Some(BTreeMap::new()));
            drop(connect);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_told_twice() {
        let (mut pace, user) = (Pace::default(), Ident::new("shop", "user"));
        let one = Changed::One(user);
        assert_eq!(pace.note(one.clone(), Instant::now()), Some(one.clone()));
        assert_eq!(pace.note(one.clone(), Instant::now()), None);
        assert_eq!(pace.note(one.clone(), Instant::now()), None);
        assert!(pace.due(Instant::now()).is_empty());
        tokio::time::advance(PACE).await;
        assert_eq!(pace.due(Instant::now()), [one]);
        assert!(pace.due(Instant::now()).is_empty());
    }
}
