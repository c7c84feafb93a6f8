//! A watch that survives.
//!
//! # Guarantees
//! - The first change is a snapshot of the range; applying every later one to it gives the range as
//!   it is, up to the delay of the network. A key that changed several times while etcd could not be
//!   watched is told once, with its newest value.
//! - Whatever ends a watch (a broken connection, a compaction, a token that expired, a restored
//!   server), it starts again with a whole reading of the range, compared with what was told before,
//!   and tells what is written after the revision of that. No revision is ever taken from anywhere
//!   but such a reading.
//! - A server or a way to it that goes silent is noticed within ten seconds.
//!
//! # Caveats
//! - Each attempt opens a connection of its own.
//! - A consumer that is slow holds up the watch, not the process: 64 changes are buffered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::connect::{EtcdError, answered};
use super::delays;
use super::known::Known;
use super::link::{Connection, Link, Message, PageRequest, Watch};
use super::real::key;

/// What to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// One key.
    Key(String),
    /// Every key that begins like this, which must not be empty.
    Prefix(String),
}

/// A value and the revision it was written at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes.
    pub value: Vec<u8>,
    /// Of etcd; a later write has a higher one, unless etcd was restored from a backup in between.
    pub mod_revision: i64,
}

/// What happened to the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All of it. The first change, and only that.
    Snapshot(BTreeMap<String, Entry>),
    /// A key was written.
    Put {
        /// Which one.
        key: String,
        /// Its value now.
        entry: Entry,
    },
    /// A key was deleted, or its lease has ended.
    Delete {
        /// Which one.
        key: String,
        /// Of the deletion, or of the reading that missed the key.
        mod_revision: i64,
    },
}

impl Change {
    /// The revision it took place at; None of a snapshot.
    pub fn mod_revision(&self) -> Option<i64> {
        match self {
            Self::Snapshot(_) => None,
            Self::Put { entry, .. } => Some(entry.mod_revision),
            Self::Delete { mod_revision, .. } => Some(*mod_revision),
        }
    }
}

/// The changes of a range. Dropped, it ends the watch.
#[derive(Debug)]
pub struct Follow {
    changes: mpsc::Receiver<Change>,
    connected: watch::Receiver<bool>,
    leases_restarted: watch::Receiver<u64>,
}

impl Follow {
    /// Waits for the next change, for as long as it takes. Cancel-safe. None only if the runtime is
    /// shutting down.
    pub async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }

    /// How often etcd was seen to have given leases their whole time anew: it started, has another leader, was
    /// restored from a backup or wiped. Raised before what it holds by then is told. What lives under a lease proves
    /// nothing until the lease has had that time.
    pub fn leases_restarted(&self) -> watch::Receiver<u64> {
        self.leases_restarted.clone()
    }

    /// Whether the range is being watched at the moment.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

/// Follows a range, from now until the result is dropped, in a task of its own. Never gives up.
pub fn follow(link: impl Link, range: Range) -> Follow {
    let (changes, receiver) = mpsc::channel(64);
    let (is_connected, connected) = watch::channel(false);
    let (lease_starts, leases_restarted) = watch::channel(0);
    let known = Known::default();
    let mut watcher =
        Watcher { link, range, known, highest: 0, term: 0, changes, is_connected, lease_starts };
    tokio::spawn(async move {
        let consumer = watcher.changes.clone();
        tokio::select! {
            never = watcher.run() => match never {},
            () = consumer.closed() => {}
        }
    });
    Follow { changes: receiver, connected, leases_restarted }
}

/// How long a watch may be quiet before etcd is asked whether it is still there, and how long it has
/// to answer that.
const QUIET: Duration = Duration::from_secs(4);

/// A watch that held this long was a good one: the next attempt follows soon.
const GOOD: Duration = Duration::from_secs(5);

/// How many keys to read at once: of etcd's largest values (1.5 MiB a request) as many as an answer may weigh, so that
/// nobody who may write a key can make the range unreadable.
const PAGE: i64 = 128;

struct Watcher<L> {
    link: L,
    range: Range,
    known: Known,
    /// Of all revisions of this etcd.
    highest: i64,
    /// Of its leader's election; 0: not known yet.
    term: u64,
    changes: mpsc::Sender<Change>,
    is_connected: watch::Sender<bool>,
    lease_starts: watch::Sender<u64>,
}

