//! An etcd in memory: revisions, history, compaction, leases, watches. What it holds and sends is etcd's; how it
//! travels is the [`wire`](crate::wire)'s.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fusebox::etcd::{Change, Entry, Message, Page, PageRequest, Range};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

/// A message of a watch, or why it ended.
pub type Heard = Result<Message, String>;

/// The server. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Etcd {
    state: Arc<Mutex<State>>,
    leases: Arc<Notify>,
}

#[derive(Clone, Debug)]
struct Stored {
    entry: Entry,
    lease: i64,
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    ttl: Duration,
    ends: Instant,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    range: Range,
    to: mpsc::UnboundedSender<Heard>,
}

/// What survives a restart.
#[derive(Clone, Debug, Default)]
struct Data {
    revision: i64,
    keys: BTreeMap<String, Stored>,
    history: Vec<(i64, Change)>,
    compacted: i64,
    leases: BTreeMap<i64, Granted>,
}

#[derive(Debug, Default)]
struct State {
    data: Data,
    backup: Option<Data>,
    down: bool,
    /// Of its leader's election, which is its own at every start.
    term: u64,
    watchers: Vec<Watcher>,
    next: u64,
    puts: u64,
}

impl Etcd {
    /// A server that ends leases in time, for as long as the runtime lives.
    pub fn start() -> Self {
        let etcd = Self::default();
        etcd.state().data.revision = 1;
        etcd.state().term = 1;
        let server = etcd.clone();
        tokio::spawn(async move {
            loop {
                let next = server.state().data.leases.values().map(|lease| lease.ends).min();
                match next {
                    None => server.leases.notified().await,
                    Some(next) => tokio::select! {
                        () = sleep_until(next) => server.state().end_leases(),
                        () = server.leases.notified() => {}
                    },
                }
            }
        });
        etcd
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does it answer?
    pub fn is_up(&self) -> bool {
        !self.state().down
    }

    /// How many keys were ever written.
    pub fn puts(&self) -> u64 {
        self.state().puts
    }

    /// The newest changes, as far as they were not compacted.
    pub fn newest(&self, most: usize) -> Vec<String> {
        let told = |(at, change): &(i64, Change)| match change {
            Change::Put { key, entry } => format!("{at} put {key} {}", String::from_utf8_lossy(&entry.value)),
            change => format!("{at} {change:?}"),
        };
        let state = self.state();
        let history = &state.data.history;
        history[history.len().saturating_sub(most)..].iter().map(told).collect()
    }

    /// Ends it; the data stays.
    pub fn stop(&self) {
        let mut state = self.state();
        state.down = true;
        state.watchers.clear();
    }

    /// Starts it again. As etcd does, it gives every lease its whole time anew.
    pub fn run(&self) {
        let mut state = self.state();
        state.down = false;
        state.term += 1;
        for lease in state.data.leases.values_mut() {
            lease.ends = Instant::now() + lease.ttl;
        }
        drop(state);
        self.leases.notify_one();
    }

    /// Loses everything.
    pub fn wipe(&self) {
        let mut state = self.state();
        state.data = Data { revision: 1, ..Data::default() };
        state.term = 0;
        state.watchers.clear();
    }

    /// Remembers how it is, for [`restore`](Self::restore).
    pub fn back_up(&self) {
        let mut state = self.state();
        state.backup = Some(state.data.clone());
    }

    /// Goes back to the last backup, if there is one.
    pub fn restore(&self) {
        let mut state = self.state();
        if let Some(data) = state.backup.clone() {
            state.data = data;
            state.term = 0;
            state.watchers.clear();
        }
    }

    /// Forgets the history up to now.
    pub fn compact(&self) {
        let mut state = self.state();
        let now = state.data.revision;
        state.data.compacted = now;
        // As etcd, it still tells of the revision itself.
        state.data.history.retain(|(at, _)| *at >= now);
    }

    /// Some keys.
    pub fn page(&self, wanted: &PageRequest) -> Page {
        let state = self.state();
        let inside = |key: &&String| {
            let key = key.as_bytes();
            match &wanted.end {
                None => key == wanted.from,
                Some(end) => key >= wanted.from.as_slice() && key < end.as_slice(),
            }
        };
        let mut found = state.data.keys.iter().filter(|(key, _)| inside(key));
        let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        let entries = found.by_ref().take(limit).map(|(k, s)| (k.clone().into_bytes(), s.entry.clone()));
        let entries = entries.collect();
        Page { entries, revision: state.data.revision, term: state.term, more: found.next().is_some() }
    }

    /// A key's value and lease.
    pub fn get(&self, key: &str) -> Option<(Vec<u8>, i64)> {
        self.state().data.keys.get(key).map(|stored| (stored.entry.value.clone(), stored.lease))
    }

    /// Writes a key; false: there is no such lease.
    pub fn put(&self, key: &str, value: Vec<u8>, lease: i64) -> bool {
        let mut state = self.state();
        if lease != 0 && !state.data.leases.contains_key(&lease) {
            return false;
        }
        state.puts += 1;
        let at = state.next_revision();
        let entry = Entry { value, mod_revision: at };
        state.data.keys.insert(key.to_owned(), Stored { entry: entry.clone(), lease });
        state.tell(at, &[Change::Put { key: key.to_owned(), entry }]);
        true
    }

    /// Deletes a key.
    pub fn delete(&self, key: &str) {
        self.state().remove(&[key.to_owned()]);
    }

    /// Grants a lease.
    pub fn grant(&self, ttl: Duration) -> i64 {
        let mut state = self.state();
        state.next += 1;
        let id = i64::try_from(state.next).unwrap_or(i64::MAX);
        state.data.leases.insert(id, Granted { ttl, ends: Instant::now() + ttl });
        drop(state);
        self.leases.notify_one();
        id
    }

    /// Renews a lease; false: it is gone.
    pub fn renew(&self, lease: i64) -> bool {
        let mut state = self.state();
        let Some(granted) = state.data.leases.get_mut(&lease) else { return false };
        granted.ends = Instant::now() + granted.ttl;
        drop(state);
        self.leases.notify_one();
        true
    }

    /// Ends a lease.
    pub fn revoke(&self, lease: i64) {
        self.state().end_lease(lease);
    }

    /// Ends the lease of a key, if it has one.
    pub fn expire(&self, key: &str) {
        let lease = self.get(key).map_or(0, |(_, lease)| lease);
        self.revoke(lease);
    }

    /// Starts a watch; its number, for [`progress`](Self::progress).
    pub fn watch(&self, range: &Range, from: i64, to: mpsc::UnboundedSender<Heard>) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        if from < state.data.compacted {
            let _ = to.send(Err(format!("compacted up to revision {}", state.data.compacted)));
            return id;
        }
        let past = state.data.history.iter().filter(|(at, change)| *at >= from && concerns(range, change));
        let past: Vec<Change> = past.map(|(_, change)| change.clone()).collect();
        if !past.is_empty() {
            let _ = to.send(Ok(Message { changes: past, term: state.term }));
        }
        state.watchers.push(Watcher { id, range: range.clone(), to });
        id
    }

