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

use etcd_client::{
    Client, EventType, GetOptions, KeyValue, SortOrder, SortTarget, WatchOptions, WatchStream,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::connect::{EtcdConfig, EtcdError, answered, connect};
use super::delays;
use super::known::Known;

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

/// The changes of a range. Dropped, it ends the watch.
#[derive(Debug)]
pub struct Follow {
    changes: mpsc::Receiver<Change>,
    connected: watch::Receiver<bool>,
}

impl Follow {
    /// Waits for the next change, for as long as it takes. Cancel-safe. None only if the runtime is
    /// shutting down.
    pub async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }

    /// Whether the range is being watched at the moment.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

/// Follows a range, from now until the result is dropped, in a task of its own. Never gives up.
pub fn follow(config: EtcdConfig, range: Range) -> Follow {
    let (changes, receiver) = mpsc::channel(64);
    let (is_connected, connected) = watch::channel(false);
    let mut watcher = Watcher { config, range, known: Known::default(), changes, is_connected };
    tokio::spawn(async move {
        let consumer = watcher.changes.clone();
        tokio::select! {
            never = watcher.run() => match never {},
            () = consumer.closed() => {}
        }
    });
    Follow { changes: receiver, connected }
}

/// How long a watch may be quiet before etcd is asked whether it is still there, and how long it has
/// to answer that.
const QUIET: Duration = Duration::from_secs(4);

/// A watch that held this long was a good one: the next attempt follows soon.
const GOOD: Duration = Duration::from_secs(5);

/// How many keys to read at once, and how much they may weigh.
const PAGE: i64 = 500;
const PAGE_BYTES: usize = 256 << 20;

struct Watcher {
    config: EtcdConfig,
    range: Range,
    known: Known,
    changes: mpsc::Sender<Change>,
    is_connected: watch::Sender<bool>,
}

impl Watcher {
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
        let mut client = connect(&self.config).await?;
        let (entries, revision) = self.read(&client).await?;
        let mut stream = self.watch(&mut client, revision).await?;
        for change in self.known.list(entries, revision) {
            self.tell(change).await?;
        }
        self.is_connected.send_replace(true);
        loop {
            let response = next(&mut stream).await?;
            for event in response.events() {
                let Some(kv) = event.kv().filter(|kv| kv.mod_revision() > revision) else { continue };
                let change = match event.event_type() {
                    EventType::Put => put(kv),
                    EventType::Delete => Change::Delete { key: key(kv), mod_revision: kv.mod_revision() },
                };
                self.known.take(&change);
                self.tell(change).await?;
            }
        }
    }

    /// The whole range at one revision.
    async fn read(&self, client: &Client) -> Result<(BTreeMap<String, Entry>, i64), EtcdError> {
        let mut kv = client.kv_client().max_decoding_message_size(PAGE_BYTES);
        let (start, end) = match &self.range {
            Range::Key(key) => (key.clone().into_bytes(), None),
            Range::Prefix(prefix) => (prefix.clone().into_bytes(), Some(end_of(prefix))),
        };
        let (mut entries, mut revision, mut from) = (BTreeMap::new(), 0, start);
        loop {
            let mut options = GetOptions::new()
                .with_limit(PAGE)
                .with_sort(SortTarget::Key, SortOrder::Ascend)
                .with_revision(revision);
            if let Some(end) = &end {
                options = options.with_range(end.clone());
            }
            let mut page = answered("a read", kv.get(from.clone(), Some(options))).await?;
            if revision == 0 {
                revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            let more = page.more();
            for kv in page.take_kvs() {
                from = [kv.key(), b"\0"].concat();
                entries.insert(key(&kv), entry(&kv));
            }
            if !more {
                return Ok((entries, revision));
            }
        }
    }

    /// Watches from the revision of a reading on; etcd has confirmed it. What was written at that
    /// revision comes once more. Watching from the next one would save that, but while nothing is
    /// written to etcd at all it answers no request for progress of a watch from the future (3.6.14,
    /// `progressIfSync`), and its silence would be taken for death.
    async fn watch(&self, client: &mut Client, revision: i64) -> Result<WatchStream, EtcdError> {
        let options = WatchOptions::new().with_start_revision(revision).with_fragment();
        let (key, options) = match &self.range {
            Range::Key(key) => (key, options),
            Range::Prefix(prefix) => (prefix, options.with_prefix()),
        };
        answered("a watch", client.watch_client().watch(key.as_str(), Some(options))).await
    }

    async fn tell(&self, change: Change) -> Result<(), EtcdError> {
        self.changes.send(change).await.map_err(|_| EtcdError::Ended("nobody follows any more".to_owned()))
    }
}

/// The next message of a watch, with or without events.
async fn next(stream: &mut WatchStream) -> Result<etcd_client::WatchResponse, EtcdError> {
    let message = match timeout(QUIET, stream.message()).await {
        Ok(message) => message,
        // Nothing happens, or nobody is there? An answer to this comes without events.
        Err(_) => match timeout(QUIET, async { stream.request_progress().await.and(stream.message().await) })
            .await
        {
            Ok(message) => message,
            Err(_) => return Err(EtcdError::Silent { what: "a watch", after: 2 * QUIET }),
        },
    };
    let Some(response) = message? else { return Err(EtcdError::Ended("the watch ended".to_owned())) };
    if response.canceled() {
        let reason = match response.compact_revision() {
            0 => response.cancel_reason().to_owned(),
            revision => format!("compacted up to revision {revision}"),
        };
        return Err(EtcdError::Ended(reason));
    }
    Ok(response)
}

fn put(kv: &KeyValue) -> Change {
    Change::Put { key: key(kv), entry: entry(kv) }
}

fn entry(kv: &KeyValue) -> Entry {
    Entry { value: kv.value().to_vec(), mod_revision: kv.mod_revision() }
}

/// Keys of ours are UTF-8; a foreign one that is not keeps what is readable of it.
fn key(kv: &KeyValue) -> String {
    String::from_utf8_lossy(kv.key()).into_owned()
}

/// The first key after all that begin with `prefix`: UTF-8 has no byte 0xff, so one more fits.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