/// The whole range at one revision.
#[derive(Default)]
struct Reading {
    entries: BTreeMap<String, Entry>,
    revision: i64,
    term: u64,
}

impl<L: Link> Watcher<L> {
    async fn run(&mut self) -> Infallible {
        let mut delay = delays();
        loop {
            let started = Instant::now();
            let Err(error) = Box::pin(self.session()).await;
            self.is_connected.send_replace(false);
            if Instant::now() - started >= GOOD {
                delay = delays();
            }
            let wait = delay.next().unwrap_or(QUIET);
            tracing::warn!(range = ?self.range, %error, retry_in = ?wait, "watch ended");
            sleep(wait).await;
        }
    }

    /// Reads, compares, watches, until something breaks.
    async fn session(&mut self) -> Result<Infallible, EtcdError> {
        let mut connection = answered("a connection", self.link.open()).await?;
        let Reading { entries, revision, term } = self.read(&mut connection).await?;
        // What was written at that revision comes once more. Watching from the next one would save that, but
        // while nothing is written to etcd at all it answers no request for progress of a watch from the
        // future (3.6.14, `progressIfSync`), and its silence would be taken for death.
        let mut stream = answered("a watch", connection.watch(&self.range, revision)).await?;
        // By then it may have come further than before: `etcdutl snapshot restore --bump-revision` sees to that.
        if revision < self.highest || self.known.is_contradicted_by(&entries, self.highest) {
            tracing::warn!(range = ?self.range, revision, before = self.highest, "etcd went back in time");
            self.lease_starts.send_modify(|times| *times += 1);
        }
        self.elected(term);
        self.highest = revision;
        for change in self.known.list(entries, revision) {
            self.tell(change).await?;
        }
        self.is_connected.send_replace(true);
        loop {
            let message = next(&mut stream).await?;
            self.elected(message.term);
            for change in message.changes {
                if let Some(at) = change.mod_revision().filter(|at| *at > revision) {
                    self.highest = self.highest.max(at);
                    self.known.take(&change);
                    self.tell(change).await?;
                }
            }
        }
    }

    /// A new leader, be it the only member after its start, gives every lease its whole time.
    fn elected(&mut self, term: u64) {
        if std::mem::replace(&mut self.term, term) != term && self.known.is_any() {
            self.lease_starts.send_modify(|times| *times += 1);
        }
    }

    async fn read(&self, connection: &mut L::Connection) -> Result<Reading, EtcdError> {
        let (from, end) = match &self.range {
            Range::Key(key) => (key.clone().into_bytes(), None),
            Range::Prefix(prefix) => (prefix.clone().into_bytes(), Some(end_of(prefix))),
        };
        let mut reading = Reading::default();
        let mut wanted = PageRequest { from, end, limit: PAGE, revision: 0 };
        loop {
            let page = answered("a read", connection.page(&wanted)).await?;
            if wanted.revision == 0 {
                wanted.revision = page.revision;
                reading = Reading { revision: page.revision, term: page.term, ..reading };
            }
            for (bytes, entry) in page.entries {
                reading.entries.insert(key(&bytes), entry);
                wanted.from = [&bytes, &b"\0"[..]].concat();
            }
            if !page.more {
                return Ok(reading);
            }
        }
    }

    async fn tell(&self, change: Change) -> Result<(), EtcdError> {
        self.changes.send(change).await.map_err(|_| EtcdError::Ended("nobody follows any more".to_owned()))
    }
}

/// The next message of a watch, with or without events.
async fn next(stream: &mut impl Watch) -> Result<Message, EtcdError> {
    if let Ok(message) = timeout(QUIET, stream.message()).await {
        return message;
    }
    // Nothing happens, or nobody is there? An answer to this comes without events.
    let asked = async {
        stream.request_progress().await?;
        stream.message().await
    };
    match timeout(QUIET, asked).await {
        Ok(message) => message,
        Err(_) => Err(EtcdError::Silent { what: "a watch", after: 2 * QUIET }),
    }
}

/// The end of the range of all keys that begin with `prefix`, which must not be empty: UTF-8 has no byte 0xff, so
/// one more fits.
pub fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