    /// Lets a watch say that it is there.
    pub fn progress(&self, watch: u64) {
        let state = self.state();
        if let Some(watcher) = state.watchers.iter().find(|watcher| watcher.id == watch) {
            let _ = watcher.to.send(Ok(Message { changes: Vec::new(), term: state.term }));
        }
    }
}

impl State {
    fn next_revision(&mut self) -> i64 {
        self.data.revision += 1;
        self.data.revision
    }

    fn tell(&mut self, at: i64, changes: &[Change]) {
        self.data.history.extend(changes.iter().map(|change| (at, change.clone())));
        self.watchers.retain(|watcher| {
            let mine = changes.iter().filter(|change| concerns(&watcher.range, change));
            let changes: Vec<Change> = mine.cloned().collect();
            if changes.is_empty() {
                return !watcher.to.is_closed();
            }
            watcher.to.send(Ok(Message { changes, term: self.term })).is_ok()
        });
    }

    fn remove(&mut self, keys: &[String]) {
        let gone: Vec<&String> = keys.iter().filter(|key| self.data.keys.remove(*key).is_some()).collect();
        if gone.is_empty() {
            return;
        }
        let at = self.next_revision();
        let delete = |key: &&String| Change::Delete { key: (*key).clone(), mod_revision: at };
        let changes: Vec<Change> = gone.iter().map(delete).collect();
        self.tell(at, &changes);
    }

    fn end_lease(&mut self, lease: i64) {
        if self.data.leases.remove(&lease).is_none() {
            return;
        }
        let held = self.data.keys.iter().filter(|(_, stored)| stored.lease == lease);
        let held: Vec<String> = held.map(|(key, _)| key.clone()).collect();
        self.remove(&held);
    }

    fn end_leases(&mut self) {
        let now = Instant::now();
        let over: Vec<i64> =
            self.data.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        for lease in over {
            // A server that does not run ends none; it gives them their time anew when it does.
            if self.down {
                self.data.leases.entry(lease).and_modify(|lease| lease.ends = now + lease.ttl);
            } else {
                self.end_lease(lease);
            }
        }
    }
}

fn concerns(range: &Range, change: &Change) -> bool {
    let (Change::Put { key, .. } | Change::Delete { key, .. }) = change else { return false };
    match range {
        Range::Key(one) => key == one,
        Range::Prefix(prefix) => key.starts_with(prefix.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(etcd: &Etcd, key: &str) -> Option<Vec<u8>> {
        etcd.get(key).map(|(value, _)| value)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_with_its_keys_and_a_watch_from_the_past_hears_of_all() {
        let etcd = Etcd::start();
        let lease = etcd.grant(Duration::from_secs(10));
        assert!(etcd.put("/r/a", b"1".to_vec(), lease) && etcd.put("/x", b"1".to_vec(), 0));
        let (to, mut heard) = mpsc::unbounded_channel();
        etcd.watch(&Range::Prefix("/r/".into()), 2, to);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(etcd.renew(lease) && value(&etcd, "/r/a").is_some());
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(!etcd.renew(lease) && value(&etcd, "/r/a").is_none());
        assert!(!etcd.put("/r/a", b"2".to_vec(), lease), "no such lease");
        let entry = Entry { value: b"1".to_vec(), mod_revision: 2 };
        assert_eq!(heard.recv().await.unwrap().unwrap().changes, [Change::Put { key: "/r/a".into(), entry }]);
        let gone = Change::Delete { key: "/r/a".into(), mod_revision: 4 };
        assert_eq!(heard.recv().await.unwrap().unwrap().changes, [gone]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_from_before_the_compaction_ends() {
        let etcd = Etcd::start();
        for value in [b"1", b"2"] {
            etcd.put("/a", value.to_vec(), 0);
        }
        etcd.compact();
        let watch = |from| {
            let (to, heard) = mpsc::unbounded_channel();
            etcd.watch(&Range::Key("/a".into()), from, to);
            heard
        };
        assert!(watch(2).recv().await.unwrap().unwrap_err().contains("compacted"));
        let entry = Entry { value: b"2".to_vec(), mod_revision: 3 };
        let told = watch(3).recv().await.unwrap().unwrap().changes;
        assert_eq!(told, [Change::Put { key: "/a".into(), entry }], "from the compacted revision itself");
    }
}
