//! The API server's Lease, and the way to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::Ice;
use crate::leader::decide::Record;
use crate::leader::{LeaseStore, WriteError};
use crate::ports::{Answer, Unavailable};

/// What a request meets on its way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// The longest way there, and the longest way back.
    pub latency: Duration,
    /// How many of a hundred requests, and of a hundred answers, are lost without a word.
    pub lost: u8,
    /// How many of a hundred take up to eight seconds there, and as long back.
    pub slow: u8,
    /// Does the server answer at all?
    pub down: bool,
}

/// One process's way to one server. What was sent takes place whatever becomes of the sender.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Shared by all processes.
    pub weather: watch::Sender<Weather>,
    /// The process's.
    pub ice: Ice,
}

impl Wire {
    /// Asks the server; without an answer it waits for ever.
    pub async fn call<T: Send + 'static>(
        &self,
        serve: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let Weather { latency, lost, slow, down } = *self.weather.borrow();
        let percent = |of: u8| fastrand::u8(0..100) < of;
        let way = || if percent(slow) { Duration::from_secs(8) } else { latency }.mul_f64(fastrand::f64());
        let (there, back, loses, forgets) = (way(), way(), percent(lost), percent(lost));
        if down && fastrand::bool() {
            sleep(there).await;
            return Err(Unavailable("connection refused".into()));
        }
        let (answer, heard) = oneshot::channel();
        tokio::spawn(async move {
            sleep(there).await;
            if !loses && !down {
                let done = serve();
                sleep(back).await;
                if !forgets {
                    let _ = answer.send(done);
                }
            }
        });
        match heard.await {
            Ok(done) => Ok(done),
            Err(_) => std::future::pending().await,
        }
    }
}

/// One Lease, as the API server keeps it.
#[derive(Debug, Default)]
pub struct LeaseWorld {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    version: u64,
    lease: Option<(Record, u64)>,
    tenures: Vec<(String, Instant)>,
    written: Option<Instant>,
}

impl LeaseWorld {
    /// What it says.
    pub fn record(&self) -> Option<Record> {
        self.kept.try_lock().unwrap().lease.as_ref().map(|(record, _)| record.clone())
    }

    /// Everybody who held it, in order, and since when.
    pub fn tenures(&self) -> Vec<(String, Instant)> {
        self.kept.try_lock().unwrap().tenures.clone()
    }

    /// The place among [`Self::tenures`] of the last time that `holder` held it.
    pub fn tenure(&self, holder: &str) -> Option<usize> {
        self.kept.try_lock().unwrap().tenures.iter().rposition(|(by, _)| by == holder)
    }

    /// When it was written last.
    pub fn written(&self) -> Option<Instant> {
        self.kept.try_lock().unwrap().written
    }

    /// Somebody deletes it.
    pub fn delete(&self) {
        self.kept.try_lock().unwrap().lease = None;
    }

    /// Somebody sets a label.
    pub fn touch(&self) {
        let mut kept = self.kept.try_lock().unwrap();
        kept.version += 1;
        let version = kept.version;
        if let Some((_, at)) = &mut kept.lease {
            *at = version;
        }
    }

    /// Writes it as a client does.
    pub fn write(&self, record: &Record, at: Option<u64>) -> Result<(), WriteError> {
        let mut kept = self.kept.try_lock().unwrap();
        if kept.lease.as_ref().map(|(_, at)| *at) != at {
            return Err(WriteError::Conflict);
        }
        // As the API server: a write that changes nothing makes no new version.
        if kept.lease.as_ref().is_some_and(|(there, _)| there == record) {
            return Ok(());
        }
        let before = kept.lease.as_ref().map(|(record, _)| record.holder.clone());
        if before.as_deref() != Some(&record.holder) && !record.holder.is_empty() {
            kept.tenures.push((record.holder.clone(), Instant::now()));
        }
        kept.version += 1;
        kept.lease = Some((record.clone(), kept.version));
        kept.written = Some(Instant::now());
        Ok(())
    }

    fn read(&self) -> Option<(Record, u64)> {
        self.kept.try_lock().unwrap().lease.clone()
    }
}

/// The Lease as one process reaches it.
#[derive(Clone, Debug)]
pub struct LeaseClient {
    /// The server.
    pub world: Arc<LeaseWorld>,
    /// The way to it.
    pub wire: Wire,
}

impl LeaseStore for LeaseClient {
    type At = u64;

    fn read(&self) -> Answer<'_, Result<Option<(Record, u64)>, Unavailable>> {
        let world = self.world.clone();
        Box::pin(self.wire.call(move || world.read()))
    }

    fn write<'a>(&'a self, record: &'a Record, at: Option<&'a u64>) -> Answer<'a, Result<(), WriteError>> {
        let (world, record, at) = (self.world.clone(), record.clone(), at.copied());
        Box::pin(async move {
            // Between the decision and the write.
            self.wire.ice.may_freeze().await;
            self.wire.call(move || world.write(&record, at)).await?
        })
    }
}
